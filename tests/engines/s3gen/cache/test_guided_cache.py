"""Cached decoding with ten guided steps: the caches of both lanes of every step, and what they cost."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from engines.model_spec import MAX_S3GEN_PROMPT_TOKENS, TURBO, with_guided_flow
from engines.s3gen.cache.kv import KVBlock, token_bytes
from engines.s3gen.runtimes.cached import default_prompt_bytes
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.segment_decoder import collate_cached
from tests.engines.fakes import make_voice
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.cache.test_cached_flow import (
    Blocks,
    decode,
    difference,
    masked,
    rows,
    speech_tokens_of,
    streamed,
    tensors_of,
)
from tests.engines.s3gen.small_nets import GUIDED_TINY


@pytest.fixture(scope="module")
def base() -> TorchRuntime:
    torch.set_num_threads(1)
    return TorchRuntime(small_nets.checkpoint(GUIDED_TINY))


@pytest.mark.parametrize(
    ("blocks", "context_tokens"),
    [
        ([(10, 3), (16, 3), (9, 0)], 50),  # nothing is evicted
        ([(10, 3), (16, 7), (1, 3), (1, 3), (5, 0)], 12),  # within and between blocks, shorter than the tails
    ],
)
def test_it_equals_the_block_mask_without_a_cache(base: TorchRuntime, blocks: Blocks, context_tokens: int) -> None:
    voice, speech_tokens = make_voice(21), speech_tokens_of(80)
    cached = streamed(TorchCachedRuntime(base, context_tokens=context_tokens), voice, speech_tokens, blocks)
    assert difference(cached, masked(voice, speech_tokens, blocks, context_tokens, GUIDED_TINY)) < 3e-5


@pytest.mark.parametrize("padded", [True, False])
def test_companions_change_a_row_by_rounding_only(base: TorchRuntime, padded: bool) -> None:
    """Streams of different voices, whose lanes share a call in pairs."""
    runtime = TorchCachedRuntime(base, context_tokens=12, pad_batches=padded)
    plans: list[Blocks] = [[(10, 3), (1, 3)], [(25, 7), (16, 3)]]
    voices, speech_tokens = [make_voice(20), make_voice(13)], [speech_tokens_of(70, i) for i in range(2)]
    alone = [streamed(runtime, *stream) for stream in zip(voices, speech_tokens, plans, strict=True)]
    caches = [runtime.begin(voice) for voice in voices]
    each = [rows(c, plan, cache) for c, plan, cache in zip(speech_tokens, plans, caches, strict=True)]
    for window in range(2):
        together = [stream[window] for stream in each]
        mel = runtime.flow_cached(collate_cached(together))
        for stream, (row, result) in enumerate(zip(together, mel, strict=True)):
            np.testing.assert_allclose(result[: len(row.noise)], alone[stream][window], atol=1e-4)
            row.cache.commit(row.new_tokens)


def test_a_block_decoded_again_gives_the_same(base: TorchRuntime) -> None:
    runtime, voice, speech_tokens = TorchCachedRuntime(base, context_tokens=8), make_voice(), speech_tokens_of(30)
    cache = runtime.begin(voice)
    for row in rows(speech_tokens, [(5, 3), (9, 3), (6, 0)], cache):
        first = decode(runtime, row)
        assert decode(runtime, row).tobytes() == first.tobytes()
        cache.commit(row.new_tokens)


def test_the_bytes_that_are_counted_are_the_memory_that_is_held(base: TorchRuntime) -> None:
    runtime = TorchCachedRuntime(base, context_tokens=9)
    caches = [runtime.begin(make_voice(20)), runtime.begin(make_voice(25))]
    work = [rows(speech_tokens_of(60, i), [(4 + i, 3), (12, 3)], cache) for i, cache in enumerate(caches)]
    for window in range(2):
        runtime.flow_cached(collate_cached([stream[window] for stream in work]))
        assert runtime.cache_bytes == sum(tensors_of(caches).values())
        for stream in work:
            stream[window].cache.commit(stream[window].new_tokens)
        assert runtime.cache_bytes == sum(tensors_of(caches).values())
    prompts = runtime.prompts.alive_bytes
    del caches, work, stream
    gc.collect()
    assert runtime.cache_bytes == prompts == runtime.prompts.kept_bytes


@pytest.mark.parametrize("spec", [TURBO, with_guided_flow(TURBO)], ids=["meanflow", "guided"])
def test_the_bytes_of_a_token_are_those_of_its_block(spec: small_nets.ModelSpec) -> None:
    block = KVBlock.empty(spec.flow, 3, torch.empty(0, device="meta"))
    assert block.nbytes == 3 * token_bytes(spec.flow)


def test_the_longest_prompt_is_kept_when_its_streams_have_ended() -> None:
    for spec in (TURBO, with_guided_flow(TURBO)):
        assert default_prompt_bytes(spec.flow) > MAX_S3GEN_PROMPT_TOKENS * token_bytes(spec.flow)
    assert default_prompt_bytes(TURBO.flow) == 1 << 30
    assert 9 < token_bytes(with_guided_flow(TURBO).flow) / token_bytes(TURBO.flow) < 10
