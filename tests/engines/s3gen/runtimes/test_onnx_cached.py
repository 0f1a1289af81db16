"""Cached decoding on ONNX Runtime gives what it gives on torch, block by block, and keeps its books as exactly."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Segment
from engines.config import EngineConfig, Sampling
from engines.errors import InvalidInput
from engines.s3gen.cache.kv import F32
from engines.s3gen.parity_check import validate
from engines.s3gen.runtime import CachedFlowBatch
from engines.s3gen.runtimes.onnx_cached import OnnxCachedRuntime, OnnxFlowCache
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.segment_decoder import CachedRow, collate_cached
from tests.engines.fakes import make_voice
from tests.engines.s3gen.cache.test_cached_flow import Blocks, decode, difference, rows, speech_tokens_of, streamed
from tests.engines.s3gen.onnx_setting import checkpoint, vocoder_batch
from tests.engines.s3gen.small_nets import ROUNDING


@pytest.fixture(scope="module")
def base() -> TorchRuntime:
    return TorchRuntime(checkpoint())


@pytest.fixture(scope="module")
def runtime(base: TorchRuntime) -> OnnxCachedRuntime:
    return OnnxCachedRuntime(checkpoint(), base, threads=1, context_tokens=12)


def random_plan(seed: int) -> tuple[int, Blocks]:
    """Prompt tokens, and blocks of which some are longer than the context and some shorter than the tails."""
    draw = np.random.default_rng(seed)
    blocks = [(int(draw.integers(1, 20)), int(draw.integers(3, 8))) for _ in range(5)] + [(int(draw.integers(1, 6)), 0)]
    return int(draw.integers(1, 40)), blocks


@pytest.mark.parametrize("seed", range(4))
def test_it_equals_cached_decoding_on_torch(base: TorchRuntime, runtime: OnnxCachedRuntime, seed: int) -> None:
    prompt, blocks = random_plan(seed)
    voice, speech_tokens = make_voice(prompt), speech_tokens_of(140, seed)
    on_torch = streamed(TorchCachedRuntime(base, context_tokens=12), voice, speech_tokens, blocks)
    assert difference(streamed(runtime, voice, speech_tokens, blocks), on_torch) < ROUNDING


def test_rows_of_one_call_are_what_they_are_alone(runtime: OnnxCachedRuntime) -> None:
    plans: list[Blocks] = [[(10, 3), (1, 3)], [(25, 7), (16, 3)], [(4, 3), (20, 0)]]
    voices = [make_voice(20), make_voice(13), make_voice(20)]
    speech_tokens = [speech_tokens_of(70, i) for i in range(3)]
    alone = [streamed(runtime, *stream) for stream in zip(voices, speech_tokens, plans, strict=True)]
    caches = [runtime.begin(voice) for voice in voices]
    each = [rows(c, plan, cache) for c, plan, cache in zip(speech_tokens, plans, caches, strict=True)]
    for window in range(2):
        together = [stream[window] for stream in each]
        mel = runtime.flow_cached(collate_cached(together))
        for stream, (row, result) in enumerate(zip(together, mel, strict=True)):
            assert result[: len(row.noise)].tobytes() == alone[stream][window].tobytes()
            assert not result[len(row.noise) :].any()
            row.cache.commit(row.new_tokens)


def test_a_block_decoded_again_gives_the_same_and_so_does_what_follows(runtime: OnnxCachedRuntime) -> None:
    voice, speech_tokens, blocks = make_voice(), speech_tokens_of(60), [(5, 3), (1, 3), (9, 7), (6, 0)]
    cache, mels = runtime.begin(voice), []
    for row in rows(speech_tokens, blocks, cache):
        decode(runtime, CachedRow(row.tokens[::-1].copy(), 1, row.noise, cache))  # never committed
        mels.append(decode(runtime, row))
        cache.commit(row.new_tokens)
    for once, again in zip(streamed(runtime, voice, speech_tokens, blocks), mels, strict=True):
        assert once.tobytes() == again.tobytes()


def test_a_cache_that_was_reset_remembers_the_prompt_alone(runtime: OnnxCachedRuntime) -> None:
    voice, speech_tokens = make_voice(20), speech_tokens_of(60)
    cache = runtime.begin(voice)
    (first, second) = rows(speech_tokens, [(10, 3), (7, 3)], cache)
    once = decode(runtime, first)
    cache.commit(10)
    decode(runtime, second)
    cache.reset()
    assert decode(runtime, first).tobytes() == once.tobytes()


def test_only_what_was_decoded_can_be_committed(runtime: OnnxCachedRuntime) -> None:
    cache = runtime.begin(make_voice())
    with pytest.raises(AssertionError, match="nothing was decoded"):
        cache.commit(3)
    decode(runtime, rows(speech_tokens_of(9), [(5, 3)], cache)[0])
    with pytest.raises(AssertionError, match="5 new tokens were decoded"):
        cache.commit(3)


def held_bytes(cache: OnnxFlowCache) -> int:
    """Of all arrays that the cache reaches, those of the prompt left out."""
    blocks = (cache.kv._store, cache.kv.block, cache.conv_state, *(cache._pending[1:] if cache._pending else ()))
    whole = _whole(array for block in blocks for array in vars(block).values())
    shared = _whole(vars(cache.prompt.conv_state).values())
    return sum(array.nbytes for key, array in whole.items() if key not in shared)


def _whole(arrays: Iterable[F32]) -> dict[int, F32]:
    """The arrays that own the memory, by identity."""
    return {id(owner): owner for owner in (array if array.base is None else array.base for array in arrays)}


def test_memory_is_counted_shared_by_voice_and_bounded(base: TorchRuntime) -> None:
    runtime = OnnxCachedRuntime(checkpoint(), base, threads=1, context_tokens=9)
    voice = make_voice(20)
    caches = [runtime.begin(voice), runtime.begin(voice)]
    assert caches[0].prompt is caches[1].prompt
    prompt, sizes = runtime.prompts.alive_bytes, []
    for row in rows(speech_tokens_of(300), [(10, 3)] * 20, caches[0]):
        decode(runtime, row)
        assert runtime.cache_bytes == prompt + sum(map(held_bytes, caches))
        row.cache.commit(row.new_tokens)
        assert runtime.cache_bytes == prompt + sum(map(held_bytes, caches))
        sizes.append(runtime.cache_bytes)
    assert len(set(sizes)) == 1
    del caches, row
    gc.collect()
    assert runtime.cache_bytes == prompt > 0


def test_its_vocoder_is_the_reference_s(base: TorchRuntime, runtime: OnnxCachedRuntime) -> None:
    batch = vocoder_batch([30, 17])
    ours, theirs = runtime.vocoder(batch), base.vocoder(batch)
    np.testing.assert_array_equal(ours.waveform, theirs.waveform)


class Deaf(OnnxCachedRuntime):
    """Forgets what it should remember."""

    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        for cache in batch.caches:
            cache.reset()
        return super().flow_cached(batch)


def test_the_gate_listens_to_blocks_too(base: TorchRuntime) -> None:
    on_torch = TorchCachedRuntime(base)
    assert validate(OnnxCachedRuntime(checkpoint(), base, threads=1), on_torch, precision="fp32").passed
    assert not validate(Deaf(checkpoint(), base, threads=1), on_torch, precision="fp32").passed


def test_only_the_cpu_is_offered(base: TorchRuntime) -> None:
    with pytest.raises(InvalidInput, match="cpu"):
        OnnxCachedRuntime(checkpoint(), base, threads=1, providers=("cuda", "cpu"))


def test_an_engine_streams_on_it() -> None:
    def speak(s3gen: str) -> tuple[str, np.ndarray]:
        config = EngineConfig(
            model="random:tiny", device="cpu", max_streams=1, decode="cached", s3gen=s3gen, t3_dtype="float32"
        )
        return asyncio.run(spoken(config))

    (name, samples), (_, on_torch) = speak("onnx"), speak("torch")
    assert name == "onnx-cached"
    assert samples.shape == on_torch.shape
    # Phases add up pitch, so what a pitch is rounded by is heard as a turn of its harmonics: more of it on AMX.
    assert np.square(samples - on_torch).mean() < 1e-2 * np.square(on_torch).mean()


async def spoken(config: EngineConfig) -> tuple[str, np.ndarray]:
    engine = engines.load(config)
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=3, max_speech_tokens=60))
    text = Segment(0, "The rain in Spain falls mainly on the plain.")
    chunks = [event.samples async for event in stream.speak(text) if isinstance(event, AudioChunk)]
    await stream.close()
    await engine.close()
    return engine.info.s3gen_runtime, np.concatenate(chunks)
