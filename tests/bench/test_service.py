"""The service's bench at a small size: its time stamps, its malformed requests, its four measurements."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from time import monotonic_ns

import numpy as np
import pytest

from bench.malformed import supply
from bench.scripted_server import made_at_ns, stamped
from bench.service import bench
from service.audio.codecs import pcm_s16le


def test_a_stamp_survives_the_encoding():
    samples = np.linspace(-1.0, 1.0, 960, dtype=np.float32)
    before_ns = monotonic_ns()
    out = stamped(samples)
    assert before_ns <= made_at_ns(pcm_s16le(out)) <= monotonic_ns()
    assert (out[5:] == samples[5:]).all()


def test_the_malformed_requests_are_seeded_and_of_many_kinds():
    first, again = (list(islice(supply(3, 100), 300)) for _ in range(2))
    assert first == again != list(islice(supply(4, 100), 300))
    assert len({request.kind for request in first}) >= 25


async def test_the_bench_on_a_small_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("bench.service.BUILD", tmp_path)
    measured, wrong, _ = await bench(streams=4, seconds=2.0, count=140, times=3)
    assert not wrong
    assert [len(one.values_ms) for one in measured[1:]] == [3, 3, 3]
    assert len(measured[0].values_ms) >= 4 * 5
    assert all(0 < value < 10_000 for one in measured for value in one.values_ms)
