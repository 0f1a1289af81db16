"""Continuity at the joins of sentences on the shipped model: pitch, pause and words, with and without context.

`python -m bench.continuity` speaks pairs of sentences as two segments of a stream, by the same seeds, and compares what
T3 and S3Gen may know of the first sentence while they speak the second. A jump is measured between the last and the
first 0.4 s of voiced sound around the join.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import numpy.typing as npt

import engines
from bench.report import publish, table
from engines.api import AudioChunk, Segment
from engines.config import EngineConfig, Sampling
from engines.continuity import Continuity
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline
from tests.speech.recogniser import errors, recognise, words

F32 = npt.NDArray[np.float32]
PAIRS = (
    ("The train to the coast leaves at nine.", "It arrives there shortly before noon."),
    ("I looked at your order from last week.", "The second parcel is still waiting there."),
    ("Our office opens at eight on weekdays.", "You can leave a message with the desk."),
    ("That depends on the plan that you have.", "The smaller one does not include calls."),
    ("The recipe needs two eggs and some flour.", "You mix them with warm milk and sugar."),
    ("The museum is open on Sunday afternoon.", "The rooms upstairs stay closed until spring."),
    ("Thank you for waiting while I checked.", "The payment went through yesterday."),
    ("You should restart the router first.", "Most of these problems go away then."),
    ("We walked along the river in the rain.", "The streets were empty at that hour."),
    ("She opened the letter at the kitchen table.", "Her hands were cold from the garden."),
    ("The meeting was moved to Thursday.", "Please tell the others about it."),
    ("He put the old clock on the shelf.", "It had not worked for many years."),
)
WAYS = {
    "none": None,
    "T3": Continuity(25, 0),
    "S3Gen": Continuity(0, 28),
    "both": Continuity(25, 28),
}
_SEEDS = (1, 2)
_FRAME, _HOP = 960, 240
_LEAST_HZ, _MOST_HZ = 60, 400
_VOICED = 0.5  # of the autocorrelation
_VOICED_FRAMES = 40  # of 10 ms on each side of the join
_QUIET = 0.03  # of the loudest frame


@dataclass(frozen=True)
class Join:
    """What is measured of one pair. `jump` and `level` are in semitones: at the join, and between whole sentences."""

    jump: float
    level: float
    pause_s: float
    word_errors: int
    words: int


def pitch_hz(samples: F32) -> F32:
    """The pitch of each 10 ms by autocorrelation; 0 where there is no voice."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, _FRAME)[::_HOP]
    frames = frames - frames.mean(1, keepdims=True)
    power = np.abs(np.fft.rfft(frames, 2 * _FRAME)) ** 2
    correlation = np.fft.irfft(power)[:, :_FRAME]
    correlation /= np.maximum(correlation[:, :1], 1e-9)
    first, last = SAMPLE_RATE_HZ // _MOST_HZ, SAMPLE_RATE_HZ // _LEAST_HZ
    lags = correlation[:, first:last].argmax(1) + first
    loud = np.sqrt(np.square(frames).mean(1))
    voiced = (correlation[np.arange(len(lags)), lags] > _VOICED) & (loud > _QUIET * loud.max())
    return np.where(voiced, SAMPLE_RATE_HZ / lags, 0.0).astype(np.float32)


def semitones(first_hz: float, second_hz: float) -> float:
    return abs(12 * float(np.log2(second_hz / first_hz)))


def silence_s(samples: F32) -> float:
    """The silence at the beginning."""
    frames = samples[: len(samples) // _HOP * _HOP].reshape(-1, _HOP)
    loud = np.sqrt(np.square(frames).mean(1))
    return float(np.argmax(loud > _QUIET * loud.max())) * _HOP / SAMPLE_RATE_HZ


def join_of(first: F32, second: F32, text: str) -> Join:
    pitches = [pitch[pitch > 0] for pitch in map(pitch_hz, (first, second))]
    ends = [float(np.median(pitches[0][-_VOICED_FRAMES:])), float(np.median(pitches[1][:_VOICED_FRAMES]))]
    levels = [float(np.median(pitch)) for pitch in pitches]
    expected, heard = words(text), recognise(np.concatenate([first, second]), SAMPLE_RATE_HZ)
    pause_s = silence_s(first[::-1]) + silence_s(second)
    return Join(semitones(*ends), semitones(*levels), pause_s, errors(expected, heard), len(expected))


async def spoken(engine: Pipeline, pair: tuple[str, str], seed: int, *, continuity: bool) -> list[F32]:
    """The samples of both sentences."""
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=seed))
    parts = []
    for index, text in enumerate(pair):
        events = stream.speak(Segment(index, text, continuity=continuity))
        parts.append(np.concatenate([event.samples async for event in events if isinstance(event, AudioChunk)]))
    await stream.close()
    return parts


async def measure(pairs: int = len(PAIRS)) -> dict[str, list[Join]]:
    engine = engines.load(EngineConfig(model="tiny", device="cpu", strict_reference=True))
    assert isinstance(engine, Pipeline)
    stages, joins = engine.stages, {}
    for way, continuity in WAYS.items():
        engine.stages = replace(stages, continuity=continuity)
        joins[way] = [
            join_of(*await spoken(engine, pair, seed, continuity=continuity is not None), " ".join(pair))
            for pair in PAIRS[:pairs]
            for seed in _SEEDS
        ]
    await engine.close()
    return joins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    joins = asyncio.run(measure(parser.parse_args().pairs))
    figures = {
        way: {
            "jump_semitones": round(median(join.jump for join in of), 2),
            "level_semitones": round(median(join.level for join in of), 2),
            "pause_s": round(median(join.pause_s for join in of), 3),
            "wer": round(sum(join.word_errors for join in of) / sum(join.words for join in of), 3),
        }
        for way, of in joins.items()
    }
    header = ["context", "jump at the join", "between sentences", "pause, s", "WER"]
    publish("continuity", table(header, [[way, *of.values()] for way, of in figures.items()]), {"ways": figures})


if __name__ == "__main__":
    main()
