"""Windows of the flow with guidance: close to one pass, by the same rules as two steps, and independent in a batch."""

from __future__ import annotations

import numpy as np
import pytest

from engines.s3gen.noise import F32
from engines.s3gen.runtime import Runtime
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.s3gen.runtimes.torch_cached import TorchCachedRuntime
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule, ScheduleStep
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.windows import Window, WindowPlanner
from tests.engines.fakes import make_voice
from tests.engines.s3gen import small_nets
from tests.engines.s3gen.cache.test_cached_flow import speech_tokens_of
from tests.engines.s3gen.small_nets import GUIDED_TINY
from tests.engines.s3gen.streaming.test_streaming_quality import flow_streamed

OFFLINE = Schedule("offline", (ScheduleStep(1000),))


@pytest.fixture(scope="module")
def runtime() -> TorchRuntime:
    return TorchRuntime(small_nets.checkpoint(GUIDED_TINY))


def test_fixed_noise_and_left_context_bring_streamed_mel_close_to_one_pass(runtime: TorchRuntime) -> None:
    speech_tokens = speech_tokens_of(80, 3)
    offline = flow_streamed(runtime, speech_tokens, OFFLINE)

    def distance(left_context_tokens: int, *, fresh_noise: bool = False) -> float:
        schedule = Schedule("hop 25", (ScheduleStep(25),), left_context_tokens)
        streamed = flow_streamed(runtime, speech_tokens, schedule, fresh_noise=fresh_noise)
        assert streamed.shape == offline.shape
        return float(np.abs(streamed - offline).mean() / offline.std())

    none, context, fresh = distance(0), distance(50), distance(50, fresh_noise=True)
    print(f"mel distance from one pass: {none:.3f} without context, {context:.3f} with, {fresh:.3f} with fresh noise")
    assert context < none
    assert fresh > 2 * context


def test_a_window_over_everything_is_the_pass_itself(runtime: TorchRuntime) -> None:
    speech_tokens = speech_tokens_of(30, 3)
    voice = make_voice(50)
    decoder = SegmentDecoder(voice, 11, speech_tokens)
    row = decoder.flow_row(next_window(OFFLINE, 30))
    batch = small_nets.FlowBatch(
        row.tokens[None], np.array([80]), padded(voice.s3gen_prompt_mel, 160)[None], row.noise[None],
        voice.x_vector[None],
    )  # fmt: skip
    whole = runtime.flow(batch)[0, 100:]
    assert np.abs(flow_streamed(runtime, speech_tokens, OFFLINE) - whole).max() < 1e-5


@pytest.mark.parametrize("cached", [False, True], ids=["recomputed", "cached"])
def test_streams_that_share_calls_sound_as_they_do_alone(runtime: TorchRuntime, cached: bool) -> None:
    """Two voices and texts, all their windows together, against each alone."""
    used: Runtime = TorchCachedRuntime(runtime) if cached else runtime
    texts = [speech_tokens_of(60, seed) for seed in (1, 2)]

    def decoders() -> list[SegmentDecoder]:
        return [SegmentDecoder(make_voice(20 + 5 * seed), seed, texts[seed]) for seed in range(2)]

    windows = windows_of(SCHEDULES["balanced"], 60)
    assert len(windows) > 2
    alone = [spoken(used, [decoder], windows)[0] for decoder in decoders()]
    for ours, theirs in zip(spoken(used, decoders(), windows), alone, strict=True):
        assert len(ours) == 60 * 960
        assert np.abs(ours - theirs).max() < 3e-2 * theirs.std()


def spoken(runtime: Runtime, decoders: list[SegmentDecoder], windows: list[Window]) -> list[F32]:
    """The samples of each decoder, all decoding each window in one call."""
    parts: list[list[F32]] = [[] for _ in decoders]
    for window in windows:
        for part, result in zip(parts, decode_windows(runtime, [(d, window) for d in decoders]), strict=True):
            assert isinstance(result, np.ndarray), result
            part.append(result)
    return [np.concatenate(part) for part in parts]


def next_window(schedule: Schedule, tokens: int) -> Window:
    return windows_of(schedule, tokens)[0]


def windows_of(schedule: Schedule, tokens: int) -> list[Window]:
    planner, windows = WindowPlanner(schedule), []
    while (window := planner.next(tokens, ended=True)) is not None:
        windows.append(window)
    return windows


def padded(mel: F32, frames: int) -> F32:
    return np.pad(mel, ((0, frames - len(mel)), (0, 0)))
