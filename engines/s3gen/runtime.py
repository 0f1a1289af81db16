"""What an S3Gen runtime is: it executes the two graphs, flow and vocoder, on batches of windows.

Rows are windows of different streams. All randomness and all carried state are inputs, so a row's result does
not depend on its companions beyond float rounding. Arrays are host numpy; a runtime moves them as it needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from engines.voice import Voice

F32 = npt.NDArray[np.float32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class FlowBatch:
    """Speech tokens to mel. Each row is packed [prompt, window, pad].

    tokens         (B, N) int64 speech codes, 0 in the pad
    token_lengths  (B,) int64, prompt + window, at most N
    prompt_mel     (B, 2N, 80) float32: the voice's mel over the prompt's frames, zero everywhere else
    noise          (B, 2N, 80) float32 standard normal, the flow's starting point, for prompt and window alike
    x_vector       (B, 192) float32
    """

    tokens: I64
    token_lengths: I64
    prompt_mel: F32
    noise: F32
    x_vector: F32


@dataclass(frozen=True)
class VocoderBatch:
    """Mel to waveform over a window of frames, its source continued from where an earlier window stopped.

    mel              (B, T, 80) float32 log-mel, zero in the pad
    lengths          (B,) int64 frames, at most T
    fixed_f0_hz      (B, T) float32: f0 of the leading frames that were settled by earlier windows
    fixed_frames     (B,) int64: how many leading frames of `fixed_f0_hz` hold
    phase_cycles     (B,) float32 in [0, 1): phase of the fundamental at the start of the window's first frame
    harmonic_cycles  (B, 9) float32: constant phase offset of each harmonic, 0 for the fundamental
    noise            (B, 480 T) float32 standard normal, the merged excitation noise per sample
    margins          how many frames at every row's left and right end are context alone: nobody asks for their waveform
    """

    mel: F32
    lengths: I64
    fixed_f0_hz: F32
    fixed_frames: I64
    phase_cycles: F32
    harmonic_cycles: F32
    noise: F32
    margins: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class VocoderResult:
    """waveform (B, 480 T) float32, undefined within the margins and after a row's length; f0_hz (B, T) float32:
    the f0 that was used (the fixed one where it was fixed, the predicted one elsewhere)."""

    waveform: F32
    f0_hz: F32


class Runtime(Protocol):
    """Executes S3Gen's graphs. Called from one worker thread at a time."""

    name: str  # for people and metrics: "torch", "onnx", "tensorrt"

    @property
    def cfm_s(self) -> float | None:
        """Seconds that all its calls of the flow, the cached one too, have spent in the CFM; the rest was the encoder.

        None where that cannot be told: a GPU runs both as one piece, or goes on while the host has left them.
        """
        ...

    def flow(self, batch: FlowBatch) -> F32:
        """Both Euler steps: mel (B, 2N, 80) float32, prompt frames included, zero in the pad."""
        ...

    def vocoder(self, batch: VocoderBatch) -> VocoderResult: ...


@runtime_checkable
class WaveformRuntime(Protocol):
    """A runtime that turns whole segments into samples at once and knows no windows; its randomness is its own."""

    name: str

    def waveform(self, voice: Voice, speech_tokens: I64) -> F32:
        """Samples of a segment's speech tokens, 960 each."""
        ...


class FlowCache(Protocol):
    """What one segment's finished tokens left for those that follow; the voice's prompt is shared behind it.

    Bounded whatever the length of the segment. Used from the runtime's thread.
    """

    @property
    def nbytes(self) -> int:
        """Memory of its own: the prompt's, which all streams of the voice share, is not counted here."""
        ...

    def commit(self, new_tokens: int) -> None:
        """The last `flow_cached` call that this cache took part in stands; it had so many new tokens."""
        ...

    def reset(self) -> None:
        """Forget everything but the prompt."""
        ...


@dataclass(frozen=True)
class CachedFlowBatch:
    """Blocks of tokens to mel, each after what its cache remembers. Rows are packed [new, provisional, pad].

    tokens         (B, M) int64 speech codes, 0 in the pad
    token_lengths  (B,) int64 new + provisional, at most M
    new_tokens     (B,) int64, at least 1: what the cache may remember; the rest is seen in this call only
    noise          (B, 2M, 80) float32 standard normal
    caches         one per row, all different
    """

    tokens: I64
    token_lengths: I64
    new_tokens: I64
    noise: F32
    caches: Sequence[FlowCache]


@runtime_checkable
class CachedRuntime(Runtime, Protocol):
    """A runtime that also decodes the flow block by block. Who has one decodes so; `reference` does not."""

    @property
    def reference(self) -> Runtime:
        """The same nets without caches."""
        ...

    @property
    def context_tokens(self) -> int:
        """How many finished tokens a cache remembers besides the prompt."""
        ...

    @property
    def cache_bytes(self) -> int:
        """All memory that caches and prompts hold now."""
        ...

    def begin(self, voice: Voice) -> FlowCache:
        """An empty cache behind the voice's prompt, which is computed if no other stream of the voice needed it."""
        ...

    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        """Mel of the blocks (B, 2M, 80) float32, zero in the pad. Nothing is remembered until `commit`, so a block
        may be decoded again."""
        ...
