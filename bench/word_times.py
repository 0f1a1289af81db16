"""Word times of the shipped model against what its own speech tokens say: python -m bench.word_times [--texts N]

A speech token of tiny names the text token that it speaks, and whether it is a pause, so the true times of the model's
own words are known to 40 ms. With `--teacher` (needs hibari-tts, see tools/tiny/README.md) the teacher's speech is also
read, whose times are known to 25 ms: its phones as speech tokens, aligned by T3's heads.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.api import AudioChunk, Segment, SegmentDone, Words, WordTime
from engines.config import EngineConfig, Sampling
from engines.errors import InvalidInput
from engines.factory import build_engine
from engines.model_spec import SAMPLE_RATE_HZ, SAMPLES_PER_TOKEN, SPEECH_CODES
from engines.pipeline import Pipeline, PipelineStream
from engines.text.reading import Reading
from engines.words.text import Word
from tools.tiny import codes

TEXTS = Path(__file__).parents[1] / "tests" / "speech" / "texts.json"
_MEDIAN_MS, _HIGH_MS = 40.0, 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--texts", type=int, default=60, help="held-out texts, of 264 in all (default %(default)s)")
    parser.add_argument("--teacher", action="store_true", help="also align the teacher's speech")
    parser.add_argument("--t3", default="auto", choices=("auto", "torch", "onnx"), help="backend of T3")
    args = parser.parse_args()
    every = [one["text"] for texts in json.loads(TEXTS.read_text()).values() for one in texts]
    texts = every[:: max(1, len(every) // args.texts)][: args.texts]
    engine = build_engine(EngineConfig(model="tiny", threads=1, t3=args.t3))
    try:
        found = asyncio.run(measure(engine, texts))
    finally:
        asyncio.run(engine.close())
    print(report("the model's own speech", found))
    if args.teacher:
        from bench.word_times_teacher import teacher_errors

        print(report("the teacher's speech", teacher_errors(texts)))


async def measure(engine: Pipeline, texts: Sequence[str]) -> Measured:
    """Speak the texts as one stream and compare every word that is given with the tokens."""
    measured = Measured()
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=11))
    for index, text in enumerate(texts):
        try:
            await _one(engine, stream, Segment(index, text, word_times=True, word_guard=True), measured)
        except InvalidInput:
            continue  # holds nothing that the model speaks
    await stream.close()
    return measured


async def _one(engine: Pipeline, stream: PipelineStream, segment: Segment, measured: Measured) -> None:
    words: list[WordTime] = []
    tokens: list[int] = []
    began_s = time.perf_counter()
    async for event in stream.speak(segment):
        if isinstance(event, AudioChunk) and stream._current is not None:
            tokens = stream._current.decoder.speech_tokens
        elif isinstance(event, Words):
            words += event.words
        elif isinstance(event, SegmentDone) and event.stats.word_guard is not None:
            measured.faults[event.stats.word_guard.fault] += 1
    measured.spoken_s += len(tokens) / 25
    measured.wall_s += time.perf_counter() - began_s
    voice = engine.default_voice
    assert voice is not None
    first_position = 1 + len(voice.t3_prompt_tokens)
    truth = true_times(tokens, first_position, engine.stages.words_of(Reading(segment.text, segment.text)))
    measured.add(words, truth)


class Measured:
    """Errors of words in milliseconds, and what else was seen."""

    def __init__(self) -> None:
        self.starts_ms: list[float] = []
        self.ends_ms: list[float] = []
        self.missing = 0  # words that were spoken and not given
        self.faults: Counter[str] = Counter()
        self.spoken_s = self.wall_s = 0.0

    def add(self, words: Sequence[WordTime], truth: dict[int, tuple[float, float]]) -> None:
        """`truth`: seconds, by the word's first char."""
        given = {word.start_char: word for word in words}
        self.missing += len(truth.keys() - given.keys())
        for char, (start_s, end_s) in truth.items():
            if char in given:
                self.starts_ms.append(1000 * abs(given[char].start_sample / SAMPLE_RATE_HZ - start_s))
                self.ends_ms.append(1000 * abs(given[char].end_sample / SAMPLE_RATE_HZ - end_s))


def true_times(tokens: Sequence[int], first_position: int, words: Sequence[Word]) -> dict[int, tuple[float, float]]:
    """When each word is spoken by the speech tokens themselves, in seconds, by its first char."""
    speech = np.asarray([token for token in tokens if token < SPEECH_CODES])
    phone, counter, _ = codes.meaning(*codes.parts(speech))
    unit = np.where(counter < 0, -1, (counter - first_position) % codes.COUNTERS)
    for row in range(1, len(unit)):  # a consonant that goes on belongs to the token that it began in
        unit[row] = unit[row - 1] if unit[row] < 0 else unit[row]
    seconds = SAMPLES_PER_TOKEN / SAMPLE_RATE_HZ
    times = {}
    for word in words:
        rows = np.nonzero((unit >= word.first_token) & (unit < word.stop_token) & (phone > 0))[0]
        if len(rows) and not (word.first_share or word.stop_share < 1):
            times[word.start_char] = (float(rows[0]) * seconds, float(rows[-1] + 1) * seconds)
    return times


def report(name: str, measured: Measured) -> str:
    """The figures in words, with the bounds that they are held to."""
    lines = [f"{name}: {len(measured.starts_ms)} words, {measured.missing} of those spoken without a time"]
    for which, errors in (("start", measured.starts_ms), ("end", measured.ends_ms)):
        median, high, worst = np.percentile(errors, [50, 95, 100])
        good = median <= _MEDIAN_MS and high <= _HIGH_MS
        lines.append(
            f"  {which:6} median {median:5.1f} ms, 95 % {high:6.1f} ms, worst {worst:6.1f} ms"
            f"  {'within' if good else 'beyond'} {_MEDIAN_MS:g} and {_HIGH_MS:g} ms"
        )
    if measured.spoken_s:
        faults = dict(measured.faults) or "none"
        lines.append(f"  guard's findings: {faults} in {measured.spoken_s:.0f} s of speech")
    return "\n".join(lines)


def summary(measured: Measured) -> dict[str, Any]:
    """The figures for a test."""
    return {
        "start": np.percentile(measured.starts_ms, [50, 95]).tolist(),
        "end": np.percentile(measured.ends_ms, [50, 95]).tolist(),
        "missing": measured.missing,
    }


if __name__ == "__main__":
    main()
