"""Attention-constrained inference on the shipped model: faults of words, free and constrained, by temperature.

`python -m bench.constrained` has T3 speak held-out texts with the guard on words, which only watches here: the first
draw counts, however wrong it is. The truth is in the speech tokens themselves, which name the text tokens that they
speak; a text is whole if each of its words is spoken, in order and once.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.report import publish, table
from engines.config import ATTENTION, EngineConfig, Sampling
from engines.errors import InvalidInput
from engines.factory import build_engine
from engines.model_spec import SPEECH_CODES
from engines.pipeline import Pipeline
from engines.t3.backend import T3Request
from engines.text.reading import Reading
from engines.words.segment import SegmentWords
from engines.words.text import Word
from tools.tiny import codes

_BACK_ROWS = 4  # speech tokens that say an earlier place
TEXTS = Path(__file__).parents[1] / "tests" / "speech" / "texts.json"


@dataclass
class Found:
    """What came of the texts."""

    texts: int = 0
    alarms: int = 0  # texts in which the guard found a fault
    broken: int = 0  # texts of which a word is missing, or spoken again
    missing: int = 0  # words
    words: int = 0
    steps: int = 0
    wall_s: float = field(default=0.0)


async def measure(attention: str, temperature: float, texts: list[str]) -> Found:
    engine = build_engine(EngineConfig(model="tiny", threads=1, attention=attention, strict_reference=True))
    found = Found()
    try:
        for number, text in enumerate(texts):
            try:
                await _one(engine, text, Sampling(seed=number, temperature=temperature, max_speech_tokens=400), found)
            except InvalidInput:
                continue
    finally:
        await engine.close()
    return found


async def _one(engine: Pipeline, text: str, sampling: Sampling, found: Found) -> None:
    stages, voice = engine.stages, engine.default_voice
    assert voice is not None
    assert stages.aligner is not None
    text_tokens = stages.encode_text(text)
    if len(text_tokens) > codes.COUNTERS:
        return  # its tokens do not name one place
    request = T3Request(text_tokens, voice, sampling, runaway_tokens=stages.runaway_tokens(text))
    request, source = stages.aligner.start(request, guarded=True)
    spoken = stages.words_of(Reading(text, text))
    words = SegmentWords(spoken, len(text_tokens), source, guarded=True)
    began_s = time.perf_counter()
    generation, tokens = stages.t3.start(request), list[int]()
    while new := await generation.next_speech_tokens():
        tokens += new
    found.wall_s += time.perf_counter() - began_s
    alarm = await words.update(tokens[:-3], ended=not generation.hit_runaway_limit)
    found.texts += 1
    found.steps += len(tokens)
    found.alarms += alarm is not None
    missing, again = _true_faults(tokens, 1 + len(voice.t3_prompt_tokens), spoken)
    found.words += len(spoken)
    found.missing += missing
    found.broken += bool(missing or again)


def _true_faults(tokens: list[int], first_position: int, words: Sequence[Word]) -> tuple[int, bool]:
    """The words whose text tokens no speech token names, and whether the speech goes back to an earlier word."""
    speech = np.asarray([token for token in tokens if token < SPEECH_CODES])
    phone, counter, _ = codes.meaning(*codes.parts(speech))
    places = ((counter - first_position) % codes.COUNTERS)[(counter >= 0) & (phone > 0)].tolist()
    missing = sum(not set(places) & set(range(word.first_token, word.stop_token)) for word in words)
    furthest, back, again = -1, 0, False
    for place in places:
        back = back + 1 if place < furthest else 0
        again = again or back >= _BACK_ROWS
        furthest = max(furthest, place)
    return missing, again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=60)
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.8, 1.5])
    args = parser.parse_args()
    every = [one["text"] for texts in json.loads(TEXTS.read_text()).values() for one in texts]
    texts = every[:: max(1, len(every) // args.texts)][: args.texts]
    rows, figures = [], {}
    for temperature in args.temperatures:
        for attention in ATTENTION:
            found = asyncio.run(measure(attention, temperature, texts))
            ms = 1000 * found.wall_s / max(1, found.steps)
            row = [found.texts, found.alarms, found.broken, round(found.missing / found.words, 4), round(ms, 2)]
            rows.append([f"{attention}, {temperature:g}", *row])
            figures[f"{attention}_{temperature:g}"] = row
    header = ["attention, temperature", "texts", "alarms", "with a fault", "missing words", "ms a token"]
    publish("constrained", table(header, rows), {"ways": figures})


if __name__ == "__main__":
    main()
