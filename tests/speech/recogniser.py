"""Intelligibility: the word error rate of pocketsphinx, whose model comes with its package."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache

import numpy as np
import numpy.typing as npt
from pocketsphinx import Decoder

from engines.audio import resample

RATE_HZ = 16_000
_LEAD_S = 0.25  # near silence around the speech, in which the recogniser adapts
_LOUD_RMS = 0.08
_FRAME_S = 0.01
_QUIET_DB = -35.0  # below the loudest frame: not speech

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


def longest_deletion(expected: Sequence[str], recognised: Sequence[str]) -> int:
    """Returns the largest number of words in a row that are expected and have no counterpart in `recognised`."""
    matcher = SequenceMatcher(None, expected, recognised, autojunk=False)
    return max((i2 - i1 - (j2 - j1) for _, i1, i2, j1, j2 in matcher.get_opcodes()), default=0)


def speech_duration_s(samples: F32, rate_hz: int) -> float:
    """Returns the seconds from the first to the last frame that is not quiet."""
    frame = round(_FRAME_S * rate_hz)
    power = np.square(samples[: len(samples) // frame * frame].reshape(-1, frame)).mean(axis=1)
    loud = np.flatnonzero(power > power.max() * 10 ** (_QUIET_DB / 10))
    return float((loud[-1] - loud[0] + 1) * _FRAME_S) if len(loud) and power.max() > 0 else 0.0
