"""Cached decoding: equal to the same block mask without a cache, safe to repeat, shared by voice, bounded for ever."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engines.model_spec import SPEECH_CODES, TINY, ModelSpec
from engines.s3gen import noise
from engines.s3gen.cache.conv import ConvState
from engines.s3gen.cache.kv import KVBlock
from engines.s3gen.cache.prompt_cache import PromptCache
from engines.s3gen.cache.ring import RingBuffer
from engines.s3gen.noise import F32
from engines.s3gen.runtime import CachedRuntime, FlowCache
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime, TorchFlowCache
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule, ScheduleStep
from engines.s3gen.streaming.segment_decoder import CachedRow, SegmentDecoder, collate_cached, decode_windows
from engines.s3gen.streaming.vocoder_stream import VocoderRow
from engines.s3gen.streaming.windows import Window, WindowPlanner
from engines.voice import Voice
from tests.engines.fakes import make_voice
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.cache.block_mask import flow_under_mask, layout

SEED = 4
Blocks = list[tuple[int, int]]


@pytest.fixture(scope="module")
def base() -> TorchRuntime:
    torch.set_num_threads(1)
    return TorchRuntime(small_nets.checkpoint())


def speech_tokens_of(count: int, seed: int = 1) -> list[int]:
    speech_tokens: list[int] = np.random.default_rng(seed).integers(0, SPEECH_CODES, count).tolist()
    return speech_tokens


def rows(speech_tokens: list[int], blocks: Blocks, cache: FlowCache, seed: int = SEED) -> list[CachedRow]:
    """The blocks of a stream, one after the other."""
    made, start = [], 0
    for new, provisional in blocks:
        tokens = np.array(speech_tokens[start : start + new + provisional])
        made.append(CachedRow(tokens, new, noise.flow_noise(seed, 2 * start, 2 * len(tokens)), cache))
        start += new
    return made


def decode(runtime: CachedRuntime, row: CachedRow) -> F32:
    mel: F32 = runtime.flow_cached(collate_cached([row]))[0]
    return mel


def streamed(runtime: CachedRuntime, voice: Voice, speech_tokens: list[int], blocks: Blocks) -> list[F32]:
    """Mel of each block, provisional frames included."""
    cache, mels = runtime.begin(voice), []
    for row in rows(speech_tokens, blocks, cache):
        mels.append(decode(runtime, row))
        cache.commit(row.new_tokens)
    return mels


def masked(
    voice: Voice, speech_tokens: list[int], blocks: Blocks, context_tokens: int, spec: ModelSpec = TINY
) -> list[F32]:
    """The same without a cache."""
    prompt = len(voice.s3gen_prompt_tokens)
    cells = layout(prompt, blocks, context_tokens)
    at = [cell.position - prompt for cell in cells.cells]
    tokens = [*voice.s3gen_prompt_tokens.tolist(), *(speech_tokens[i] for i in at[prompt:])]
    mel = np.zeros((2 * len(tokens), 80), np.float32)
    mel[: 2 * prompt] = voice.s3gen_prompt_mel
    drawn = noise.flow_noise(SEED, 0, 2 * (max(at) + 1))
    frames = [2 * i + half for i in at[prompt:] for half in (0, 1)]
    start = np.concatenate([noise.prompt_noise(0, 2 * prompt), drawn[frames]])
    arrays = (np.array(tokens), mel, start, voice.x_vector)
    result = flow_under_mask(small_nets.flow(spec), cells, *map(torch.tensor, arrays)).numpy()
    sizes = np.cumsum([2 * prompt, *(2 * (new + provisional) for new, provisional in blocks)])
    return [result[a:b] for a, b in pairwise(sizes)]


def difference(mels: list[F32], exact: list[F32]) -> float:
    """The largest, as a part of the largest value."""
    return max(float(np.abs(a - b).max()) for a, b in zip(mels, exact, strict=True)) / max(
        float(np.abs(b).max()) for b in exact
    )


@pytest.mark.parametrize(
    ("blocks", "context_tokens"),
    [
        ([(10, 3), (16, 3), (9, 0)], 50),  # nothing is evicted
        ([(10, 3), (16, 7), (5, 3), (14, 3), (1, 0)], 12),  # within and between blocks
        ([(1, 3), (1, 3), (1, 3), (1, 4), (2, 3), (1, 0)], 3),  # shorter than the convolutions' tails
        ([(30, 3), (4, 3), (4, 0)], 20),  # one block evicts all before it
        ([(6, 3), (5, 3), (4, 0)], 0),  # the prompt alone
    ],
)
def test_it_equals_the_block_mask_without_a_cache(base: TorchRuntime, blocks: Blocks, context_tokens: int) -> None:
    voice, speech_tokens = make_voice(21), speech_tokens_of(80)
    runtime = TorchCachedRuntime(base, context_tokens=context_tokens)
    cached, plain = (
        streamed(runtime, voice, speech_tokens, blocks),
        masked(voice, speech_tokens, blocks, context_tokens),
    )
    assert difference(cached, plain) < small_nets.ROUNDING


@pytest.mark.parametrize("seed", range(3))
def test_it_equals_the_block_mask_for_random_blocks(base: TorchRuntime, seed: int) -> None:
    draw = np.random.default_rng(seed)
    blocks = [(int(draw.integers(1, 12)), int(draw.integers(3, 8))) for _ in range(5)] + [(int(draw.integers(1, 6)), 0)]
    context = int(draw.integers(1, 25))
    voice, speech_tokens = make_voice(int(draw.integers(1, 30))), speech_tokens_of(100, seed)
    cached = streamed(TorchCachedRuntime(base, context_tokens=context), voice, speech_tokens, blocks)
    assert difference(cached, masked(voice, speech_tokens, blocks, context)) < small_nets.ROUNDING


def test_the_mask_matters(base: TorchRuntime) -> None:
    # The comparison above would be worth nothing if every mask gave the same.
    voice, speech_tokens, blocks = make_voice(21), speech_tokens_of(80), [(10, 3), (16, 3), (9, 0)]
    wide, narrow = masked(voice, speech_tokens, blocks, 50), masked(voice, speech_tokens, blocks, 5)
    np.testing.assert_allclose(wide[0], narrow[0], atol=1e-6)
    assert np.abs(wide[2] - narrow[2]).max() > 1e-2


def test_a_block_decoded_again_gives_the_same_and_so_does_what_follows(base: TorchRuntime) -> None:
    runtime, voice, speech_tokens = TorchCachedRuntime(base, context_tokens=8), make_voice(), speech_tokens_of(60)
    blocks = [(5, 3), (1, 3), (9, 7), (6, 0)]
    cache, mels = runtime.begin(voice), []
    for row in rows(speech_tokens, blocks, cache):
        first = decode(runtime, row)
        other = CachedRow(row.tokens[::-1].copy(), 1, row.noise, cache)
        decode(runtime, other)  # was decoded, failed later, is never committed
        mels.append(decode(runtime, row))
        assert first.tobytes() == mels[-1].tobytes()
        cache.commit(row.new_tokens)
    for once, again in zip(streamed(runtime, voice, speech_tokens, blocks), mels, strict=True):
        assert once.tobytes() == again.tobytes()


def test_only_what_was_decoded_can_be_committed(base: TorchRuntime) -> None:
    runtime = TorchCachedRuntime(base)
    cache = runtime.begin(make_voice())
    with pytest.raises(AssertionError, match="nothing was decoded"):
        cache.commit(3)
    decode(runtime, rows(speech_tokens_of(9), [(5, 3)], cache)[0])
    with pytest.raises(AssertionError, match="5 new tokens were decoded"):
        cache.commit(3)


@pytest.mark.parametrize("padded", [True, False])
def test_companions_change_a_row_by_rounding_only(base: TorchRuntime, padded: bool) -> None:
    runtime = TorchCachedRuntime(base, context_tokens=12, pad_batches=padded)
    plans: list[Blocks] = [[(10, 3), (1, 3), (9, 3)], [(25, 7), (16, 3), (3, 0)], [(4, 3), (4, 3), (20, 7)]]
    voices = [make_voice(20), make_voice(13), make_voice(20)]
    speech_tokens = [speech_tokens_of(70, i) for i in range(3)]
    alone = [streamed(runtime, *stream) for stream in zip(voices, speech_tokens, plans, strict=True)]
    caches = [runtime.begin(voice) for voice in voices]
    each = [rows(c, plan, cache) for c, plan, cache in zip(speech_tokens, plans, caches, strict=True)]
    for window in range(3):
        # streams come and go: in the last round only two of them share a call
        together = [each[stream][window] for stream in ((0, 1, 2), (2, 1, 0), (0, 2))[window]]
        mel = runtime.flow_cached(collate_cached(together))
        for row, result in zip(together, mel, strict=True):
            stream = caches.index(row.cache)
            np.testing.assert_allclose(result[: len(row.noise)], alone[stream][window], atol=4 * small_nets.ROUNDING)
            assert not result[len(row.noise) :].any()
            row.cache.commit(row.new_tokens)


def test_half_precision_caches_take_half_the_memory_and_stay_close(base: TorchRuntime) -> None:
    voice, speech_tokens, blocks = make_voice(20), speech_tokens_of(40), [(10, 3), (7, 3), (5, 0)]
    full, half = (
        TorchCachedRuntime(base),
        TorchCachedRuntime(TorchRuntime(small_nets.checkpoint(), dtype=torch.float16)),
    )
    exact, near = streamed(full, voice, speech_tokens, blocks), streamed(half, voice, speech_tokens, blocks)
    assert half.prompts.alive_bytes * 2 == full.prompts.alive_bytes
    assert difference(near, exact) < 0.03


def test_a_voices_prompt_is_computed_once_and_shared(base: TorchRuntime) -> None:
    runtime, voice = TorchCachedRuntime(base), make_voice(30)
    caches = [runtime.begin(voice), runtime.begin(Voice.from_bytes(voice.to_bytes())), runtime.begin(make_voice(31))]
    assert runtime.prompts.made == 2
    assert runtime.computed_tokens == 61
    assert caches[0].prompt is caches[1].prompt
    streams = [streamed(runtime, voice, speech_tokens_of(40), [(10, 3), (10, 0)]) for _ in range(2)]
    assert runtime.prompts.made == 2
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*streams, strict=True))


def test_unused_prompts_are_dropped_oldest_first_and_used_ones_found_again(base: TorchRuntime) -> None:
    voices = [make_voice(tokens) for tokens in (20, 21, 22)]
    size = TorchCachedRuntime(base).begin(voices[2]).prompt.nbytes
    runtime = TorchCachedRuntime(base, prompt_bytes=2 * size)
    held = runtime.begin(voices[0])
    for voice in voices[1:]:
        runtime.begin(voice)
    assert runtime.prompts.kept_bytes <= 2 * size < runtime.prompts.alive_bytes
    runtime.begin(voices[0])  # out of the budget, but still in use
    assert runtime.prompts.made == 3
    del held
    for voice in voices[1:]:
        runtime.begin(voice)
    gc.collect()
    assert runtime.cache_bytes <= 2 * size
    made = runtime.prompts.made
    runtime.begin(voices[2])
    assert runtime.prompts.made == made
    runtime.begin(voices[0])  # least recently used, and no stream held it any more
    assert runtime.prompts.made == made + 1


def tensors_of(caches: Sequence[TorchFlowCache]) -> dict[int, int]:
    """Bytes of every block of memory that is reachable from the caches, by its address."""
    found: dict[int, int] = {}
    for cache in caches:
        pending = cache._pending[1:] if cache._pending else ()
        for part in (cache.kv._store, cache.conv_state, cache.prompt.kv, cache.prompt.conv_state, *pending):
            assert isinstance(part, KVBlock | ConvState)
            found |= {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in vars(part).values()}
        found[cache.prompt.speaker.untyped_storage().data_ptr()] = cache.prompt.speaker.untyped_storage().nbytes()
    return found


@pytest.mark.parametrize("padded", [True, False])
def test_the_bytes_that_are_counted_are_the_memory_that_is_held(base: TorchRuntime, padded: bool) -> None:
    runtime = TorchCachedRuntime(base, context_tokens=9, pad_batches=padded)
    caches = [runtime.begin(make_voice(20)), runtime.begin(make_voice(20)), runtime.begin(make_voice(25))]
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


def test_five_minutes_cost_no_more_per_window_than_ten_seconds(base: TorchRuntime) -> None:
    runtime, voice, speech_tokens = TorchCachedRuntime(base), make_voice(40), speech_tokens_of(7600)
    cache = runtime.begin(voice)
    costs, memory = [], []
    for row in rows(speech_tokens, [(100, 3)] * 75, cache):
        before = runtime.computed_tokens, runtime.attended_tokens
        decode(runtime, row)
        memory.append(runtime.cache_bytes)
        cache.commit(row.new_tokens)
        costs.append((runtime.computed_tokens - before[0], runtime.attended_tokens - before[1]))
    assert costs[0] == (103, 40 + 103)
    assert set(costs[1:]) == {(103, 40 + 50 + 103)}
    assert len(set(memory[1:])) == 1
    assert base._positions._tokens <= 256, "the table of positions grew with the utterance"


@given(st.integers(0, 12), st.lists(st.integers(1, 30), max_size=12))
def test_the_ring_holds_the_newest_tokens_in_order(capacity: int, appended: list[int]) -> None:
    ring, store, stream = RingBuffer(capacity), np.full(capacity, -1), np.arange(sum(appended))
    start = 0
    for count in appended:
        for source, place in ring.append(count):
            store[place] = stream[start : start + count][source]
        start += count
        held = np.concatenate([store[place] for place in ring.held()] or [store[:0]])
        assert len(ring.held()) <= 2
        assert held.tolist() == stream[:start][max(0, start - capacity) :].tolist()
        assert ring.held_tokens == len(held)
    ring.clear()
    assert ring.held() == []


class Thing:
    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.booleans()), max_size=40))
def test_the_prompt_cache_stays_within_its_budget_and_never_makes_a_second_of_what_lives(
    wanted: list[tuple[str, bool]],
) -> None:
    cache: PromptCache[Thing] = PromptCache(10)
    held: dict[str, Thing] = {}
    for key, hold in wanted:
        thing = cache.get(key, lambda key=key: Thing(1 + "abcdef".index(key) * 3))
        assert held.get(key, thing) is thing
        if hold:
            held[key] = thing
        assert cache.kept_bytes <= 10
    assert cache.alive_bytes >= sum(thing.nbytes for thing in held.values())


def windows_of(schedule: Schedule, tokens: int) -> list[Window]:
    planner, windows = WindowPlanner(schedule), []
    while (window := planner.next(tokens, ended=True)) is not None:
        windows.append(window)
    return windows


def speak(runtime: CachedRuntime | TorchRuntime, decoder: SegmentDecoder, windows: list[Window]) -> list[F32]:
    samples = []
    for window in windows:
        (result,) = decode_windows(runtime, [(decoder, window)])
        assert isinstance(result, np.ndarray), result
        samples.append(result)
    return samples


def decoder_of(speech_tokens: list[int], voice: Voice | None = None) -> SegmentDecoder:
    decoder = SegmentDecoder(voice or make_voice(30), SEED)
    decoder.speech_tokens = speech_tokens
    return decoder


def test_a_segment_frees_its_cache_with_its_last_window(base: TorchRuntime) -> None:
    runtime, speech_tokens = TorchCachedRuntime(base), speech_tokens_of(90)
    decoder = decoder_of(speech_tokens)
    samples = speak(runtime, decoder, windows_of(SCHEDULES["balanced"], 90))
    assert sum(map(len, samples)) == 90 * 960
    assert runtime.cache_bytes == runtime.prompts.alive_bytes > 0


class RejectsOnce(SegmentDecoder):
    """Finds fault with one window's first rendering."""

    faulty: int | None = None

    def vocoder_row(self, window: Window, frames: F32) -> VocoderRow:
        if window.index == self.faulty:
            self.faulty = None
            frames = np.full_like(frames, np.nan)
        return super().vocoder_row(window, frames)


def test_a_rejected_window_leaves_no_trace(base: TorchRuntime) -> None:
    runtime, speech_tokens = TorchCachedRuntime(base), speech_tokens_of(90)
    windows = windows_of(SCHEDULES["balanced"], 90)
    undisturbed = speak(runtime, decoder_of(speech_tokens), windows)
    decoder = RejectsOnce(make_voice(30), SEED)
    decoder.speech_tokens, decoder.faulty = speech_tokens, 2
    samples = speak(runtime, decoder, windows[:2])
    (rejected,) = decode_windows(runtime, [(decoder, windows[2])])
    assert not isinstance(rejected, np.ndarray)
    samples += speak(runtime, decoder, windows[2:])
    assert b"".join(s.tobytes() for s in samples) == b"".join(s.tobytes() for s in undisturbed)


def test_after_a_window_on_the_reference_path_the_cache_takes_its_context_up_again(base: TorchRuntime) -> None:
    runtime, speech_tokens = TorchCachedRuntime(base, context_tokens=20), speech_tokens_of(120)
    windows = windows_of(Schedule("even", (ScheduleStep(20),)), 120)
    decoder = decoder_of(speech_tokens)
    speak(runtime, decoder, windows[:2])
    speak(runtime.reference, decoder, windows[2:3])
    before = runtime.computed_tokens
    speak(runtime, decoder, windows[3:4])
    assert runtime.computed_tokens - before == (20 + 20 + 3) + (20 + 3)  # context with what it looks ahead at; window
    before = runtime.computed_tokens
    speak(runtime, decoder, windows[4:])
    assert runtime.computed_tokens - before == 23 + 20


def test_cached_mel_is_as_close_to_offline_as_block_causality_allows(base: TorchRuntime) -> None:
    voice, speech_tokens = make_voice(50), speech_tokens_of(125, 3)
    blocks: Blocks = [(25, 3)] * 4 + [(25, 0)]
    (offline,) = streamed(TorchCachedRuntime(base), voice, speech_tokens, [(125, 0)])

    def distance(context_tokens: int) -> float:
        mels = streamed(TorchCachedRuntime(base, context_tokens=context_tokens), voice, speech_tokens, blocks)
        mel = np.concatenate([m[: 2 * new] for m, (new, _) in zip(mels, blocks, strict=True)])
        return float(np.abs(mel - offline).mean() / offline.std())

    figures = {context: distance(context) for context in (0, 12, 25, 50)}
    print("mel distance from one block by left context:", {k: round(v, 3) for k, v in figures.items()})
    assert list(figures.values()) == sorted(figures.values(), reverse=True)
