"""The interface of S3Gen's runtimes, which execute flow and vocoder on batches of windows.

Rows are windows of different streams. All randomness and all carried state are inputs, so a row's result does not
depend on the other rows beyond float rounding. Arrays are numpy, on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    tokens         (B, N) int64 speech tokens, 0 in the pad
    token_lengths  (B,) int64, prompt + window, at most N
    prompt_mel     (B, 2N, 80) float32: the voice's mel in the prompt's frames, zero elsewhere
    noise          (B, 2N, 80) float32 standard normal, the flow's starting point, prompt included
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
    fixed_f0_hz      (B, T) float32: f0 of the leading frames, fixed by earlier windows
    fixed_frames     (B,) int64: the number of those frames
    phase_cycles     (B,) float32 in [0, 1): phase of the fundamental at the start of the window's first frame
    harmonic_cycles  (B, 9) float32: constant phase offset of each harmonic, 0 for the fundamental
    noise            (B, 480 T) float32 standard normal, the merged excitation noise per sample
    margins          frames at every row's left and right end that are context only: their waveform is not needed
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
    the f0 that was used, fixed or predicted."""

    waveform: F32
    f0_hz: F32


class Runtime(Protocol):
    """Executes flow and vocoder. Called from one worker thread at a time."""

    name: str  # for people and metrics: "torch", "onnx", "tensorrt"

    @property
    def cfm_s(self) -> float | None:
        """Total seconds of the CFM in all calls of `flow` and `flow_cached`; the rest of them was the encoder.

        None if the two cannot be separated, e.g. on a GPU, which runs them as one kernel or asynchronously.
        """
        ...

    def flow(self, batch: FlowBatch) -> F32:
        """All Euler steps: mel (B, 2N, 80) float32, prompt frames included, zero in the pad."""
        ...

    def vocoder(self, batch: VocoderBatch) -> VocoderResult: ...


@runtime_checkable
class SubmittingRuntime(Runtime, Protocol):
    """A runtime whose calls can be started and waited for later; two of each kind may be in flight."""

    def submit_flow(self, batch: FlowBatch) -> Callable[[], F32]:
        """Start `flow`. Returns a function that waits for its result."""
        ...

    def submit_vocoder(self, batch: VocoderBatch) -> Callable[[], VocoderResult]:
        """Start `vocoder`. Returns a function that waits for its result."""
        ...


@runtime_checkable
class WaveformRuntime(Protocol):
    """A runtime that turns whole segments into samples, without windows and with randomness of its own."""

    name: str

    def waveform(self, voice: Voice, speech_tokens: I64) -> F32:
        """Samples of a segment's speech tokens, 960 each."""
        ...


class FlowCache(Protocol):
    """The state behind one segment's finished tokens, after the voice's prompt, which its streams share.

    Its size does not depend on the length of the segment. Used from the runtime's thread.
    """

    @property
    def nbytes(self) -> int:
        """Its own memory, without the shared prompt's."""
        ...

    def commit(self, new_tokens: int) -> None:
        """Accept the last `flow_cached` result: its first `new_tokens` tokens join the cache."""
        ...

    def reset(self) -> None:
        """Drop everything but the prompt."""
        ...


@dataclass(frozen=True)
class CachedFlowBatch:
    """Blocks of tokens to mel, each behind the tokens of its cache. Rows are packed [new, provisional, pad].

    tokens         (B, M) int64 speech tokens, 0 in the pad
    token_lengths  (B,) int64 new + provisional, at most M
    new_tokens     (B,) int64, at least 1: tokens that may join the cache; the rest is seen in this call only
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
    """A runtime that also decodes the flow block by block."""

    @property
    def reference(self) -> Runtime:
        """The same nets without caches."""
        ...

    @property
    def context_tokens(self) -> int:
        """How many finished tokens a cache holds besides the prompt."""
        ...

    @property
    def cache_bytes(self) -> int:
        """All memory of caches and prompts now."""
        ...

    def begin(self, voice: Voice) -> FlowCache:
        """An empty cache behind the voice's prompt, which is computed unless another stream of the voice has it."""
        ...

    def flow_cached(self, batch: CachedFlowBatch) -> F32:
        """Mel of the blocks (B, 2M, 80) float32, zero in the pad. Caches change only in `commit`, so a block may be
        decoded again."""
        ...
