"""A speech recogniser that judges intelligibility: word error rate by pocketsphinx, which carries its own model.

Knows text and 16 kHz sound; nothing of engines.
"""

from __future__ import annotations

import io
import os
import re
import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from engines.audio import resample
from tests.clips import spoken_wav

RATE_HZ = 16_000
_LEAD_S = 0.25  # of near silence around the speech: the recogniser settles in it
_LOUD_RMS = 0.08
SENTENCES = tuple((Path(__file__).parent / "sentences.txt").read_text().splitlines())
assert len(SENTENCES) == 40

F32 = npt.NDArray[np.float32]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@cache
def _decoder() -> Decoder:
    return Decoder(samprate=float(RATE_HZ), loglevel="FATAL", logfn=os.devnull)


def recognise(samples: F32, rate_hz: int) -> list[str]:
    """The words that pocketsphinx hears in `samples`."""
    heard = resample(samples, rate_hz, RATE_HZ)
    heard = heard * (_LOUD_RMS / max(float(np.sqrt(np.mean(np.square(heard)))), 1e-6))
    pad = np.random.default_rng(0).standard_normal(int(_LEAD_S * RATE_HZ)).astype(np.float32) * 1e-4
    pcm = (np.clip(np.concatenate([pad, heard, pad]), -1, 1) * 32767).astype("<i2").tobytes()
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return words(hypothesis.hypstr) if hypothesis else []


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Fewest insertions, deletions and substitutions that turn `said` into `heard`."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def word_error_rate(pairs: Sequence[tuple[str, F32]], rate_hz: int) -> float:
    """Over all (text, samples) together."""
    wrong = sum(errors(words(text), recognise(samples, rate_hz)) for text, samples in pairs)
    return wrong / sum(len(words(text)) for text, _ in pairs)


def spoken_by_flite(text: str, voice: str) -> F32:
    """What the tiny model's teacher says, at 16 kHz."""
    with wave.open(io.BytesIO(spoken_wav(text, voice))) as file:
        assert file.getframerate() == RATE_HZ
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
