"""Runs T3 and S3Gen separately, so that the same speech tokens can be decoded in different ways and compared."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engines.conditioning.mel import prompt_mel
from engines.config import Sampling
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline
from engines.s3gen.runtime import Runtime
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep
from engines.s3gen.streaming.segment_decoder import SegmentDecoder, decode_windows
from engines.s3gen.streaming.windows import WindowPlanner
from engines.t3.backend import T3Backend, T3Request
from engines.voice import Voice

F32 = npt.NDArray[np.float32]
OFFLINE = Schedule("offline", (ScheduleStep(10_000),), 0)
_SEED = 1


@dataclass(frozen=True)
class Rendering:
    """A decoded sentence: its samples, the positions of the windows' joins, and the seconds of decoding."""

    samples: F32
    joins: list[int]
    decode_s: float

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


async def speech_tokens_of(t3: T3Backend, engine: Pipeline, texts: Sequence[str], voice: Voice) -> list[list[int]]:
    """Returns the speech tokens of each text with default sampling, including the closing silence."""
    results = []
    for text in texts:
        generation = t3.start(T3Request(engine.stages.encode_text(text), voice, Sampling(seed=_SEED)))
        speech_tokens: list[int] = []
        while tokens := await generation.next_speech_tokens():
            speech_tokens += tokens
        assert not generation.hit_token_limit, f"T3 did not stop after {text!r}"
        results.append(speech_tokens)
    return results


def render(runtime: Runtime, speech_tokens: Sequence[int], voice: Voice, schedule: Schedule) -> Rendering:
    """Decode the tokens in the windows of a stream whose T3 is always ahead."""
    decoder, planner = SegmentDecoder(voice, _SEED), WindowPlanner(schedule)
    decoder.speech_tokens = list(speech_tokens)
    pieces: list[F32] = []
    joins: list[int] = []
    start_s = time.perf_counter()
    while (window := planner.next(len(speech_tokens), True)) is not None:
        (samples,) = decode_windows(runtime, [(decoder, window)])
        if isinstance(samples, Exception):
            raise samples
        joins.append(sum(map(len, pieces)))
        pieces.append(samples)
    return Rendering(np.concatenate(pieces), joins[1:], time.perf_counter() - start_s)


def mel_distance(ours: F32, theirs: F32) -> float:
    """The mean absolute difference of log-mel magnitudes (natural log)."""
    return float(np.abs(prompt_mel(ours) - prompt_mel(theirs)).mean())
