"""The parity check: a runtime's results against a trusted runtime's on this machine, before the first stream.

An engine can build, load, run and still compute something else (e.g. a transient, then silence), so every runtime is
compared before it serves.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engines.cuda_faults import DeviceLost, is_sticky
from engines.errors import CheckpointError, EngineError, InvalidInput
from engines.model_spec import (
    MEL_BANDS,
    MEL_FRAMES_PER_TOKEN,
    MEL_HOP_SAMPLES,
    SPEAKER_EMBEDDING_DIM,
    SPEECH_CODES,
    X_VECTOR_DIM,
)
from engines.s3gen.export.check import ENERGY_TOLERANCE_DB, TOLERANCE, energy_error_db, frame_error
from engines.s3gen.nets.source import HARMONICS
from engines.s3gen.runtime import F32, CachedFlowBatch, CachedRuntime, FlowBatch, Runtime, VocoderBatch
from engines.voice import Voice

Compositions = Sequence[Sequence[int]]

_log = logging.getLogger(__name__)
# (prompt + window) tokens of each row: alone, full, mixed. Short, because a server's start waits for it.
COMPOSITIONS = ((60,), (40, 40), (64, 26, 45))
# On a GPU other sizes run other kernels and other graphs. These reach every bucket of buckets.py, replay graphs of one,
# two and four rows, and go from one size to another and back.
GPU_COMPOSITIONS = (*COMPOSITIONS, (263,), (328, 301), (301, 250, 328), (410,), (146, 150))
# The largest calls, once each: memory that is short shows here and not under load.
LARGEST_COMPOSITIONS = ((360,) * 16, (507,) * 16, (1300,))
# A graph runs eagerly, is captured and is replayed, in each buffer in turn: enough rounds that all of that is compared.
GPU_ROUNDS = 6
_PROMPT_TOKENS = 20
_MAX_VOCODER_FRAMES = 2 * 1003 + 34  # of the longest segment, with the context at both ends
_MOST_STREAMS = 3
_BLOCKS = ((10, 3), (16, 3), (5, 0))  # new and provisional tokens


class RuntimeRefused(EngineError):
    """A runtime could not be made or failed its parity check; the message says why."""

    reason: str = "RUNTIME_REFUSED"


@dataclass(frozen=True)
class ParityReport:
    """The worst over all compositions and both graphs."""

    frame_error: float
    energy_db: float
    finite: bool
    precision: str

    @property
    def passed(self) -> bool:
        close = self.frame_error <= TOLERANCE[self.precision] and self.energy_db <= ENERGY_TOLERANCE_DB
        return self.finite and close

    def __str__(self) -> str:
        if not self.finite:
            return "it gives NaN or infinity"
        return (
            f"its worst frame is off by {self.frame_error:.2g} (allowed {TOLERANCE[self.precision]:.2g}), its level by "
            f"{self.energy_db:.2g} dB (allowed {ENERGY_TOLERANCE_DB})"
        )


def validate(
    candidate: Runtime,
    trusted: Runtime,
    *,
    precision: str,
    compositions: Compositions = COMPOSITIONS,
    rounds: int = 1,
    once: Compositions = (),
) -> ParityReport:
    """Compare both runtimes on the same batches: alone, full and mixed rows, and, if both decode block by block, a
    stream's blocks.

    All `compositions` follow each other `rounds` times, with new numbers each time; those of `once` come in the middle.
    """
    errors, energies = [0.0], [0.0]
    finite = True
    turns = [list(compositions) for _ in range(rounds)]
    turns[rounds // 2] += once
    order = [lengths for turn in turns for lengths in turn]

    def results() -> Iterator[Iterable[tuple[F32, F32]]]:
        for seed, lengths in enumerate(order):
            yield _results(candidate, trusted, lengths, seed)
        if isinstance(candidate, CachedRuntime) and isinstance(trusted, CachedRuntime):
            for seed in range(rounds):  # one stream, then several of one voice in a call
                streams = 1 + seed % _MOST_STREAMS
                yield zip(_streams(candidate, streams, seed), _streams(trusted, streams, seed), strict=True)

    for pairs in results():
        for ours, theirs in pairs:
            finite = finite and bool(np.isfinite(ours).all())
            errors.append(frame_error(ours, theirs))
            energies.append(energy_error_db(ours, theirs))
    return ParityReport(max(errors), max(energies), finite, precision)


def _results(candidate: Runtime, trusted: Runtime, lengths: Sequence[int], seed: int) -> list[tuple[F32, F32]]:
    """Pairs of (frames, values): every row's mel, then every row's waveform from the trusted mel and f0."""
    flow = _flow_batch(lengths, seed)
    ours, theirs = candidate.flow(flow), trusted.flow(flow)
    frames = [length * MEL_FRAMES_PER_TOKEN for length in lengths]
    pairs = [(ours[row, :end], theirs[row, :end]) for row, end in enumerate(frames)]
    frames = [min(count, _MAX_VOCODER_FRAMES) for count in frames]  # unlike the flow, it never sees the prompt
    vocoder = _vocoder_batch(theirs[:, : max(frames)], frames, seed)
    wave, trusted_wave = candidate.vocoder(vocoder).waveform, trusted.vocoder(vocoder).waveform
    for row, end in enumerate(frames):
        a, b = (w[row, : end * MEL_HOP_SAMPLES].reshape(end, MEL_HOP_SAMPLES) for w in (wave, trusted_wave))
        pairs.append((a, b))
    return pairs


def _streams(runtime: CachedRuntime, streams: int, seed: int) -> Iterator[F32]:
    """Mel of the blocks of streams that share calls, which together fit the context."""
    rng = np.random.default_rng(seed)
    voice = Voice(
        name="parity check",
        speaker_embedding=np.zeros(SPEAKER_EMBEDDING_DIM, np.float32),
        t3_prompt_tokens=np.zeros(1, np.int64),
        s3gen_prompt_tokens=rng.integers(0, SPEECH_CODES, _PROMPT_TOKENS),
        s3gen_prompt_mel=rng.normal(-5, 2, (_PROMPT_TOKENS * MEL_FRAMES_PER_TOKEN, MEL_BANDS)).astype(np.float32),
        x_vector=rng.standard_normal(X_VECTOR_DIM, np.float32),
    )
    caches = [runtime.begin(voice) for _ in range(streams)]
    for new, provisional in _BLOCKS:
        tokens = new + provisional
        noise = rng.standard_normal((streams, tokens * MEL_FRAMES_PER_TOKEN, MEL_BANDS), np.float32)
        speech_tokens = rng.integers(0, SPEECH_CODES, (streams, tokens))
        lengths, new_tokens = np.full(streams, tokens), np.full(streams, new)
        yield from runtime.flow_cached(CachedFlowBatch(speech_tokens, lengths, new_tokens, noise, caches))
        for cache in caches:
            cache.commit(new)


def _flow_batch(lengths: Sequence[int], seed: int) -> FlowBatch:
    rng = np.random.default_rng(seed)
    rows, most = len(lengths), max(lengths)
    valid = np.arange(most) < np.array(lengths)[:, None]
    in_frames = np.repeat(valid, MEL_FRAMES_PER_TOKEN, axis=1)[..., None]
    frames = most * MEL_FRAMES_PER_TOKEN
    prompt_mel = np.zeros((rows, frames, MEL_BANDS), np.float32)
    prompt = _PROMPT_TOKENS * MEL_FRAMES_PER_TOKEN
    prompt_mel[:, :prompt] = rng.standard_normal((rows, prompt, MEL_BANDS)) * 2 - 5
    return FlowBatch(
        tokens=rng.integers(0, SPEECH_CODES, (rows, most)) * valid,
        token_lengths=np.array(lengths, np.int64),
        prompt_mel=prompt_mel,
        noise=rng.standard_normal((rows, frames, MEL_BANDS), np.float32) * in_frames,
        x_vector=rng.standard_normal((rows, X_VECTOR_DIM), np.float32),
    )


def _vocoder_batch(mel: F32, frames: Sequence[int], seed: int) -> VocoderBatch:
    """f0 is fixed throughout; check.py says why waveforms are compared at the same f0."""
    rng = np.random.default_rng(seed)
    rows, most = mel.shape[:2]
    return VocoderBatch(
        mel=mel,
        lengths=np.array(frames, np.int64),
        fixed_f0_hz=rng.uniform(0, 300, (rows, most)).astype(np.float32),
        fixed_frames=np.array(frames, np.int64),
        phase_cycles=rng.random(rows, np.float32),
        harmonic_cycles=rng.random((rows, HARMONICS), np.float32),
        noise=rng.standard_normal((rows, most * MEL_HOP_SAMPLES), np.float32),
    )


@dataclass(frozen=True)
class Candidate:
    """A runtime to try, and the trusted one that it is compared with (None: it needs no check)."""

    name: str
    make: Callable[[], Runtime]
    trusted: Callable[[], Runtime] | None = None
    precision: str = "fp32"
    compositions: Compositions = COMPOSITIONS
    rounds: int = 1
    once: Compositions = ()


def select_first_valid(
    candidates: Sequence[Candidate],
    *,
    strict: bool = False,
    on_refusal: Callable[[str, str], None] = lambda name, why: None,
) -> Runtime:
    """Returns the first candidate that can be made and agrees with its trusted runtime.

    Every refusal is one line in the log and one call of `on_refusal` (name, reason), for a metric. Raises
    RuntimeRefused if no candidate is left, or, with `strict`, at the first refusal; InvalidInput and CheckpointError at
    once, because no other runtime would be right.
    """
    why = "there is no candidate"
    for candidate in candidates:
        outcome = _try(candidate)
        if not isinstance(outcome, str):
            return outcome
        why = f"S3Gen on {candidate.name} {outcome}"
        if strict:
            raise RuntimeRefused(why)
        _log.error("%s; falling back to the next runtime", why)
        on_refusal(candidate.name, outcome)
    raise RuntimeRefused(f"no S3Gen runtime is left: {why}")


def _try(candidate: Candidate) -> Runtime | str:
    """The runtime, or the reason why it may not serve."""
    try:
        runtime = candidate.make()
        if candidate.trusted is None:
            return runtime
        report = validate(
            runtime,
            candidate.trusted(),
            precision=candidate.precision,
            compositions=candidate.compositions,
            rounds=candidate.rounds,
            once=candidate.once,
        )
    except (InvalidInput, CheckpointError):
        raise
    except Exception as error:  # a library's own, out of memory included
        if is_sticky(error):
            raise DeviceLost(f"The GPU failed while S3Gen on {candidate.name} was checked: {error}") from error
        if isinstance(error, EngineError):
            return f"cannot be used: {error}"
        _log.debug("S3Gen on %s failed", candidate.name, exc_info=True)
        return f"cannot be used: {type(error).__name__}: {error}"
    if not report.passed:
        return f"failed its parity check: {report}"
    _log.info("S3Gen on %s passed its parity check: %s", candidate.name, report)
    return runtime
