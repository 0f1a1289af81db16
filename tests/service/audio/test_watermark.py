"""Marking a stream: lengths, joins and order stay; a missing package is an error if the mark was asked for."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import Samples
from engines.fake import FakeEngine, Script
from service.audio import watermark
from service.audio.watermark import MarkedEngine, PerthMarker, StreamMark
from service.config import ConfigError
from tests.service.stream.sessions import speak
from tests.virtual_time import virtual_time


class Louder:
    """A marker that adds a tenth of its input, and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def difference(self, samples: Samples) -> Samples:
        self.calls += 1
        assert len(samples) >= 7200
        added: Samples = 0.1 * samples
        return added


class Recording:
    """A marker that records its inputs and adds nothing."""

    def __init__(self) -> None:
        self.inputs: list[Samples] = []

    def difference(self, samples: Samples) -> Samples:
        self.inputs.append(samples)
        return np.zeros_like(samples)


@given(st.lists(st.integers(1, 9000), min_size=1, max_size=6))
def test_chunks_keep_their_lengths_and_their_ends(lengths: list[int]):
    samples = np.sin(np.arange(sum(lengths)) / 30).astype(np.float32)
    mark, start = StreamMark(Louder()), 0
    for length in lengths:
        chunk = samples[start : start + length]
        marked = mark.mark(chunk)
        assert marked.dtype == np.float32
        assert len(marked) == length
        assert marked[0] == chunk[0]
        assert marked[-1] == chunk[-1]
        np.testing.assert_array_less(np.abs(marked - chunk), 0.1 * np.abs(chunk) + 1e-6)
        middle = slice(240, length - 240)
        np.testing.assert_allclose(marked[middle], 1.1 * chunk[middle], rtol=1e-5, atol=1e-7)
        start += length


def test_the_marker_gets_each_chunk_after_the_audio_before_it():
    samples = np.arange(1, 30_001, dtype=np.float32)
    marker = Recording()
    mark = StreamMark(marker)
    for start, end in ((0, 100), (100, 10_000), (10_000, 30_000)):
        mark.mark(samples[start:end])
    everything = np.concatenate([np.zeros(4800, np.float32), samples])
    for signal, (start, end) in zip(marker.inputs, ((0, 100), (100, 10_000), (10_000, 30_000)), strict=True):
        np.testing.assert_array_equal(signal[:-2400], everything[start : end + 4800])
        assert not signal[-2400:].any()


def test_a_marked_stream_has_the_events_of_an_unmarked_one():
    marker = Louder()
    engine = FakeEngine(Script(token_s=0.001))
    plain = virtual_time(speak(FakeEngine(Script(token_s=0.001)), "This is said. And this too."))

    async def marked():
        marking = MarkedEngine(engine, marker)
        result = await speak(marking, "This is said. And this too.")
        await marking.close()
        return result

    result = virtual_time(marked())
    assert [type(event) for event in result.events] == [type(event) for event in plain.events]
    assert [chunk.samples for chunk in result.audio] == [chunk.samples for chunk in plain.audio]
    assert result.data != plain.data
    assert marker.calls == len(plain.audio)
    result.check_gapless()
    assert engine.at_rest


def test_marking_follows_the_choice_or_else_the_package(monkeypatch: pytest.MonkeyPatch):
    for installed in (None, object()):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=installed: spec)
        assert watermark.is_enabled(None) is (installed is not None)
        assert watermark.is_enabled(True)
        assert not watermark.is_enabled(False)


def test_a_missing_package_is_an_error_at_the_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "perth", None)
    with pytest.raises(ConfigError, match=r"resemble-perth.*watermark = off"):
        PerthMarker()
