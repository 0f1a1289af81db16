"""One segment between tokens and samples: what goes into each window's two calls and what is kept of them.

Holds the segment's speech tokens and the vocoder's carried state; decides nothing about when (windows.py) or with
whom (batcher.py). Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np

from engines.config import MEL_BANDS, MEL_FRAMES_PER_TOKEN, MEL_HOP_SAMPLES
from engines.s3gen import noise
from engines.s3gen.guards import Guard, WindowRejected
from engines.s3gen.noise import F32
from engines.s3gen.runtime import I64, FlowBatch, Runtime, VocoderBatch
from engines.s3gen.vocoder_stream import VocoderRow, VocoderStream
from engines.s3gen.windows import Window
from engines.voice.voice import Voice

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class FlowRow:
    """One row of a FlowBatch, unpadded; N tokens, prompt first."""

    tokens: I64  # (N,)
    noise: F32  # (2N, 80)
    voice: Voice


class SegmentDecoder:
    """State of one segment; used by one window at a time."""

    def __init__(self, voice: Voice, seed: int) -> None:
        self.voice = voice
        self.seed = seed
        self.codes: list[int] = []
        self._vocoder = VocoderStream(seed)
        self._guard = Guard()
        self._prompt_noise = noise.prompt_noise(seed, len(voice.s3gen_prompt_mel))

    def flow_row(self, window: Window) -> FlowRow:
        codes = np.asarray(self.codes[window.context_start : window.lookahead_stop], np.int64)
        frames = len(codes) * MEL_FRAMES_PER_TOKEN
        return FlowRow(
            tokens=np.concatenate([self.voice.s3gen_prompt_tokens, codes]),
            noise=np.concatenate([self._prompt_noise, noise.flow_noise(self.seed, window.first_frame, frames)]),
            voice=self.voice,
        )

    def vocoder_row(self, window: Window, mel: F32) -> VocoderRow:
        """`mel` (2N, 80) is the flow's row, prompt included."""
        frames = mel[len(self.voice.s3gen_prompt_mel) :][: window.tokens * MEL_FRAMES_PER_TOKEN]
        self._guard.mel(window.index, frames)
        return self._vocoder.plan(frames[window.new_frames], frames[window.new_frames.stop :])

    def commit(self, window: Window, row: VocoderRow, waveform: F32, f0_hz: F32) -> F32:
        """The window's final samples; from here on they are history."""
        frames = len(row.mel)
        waveform = waveform[: frames * MEL_HOP_SAMPLES]
        new = slice(row.left_frames * MEL_HOP_SAMPLES, (row.left_frames + row.new_frames) * MEL_HOP_SAMPLES)
        self._guard.samples(window.index, waveform[new], self.codes[window.start : window.stop])
        samples = self._vocoder.commit(row, waveform, f0_hz[:frames])
        assert len(samples) == window.new_samples
        return samples


def decode_windows(runtime: Runtime, work: Sequence[tuple[SegmentDecoder, Window]]) -> list[F32 | WindowRejected]:
    """Decode windows of different segments in one flow and one vocoder call: final samples of each.

    A row whose result a guard rejects gives its own WindowRejected and leaves its segment's state untouched.
    Anything else that the runtime raises concerns the whole batch and passes through.
    """
    mel = runtime.flow(collate_flow([decoder.flow_row(window) for decoder, window in work]))
    planned = [_or_rejected(d.vocoder_row, w, row_mel) for (d, w), row_mel in zip(work, mel, strict=True)]
    good = [row for row in planned if isinstance(row, VocoderRow)]
    if not good:
        return [row for row in planned if isinstance(row, WindowRejected)]
    rendered = runtime.vocoder(collate_vocoder(good))
    waves = iter(zip(rendered.waveform, rendered.f0_hz, strict=True))
    return [
        row if isinstance(row, WindowRejected) else _or_rejected(decoder.commit, window, row, *next(waves))
        for (decoder, window), row in zip(work, planned, strict=True)
    ]


def _or_rejected(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | WindowRejected:
    try:
        return call(*args, **kwargs)
    except WindowRejected as rejected:
        return rejected


def collate_flow(rows: Sequence[FlowRow]) -> FlowBatch:
    """Pad rows to the longest; each stays packed [prompt, window, pad]."""
    most = max(len(row.tokens) for row in rows)
    frames = most * MEL_FRAMES_PER_TOKEN
    batch = FlowBatch(
        tokens=np.zeros((len(rows), most), np.int64),
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


def collate_vocoder(rows: Sequence[VocoderRow]) -> VocoderBatch:
    """Pad rows to the longest on the right."""
    most = max(len(row.mel) for row in rows)
    batch = VocoderBatch(
        mel=np.zeros((len(rows), most, MEL_BANDS), np.float32),
        lengths=np.array([len(row.mel) for row in rows], np.int64),
        fixed_f0_hz=np.zeros((len(rows), most), np.float32),
        fixed_frames=np.array([row.left_frames for row in rows], np.int64),
        phase_cycles=np.array([row.phase_cycles for row in rows], np.float32),
        harmonic_cycles=np.stack([row.harmonic_cycles for row in rows]),
        noise=np.zeros((len(rows), most * MEL_HOP_SAMPLES), np.float32),
    )
    for i, row in enumerate(rows):
        batch.mel[i, : len(row.mel)] = row.mel
        batch.fixed_f0_hz[i, : row.left_frames] = row.fixed_f0_hz
        batch.noise[i, : len(row.noise)] = row.noise
    return batch
