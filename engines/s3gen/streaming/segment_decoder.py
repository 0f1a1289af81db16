"""The decoder of one segment: builds the inputs of each window's flow and vocoder calls and keeps their state.

When a window is decoded is decided in windows.py, and together with which others in batcher.py. Numpy only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from engines.kernels.sharing import beside_t3
from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES
from engines.s3gen import noise
from engines.s3gen.noise import F32
from engines.s3gen.runtime import (
    I64,
    CachedFlowBatch,
    CachedRuntime,
    FlowBatch,
    FlowCache,
    Runtime,
    VocoderBatch,
    VocoderResult,
    WaveformRuntime,
)
from engines.s3gen.streaming.guards import Guard, WindowRejected
from engines.s3gen.streaming.vocoder_stream import VocoderRow, VocoderStream
from engines.s3gen.streaming.windows import Window
from engines.voice import Voice

_FRAMES_BEFORE = 1 << 20  # where the noise of frames before the segment is taken from: no segment is as long
P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class FlowRow:
    """One row of a FlowBatch, unpadded; N tokens, prompt first."""

    tokens: I64  # (N,)
    noise: F32  # (2N, 80)
    voice: Voice


@dataclass(frozen=True)
class CachedRow:
    """One row of a CachedFlowBatch, unpadded: M tokens, the new ones first."""

    tokens: I64  # (M,)
    new_tokens: int
    noise: F32  # (2M, 80)
    cache: FlowCache


class SegmentDecoder:
    """State of one segment; used by one window at a time.

    The runtime may change from window to window, e.g. when a rejected window is decoded again on another one.
    """

    def __init__(
        self, voice: Voice, seed: int, speech_tokens: list[int] | None = None, context: Sequence[int] = ()
    ) -> None:
        """`speech_tokens`: the caller's list, which may still grow. `context`: speech tokens before the segment, as far
        left context reaches."""
        self._before = tuple(context)
        self._before_missed = bool(context)  # by the cache
        self.voice = voice
        self.seed = seed
        self.speech_tokens: list[int] = [] if speech_tokens is None else speech_tokens
        self._vocoder = VocoderStream(seed)
        self._guard = Guard()
        self._prompt_noise = noise.prompt_noise(seed, len(voice.s3gen_prompt_mel))
        self._cache: FlowCache | None = None
        self._cached_tokens = 0  # the cache holds the segment up to here
        self._commit_pending = False  # whether the cache awaits this window's commit

    def flow_row(self, window: Window) -> FlowRow:
        """The window's own tokens, its left context and the prompt."""
        self._commit_pending = False
        before = self.before(window)
        speech_tokens = np.asarray(self.speech_tokens[window.context_start : window.lookahead_stop], np.int64)
        frames = len(speech_tokens) * MEL_FRAMES_PER_TOKEN
        own_noise = noise.flow_noise(self.seed, window.first_frame, frames)
        return FlowRow(
            tokens=np.concatenate([self.voice.s3gen_prompt_tokens, np.asarray(before, np.int64), speech_tokens]),
            noise=np.concatenate([self._prompt_noise, self._noise_before(len(before)), own_noise]),
            voice=self.voice,
        )

    def before(self, window: Window) -> tuple[int, ...]:
        """The speech tokens before the segment that are left context of the window."""
        return self._before[window.start :] if window.context_start == 0 else ()

    def _noise_before(self, tokens: int) -> F32:
        return noise.flow_noise(self.seed, _FRAMES_BEFORE, tokens * MEL_FRAMES_PER_TOKEN)

    def block_of(self, window: Window, mel: F32) -> F32:
        """The window's new and provisional frames of `mel` (2N, 80), the result of its `flow_row`."""
        first = len(self.voice.s3gen_prompt_mel) + window.new_frames.start
        first += len(self.before(window)) * MEL_FRAMES_PER_TOKEN
        return mel[first:][: (window.lookahead_stop - window.start) * MEL_FRAMES_PER_TOKEN]

    def missed_row(self, window: Window, runtime: CachedRuntime) -> CachedRow | None:
        """The context that the cache lacks because earlier windows were decoded without it; None if it lacks nothing.

        Begins the cache if there is none.
        """
        if self._cache is None:
            self._cache = runtime.begin(self.voice)
        if self._before_missed and window.start == 0:
            tokens = np.asarray([*self._before, *self.speech_tokens[: window.lookahead_stop]], np.int64)
            own_noise = noise.flow_noise(self.seed, 0, window.lookahead_stop * MEL_FRAMES_PER_TOKEN)
            rows = np.concatenate([self._noise_before(len(self._before)), own_noise])
            return CachedRow(tokens, len(self._before), rows, self._cache)
        if self._cached_tokens == window.start:
            return None
        self._cache.reset()
        start = max(0, window.start - runtime.context_tokens)
        return self._cached_row(start, window.start, window.lookahead_stop) if start < window.start else None

    def commit_missed(self, window: Window, row: CachedRow) -> None:
        """Accept the decoded context; its mel is not needed."""
        row.cache.commit(row.new_tokens)
        self._cached_tokens, self._before_missed = window.start, False

    def cached_row(self, window: Window) -> CachedRow:
        """The window's own tokens; earlier ones are in the cache."""
        self._commit_pending = True
        return self._cached_row(window.start, window.stop, window.lookahead_stop)

    def _cached_row(self, start: int, stop: int, lookahead_stop: int) -> CachedRow:
        assert self._cache is not None
        speech_tokens = np.asarray(self.speech_tokens[start:lookahead_stop], np.int64)
        frames = noise.flow_noise(self.seed, start * MEL_FRAMES_PER_TOKEN, len(speech_tokens) * MEL_FRAMES_PER_TOKEN)
        return CachedRow(speech_tokens, stop - start, frames, self._cache)

    def vocoder_row(self, window: Window, frames: F32) -> VocoderRow:
        """`frames` (n, 80): the flow's mel of the window's new tokens, then of its provisional ones."""
        self._guard.mel(window.index, frames)
        new_frames = (window.stop - window.start) * MEL_FRAMES_PER_TOKEN
        return self._vocoder.plan(frames[:new_frames], frames[new_frames:])

    def commit(self, window: Window, row: VocoderRow, waveform: F32, f0_hz: F32) -> F32:
        """Returns the window's final samples and keeps the state that the next window continues from."""
        frames = len(row.mel)
        waveform = waveform[: frames * MEL_HOP_SAMPLES]
        new = slice(row.left_frames * MEL_HOP_SAMPLES, (row.left_frames + row.new_frames) * MEL_HOP_SAMPLES)
        self._guard.samples(window.index, waveform[new], self.speech_tokens[window.start : window.stop])
        samples = self._vocoder.commit(row, waveform, f0_hz[:frames])
        assert len(samples) == window.new_samples
        if self._commit_pending:
            self._commit_cache(window)
        return samples

    def whole(self, window: Window, runtime: WaveformRuntime) -> F32:
        """The samples of a segment that is one window."""
        assert window.start == 0, "a WaveformRuntime takes whole segments"
        assert window.is_last, "a WaveformRuntime takes whole segments"
        samples = runtime.waveform(self.voice, np.asarray(self.speech_tokens, np.int64))
        self._guard.samples(window.index, samples, self.speech_tokens)
        return samples

    def _commit_cache(self, window: Window) -> None:
        assert self._cache is not None
        self._cache.commit(window.stop - window.start)
        self._cached_tokens, self._commit_pending = window.stop, False
        if window.is_last:
            self._cache = None


def decode_windows(
    runtime: Runtime | WaveformRuntime,
    work: Sequence[tuple[SegmentDecoder, Window]],
    on_stage: Callable[[str, float], None] = lambda stage, seconds: None,
) -> list[F32 | WindowRejected]:
    """Decode windows of different segments in one flow and one vocoder call. Returns the final samples of each.

    A row whose result a guard rejects gives its own WindowRejected and leaves its segment's state untouched. Other
    exceptions of the runtime concern the whole batch and propagate. `on_stage` receives the seconds of encoder, CFM
    and vocoder, or of flow and vocoder if the runtime cannot separate the flow's parts.
    """
    with beside_t3():
        return _decode(runtime, work, on_stage)


def _decode(
    runtime: Runtime | WaveformRuntime, work: Work, on_stage: Callable[[str, float], None]
) -> list[F32 | WindowRejected]:
    began_s = time.perf_counter()
    if isinstance(runtime, WaveformRuntime):
        samples = [_or_rejected(decoder.whole, window, runtime) for decoder, window in work]
        on_stage("waveform", time.perf_counter() - began_s)
        return samples
    cfm_before_s = runtime.cfm_s
    blocks = _decode_cached(runtime, work) if isinstance(runtime, CachedRuntime) else _decode_reference(runtime, work)
    _report_flow(on_stage, time.perf_counter() - began_s, cfm_before_s, runtime.cfm_s)
    planned = plan_vocoder(work, blocks)
    if (batch := vocoder_batch(planned)) is None:
        return commit_windows(work, planned, None)
    began_s = time.perf_counter()
    rendered = runtime.vocoder(batch)
    on_stage("vocoder", time.perf_counter() - began_s)
    return commit_windows(work, planned, rendered)


Work = Sequence[tuple[SegmentDecoder, Window]]
Planned = list[VocoderRow | WindowRejected]


def plan_vocoder(work: Work, blocks: Sequence[F32]) -> Planned:
    """The vocoder's row of each window, from the flow's mel; a window whose mel a guard rejects has none."""
    return [_or_rejected(d.vocoder_row, w, frames) for (d, w), frames in zip(work, blocks, strict=True)]


def vocoder_batch(planned: Planned) -> VocoderBatch | None:
    """The rows in one batch; None if there is none."""
    good = [row for row in planned if isinstance(row, VocoderRow)]
    return collate_vocoder(good) if good else None


def commit_windows(work: Work, planned: Planned, rendered: VocoderResult | None) -> list[F32 | WindowRejected]:
    """The final samples of each window, or why it was rejected; the segments' states go on."""
    waves = iter(()) if rendered is None else iter(zip(rendered.waveform, rendered.f0_hz, strict=True))
    return [
        row if isinstance(row, WindowRejected) else _or_rejected(decoder.commit, window, row, *next(waves))
        for (decoder, window), row in zip(work, planned, strict=True)
    ]


def _report_flow(
    on_stage: Callable[[str, float], None], flow_s: float, cfm_before_s: float | None, cfm_after_s: float | None
) -> None:
    """Report the flow's time in its two parts if they are known; laying out the batch counts as encoder."""
    if cfm_before_s is None or cfm_after_s is None:
        on_stage("flow", flow_s)
        return
    cfm_s = cfm_after_s - cfm_before_s
    on_stage("encoder", flow_s - cfm_s)
    on_stage("cfm", cfm_s)


def window_tokens(runtime: Runtime | WaveformRuntime, decoder: SegmentDecoder, window: Window) -> int:
    """How many tokens the window sends through the flow on this runtime: its shape in a batch."""
    if isinstance(runtime, CachedRuntime):
        return window.lookahead_stop - window.start
    return len(decoder.voice.s3gen_prompt_tokens) + len(decoder.before(window)) + window.tokens


def window_work(runtime: Runtime | WaveformRuntime, decoder: SegmentDecoder, window: Window) -> int:
    """The window's cost in tokens: those that go through the flow and those that go through the vocoder, which need
    about the same time each."""
    return window_tokens(runtime, decoder, window) + window.lookahead_stop - window.start


def _decode_reference(runtime: Runtime, work: Sequence[tuple[SegmentDecoder, Window]]) -> list[F32]:
    """Mel of each window's new and provisional tokens."""
    return blocks_of(work, runtime.flow(reference_batch(work)))


def reference_batch(work: Work) -> FlowBatch:
    """The windows in one batch, prompt and context included."""
    return collate_flow([decoder.flow_row(window) for decoder, window in work])


def blocks_of(work: Work, mel: F32) -> list[F32]:
    """The new and provisional tokens' part of each row of `reference_batch`'s result."""
    return [decoder.block_of(window, row) for (decoder, window), row in zip(work, mel, strict=True)]


def _decode_cached(runtime: CachedRuntime, work: Sequence[tuple[SegmentDecoder, Window]]) -> list[F32]:
    """As `_decode_reference`, with the earlier tokens taken from the caches."""
    missed = [(d, window, row) for d, window in work if (row := d.missed_row(window, runtime)) is not None]
    if missed:
        runtime.flow_cached(collate_cached([row for *_, row in missed]))
        for decoder, window, row in missed:
            decoder.commit_missed(window, row)
    rows = [decoder.cached_row(window) for decoder, window in work]
    mel = runtime.flow_cached(collate_cached(rows))
    return [row_mel[: len(row.noise)] for row, row_mel in zip(rows, mel, strict=True)]


def _or_rejected(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | WindowRejected:
    try:
        return call(*args, **kwargs)
    except WindowRejected as rejected:
        return rejected


def collate_flow(rows: Sequence[FlowRow]) -> FlowBatch:
    """Pad rows to the longest; each stays packed [prompt, window, pad]."""
    longest = max(len(row.tokens) for row in rows)
    frames = longest * MEL_FRAMES_PER_TOKEN
    batch = FlowBatch(
        tokens=np.zeros((len(rows), longest), np.int64),
        token_lengths=np.array([len(row.tokens) for row in rows], np.int64),
        prompt_mel=np.zeros((len(rows), frames, MEL_BANDS), np.float32),
        noise=np.zeros((len(rows), frames, MEL_BANDS), np.float32),
        x_vector=np.stack([row.voice.x_vector for row in rows]),
    )
    for i, row in enumerate(rows):
        batch.tokens[i, : len(row.tokens)] = row.tokens
        batch.prompt_mel[i, : len(row.voice.s3gen_prompt_mel)] = row.voice.s3gen_prompt_mel
        batch.noise[i, : len(row.noise)] = row.noise
    return batch


def collate_cached(rows: Sequence[CachedRow]) -> CachedFlowBatch:
    """Pad rows to the longest on the right."""
    longest = max(len(row.tokens) for row in rows)
    batch = CachedFlowBatch(
        tokens=np.zeros((len(rows), longest), np.int64),
        token_lengths=np.array([len(row.tokens) for row in rows], np.int64),
        new_tokens=np.array([row.new_tokens for row in rows], np.int64),
        noise=np.zeros((len(rows), longest * MEL_FRAMES_PER_TOKEN, MEL_BANDS), np.float32),
        caches=[row.cache for row in rows],
    )
    for i, row in enumerate(rows):
        batch.tokens[i, : len(row.tokens)] = row.tokens
        batch.noise[i, : len(row.noise)] = row.noise
    return batch


def collate_vocoder(rows: Sequence[VocoderRow]) -> VocoderBatch:
    """Pad rows to the longest on the right."""
    longest = max(len(row.mel) for row in rows)
    batch = VocoderBatch(
        mel=np.zeros((len(rows), longest, MEL_BANDS), np.float32),
        lengths=np.array([len(row.mel) for row in rows], np.int64),
        fixed_f0_hz=np.zeros((len(rows), longest), np.float32),
        fixed_frames=np.array([row.left_frames for row in rows], np.int64),
        phase_cycles=np.array([row.phase_cycles for row in rows], np.float32),
        harmonic_cycles=np.stack([row.harmonic_cycles for row in rows]),
        noise=np.zeros((len(rows), longest * MEL_HOP_SAMPLES), np.float32),
        margins=(min(row.left_frames for row in rows), min(row.right_frames for row in rows)),
    )
    for i, row in enumerate(rows):
        batch.mel[i, : len(row.mel)] = row.mel
        batch.fixed_f0_hz[i, : row.left_frames] = row.fixed_f0_hz
        batch.noise[i, : len(row.noise)] = row.noise
    return batch
