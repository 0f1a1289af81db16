"""Tests of the seam detector on speech, and of our joins with it."""

from __future__ import annotations

import numpy as np
import pytest

from bench.seams import find_seams
from engines.audio import resample
from engines.s3gen.noise import F32
from engines.s3gen.streaming.vocoder_stream import VocoderStream
from tests.clips import speech

JOINS = [24_000 * k // 2 + 137 for k in range(1, 18)]


@pytest.fixture(scope="module")
def spoken() -> F32:
    samples, rate_hz = speech(10.0)
    return resample(samples, rate_hz, 24_000)


def test_speech_without_joins_has_no_seams(spoken: F32) -> None:
    assert find_seams(spoken, JOINS) == []


@pytest.mark.parametrize("damage", ["click", "dropped", "dip", "repeat"])
def test_faulty_joins_are_found(spoken: F32, damage: str) -> None:
    parts, joins, position = [], [], 0
    for start, stop in zip([0, *JOINS], [*JOINS, len(spoken)], strict=True):
        part = spoken[start:stop].copy()
        if damage == "click":
            part[:1] += 0.2
        elif damage == "dropped":
            part = part[400:]
        elif damage == "dip":
            part[:240] *= np.linspace(0, 1, 240, dtype=np.float32)
        else:
            part = np.concatenate([parts[-1][-600:], part]) if parts else part
        joins.append(position)
        position += len(part)
        parts.append(part)
    assert find_seams(np.concatenate(parts), joins[1:])


def test_the_vocoder_stream_joins_chunks_without_a_seam(spoken: F32) -> None:
    # Every chunk is rendered with its own small error, as provisional mel frames cause: 30 dB below the speech.
    stream, pieces = VocoderStream(seed=1), []
    hop, frames = 25 * 2, len(spoken) // 480
    rng = np.random.default_rng(2)
    mel = np.zeros((frames, 80), np.float32)
    for start in range(0, frames, hop):
        row = stream.plan(mel[start : start + hop], mel[start + hop : start + hop + 6])
        first = (start - row.left_frames) * 480
        clean = spoken[first : first + len(row.noise)]
        error = 0.03 * clean.std() * rng.standard_normal(len(clean), dtype=np.float32)
        pieces.append(stream.commit(row, clean + error, np.zeros(len(row.mel), np.float32)))
    samples = np.concatenate(pieces)
    joins = np.cumsum([len(piece) for piece in pieces])[:-1].tolist()
    assert find_seams(samples, joins) == []
