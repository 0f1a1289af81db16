"""Guidance in a batch: every request has its own weight, and none changes another's tokens."""

from __future__ import annotations

import pytest
import torch

from engines.config import Sampling
from engines.errors import InvalidInput
from engines.kernels.dense import WeightFormat, fp16_supported, int8_supported
from engines.model_spec import STANDARD_TINY
from engines.t3.decoder import T3Decoder
from engines.t3.llama.lanes import LaneSlot
from engines.t3.llama.net import LlamaNet
from engines.t3.net import Span
from tests.engines.t3.llama.setting import checkpoint, net, request
from tests.engines.t3.setting import CPU, limits, run, voice

WEIGHTS = (0.0, 0.3, 0.5, 1.0)


def alone(*requests):
    return [run(T3Decoder(net(), limits()), each)[0] for each in requests]


def test_weights_in_one_batch_draw_what_each_draws_alone() -> None:
    requests = [request(seed, cfg_weight=weight) for seed in (1, 2) for weight in WEIGHTS]
    together = run(T3Decoder(net(), limits(max_streams=8)), *requests)
    assert together == alone(*requests)
    assert len({tuple(tokens) for tokens in together}) == len(requests), "every weight says something else"


def test_a_weight_needs_a_second_lane_only_if_it_is_not_zero() -> None:
    decoder = T3Decoder(net(), limits())
    guided, plain = decoder.add(request(1)), decoder.add(request(1, cfg_weight=0.0))
    while not (guided.decoding and plain.decoding):
        decoder.step()
    assert isinstance(guided.slot, LaneSlot)
    assert isinstance(plain.slot, LaneSlot)
    assert (guided.slot.lanes, plain.slot.lanes) == (2, 1)
    assert guided.slot.memory.nbytes == 2 * plain.slot.memory.nbytes


def test_a_slot_serves_sequences_with_and_without_guidance_in_turn() -> None:
    decoder = T3Decoder(net(), limits(max_streams=1))
    requests = [request(seed, cfg_weight=weight) for seed, weight in enumerate((0.5, 0.0, 0.0, 1.0))]
    assert run(decoder, *requests) == alone(*requests)


def test_requests_join_and_leave_while_others_run() -> None:
    requests = [request(seed, cfg_weight=WEIGHTS[seed % 4], max_speech_tokens=30) for seed in range(6)]
    decoder = T3Decoder(net(), limits(max_streams=3))
    waiting, sequences, steps = list(requests), {}, 0
    while waiting or not decoder.idle:
        if waiting and steps % 7 == 0:
            each = waiting.pop(0)
            sequences[requests.index(each)] = decoder.add(each)
        if steps == 25:
            decoder.release(sequences.pop(1))
        decoder.step()
        steps += 1
    kept = sorted(sequences)
    assert [sequences[index].speech.raw for index in kept] == alone(*(requests[index] for index in kept))


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_a_voices_rows_are_read_once_whatever_text_weight_and_exaggeration(weight: float) -> None:
    of = voice(4, 150)
    decoder = T3Decoder(net(), limits())
    run(decoder, request(1, of=of))
    read = decoder.prefilled_positions
    second = request(2, of=of, cfg_weight=weight, exaggeration=1.2)
    assert run(decoder, second) == alone(second)
    assert decoder.use.cached_positions == STANDARD_TINY.t3.voice_rows == 33
    assert decoder.prefilled_positions - read == 34 - 33 + 22 + 2


@pytest.mark.parametrize("rows", [1, 5, 33, 34, 35, 57, 58])
def test_a_prompt_may_be_read_in_chunks_of_any_size(rows: int) -> None:
    one = request(3, max_speech_tokens=10)
    assert run(T3Decoder(net(), limits(prefill_chunk_positions=rows)), one) == alone(one)


def test_exaggeration_and_text_change_what_is_drawn() -> None:
    of = voice(1, 150)
    changed = [request(1, of=of), request(1, of=of, exaggeration=1.5), request(1, of=voice(2, 150))]
    assert len({tuple(tokens) for tokens in alone(*changed)}) == 3


def test_a_text_beyond_the_learned_positions_is_refused() -> None:
    spec, of = STANDARD_TINY.t3, voice(0, 150)
    net().check_prompt(of, [5] * 2048, spec.positions)
    with pytest.raises(InvalidInput, match="at most 2048 text tokens"):
        net().check_prompt(of, [5] * 2049, spec.positions)
    with pytest.raises(InvalidInput, match="at most 962 text tokens"):
        net().check_prompt(of, [5] * 963, 1000)
    with pytest.raises(InvalidInput, match="has the id 704"):
        net().check_prompt(of, [704], 1000)


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        pytest.param("float16", 0.01, marks=pytest.mark.skipif(not fp16_supported(), reason="no float16 weights here")),
        pytest.param("int8", 0.1, marks=pytest.mark.skipif(not int8_supported(), reason="no 8-bit weights here")),
    ],
)
def test_smaller_weights_give_nearly_the_same_logits(weights: WeightFormat, error: float) -> None:
    smaller = LlamaNet.load(checkpoint().t3_path, STANDARD_TINY, CPU, weights=weights)
    expected, got = (_logits(each) for each in (net(), smaller))
    assert (got - expected).norm() < error * expected.norm()
    assert not torch.equal(got, expected)


@torch.inference_mode()
def _logits(of: LlamaNet) -> torch.Tensor:
    prompt = of.embed_prompt(voice(1, 150), [7, 8, 9], sampling=Sampling(cfg_weight=0.0))
    slot = of.new_slot(len(prompt))
    slot.reserve(len(prompt))
    return of.speech_logits(of.forward(prompt, [Span(slot, 0, len(prompt))])[-3:])
