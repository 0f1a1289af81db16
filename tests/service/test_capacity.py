"""The measured capacity: what is tried, and what follows from it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.api import AudioChunk, Event, Segment
from engines.config import Sampling
from engines.errors import EngineBusy, EngineFailure
from engines.fake import FakeEngine, FakeStream, Script
from engines.voice import Voice
from service.capacity import Trial, capacity_of, measure, next_trial, overcommitted
from tests.virtual_time import virtual_time


def measured(max_streams: int, fits: int, load_of_one: float) -> tuple[int, list[int]]:
    """The capacity and the trials on a device that carries `fits` streams."""
    trials: list[Trial] = []
    while (streams := next_trial(trials, max_streams)) is not None:
        load = load_of_one if streams == 1 else 0.5
        trials.append(Trial(streams, load, underruns=int(streams > fits)))
    return capacity_of(trials), [trial.streams for trial in trials]


@given(st.integers(1, 300), st.integers(0, 400), st.floats(0, 0.8))
def test_what_is_admitted_fits_and_is_not_far_from_all_that_fits(max_streams: int, fits: int, load: float):
    admitted, tried = measured(max_streams, fits, load)
    assert 1 <= admitted <= max_streams
    assert len(tried) == len(set(tried)) <= 6
    assert max(tried) <= max_streams
    if fits:
        assert admitted <= fits
        # six trials leave at most the last doubling or first guess halved a few times
        assert admitted >= min(max_streams, fits) / 4 or len(tried) == 6


def test_a_large_capacity_takes_few_trials():
    assert measured(64, 1000, 0.01) == (64, [1, 60, 64])
    assert measured(16, 9, 0.08)[0] in (7, 8, 9)
    assert measured(16, 1, 0.7) == (1, [1, 2])
    assert measured(16, 0, 0.9) == (1, [1])


class Shared(FakeEngine):
    """A device whose time streams share: `token_s` is the cost of one token for a single stream."""

    async def open(self, voice: Voice, sampling: Sampling) -> SharedStream:
        stream = SharedStream(self, voice, sampling)
        self.streams.add(stream)
        return stream


class SharedStream(FakeStream):
    async def speak(self, segment: Segment) -> AsyncGenerator[Event, None]:
        async for event in super().speak(segment):
            if isinstance(event, AudioChunk):
                tokens = len(event.samples) // 960
                others = len(self._engine.streams) - 1
                await asyncio.sleep(tokens * self._engine.script.token_s * others)
            yield event


@pytest.mark.parametrize(("token_s", "carries"), [(0.001, 32), (0.0039, 8), (0.0155, 2), (0.03, 1), (0.1, 1)])
def test_streams_are_measured_as_they_share_the_device(token_s: float, carries: int):
    engine = Shared(Script(token_s=token_s, first_hop_tokens=25), max_streams=64)
    capacity = virtual_time(measure([engine], 64))
    assert carries * 0.75 <= capacity.streams <= carries
    assert engine.at_rest
    assert str(capacity.streams) in capacity.summary


class Refusing(FakeEngine):
    """Refuses a third stream."""

    async def open(self, voice: Voice, sampling: Sampling) -> FakeStream:
        if len(self.streams) == 2:
            raise EngineBusy("overloaded")
        return await super().open(voice, sampling)


def test_a_refusal_of_the_engine_counts_as_too_many():
    engine = Refusing(max_streams=64)
    capacity = virtual_time(measure([engine], 64))
    assert capacity.streams in (1, 2)
    assert math.inf in [trial.load for trial in capacity.trials]
    assert engine.at_rest


def test_underruns_count_as_too_many():
    capacity = virtual_time(measure([FakeEngine(Script(underruns_from=6), max_streams=16)], 16))
    assert capacity.streams == 5


def test_without_a_voice_to_measure_with_one_stream_is_admitted():
    capacity = virtual_time(measure([FakeEngine(default_voice=False)], 8))
    assert capacity.streams == 1
    assert "--max-streams" in capacity.summary


def test_an_engine_that_fails_meanwhile_fails_the_start():
    engine = FakeEngine(Script(failure=EngineFailure("no kernel")))
    with pytest.raises(EngineFailure):
        virtual_time(measure([engine], 4))
    assert engine.at_rest


@pytest.mark.parametrize(
    ("load", "streams", "words"),
    [(None, 16, ""), (0.05, 16, ""), (0.25, 16, "carries about 3 streams"), (1.5, 1, "carries about 1 stream ")],
)
def test_more_streams_than_a_machine_carries_are_not_admitted_silently(load: float | None, streams: int, words: str):
    info = FakeEngine(max_streams=streams).info
    sentence = overcommitted(replace(info, load=load))
    assert words in sentence
    assert bool(sentence) == bool(words)


def test_several_models_admit_what_the_slowest_mix_carries():
    fast, slow = FakeEngine(max_streams=16), FakeEngine(Script(underruns_from=6), max_streams=16)
    assert virtual_time(measure([fast], 16)).streams == 16
    assert virtual_time(measure([fast, slow], 16)).streams == virtual_time(measure([slow], 16)).streams == 5
    assert virtual_time(measure([fast, FakeEngine(default_voice=False)], 16)).streams == 1
