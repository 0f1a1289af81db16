"""Speech of the shipped model at other speeds: word errors, pitch and length.

`python -m bench.speeds` speaks held-out sentences once and changes their speed as a stream does, a chunk of 0.4 s at a
time. Word errors are pocketsphinx's, which was trained on speech at its own speed.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from statistics import median

import numpy as np

import engines
from bench.continuity import F32, PAIRS, pitch_hz
from bench.report import publish, table
from engines.api import AudioChunk, Segment
from engines.config import EngineConfig, Sampling
from engines.model_spec import SAMPLE_RATE_HZ
from engines.time_scale import TimeScale, scaled_samples
from tests.speech.recogniser import errors, recognise, words

SPEEDS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
_CHUNK = 9600


def at_speed(samples: F32, speed: float) -> F32:
    """The speech at another speed, fed in chunks. Its length is exact."""
    scale = TimeScale(speed)
    parts = [
        scale.feed(samples[at : at + _CHUNK], last=at + _CHUNK >= len(samples)) for at in range(0, len(samples), _CHUNK)
    ]
    changed = np.concatenate(parts)
    assert len(changed) == scaled_samples(len(samples), speed)
    return changed


async def spoken(texts: Sequence[str]) -> list[F32]:
    engine = engines.load(EngineConfig(model="tiny", device="cpu", strict_reference=True))
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=1))
    speech = []
    for index, text in enumerate(texts):
        events = stream.speak(Segment(index, text))
        speech.append(np.concatenate([event.samples async for event in events if isinstance(event, AudioChunk)]))
    await stream.close()
    await engine.close()
    return speech


def semitones_apart(one: F32, other: F32) -> float:
    pitches = [pitch[pitch > 0] for pitch in map(pitch_hz, (one, other))]
    return 12 * float(np.log2(np.median(pitches[1]) / np.median(pitches[0])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=2 * len(PAIRS))
    texts = [text for pair in PAIRS for text in pair][: parser.parse_args().sentences]
    speech = asyncio.run(spoken(texts))
    total = sum(len(words(text)) for text in texts)
    rows = []
    for speed in SPEEDS:
        changed = [at_speed(samples, speed) for samples in speech]
        wrong = sum(
            errors(words(text), recognise(each, SAMPLE_RATE_HZ)) for text, each in zip(texts, changed, strict=True)
        )
        moved = median(semitones_apart(*pair) for pair in zip(speech, changed, strict=True))
        rows.append([speed, round(wrong / total, 3), round(moved, 2)])
    header = ["speed", "WER", "pitch moved, semitones"]
    publish("speeds", table(header, rows), {"speeds": {str(speed): rest for speed, *rest in rows}})


if __name__ == "__main__":
    main()
