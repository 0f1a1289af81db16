"""T3 on the real vLLM engine, driven step by step: tokens, cached prefixes, blocks, split prompts, preemption."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import REGISTRY

from engines.errors import InvalidInput
from engines.t3.backend import T3Request
from engines.t3.decoder import Sequence
from engines.t3.vllm import engine as engine_module
from engines.t3.vllm.decoder import VllmDecoder
from engines.t3.vllm.engine import BLOCK_POSITIONS
from engines.t3.vllm.priority import FIRST_WINDOW_TOKENS
from engines.voice import Voice
from tests.engines.t3.setting import request, run, voice
from tests.vllm.setting import (
    VOICE_SLOTS,
    Preemptions,
    drawn,
    engine,
    read_resumed_as_prompts,
    runner,
    scheduler,
    settings,
    split_at,
    torch_decoder,
    vllm_decoder,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Iterator[VllmDecoder]:
    decoder = vllm_decoder(folder)
    yield decoder
    decoder.close()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test all blocks of the shared engine are free."""
    yield
    if "decoder" in request.fixturenames:
        decoder = request.getfixturevalue("decoder")
        assert decoder.idle
        assert engine(decoder).free_kv_blocks == scheduler(decoder).kv_cache_manager.block_pool.num_gpu_blocks - 1


def prefilled(decoder: VllmDecoder, of: T3Request) -> int:
    """Prompt rows that running this request to its end reads, by the engine's own count."""
    before = engine(decoder).prefilled_positions
    run(decoder, of)
    return engine(decoder).prefilled_positions - before


def forget_prefixes(decoder: VllmDecoder) -> None:
    assert scheduler(decoder).reset_prefix_cache()


def test_tokens_are_the_torch_backends(decoder: VllmDecoder) -> None:
    """Greedy and drawn, of several lengths, more of them than run at once, joining and leaving as they end."""
    requests = [drawn(seed, text=3 + 7 * seed, max_speech_tokens=90) for seed in range(5)]
    requests.append(request(5, temperature=0, max_speech_tokens=200))
    requests.append(drawn(6, temperature=1.4, top_k=40, top_p=0.7, repetition_penalty=1.9, max_speech_tokens=60))
    requests.append(drawn(7, temperature=0.4, repetition_penalty=1.0, max_speech_tokens=30))
    ours = run(decoder, *requests)
    assert ours == run(torch_decoder(), *requests)
    assert len(ours[5]) == 201, "greedy decoding must not stop within the steps that are compared"


def test_what_else_is_in_the_batch_changes_no_token(decoder: VllmDecoder) -> None:
    requests = [drawn(seed, max_speech_tokens=40) for seed in range(4)]
    together = run(decoder, *requests)
    assert [run(decoder, alone)[0] for alone in requests] == together


def test_a_second_request_of_a_voice_reads_at_most_a_block_more_than_its_text(decoder: VllmDecoder) -> None:
    forget_prefixes(decoder)
    of = voice(40, prompt_tokens=375)
    first, second = (request(seed, text=30, of=of, max_speech_tokens=3) for seed in (1, 2))
    assert prefilled(decoder, first) == 1 + 375 + 30 + 1
    assert prefilled(decoder, second) <= 30 + 1 + BLOCK_POSITIONS


def test_a_cached_prefix_gives_the_same_tokens(decoder: VllmDecoder) -> None:
    forget_prefixes(decoder)
    of = voice(41, prompt_tokens=200)
    asked = drawn(3, of=of, max_speech_tokens=60)
    cold = run(decoder, asked)
    run(decoder, request(4, of=of, max_speech_tokens=5))
    assert prefilled(decoder, asked) < 50, "the prompt must come from the cache"
    assert run(decoder, asked) == cold


def alike(count: int) -> list[Voice]:
    """Voices that differ in nothing but the speaker: in the same slot their prompts would be the same ids."""
    speakers = [voice(100 + number, prompt_tokens=64) for number in range(count)]
    return [replace(speakers[0], name=one.name, speaker_embedding=one.speaker_embedding) for one in speakers]


def test_a_slot_reused_by_another_voice_keeps_nothing_of_the_first(decoder: VllmDecoder) -> None:
    """More voices than slots, with the keys and values of all voices still in the cache."""
    voices = alike(2 * VOICE_SLOTS + 1)
    requests = [request(9, of=of, temperature=0, max_speech_tokens=20) for of in voices]
    ours = [run(decoder, one)[0] for one in requests]
    assert ours == [run(torch_decoder(), one)[0] for one in requests]
    assert len({tuple(tokens) for tokens in ours}) == len(voices), "the tokens must depend on the speaker"


def test_a_voice_that_gets_a_slot_again_draws_the_same_tokens(decoder: VllmDecoder) -> None:
    of, *others = alike(VOICE_SLOTS + 1)
    asked = request(9, of=of, temperature=0, max_speech_tokens=20)
    (tokens,) = run(decoder, asked)
    for other in others:
        run(decoder, request(9, of=other, max_speech_tokens=1))
    assert of.key not in engine(decoder)._voices._slot_of, "it must have lost its slot"
    assert run(decoder, asked) == [tokens]


def test_a_prompt_split_anywhere_gives_the_same_logits(decoder: VllmDecoder) -> None:
    """Every split point: voice, prompt speech, text and start of speech each fall on both sides."""
    asked = request(12, text=18, of=voice(12, prompt_tokens=28), temperature=0, max_speech_tokens=3)
    positions = 1 + 28 + 18 + 1
    whole = split_at(decoder, asked, positions)
    assert len(whole) == 4, "after the prompt and after each of three tokens"
    for first_chunk in range(1, positions):
        torch.testing.assert_close(split_at(decoder, asked, first_chunk), whole, rtol=0, atol=1e-4)


def test_the_inputs_of_a_cuda_graph_are_at_fixed_addresses(decoder: VllmDecoder) -> None:
    """The compiled part reads ids and positions from vLLM's own buffers in prefill and decode, and nothing else."""
    compiled = runner(decoder).model.transformer
    seen: list[tuple[int, int, object, object]] = []

    def look(ids: torch.Tensor, positions: torch.Tensor, *others: object) -> torch.Tensor:
        seen.append((ids.data_ptr(), positions.data_ptr(), *others))
        hidden: torch.Tensor = type(compiled).forward(compiled, ids, positions, *others)
        return hidden

    compiled.forward = look
    run(decoder, *(request(seed, text=100, max_speech_tokens=4) for seed in range(3)))
    del compiled.forward
    assert len(seen) > 4
    assert set(seen) == {(runner(decoder).input_ids.data_ptr(), runner(decoder).positions.data_ptr(), None, None)}


def test_stale_ids_in_the_padding_of_a_graph_are_harmless(decoder: VllmDecoder) -> None:
    """A graph also runs over the rows behind the batch, which hold ids of earlier batches."""
    asked = request(3, max_speech_tokens=20)
    expected = run(decoder, asked)
    rubbish = torch.tensor([-7, 2**31 - 1, 63_000, 0, 6563], dtype=torch.int32)
    ids = torch.cat([runner(decoder).input_ids[:1], rubbish])
    model = runner(decoder).model
    assert bool(torch.isfinite(model.get_input_embeddings(ids)).all())
    runner(decoder).input_ids[1:6] = rubbish
    assert run(decoder, asked) == expected


def test_a_released_request_frees_its_blocks_within_a_step(decoder: VllmDecoder) -> None:
    free = engine(decoder).free_kv_blocks
    reading, speaking, waiting = (add(decoder, seed) for seed in range(3))
    for _ in range(4):
        decoder.step()
    assert engine(decoder).free_kv_blocks < free
    decoder.release(reading)
    decoder.release(speaking)
    decoder.release(waiting)
    assert engine(decoder).free_kv_blocks == free
    decoder.step()
    assert not runner(decoder).requests, "the worker has forgotten them too"


def add(decoder: VllmDecoder, seed: int, **options: Any) -> Sequence:
    return decoder.add(request(seed, of=voice(seed, prompt_tokens=60), **options))


def test_vllms_own_metrics_are_in_the_registry_of_the_process(decoder: VllmDecoder) -> None:
    def value(name: str) -> float:
        return REGISTRY.get_sample_value(name, {"model_name": "t3", "engine": "0"}) or 0.0

    tokens, waited_s = value("vllm:generation_tokens_total"), value("vllm:time_to_first_token_seconds_sum")
    run(decoder, drawn(5, max_speech_tokens=10))
    assert value("vllm:generation_tokens_total") > tokens
    assert 0 < value("vllm:time_to_first_token_seconds_sum") - waited_s < 60


def test_use_counts_blocks_in_use_and_prompt_positions(decoder: VllmDecoder) -> None:
    forget_prefixes(decoder)
    before = decoder.use
    assert before.kv_cache_share == 0
    sequence = decoder.add(drawn(6))
    decoder.step()
    assert 0 < decoder.use.kv_cache_share < 1
    decoder.release(sequence)
    run(decoder, drawn(6))
    after = decoder.use
    assert after.kv_cache_share == 0
    assert after.read_positions > before.read_positions
    assert after.cached_positions > before.cached_positions, "the second request's voice was cached"


def test_releasing_one_leaves_the_others_as_they_were(decoder: VllmDecoder) -> None:
    kept = [drawn(seed, max_speech_tokens=40) for seed in (1, 2)]
    expected = run(decoder, *kept)
    sequences = [decoder.add(one) for one in kept]
    dropped = decoder.add(request(3, max_speech_tokens=200))
    for _ in range(10):
        decoder.step()
    decoder.release(dropped)
    while not decoder.idle:
        decoder.step()
    assert [sequence.speech.raw for sequence in sequences] == expected


def test_logits_that_are_not_finite_fail_their_request_alone(decoder: VllmDecoder) -> None:
    loud = np.full(256, 3e38, dtype=np.float32)
    poisoned = replace(voice(55), speaker_embedding=loud, name="far too loud")
    good = drawn(1, max_speech_tokens=20)
    expected = run(decoder, good)
    bad, other = decoder.add(request(2, of=poisoned)), decoder.add(good)
    progress = []
    while not decoder.idle:
        progress += decoder.step()
    failed = [step for step in progress if step.error]
    assert [step.sequence for step in failed] == [bad]
    assert "not finite" in str(failed[0].error)
    assert other.speech.raw == expected[0]
    assert decoder.healthy
    forget_prefixes(decoder)


def test_without_blocks_for_all_the_tokens_are_still_the_same(folder: Path) -> None:
    """A preempted sequence is read again later: what it had drawn, penalties and draws included, holds."""
    requests = [drawn(seed, text=20, max_speech_tokens=100, repetition_penalty=1.6) for seed in range(20, 28)]
    decoder = vllm_decoder(folder, max_positions=200, kv_blocks=20)
    read_resumed_as_prompts(decoder)
    preempted = Preemptions(decoder)
    ours = run(decoder, *requests)
    decoder.close()
    assert len(preempted.ids) >= 3, "blocks must have run out"
    assert ours == run(torch_decoder(), *requests)


def test_first_windows_go_first(folder: Path) -> None:
    """Into the batch, and with the blocks when they run out."""
    decoder = vllm_decoder(folder, max_streams=2, max_positions=250, kv_blocks=18)
    read_resumed_as_prompts(decoder)
    preempted = Preemptions(decoder)

    def add(seed: int, *, ahead: bool) -> Sequence:
        asked = request(seed, text=20, temperature=0, max_speech_tokens=100)
        return decoder.add(replace(asked, made_ahead=ahead))

    ahead = add(1, ahead=True)
    speaking = add(2, ahead=False)
    while len(speaking.speech.raw) < FIRST_WINDOW_TOKENS:
        decoder.step()
    assert not preempted.ids
    late = add(3, ahead=True)
    while not preempted.ids:
        decoder.step()
    assert set(preempted.ids) == {"0"}, "what is made ahead gives way, though it came first"
    first = add(4, ahead=False)
    while not first.speech.raw:
        decoder.step()
    assert not late.speech.raw, "a first window goes before what is made ahead"
    while not decoder.idle:
        decoder.step()
    assert [len(one.speech.raw) for one in (ahead, speaking, late, first)] == [101] * 4
    decoder.close()


def test_a_promoted_request_goes_first_whether_it_waits_or_was_preempted(folder: Path) -> None:
    """Also where it runs: then it is no longer the first to lose its blocks."""
    decoder = vllm_decoder(folder, max_streams=2, max_positions=250, kv_blocks=18)
    read_resumed_as_prompts(decoder)
    preempted = Preemptions(decoder)

    def add(seed: int, *, ahead: bool) -> Sequence:
        asked = request(seed, text=20, temperature=0, max_speech_tokens=100)
        return decoder.add(replace(asked, made_ahead=ahead))

    speaking, running = add(1, ahead=False), add(2, ahead=True)
    waiting = [add(seed, ahead=True) for seed in (3, 4, 5)]
    while not preempted.ids:
        decoder.step()
    assert preempted.ids == ["1"], "what is made ahead gives way"
    decoder.promote(waiting[1])
    decoder.promote(running)
    decoder.promote(running)
    order = [queued.request_id for queued in scheduler(decoder).waiting]
    assert order == ["3", "1", "2", "4"], "first windows, then later ones, then those made ahead, each as they came"
    decoder.release(speaking)
    while not waiting[1].speech.raw:
        decoder.step()
    assert not waiting[0].speech.raw
    decoder.promote(waiting[1])  # it runs, and stays where it is
    while not decoder.idle:
        decoder.step()
    assert [len(one.speech.raw) for one in (running, *waiting)] == [101] * 4
    assert "3" not in preempted.ids, "a promoted request keeps its blocks while there are others to take them from"
    decoder.promote(waiting[1])
    decoder.close()


def test_a_closed_engine_leaves_nothing_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There would be no memory for the engine that is built after it."""
    decoder = vllm_decoder(folder)
    backends = SimpleNamespace(global_graph_pool=(0, 1))  # as on a GPU: one pool for all engines of the process
    monkeypatch.setitem(sys.modules, "vllm.compilation.backends", backends)  # type: ignore[arg-type]
    run(decoder, request(1, max_speech_tokens=5))
    watched = [runner(decoder).model, runner(decoder).model.transformer.wte.table, runner(decoder).kv_caches[0]]
    gone = [weakref.ref(thing) for thing in watched]
    del watched
    decoder.close()
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    assert backends.global_graph_pool is None


def test_a_cache_too_small_for_one_request_is_rejected(folder: Path) -> None:
    """vLLM would let such a request wait for ever."""
    with pytest.raises(InvalidInput, match="at least 15"):
        vllm_decoder(folder, max_positions=223, kv_blocks=14)
    decoder = vllm_decoder(folder, max_positions=223, kv_blocks=15)
    longest = request(1, text=46, temperature=0, max_speech_tokens=100)
    assert 1 + 75 + 46 + 1 + 100 == 223
    assert len(run(decoder, longest)[0]) == 101
    decoder.close()


def test_a_request_rests_at_its_target_and_then_goes_on_with_the_same_tokens(decoder: VllmDecoder) -> None:
    """What is made long before it is played takes the device from streams that wait."""
    requests = [drawn(seed, max_speech_tokens=40) for seed in (1, 2)]
    expected = run(decoder, *requests)
    resting, other = (decoder.add(request) for request in requests)
    resting.target_tokens = 4  # the weights are random: the segment is short
    while not decoder.idle:
        decoder.step()
    assert other.speech.finished
    assert 4 <= resting.speech.count <= 5
    assert engine(decoder).use.kv_cache_share > 0
    third = decoder.add(requests[1])  # the places that are left are used meanwhile
    while not third.speech.finished:
        decoder.step()
    resting.target_tokens = float("inf")
    while not decoder.idle:
        decoder.step()
    assert [resting.speech.raw, other.speech.raw, third.speech.raw] == [*expected, expected[1]]


def test_dynamo_traces_the_models_forward_as_one_graph(decoder: VllmDecoder) -> None:
    """As vLLM compiles it on a GPU, where it cuts the graph at the attention. A break elsewhere, or a graph per number
    of rows, would fail there at the start."""
    from vllm.forward_context import set_forward_context

    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    model = runner(decoder).model
    traced = torch.compile(model.forward, backend=keep, fullgraph=True)
    for rows in (3, 17):
        ids = torch.arange(rows)
        positions = torch.arange(rows)
        for argument in (ids, positions):
            torch._dynamo.mark_dynamic(argument, 0)
        with set_forward_context(None, runner(decoder).vllm_config, num_tokens=rows), torch.no_grad():
            assert traced(ids, positions).shape == (rows, model.transformer.config.n_embd)
    (graph,) = graphs
    attention = [node for node in graph.graph.nodes if "unified_attention" in str(node.target)]
    assert len(attention) == model.transformer.config.n_layer


def test_full_graphs_capture_attention_by_kernels_that_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variant that `make gpu-check` times beside the usual one."""
    monkeypatch.delenv("VLLM_ATTENTION_BACKEND", raising=False)
    assert engine_module._arguments(tmp_path, settings())["compilation_config"] == {}
    engine_module._set_environment()
    assert "VLLM_ATTENTION_BACKEND" not in os.environ
    full = engine_module._arguments(tmp_path, settings(full_cuda_graphs=True))
    assert full["compilation_config"] == {"full_cuda_graph": True}
    monkeypatch.setenv("VLLM_ATTENTION_BACKEND", "")
    engine_module._set_environment(full_cuda_graphs=True)
    assert os.environ["VLLM_ATTENTION_BACKEND"] == "TRITON_ATTN_VLLM_V1"


def test_cascade_attention_is_off(tmp_path: Path) -> None:
    """It switches on with the number of streams of one voice, and would change their rounding."""
    assert engine_module._arguments(tmp_path, settings())["disable_cascade_attn"] is True
