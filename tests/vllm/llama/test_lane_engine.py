"""Standard's T3 on the real vLLM engine: the torch backend's tokens, each request with its own guidance."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engines.model_spec import STANDARD_TINY
from engines.t3.backend import T3Request
from engines.t3.decoder import Sequence, T3Decoder
from engines.t3.parity import T3ParityCheck, T3Refused
from engines.t3.vllm.decoder import VllmDecoder
from engines.t3.vllm.engine import BLOCK_POSITIONS
from engines.t3.vllm.llama.config import ids_of
from engines.t3.vllm.llama.vocab import LaneIds
from tests.engines.t3.llama.setting import checkpoint, net, request
from tests.engines.t3.llama.test_lora import QUERY, WIDTH, adapter
from tests.engines.t3.llama.test_lora import load as load_merged
from tests.engines.t3.setting import limits, run, voice
from tests.vllm.setting import (
    VOICE_SLOTS,
    Preemptions,
    engine,
    read_resumed_as_prompts,
    runner,
    scheduler,
    split_at,
    vllm_decoder,
)

WEIGHTS = (0.0, 0.3, 0.5, 1.0)
STEPS = 200


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def decoder(folder: Path) -> Iterator[VllmDecoder]:
    decoder = vllm_decoder(folder, checkpoint())
    yield decoder
    decoder.close()


@pytest.fixture(autouse=True)
def _nothing_left(decoder: VllmDecoder) -> Iterator[None]:
    """After every test all blocks of the shared engine are free."""
    yield
    assert decoder.idle
    assert engine(decoder).free_kv_blocks == engine(decoder).kv_blocks


def on_torch(*requests: T3Request) -> list[list[int]]:
    return run(T3Decoder(net(), limits(max_streams=8)), *requests)


def drawn(seed: int, weight: float, **options: Any) -> T3Request:
    """A request that samples among few tokens; see tests.vllm.setting.drawn."""
    return request(seed, cfg_weight=weight, **({"top_k": 20} | options))


def test_greedy_tokens_of_all_weights_in_one_batch_are_the_torch_backends(decoder: VllmDecoder) -> None:
    requests = [request(3, cfg_weight=weight, temperature=0, max_speech_tokens=STEPS) for weight in WEIGHTS]
    ours = run(decoder, *requests)
    assert [len(tokens) for tokens in ours] == [STEPS] * len(WEIGHTS)
    assert ours == on_torch(*requests)
    assert len({tuple(tokens) for tokens in ours}) == len(WEIGHTS), "every weight says something else"


def test_draws_are_the_torch_backends(decoder: VllmDecoder) -> None:
    """Upstream's defaults but for a top-k, and other settings, with several texts, voices and exaggerations; more
    requests than run at once."""
    requests = [drawn(seed, WEIGHTS[seed % 4], text=3 + 9 * seed, exaggeration=0.3 + 0.2 * seed) for seed in range(6)]
    requests.append(drawn(6, 2.0, temperature=1.4, top_p=0.7, repetition_penalty=1.9))
    requests.append(drawn(7, 0.7, temperature=0.4, min_p=0.2, repetition_penalty=1.0))
    assert run(decoder, *requests) == on_torch(*requests)


def test_requests_join_and_leave_while_others_run(decoder: VllmDecoder) -> None:
    requests = [request(seed, cfg_weight=WEIGHTS[seed % 4], temperature=0, max_speech_tokens=60) for seed in range(8)]
    waiting, sequences, steps = list(enumerate(requests)), dict[int, Sequence](), 0
    while waiting or not decoder.idle:
        if waiting and steps % 11 == 0:
            index, each = waiting.pop(0)
            sequences[index] = decoder.add(each)
        if steps == 30:
            decoder.release(sequences.pop(2))
        decoder.step()
        steps += 1
    kept = sorted(sequences)
    assert [sequences[index].speech.raw for index in kept] == on_torch(*(requests[index] for index in kept))


def test_without_blocks_for_all_the_tokens_are_still_the_same(folder: Path) -> None:
    """A preempted sequence is read again, each token at the place at which it was drawn."""
    greedy = [request(seed, cfg_weight=WEIGHTS[seed % 4], temperature=0, max_speech_tokens=100) for seed in range(4)]
    sampled = [drawn(seed, WEIGHTS[seed % 4], max_speech_tokens=100, repetition_penalty=1.6) for seed in range(4, 8)]
    decoder = vllm_decoder(folder, checkpoint(), max_positions=200, kv_blocks=20)
    read_resumed_as_prompts(decoder)
    preempted = Preemptions(decoder)
    ours = run(decoder, *greedy, *sampled)
    decoder.close()
    assert len(preempted.ids) >= 3, "blocks must have run out"
    assert ours == on_torch(*greedy, *sampled)


def test_a_voices_rows_are_cached_whatever_the_text_the_weight_and_the_exaggeration(decoder: VllmDecoder) -> None:
    assert scheduler(decoder).reset_prefix_cache()
    of = voice(40, 150)
    asked = drawn(3, 0.5, of=of, text=30)
    expected = on_torch(asked)
    for number, (one, cached) in enumerate((
        (asked, 0),
        (drawn(4, 0.3, of=of, exaggeration=1.2), 2 * BLOCK_POSITIONS),
        (replace(asked, sampling=replace(asked.sampling, cfg_weight=1.0)), 4 * BLOCK_POSITIONS),
        (asked, 4 * BLOCK_POSITIONS),
        (drawn(3, 0.5, of=voice(41, 150), text=30), 0),
    )):  # fmt: skip
        before = engine(decoder).use.cached_positions
        tokens = run(decoder, one)
        assert engine(decoder).use.cached_positions - before == cached, number
        assert tokens == (expected if one is asked else on_torch(one))


def test_a_slot_reused_by_another_voice_keeps_nothing_of_the_first(decoder: VllmDecoder) -> None:
    requests = [request(9, of=voice(100 + number, 150), temperature=0, max_speech_tokens=8) for number in range(10)]
    assert len(requests) > VOICE_SLOTS
    ours = [run(decoder, one)[0] for one in [*requests, requests[0]]]
    assert ours == [on_torch(one)[0] for one in [*requests, requests[0]]]
    assert len({tuple(tokens) for tokens in ours}) == len(requests)


def test_a_prompt_split_anywhere_gives_the_same_logits(decoder: VllmDecoder) -> None:
    """Every split point: voice, exaggeration, text and both start rows each fall on both sides."""
    asked = request(12, text=12, of=voice(12, 150), temperature=0, max_speech_tokens=3)
    positions = 34 + 12 + 4
    whole = split_at(decoder, asked, positions)
    assert len(whole) == 3, "after the prompt and after each of two tokens"
    for first_chunk in range(1, positions):
        torch.testing.assert_close(split_at(decoder, asked, first_chunk), whole, rtol=0, atol=1e-4)


def test_a_stop_ends_the_segment_and_is_not_speech(decoder: VllmDecoder) -> None:
    """Also as the first token, unlike Turbo's."""
    (tokens,) = run(decoder, request(5, temperature=0, max_speech_tokens=6))
    assert len(tokens) == 6, "as many are drawn as are allowed, and no silence follows"
    with torch.no_grad():
        head = runner(decoder).model.head.weight
        stop = head[6562].clone()
        head[6562] = 50 * head[tokens[0]]
        (ended,) = run(decoder, request(5, temperature=0, max_speech_tokens=6))
        head[6562] = stop
    assert ended == [6562]


def test_logits_that_are_not_finite_fail_their_request_alone(decoder: VllmDecoder) -> None:
    loud = np.full(256, 3e38, dtype=np.float32)
    poisoned = replace(voice(55, 150), speaker_embedding=loud, name="far too loud")
    good = drawn(1, 0.5, max_speech_tokens=20)
    bad, other = decoder.add(request(2, of=poisoned)), decoder.add(good)
    progress = []
    while not decoder.idle:
        progress += decoder.step()
    assert [step.sequence for step in progress if step.error] == [bad]
    assert other.speech.raw == on_torch(good)[0]
    assert scheduler(decoder).reset_prefix_cache()


def test_the_parity_check_accepts_it_and_refuses_lanes_that_are_mixed_up(folder: Path) -> None:
    check = T3ParityCheck(net())
    decoder = vllm_decoder(folder, checkpoint())
    assert len(check.raise_if_wrong(engine(decoder), "float32", 4, "vllm")) == 3
    model = runner(decoder).model
    guided = model.guided_logits
    runner(decoder).sampler.batch_sampler._guided = lambda lanes, weights: guided(lanes, 0 * weights)
    with pytest.raises(T3Refused, match="logits off by"):
        check.raise_if_wrong(engine(decoder), "float16", 2, "vllm")
    decoder.close()


def test_an_engine_behind_another_draws_the_same_tokens_and_nothing_of_the_first_is_left(folder: Path) -> None:
    """As a broken engine's successor. What vLLM shares among the models of a process must not be freed with one."""
    asked = request(2, temperature=0, max_speech_tokens=10)
    for _ in range(2):
        decoder = vllm_decoder(folder, checkpoint())
        model = runner(decoder).model
        kept = [weakref.ref(each) for each in (*model.parameters(), *model.buffers())]
        assert run(decoder, asked) == on_torch(asked)
        decoder.close()
        assert all(each.numel() == 0 for ref in kept if (each := ref()) is not None), "nothing stays in memory"
        del model


def test_vllm_plans_for_the_heads_that_attend(decoder: VllmDecoder) -> None:
    """Its attention's schedule is made from config.json, its cache from the layers."""
    config, attention = runner(decoder).model_config, runner(decoder).model.model.layers[0].self_attn.attn
    heads = config.get_num_attention_heads(runner(decoder).parallel_config)
    assert heads == attention.num_heads == attention.num_kv_heads == 2 * STANDARD_TINY.t3.heads
    assert config.get_head_size() == attention.head_size == STANDARD_TINY.t3.width // STANDARD_TINY.t3.heads
    assert ids_of(config.hf_config) == LaneIds(STANDARD_TINY.t3, VOICE_SLOTS)


def test_stale_ids_in_the_padding_of_a_graph_are_harmless(decoder: VllmDecoder) -> None:
    rubbish = torch.tensor([-7, 2**31 - 1, 63_000, 0, 1 << 18], dtype=torch.int32)
    assert bool(torch.isfinite(runner(decoder).model.get_input_embeddings(rubbish)).all())


def test_dynamo_traces_the_models_forward_as_one_graph(decoder: VllmDecoder) -> None:
    from vllm.forward_context import set_forward_context

    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: object) -> Any:
        graphs.append(graph)
        return graph.forward

    model = runner(decoder).model
    traced = torch.compile(model.forward, backend=keep, fullgraph=True)
    for rows in (3, 17):
        ids, positions = torch.arange(rows), torch.arange(rows)
        for argument in (ids, positions):
            torch._dynamo.mark_dynamic(argument, 0)
        with set_forward_context(None, runner(decoder).vllm_config, num_tokens=rows), torch.no_grad():
            assert traced(ids, positions).shape == (rows, 2 * STANDARD_TINY.t3.width)
    (graph,) = graphs
    attention = [node for node in graph.graph.nodes if "unified_attention" in str(node.target)]
    assert len(attention) == STANDARD_TINY.t3.layers


def test_an_adapter_is_merged_as_torch_merges_it(tmp_path: Path) -> None:
    lora = adapter(tmp_path / "lora", {QUERY: (WIDTH, WIDTH), "text_emb": (704, WIDTH)})
    asked = request(1, temperature=0, max_speech_tokens=30)
    decoder = vllm_decoder(tmp_path, checkpoint(), loras=[lora])
    ours = run(decoder, asked)
    decoder.close()
    assert ours == run(T3Decoder(load_merged(checkpoint().t3_path, lora), limits()), asked)
    assert ours != on_torch(asked)
