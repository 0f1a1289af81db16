"""Sentences through T3 and through S3Gen in any plan of windows, with where they were joined and what they cost.

Knows the engine's stages one by one, so that one set of speech codes can be rendered in many ways and compared.
"""

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
    """A sentence's samples, the samples at which windows met, and the seconds that decoding took."""

    samples: F32
    joins: list[int]
    decode_s: float

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


async def codes_of(t3: T3Backend, engine: Pipeline, texts: Sequence[str], voice: Voice) -> list[list[int]]:
    """Speech codes of each text at the default sampling, the closing silence included; all at once."""
    made = []
    for text in texts:
        generation = t3.start(T3Request(engine.stages.encode_text(text), voice, Sampling(seed=_SEED)))
        codes: list[int] = []
        while some := await generation.next_speech_tokens():
            codes += some
        assert not generation.hit_token_limit, f"T3 did not come to an end of {text!r}"
        made.append(codes)
    return made


def render(runtime: Runtime, codes: Sequence[int], voice: Voice, schedule: Schedule) -> Rendering:
    """`codes` in windows as a stream that is never short of tokens decodes them."""
    decoder, planner = SegmentDecoder(voice, _SEED), WindowPlanner(schedule)
    decoder.codes = list(codes)
    pieces: list[F32] = []
    joins: list[int] = []
    start_s = time.perf_counter()
    while (window := planner.next(len(codes), True)) is not None:
        (samples,) = decode_windows(runtime, [(decoder, window)])
        if isinstance(samples, Exception):
            raise samples
        joins.append(sum(map(len, pieces)))
        pieces.append(samples)
    return Rendering(np.concatenate(pieces), joins[1:], time.perf_counter() - start_s)


def mel_distance(ours: F32, theirs: F32) -> float:
    """Mean difference of log-mel magnitudes (natural log)."""
    return float(np.abs(prompt_mel(ours) - prompt_mel(theirs)).mean())
