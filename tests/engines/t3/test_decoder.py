"""T3's decoder, driven step by step: which rows are read when, and that sequences do not affect each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from engines.config import Sampling
from engines.errors import EngineFailure, InvalidInput
from engines.model_spec import SILENCE_TAIL_TOKENS, START_SPEECH_TOKEN, TINY
from engines.t3.backend import T3Request
from engines.t3.decoder import Progress, T3Decoder
from engines.t3.kv_cache import KvSlot
from engines.t3.model import T3Net
from engines.t3.net import Slot, Span
from tests.engines.t3.setting import WrappedNet, limits, net, request, run, voice


class PositionRecorder(WrappedNet):
    """Keeps the logits after every span's last position, by slot and position."""

    def __init__(self, wrapped: T3Net) -> None:
        super().__init__(wrapped)
        self.seen: dict[Slot, dict[int, torch.Tensor]] = defaultdict(dict)

    def forward(self, embeddings: torch.Tensor, spans: Sequence[Span[KvSlot]]) -> torch.Tensor:
        hidden = super().forward(embeddings, spans)
        end = 0
        for span in spans:
            end += span.rows
            self.seen[span.slot][span.start + span.rows - 1] = self.speech_logits(hidden[end - 1 : end])
        return hidden


class FailingNet(WrappedNet):
    """Raises in one forward pass, counted from 1."""

    def __init__(self, wrapped: T3Net, fail_at: int) -> None:
        super().__init__(wrapped)
        self.passes, self.fail_at = 0, fail_at

    def forward(self, embeddings: torch.Tensor, spans: Sequence[Span[KvSlot]]) -> torch.Tensor:
        self.passes += 1
        if self.passes == self.fail_at:
            raise RuntimeError("the device is on fire")
        return super().forward(embeddings, spans)


class PoisonedNet(WrappedNet):
    """Once gives logits that are not finite in the first row of the batch."""

    def __init__(self, wrapped: T3Net, batch_rows: int, value: float) -> None:
        super().__init__(wrapped)
        self.batch_rows, self.value = batch_rows, value

    def speech_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        logits = super().speech_logits(hidden)
        if len(hidden) == self.batch_rows:
            self.batch_rows = -1
            logits[0] = self.value
        return logits


def finish(decoder: T3Decoder) -> list[Progress]:
    progress = []
    while not decoder.idle:
        progress += decoder.step()
    return progress


GREEDY_60 = {"temperature": 0.0, "max_speech_tokens": 60}


def test_companions_change_logits_by_rounding_at_most() -> None:
    """Others of all lengths join, are read in chunks beside it, and leave; one row's logits stay what they are."""
    subject = request(1, **GREEDY_60)
    alone = PositionRecorder(net())
    run(T3Decoder(alone, limits()), subject)
    (expected,) = alone.seen.values()

    crowd = PositionRecorder(net())
    decoder = T3Decoder(crowd, limits(prefill_chunk_positions=16))
    sequence = decoder.add(subject)
    for number in range(2, 9):
        decoder.add(request(number, text=5 * number, max_speech_tokens=3 * number))
    decoder.step()
    slot = sequence.slot
    assert slot is not None
    finish(decoder)
    compared = [position for position in crowd.seen[slot] if position in expected]
    assert len(compared) >= 61
    for position in compared:
        torch.testing.assert_close(crowd.seen[slot][position], expected[position], rtol=0, atol=1e-4)


def test_tokens_are_the_same_alone_in_a_crowd_and_after_others() -> None:
    requests = [request(seed, text=10 + seed, max_speech_tokens=40) for seed in range(6)]
    one_by_one = T3Decoder(net(), limits())
    alone = [run(one_by_one, each)[0] for each in requests]
    assert run(T3Decoder(net(), limits(prefill_chunk_positions=24)), *requests) == alone
    assert run(T3Decoder(net(), limits(max_streams=6)), *requests[::-1]) == alone[::-1]


def test_the_seed_alone_decides_the_draws() -> None:
    of = voice(3)
    text = request(5, of=of).text_tokens
    first, again, other = (
        run(T3Decoder(net(), limits()), T3Request(text, of, Sampling(seed=seed, max_speech_tokens=30)))[0]
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_known_voice_is_not_read_again_and_sounds_the_same() -> None:
    of = voice(2, prompt_tokens=100)
    first, second = (request(seed, text=20, of=of, **GREEDY_60) for seed in (1, 2))
    fresh = PositionRecorder(net())
    expected_tokens = run(T3Decoder(fresh, limits(prefix_cache_bytes=0)), second)
    (expected,) = fresh.seen.values()

    recorder = PositionRecorder(net())
    decoder = T3Decoder(recorder, limits())
    run(decoder, first)
    assert decoder.prefilled_positions == 101 + 20 + 1
    recorder.seen.clear()
    assert run(decoder, second) == expected_tokens
    assert decoder.prefilled_positions == (101 + 20 + 1) + (20 + 1)
    (reused,) = recorder.seen.values()
    assert min(reused) >= 101, "no position of the prefix was read"
    for position, logits in reused.items():
        torch.testing.assert_close(logits, expected[position], rtol=0, atol=1e-4)


def test_two_requests_of_a_new_voice_at_once_read_it_once() -> None:
    decoder = T3Decoder(net(), limits())
    of = voice(2, prompt_tokens=100)
    run(decoder, request(1, text=20, of=of, **GREEDY_60), request(2, text=30, of=of, **GREEDY_60))
    assert decoder.prefilled_positions == 101 + (20 + 1) + (30 + 1)


def test_without_a_budget_voices_are_read_every_time() -> None:
    decoder = T3Decoder(net(), limits(prefix_cache_bytes=0))
    of = voice(2, prompt_tokens=100)
    run(decoder, request(1, text=20, of=of, **GREEDY_60), request(2, text=20, of=of, **GREEDY_60))
    assert decoder.prefilled_positions == 2 * (101 + 21)


def test_more_requests_than_slots_are_served_in_order() -> None:
    decoder = T3Decoder(net(), limits(max_streams=2))
    sequences = [decoder.add(request(n, temperature=0, max_speech_tokens=4 + 3 * (n % 3))) for n in range(7)]
    begun = []
    while not decoder.idle:
        decoder.step()
        assert sum(sequence.slot is not None for sequence in sequences) <= 2
        begun += [s for s in sequences if s.decoding and s not in begun]
    assert begun == sequences
    assert all(sequence.speech.finished for sequence in sequences)
    assert decoder.free_slots == 2


def test_requests_made_ahead_wait_behind_others() -> None:
    """For a slot and, once both have one, for reading their prompts."""
    decoder = T3Decoder(net(), limits(max_streams=2, prefill_chunk_positions=32))
    ahead = [replace(request(n, **GREEDY_60), made_ahead=True) for n in range(3)]
    first, *later = [decoder.add(each) for each in ahead]
    decoder.step()  # the first is being read, the second has the other slot
    urgent = decoder.add(request(7, **GREEDY_60))
    decoder.release(later[0])
    while not urgent.decoding:
        decoder.step()
    assert not first.decoding
    assert later[1].slot is None
    finish(decoder)
    assert first.speech.finished
    assert later[1].speech.finished


def test_a_promoted_request_goes_before_others_that_are_made_ahead() -> None:
    """For a slot and, once both have one, for reading their prompts."""
    decoder = T3Decoder(net(), limits(max_streams=2, prefill_chunk_positions=32))
    ahead = [replace(request(n, **GREEDY_60), made_ahead=True) for n in range(4)]
    first, second, third, promoted = [decoder.add(each) for each in ahead]
    decoder.step()  # the first is being read, the second has the other slot
    decoder.promote(second)
    decoder.promote(promoted)
    decoder.promote(promoted)
    while not second.decoding:
        decoder.step()
    assert not first.decoding, "a promoted prompt is read before one that is made ahead"
    decoder.release(second)
    while not promoted.decoding:
        decoder.step()
    assert third.slot is None, "a promoted request gets the next slot"
    finish(decoder)
    assert all(sequence.speech.finished for sequence in (first, third, promoted))


def test_a_promoted_request_waits_behind_current_ones_that_came_before_it() -> None:
    decoder = T3Decoder(net(), limits(max_streams=1))
    running = decoder.add(request(1, **GREEDY_60))
    current = decoder.add(request(2, **GREEDY_60))
    ahead = decoder.add(replace(request(3, **GREEDY_60), made_ahead=True))
    later = decoder.add(request(4, **GREEDY_60))
    decoder.step()
    decoder.promote(ahead)
    decoder.release(running)
    begun = []
    while not decoder.idle:
        decoder.step()
        begun += [s for s in (current, ahead, later) if s.decoding and s not in begun]
    assert begun == [current, ahead, later]
    decoder.promote(ahead)  # nothing after its end
    assert decoder.idle


def test_a_long_prompt_holds_running_requests_up_by_one_chunk_at_a_time() -> None:
    decoder = T3Decoder(net(), limits(prefill_chunk_positions=32))
    running = decoder.add(request(1, **GREEDY_60))
    while not running.decoding:
        decoder.step()
    newcomer = decoder.add(request(2, of=voice(9, prompt_tokens=300), **GREEDY_60))
    before = len(running.speech.raw)
    steps = 0
    while not newcomer.decoding:
        read = decoder.prefilled_positions
        decoder.step()
        steps += 1
        assert decoder.prefilled_positions - read <= 32
    assert steps == -(-(301 + 20 + 1) // 32)
    assert len(running.speech.raw) == before + steps, "one token in every step"


def test_a_sequence_pauses_at_its_target_and_its_tokens_stay_the_same() -> None:
    subject, other = request(1, **GREEDY_60), request(2, **GREEDY_60)
    expected = run(T3Decoder(net(), limits()), subject)[0]
    decoder = T3Decoder(net(), limits())
    paused, running = decoder.add(subject), decoder.add(other)
    paused.target_tokens = 10
    speech_tokens = [
        token for progress in finish(decoder) if progress.sequence is paused for token in progress.speech_tokens
    ]
    assert running.speech.finished
    assert len(speech_tokens) == 10
    assert decoder.idle
    paused.target_tokens = 1000
    assert not decoder.idle
    speech_tokens += [token for progress in finish(decoder) for token in progress.speech_tokens]
    assert speech_tokens[:-SILENCE_TAIL_TOKENS] == expected


def test_a_decoder_of_paused_sequences_is_idle_until_a_slot_is_free() -> None:
    decoder = T3Decoder(net(), limits(max_streams=1))
    paused = decoder.add(request(1, **GREEDY_60))
    paused.target_tokens = 5
    finish(decoder)
    decoder.add(request(2, **GREEDY_60))
    assert decoder.idle, "there is no slot for the second"
    decoder.release(paused)
    assert not decoder.idle


@pytest.mark.parametrize("steps", [0, 1, 3, 20])
def test_releasing_frees_everything_at_any_point(steps: int) -> None:
    """Queued, partly read or decoding; and the slot is then as good as new."""
    decoder = T3Decoder(net(), limits(max_streams=1, prefill_chunk_positions=32))
    sequence = decoder.add(request(1, **GREEDY_60))
    for _ in range(steps):
        decoder.step()
    decoder.release(sequence)
    decoder.release(sequence)
    assert decoder.idle
    assert decoder.free_slots == 1
    assert decoder.step() == []
    assert run(decoder, request(2, **GREEDY_60)) == run(T3Decoder(net(), limits()), request(2, **GREEDY_60))


def test_a_failed_pass_fails_those_in_it_and_no_others() -> None:
    failing = FailingNet(net(), fail_at=8)
    decoder = T3Decoder(failing, limits(max_streams=2))
    failing_sequences = [decoder.add(request(n, **GREEDY_60)) for n in (1, 2)]
    waiting = decoder.add(request(3, **GREEDY_60))
    results = finish(decoder)
    errors = {progress.sequence: progress.error for progress in results if progress.error is not None}
    assert set(errors) == set(failing_sequences)
    assert all("the device is on fire" in str(error) and error.retryable for error in errors.values())
    assert waiting.speech.raw == run(T3Decoder(net(), limits()), request(3, **GREEDY_60))[0]
    assert decoder.free_slots == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_fail_their_request_alone(value: float) -> None:
    decoder = T3Decoder(PoisonedNet(net(), batch_rows=3, value=value), limits())
    poisoned, *others = [decoder.add(request(n, **GREEDY_60)) for n in (1, 2, 3)]
    results = finish(decoder)
    failed = [progress for progress in results if progress.error is not None]
    assert [progress.sequence for progress in failed] == [poisoned]
    assert isinstance(failed[0].error, EngineFailure)
    expected = run(T3Decoder(net(), limits()), *(request(n, **GREEDY_60) for n in (2, 3)))
    assert [sequence.speech.raw for sequence in others] == expected


def test_no_memory_for_one_slot_fails_that_request_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = T3Decoder(net(), limits())
    unlucky, lucky = (decoder.add(request(n, **GREEDY_60)) for n in (1, 2))
    decoder.step()
    slot, reserve = unlucky.slot, KvSlot.reserve

    def refuse(self: KvSlot, positions: int) -> None:
        if self is slot:
            raise MemoryError("no more")
        reserve(self, positions)

    monkeypatch.setattr(KvSlot, "reserve", refuse)
    failed = [progress.sequence for progress in finish(decoder) if progress.error is not None]
    assert failed == [unlucky]
    assert lucky.speech.finished


def test_progress_adds_up_to_the_speech_of_each_request() -> None:
    decoder = T3Decoder(net(), limits())
    sequences = [decoder.add(request(n, max_speech_tokens=30)) for n in range(3)]
    speech_tokens: dict[object, list[int]] = defaultdict(list)
    over: list[object] = []
    for progress in finish(decoder):
        assert progress.sequence not in over, "nothing comes after the end"
        speech_tokens[progress.sequence] += progress.speech_tokens
        over += [progress.sequence] if progress.over else []
    for sequence in sequences:
        assert speech_tokens[sequence] == [t for t in sequence.speech.raw if t < START_SPEECH_TOKEN] + [4299] * 3
    assert set(over) == set(sequences)


def test_requests_that_cannot_work_are_rejected_at_once() -> None:
    decoder = T3Decoder(net(), limits(max_positions=200))
    fits = 200 - 76 - 1 - 60
    cases = {
        "TEXT_EMPTY": T3Request((), voice(), Sampling()),
        "TEXT_TOKEN_UNKNOWN": T3Request((1, TINY.t3.text_vocab), voice(), Sampling(max_speech_tokens=10)),
        "TEXT_TOO_LONG": T3Request((1,) * (fits + 1), voice(), Sampling(max_speech_tokens=60)),
    }
    for reason, bad in cases.items():
        with pytest.raises(InvalidInput) as raised:
            decoder.add(bad)
        assert raised.value.reason == reason
    assert str(fits) in raised.value.allowed
    assert decoder.idle
    (raw,) = run(decoder, T3Request((1,) * fits, voice(), Sampling(temperature=0, max_speech_tokens=60)))
    assert len(raw) == 61, "the longest text that is allowed has room for all its speech"
