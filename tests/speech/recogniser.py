"""Intelligibility: the word error rate of pocketsphinx, whose model comes with its package."""

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
_LEAD_S = 0.25  # near silence around the speech, in which the recogniser adapts
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
    """Returns the words that pocketsphinx recognises."""
    samples = resample(samples, rate_hz, RATE_HZ)
    samples = samples * (_LOUD_RMS / max(float(np.sqrt(np.mean(np.square(samples)))), 1e-6))
    pad = np.random.default_rng(0).standard_normal(int(_LEAD_S * RATE_HZ)).astype(np.float32) * 1e-4
    pcm = (np.clip(np.concatenate([pad, samples, pad]), -1, 1) * 32767).astype("<i2").tobytes()
    decoder = _decoder()
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return words(hypothesis.hypstr) if hypothesis else []


def errors(expected: Sequence[str], recognised: Sequence[str]) -> int:
    """Returns the edit distance in words: insertions, deletions and substitutions."""
    row = list(range(len(recognised) + 1))
    for i, word in enumerate(expected, start=1):
        before, row[0] = row[0], i
        for j, other in enumerate(recognised, start=1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def word_error_rate(pairs: Sequence[tuple[str, F32]], rate_hz: int) -> float:
    """Returns the word error rate over all (text, samples)."""
    wrong = sum(errors(words(text), recognise(samples, rate_hz)) for text, samples in pairs)
    return wrong / sum(len(words(text)) for text, _ in pairs)


def spoken_by_flite(text: str, voice: str) -> F32:
    """Returns flite's speech at 16 kHz; flite is the tiny model's teacher."""
    with wave.open(io.BytesIO(spoken_wav(text, voice))) as file:
        assert file.getframerate() == RATE_HZ
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
