"""The vocoder's state between the windows of one segment, so that they join without seams.

The vocoder's reach is finite (14 frames each way once its source is fixed), so a window with that much context
renders exactly what one pass would. f0 is frozen once a frame was emitted, and the source's phase is carried by
absolute frame. If the right context is provisional mel, neighbouring windows differ a little: the join is a short
crossfade between the two renderings of the same samples. Numpy only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from engines.model_spec import MEL_BANDS, MEL_HOP_SAMPLES, SAMPLE_RATE_HZ
from engines.s3gen import noise
from engines.s3gen.noise import F32

VOCODER_CONTEXT_FRAMES = 14
CROSSFADE_SAMPLES = SAMPLE_RATE_HZ * 5 // 1000
assert CROSSFADE_SAMPLES <= MEL_HOP_SAMPLES
_FADE_IN = np.linspace(0.0, 1.0, CROSSFADE_SAMPLES + 2, dtype=np.float32)[1:-1]
_OPENING_SAMPLES = SAMPLE_RATE_HZ // 50  # upstream's trim_fade: 20 ms silent, then 20 ms of raised cosine
_OPENING = np.concatenate(
    [np.zeros(_OPENING_SAMPLES), (np.cos(np.linspace(np.pi, 0.0, _OPENING_SAMPLES)) + 1) / 2]
).astype(np.float32)


@dataclass(frozen=True)
class VocoderRow:
    """One row of a VocoderBatch: frames [left context, new, right context]; shapes as there, without the batch."""

    mel: F32  # (T, 80)
    fixed_f0_hz: F32  # (left,)
    phase_cycles: float
    harmonic_cycles: F32  # (9,)
    noise: F32  # (480 T,)
    new_frames: int

    @property
    def left_frames(self) -> int:
        return len(self.fixed_f0_hz)

    @property
    def right_frames(self) -> int:
        """Frames of the right context that are never played: all but the first, which holds the crossfade's samples."""
        return max(0, len(self.mel) - self.left_frames - self.new_frames - 1)


@dataclass
class VocoderStream:
    """The carried state: a tail of final mel, its frozen f0, the phase at its start, and the samples to fade from.

    `plan` a row, render it, `commit` the result.
    """

    seed: int
    emitted_frames: int = 0
    _mel: F32 = field(default_factory=lambda: np.zeros((0, MEL_BANDS), np.float32))
    _f0_hz: F32 = field(default_factory=lambda: np.zeros(0, np.float32))
    _phase_cycles: float = 0.0  # at the tail's first frame
    _overlap: F32 = field(default_factory=lambda: np.zeros(0, np.float32))

    def plan(self, new_mel: F32, right_mel: F32) -> VocoderRow:
        """Returns the row that renders `new_mel` (n, 80); `right_mel` (r, 80) follows it, r = 0 at the segment's end.

        The state does not change, so a failed call may be planned again.
        """
        mel = np.concatenate([self._mel, new_mel, right_mel[:VOCODER_CONTEXT_FRAMES]])
        first_sample = (self.emitted_frames - len(self._mel)) * MEL_HOP_SAMPLES
        return VocoderRow(
            mel=mel,
            fixed_f0_hz=self._f0_hz,
            phase_cycles=self._phase_cycles,
            harmonic_cycles=noise.harmonic_cycles(self.seed),
            noise=noise.excitation_noise(self.seed, first_sample, len(mel) * MEL_HOP_SAMPLES),
            new_frames=len(new_mel),
        )

    def commit(self, row: VocoderRow, waveform: F32, f0_hz: F32) -> F32:
        """Accept the rendering of `row` (480 T,) and its f0 (T,). Returns the new frames' final samples (480 n,)."""
        start, stop = row.left_frames, row.left_frames + row.new_frames
        samples = waveform[start * MEL_HOP_SAMPLES : stop * MEL_HOP_SAMPLES].copy()
        self._join(samples)
        self._overlap = waveform[stop * MEL_HOP_SAMPLES :][:CROSSFADE_SAMPLES].copy()
        self._keep_tail(row.mel[:stop], f0_hz[:stop])
        self.emitted_frames += row.new_frames
        return samples

    def _join(self, samples: F32) -> None:
        if self.emitted_frames == 0:
            head = samples[: len(_OPENING)]
            head *= _OPENING[: len(head)]
            return
        n = min(len(self._overlap), len(samples))
        fade_in = _FADE_IN[:n]
        samples[:n] = samples[:n] * fade_in + self._overlap[:n] * (1 - fade_in)

    def _keep_tail(self, mel: F32, f0_hz: F32) -> None:
        dropped = max(0, len(mel) - VOCODER_CONTEXT_FRAMES)
        # float64: hours of speech stay exact to far below a sample
        advance = f0_hz[:dropped].astype(np.float64) * MEL_HOP_SAMPLES / SAMPLE_RATE_HZ
        self._phase_cycles = float((self._phase_cycles + advance.sum()) % 1.0)
        self._mel, self._f0_hz = mel[dropped:].copy(), f0_hz[dropped:].copy()
