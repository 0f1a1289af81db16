"""T3 on fixed memory: the same tokens as the eager decoder, with and without graphs, whatever joins and leaves."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from engines.errors import EngineFailure, InvalidInput
from engines.model_spec import TINY, TURBO
from engines.t3 import parity
from engines.t3.decoder import T3Decoder
from engines.t3.gpu import memory
from engines.t3.gpu.cache import StaticSlot, capacity_buckets, row_buckets
from engines.t3.gpu.net import ForcedSteps, StaticT3Net, check_static_net
from engines.t3.gpu.step import StaticPass
from engines.t3.model import T3Net
from engines.t3.parity import T3ParityCheck, T3Refused
from engines.t3.sampler import uniform
from tests.engines.t3 import test_decoder
from tests.engines.t3.gpu.tape import TapeGraphs, plain_layers
from tests.engines.t3.setting import CPU, checkpoint, limits, net, request, run, voice

GREEDY = {"temperature": 0.0, "max_speech_tokens": 14}
SMALL = 400  # positions: fewer than the smallest capacity, and fast


class TapedNet(StaticT3Net):
    """A StaticT3Net whose graphs are tapes; `graphs` None: eager."""

    taped = True
    refuse = 0

    def new_pass(self, slots: int, max_positions: int) -> StaticPass:
        self.tape = TapeGraphs(self.refuse)
        self.steps = StaticPass(self, slots, max_positions, self.tape if self.taped else None)
        return self.steps


@pytest.fixture(scope="module")
def loaded() -> TapedNet:
    with pytest.MonkeyPatch.context() as patch:
        plain_layers(patch)
        return TapedNet.load(checkpoint().t3_path, TINY, CPU)


@pytest.fixture(params=["eager", "graphs"])
def static(request: pytest.FixtureRequest, loaded: TapedNet) -> Iterator[TapedNet]:
    loaded.taped, loaded.refuse = request.param == "graphs", 0
    yield loaded
    loaded.taped, loaded.refuse = True, 0


def decoder(static: StaticT3Net, **changed: int) -> T3Decoder:
    return T3Decoder(static, limits(**({"max_positions": SMALL} | changed)))


def varied() -> list[Any]:
    """Requests of every kind of sampling, of one voice and of others, that end at different times."""
    shared = voice(1, prompt_tokens=40)
    return [
        request(1, of=shared, max_speech_tokens=12),
        request(2, of=shared, temperature=0.0, max_speech_tokens=8),
        request(3, top_k=0, top_p=1.0, max_speech_tokens=10),
        request(4, of=shared, top_k=3000, repetition_penalty=2.0, max_speech_tokens=9),
        request(5, text=3, repetition_penalty=1.0, max_speech_tokens=15),
    ]


def test_tokens_are_those_of_the_eager_decoder(static: TapedNet) -> None:
    expected = run(T3Decoder(net(), limits(max_positions=SMALL)), *varied())
    assert run(decoder(static), *varied()) == expected
    assert run(decoder(static, max_streams=3, prefill_chunk_positions=16), *varied()) == expected
    steps = static.steps
    assert (steps.eager == 0) is static.taped
    assert (static.tape.launches > 15) is static.taped


def test_a_crowd_that_comes_and_goes_changes_no_sequence(static: TapedNet) -> None:
    subject = request(1, **GREEDY)
    alone = run(decoder(static), subject)[0]
    crowd = decoder(static, max_streams=5, prefill_chunk_positions=16)
    crowd.add(request(2, max_speech_tokens=3))
    first = crowd.add(request(3, max_speech_tokens=50))
    sequence = crowd.add(subject)
    turn = 0
    while not sequence.speech.finished:
        crowd.step()
        turn += 1
        if turn % 4 == 0:
            crowd.add(request(10 + turn, text=1 + turn % 9, max_speech_tokens=2 + turn % 5))
        if turn == 12:
            crowd.release(first)
    assert sequence.speech.raw == alone


def test_a_paused_sequence_goes_on_where_it_stopped(static: TapedNet) -> None:
    subject = request(1, max_speech_tokens=12)
    expected = run(decoder(static), subject)[0]
    both = decoder(static)
    paused, other = both.add(subject), both.add(request(2, max_speech_tokens=20))
    paused.target_tokens = 5
    while not other.speech.finished:
        both.step()
    assert paused.speech.count == 5
    paused.target_tokens = 1000
    while not paused.speech.finished:
        both.step()
    assert paused.speech.raw == expected


def test_steps_read_no_more_than_the_smallest_capacity_that_holds_them(static: TapedNet) -> None:
    """A sequence that grows past 512 positions is read by the next capacity, and its tokens stay the same."""
    assert capacity_buckets(2048) == (512, 1024, 2048)
    assert capacity_buckets(1536) == (512, 1024, 1536)
    assert row_buckets(6) == (1, 2, 4, 6)
    long = request(1, text=125, of=voice(1, prompt_tokens=375), temperature=0.0, max_speech_tokens=24)
    expected = run(T3Decoder(net(), limits(max_positions=1024)), long)
    assert run(decoder(static, max_streams=2, max_positions=1024, prefill_chunk_positions=256), long) == expected


class Poison(TapedNet):
    """Logits of one sequence are not finite, and what it leaves in its cache is not either."""

    def __init__(self, wrapped: TapedNet, at: int) -> None:
        self.__dict__.update(wrapped.__dict__)
        self.taped, self.at = False, at

    def speech_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        self.at -= 1
        logits = super().speech_logits(hidden)
        if self.at == 0:
            self.steps.cache.kv[:, :, 0, :, 40:90] = float("nan")
            logits[0] = float("nan")
        return logits


def test_what_a_failed_sequence_leaves_does_not_reach_the_next(loaded: TapedNet) -> None:
    poisoned = decoder(Poison(loaded, at=6), max_streams=1)
    failed = poisoned.add(request(1, **GREEDY))
    following = poisoned.add(request(2, text=5, of=voice(2, prompt_tokens=10), **GREEDY))
    errors = []
    while not poisoned.idle:
        errors += [(p.sequence, p.error) for p in poisoned.step() if p.error]
    assert [sequence for sequence, _ in errors] == [failed]
    assert isinstance(errors[0][1], EngineFailure)
    expected = run(T3Decoder(net(), limits()), request(2, text=5, of=voice(2, prompt_tokens=10), **GREEDY))
    assert [following.speech.raw] == expected


def test_captures_that_fail_cost_graphs_and_nothing_else(loaded: TapedNet) -> None:
    loaded.refuse = 2
    try:
        made = decoder(loaded)
        assert loaded.steps.graphs == len(row_buckets(4)) - 2
        assert run(made, *varied()) == run(T3Decoder(net(), limits(max_positions=SMALL)), *varied())
        assert loaded.steps.eager > 0 < loaded.steps.replayed
    finally:
        loaded.refuse = 0


# The decoder's own tests, on this net. Left out: those whose nets fail or record in `forward`, which steps do not call.
_OF_THE_EAGER_FORM = {
    "test_companions_change_logits_by_rounding_at_most",
    "test_a_known_voice_is_not_read_again_and_sounds_the_same",
    "test_a_failed_pass_fails_those_in_it_and_no_others",
    "test_logits_that_are_not_finite_fail_their_request_alone",
    "test_no_memory_for_one_slot_fails_that_request_alone",
    # a minute in all, and about what both forms share
    "test_tokens_are_the_same_alone_in_a_crowd_and_after_others",
    "test_more_requests_than_slots_are_served_in_order",
}
_SHARED = {
    name: test
    for name, test in vars(test_decoder).items()
    if name.startswith("test_") and name not in _OF_THE_EAGER_FORM and not inspect.signature(test).parameters
}


@pytest.mark.parametrize("name", _SHARED)
def test_the_decoders_own_tests(name: str, loaded: TapedNet, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded.taped = False  # captures of every test's sizes would take seconds
    monkeypatch.setattr(test_decoder, "net", lambda: loaded)
    try:
        _SHARED[name]()
    finally:
        loaded.taped = True


# -- each rule broken on purpose


def no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions and settings of the capture."""
    monkeypatch.setattr(StaticPass, "_stage", lambda self, rows: None)


def idle_rows_write_at_their_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without a step overwrite a prompt."""
    from engines.t3.gpu.cache import StaticCache

    monkeypatch.setattr(StaticCache, "nowhere", 0)


def all_rows_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without a step keep what was drawn for them."""
    draw = StaticPass._draw
    monkeypatch.setattr(
        StaticPass, "_draw", lambda self, first, stop, logits, steps: draw(self, first, stop, logits, None)
    )


def position_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of the host in a graph is that of the capture."""
    step = StaticPass._step

    def with_host_numbers(self: StaticPass, rows: int, capacity: int) -> None:
        self._table[:rows, 0] = torch.from_numpy(self._staged.numpy()[:rows, 0].copy())
        step(self, rows, capacity)

    monkeypatch.setattr(StaticPass, "_step", with_host_numbers)


def what_was_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that is not cleared between two sequences of a slot."""
    monkeypatch.setattr(StaticSlot, "clear", lambda self: setattr(self, "length", 0))


def wait_in_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host reads what the step computes."""
    draw = StaticPass._draw

    def waiting(self: StaticPass, first: int, stop: int, logits: torch.Tensor, steps: torch.Tensor | None) -> None:
        assert logits.isfinite().all().item() in (True, False)
        draw(self, first, stop, logits, steps)

    monkeypatch.setattr(StaticPass, "_draw", waiting)


def everything(loaded: TapedNet) -> None:
    first, second, third = varied()[:3]
    subjects = second, first, third  # the last begins in slot 0 while slot 1 goes on
    expected = run(T3Decoder(net(), limits(max_positions=SMALL)), *subjects)
    assert run(decoder(loaded, max_streams=2, prefill_chunk_positions=16), *subjects) == expected
    assert loaded.steps.eager == 0
    loaded.taped = False
    test_a_paused_sequence_goes_on_where_it_stopped(loaded)
    test_what_a_failed_sequence_leaves_does_not_reach_the_next(loaded)


@pytest.mark.parametrize(
    "mutation",
    [
        no_table,
        idle_rows_write_at_their_own_start,
        all_rows_draw,
        position_of_the_host,
        what_was_there_stays,
        wait_in_the_step,
    ],
)
def test_each_broken_rule_is_found(
    mutation: Callable[[pytest.MonkeyPatch], None], loaded: TapedNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(monkeypatch)
    loaded.taped = True
    try:
        with pytest.raises(AssertionError):
            everything(loaded)
    finally:
        loaded.taped = True


# -- parity and memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_parity_check_passes_what_is_right_and_refuses_what_is_not(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "_STEPS", 12)
    check = T3ParityCheck(net())
    made = StaticT3Net.load(checkpoint().t3_path, TINY, CPU, dtype=dtype)
    name = str(dtype).removeprefix("torch.")
    compared = check_static_net(check, made, 2, SMALL)
    assert [one.name for one in compared] == ["alone", "alone, its prefix cached", "2 together"]
    checked = made.checked
    served = decoder(made, max_streams=2)
    assert served._pass is checked, "what was compared is what serves"
    assert made.new_pass(2, SMALL) is not checked
    if dtype == torch.float32:
        subject = request(1, max_speech_tokens=6)
        assert run(served, subject) == run(T3Decoder(net(), limits()), subject), "the check leaves nothing behind"
    made.position_embedding += 0.05 * torch.randn_like(made.position_embedding)
    with pytest.raises(T3Refused, match="logits off by"):
        check.raise_if_wrong(ForcedSteps(made, made.new_pass(2, SMALL)), name, 2, "torch_graphs")


def test_more_streams_than_the_gpu_holds_are_refused_with_the_number_that_fits() -> None:
    plan = memory.static_plan(TURBO.t3, max_streams=32, max_positions=2048, bytes_per_value=2)
    cache = T3Decoder(StaticT3Net.load(checkpoint().t3_path, TINY, CPU), limits(max_positions=SMALL))._pass.cache
    tiny = memory.static_plan(TINY.t3, max_streams=4, max_positions=SMALL, bytes_per_value=4)
    assert tiny.kv_cache == cache.kv.nbytes, "the plan is what is allocated"
    assert 6.0e9 < plan.kv_cache < 6.6e9
    memory.check_static_fits(TURBO.t3, 24 << 30, max_streams=32, max_positions=2048, bytes_per_value=2)
    with pytest.raises(InvalidInput, match=r"it can be at most \d+ with") as refused:
        memory.check_static_fits(TURBO.t3, 8 << 30, max_streams=32, max_positions=2048, bytes_per_value=2)
    possible = int(refused.value.allowed.removeprefix("at most "))
    memory.check_static_fits(TURBO.t3, 8 << 30, max_streams=possible, max_positions=2048, bytes_per_value=2)


def test_numbers_made_in_blocks_are_those_of_each_draw() -> None:
    import numpy as np

    for seed in (0, 7, 2**64 - 1):
        for step in (0, 1, 63, 64, 65, 700):
            raw = int(np.random.Philox(key=seed, counter=step).random_raw())
            assert uniform(seed, step) == (raw >> 12) * 2.0**-52


def test_net_in_half_precision_reads_prompts_too() -> None:
    made = T3Net.load(checkpoint().t3_path, TINY, CPU, dtype=torch.float16)
    (tokens,) = run(T3Decoder(made, limits()), request(1, **GREEDY))
    assert len(tokens) == 15
