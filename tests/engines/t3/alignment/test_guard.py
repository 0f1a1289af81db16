"""Faults forced in the sampler of the shipped model: drawn again before audio, stopped behind the text after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import engines
from engines.api import AudioChunk, Segment, SegmentDone, SegmentStats, Words
from engines.config import EngineConfig, Sampling
from engines.model_spec import SAMPLES_PER_TOKEN, STOP_SPEECH_TOKEN
from engines.t3.sampler import Sampler
from tests.engines.t3.alignment.speaking import spoken_events
from tools.tiny import codes

TEXT = "The old train leaves the station at seven, with many people in it."
WORDS = TEXT.replace(",", "").replace(".", "").split()


@pytest.fixture(scope="module")
def engine() -> Iterator[engines.Engine]:
    one = engines.load(EngineConfig(model="tiny", threads=1))
    yield one
    asyncio.run(one.close())


class Forced:
    """A sampler that draws what it is given, sequence by sequence, and itself once that is used up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.drawn: list[list[int]] = []  # of each sequence
        self.scripts: list[list[int]] = []
        sample, begin = Sampler.sample, Sampler.begin
        current: dict[int, list[int]] = {}

        def begins(sampler: Sampler, slot: int, sampling: Sampling) -> None:
            current[slot] = self.scripts.pop(0) if self.scripts else []
            self.drawn.append([])
            begin(sampler, slot, sampling)

        def samples(sampler: Sampler, slots: list[int], logits: object) -> list[int]:
            tokens = sample(sampler, slots, logits)  # type: ignore[arg-type]
            tokens = [current[slot].pop(0) if current.get(slot) else t for slot, t in zip(slots, tokens, strict=True)]
            self.drawn[-1] += tokens
            return tokens

        monkeypatch.setattr(Sampler, "begin", begins)
        monkeypatch.setattr(Sampler, "sample", samples)


@pytest.fixture
def forced(monkeypatch: pytest.MonkeyPatch) -> Forced:
    return Forced(monkeypatch)


def speak(engine: engines.Engine, *segments: Segment, repeatable: bool = True) -> list[object]:
    return asyncio.run(spoken_events(engine, list(segments), repeatable=repeatable))


def guarded(index: int = 0, text: str = TEXT) -> Segment:
    return Segment(index, text, word_times=True, word_guard=True)


def stats(events: list[object], segment: int = 0) -> SegmentStats:
    (found,) = [e.stats for e in events if isinstance(e, SegmentDone) and e.segment.index == segment]
    return found


def samples(events: list[object], segment: int = 0) -> np.ndarray:
    return np.concatenate([e.samples for e in events if isinstance(e, AudioChunk) and e.segment_index == segment])


def words(events: list[object], segment: int = 0) -> list[str]:
    return [w.text for e in events if isinstance(e, Words) and e.segment_index == segment for w in e.words]


@pytest.fixture
def natural(engine: engines.Engine, forced: Forced) -> list[int]:
    """What the model draws for TEXT by the seed of the tests, without the stop."""
    events = speak(engine, guarded())
    assert stats(events).word_guard is None
    assert words(events) == WORDS
    drawn = forced.drawn[0]
    forced.drawn.clear()
    assert drawn[-1] == STOP_SPEECH_TOKEN
    return drawn[:-1]


def test_right_speech_is_the_same_with_the_guard(engine: engines.Engine):
    with_guard, without = speak(engine, guarded()), speak(engine, Segment(0, TEXT))
    assert np.array_equal(samples(with_guard), samples(without))


@pytest.mark.parametrize(
    ("fault", "script"),
    [
        ("late_end", lambda tokens: [*tokens, *[tokens[-1]] * 120]),
        ("repeated", lambda tokens: [*tokens, *tokens]),
    ],
)
def test_speech_that_goes_on_is_faded_out_behind_its_last_word(
    fault: str, script: Callable[[list[int]], list[int]], engine: engines.Engine, forced: Forced, natural: list[int]
):
    forced.scripts = [script(natural)]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action, found.retries) == (fault, "stopped", 0)
    assert found.spoken_chars == len(TEXT) - 1
    audio = samples(events)
    assert len(audio) < (len(natural) + 40) * SAMPLES_PER_TOKEN
    assert np.abs(audio[-200:]).max() < 0.01
    assert words(events) == WORDS
    forced.scripts = [script(natural)]
    assert np.array_equal(samples(speak(engine, guarded())), audio), "a seed repeats a segment that was stopped"


def test_speech_that_goes_back_again_and_again_is_faded_out_where_it_went_back(
    engine: engines.Engine, forced: Forced, natural: list[int]
):
    half = natural[: len(natural) // 2]
    forced.scripts = [half * 6]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action) == ("repeated", "stopped")
    audio = samples(events)
    assert len(audio) < 3 * len(half) * SAMPLES_PER_TOKEN
    assert np.abs(audio[-200:]).max() < 0.01
    assert words(events) == WORDS[: len(words(events))]
    assert 0 < found.spoken_chars < len(TEXT)
    forced.scripts = [half * 6]
    assert np.array_equal(samples(speak(engine, guarded())), audio), "a seed repeats a segment that was stopped"


def test_speech_that_goes_back_once_says_all_of_its_text(engine: engines.Engine, forced: Forced, natural: list[int]):
    half = natural[: len(natural) // 2]
    forced.scripts = [[*half, *natural, STOP_SPEECH_TOKEN]]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action) == ("repeated", "reported")
    assert words(events) == WORDS
    assert found.spoken_chars == len(TEXT) - 1


def elsewhere(tokens: list[int]) -> list[int]:
    """The same phones, for text tokens that are not in the text."""
    group, index = codes.parts(np.asarray(tokens))
    sizes = np.array([factors[1] for factors in codes.FACTORS])[group]
    index[:, 1] = (index[:, 1] + 31) % sizes
    return codes.join(group, index).tolist()


def test_an_invented_tail_is_faded_out(engine: engines.Engine, forced: Forced, natural: list[int]):
    forced.scripts = [[*natural, *[t for t in elsewhere(natural) if 0 <= t < 6561]]]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert found.action == "stopped"
    assert found.fault in ("invented_tail", "repeated")
    assert len(samples(events)) < (len(natural) + 30) * SAMPLES_PER_TOKEN
    assert words(events) == WORDS


def test_a_live_stream_is_stopped_behind_what_was_decoded(engine: engines.Engine, forced: Forced, natural: list[int]):
    forced.scripts = [[*natural, *[natural[-1]] * 400]]
    events = speak(engine, guarded(), repeatable=False)
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action) == ("late_end", "stopped")
    assert len(samples(events)) < (len(natural) + 200) * SAMPLES_PER_TOKEN
    assert stats(events).samples == len(samples(events))
    assert words(events) == WORDS


def test_speech_that_stops_early_is_drawn_again_if_nothing_of_it_was_given(
    engine: engines.Engine, forced: Forced, natural: list[int]
):
    forced.scripts = [[*natural[:6], STOP_SPEECH_TOKEN]]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action, found.retries) == ("early_stop", "retried", 1)
    assert words(events) == WORDS
    assert len(forced.drawn) == 2
    assert forced.drawn[1] != [*natural, STOP_SPEECH_TOKEN], "by another seed"
    again = forced.drawn[1]
    forced.drawn.clear()
    forced.scripts = [[*natural[:6], STOP_SPEECH_TOKEN]]
    speak(engine, guarded())
    assert forced.drawn[1] == again, "which follows from the first"


def test_after_two_other_draws_the_third_is_given_as_it_is(engine: engines.Engine, forced: Forced, natural: list[int]):
    forced.scripts = [[*natural[:6], STOP_SPEECH_TOKEN] for _ in range(3)]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action, found.retries) == ("early_stop", "reported", 2)
    assert found.spoken_chars < len(TEXT)
    assert stats(events).samples == 9 * SAMPLES_PER_TOKEN
    assert len(forced.drawn) == 3


def test_speech_that_stops_early_after_its_first_audio_is_reported(
    engine: engines.Engine, forced: Forced, natural: list[int]
):
    forced.scripts = [[*natural[: len(natural) // 2], STOP_SPEECH_TOKEN]]
    events = speak(engine, guarded())
    found = stats(events).word_guard
    assert found is not None
    assert (found.fault, found.action) == ("early_stop", "reported")
    assert 0 < found.spoken_chars < len(TEXT)
    assert words(events) == WORDS[: len(words(events))]
    assert len(words(events)) < len(WORDS)


def test_a_segment_that_was_made_ahead_is_drawn_again_whole(engine: engines.Engine, forced: Forced, natural: list[int]):
    first = "It is late, and the long way home goes through the dark wood behind the old mill."
    forced.scripts = [[], [*natural[:25], *natural[:25], STOP_SPEECH_TOKEN]]
    events = speak(engine, guarded(0, first), guarded(1), repeatable=False)
    found = stats(events, 1).word_guard
    assert found is not None
    assert found.action == "retried"
    assert words(events, 1) == WORDS


@pytest.mark.parametrize("text", ["Sure.", "No.", "One moment, please.", "Yes, at 5:30 p.m., in St. John's."])
def test_short_texts_and_odd_ones_raise_no_alarm(text: str, engine: engines.Engine):
    assert stats(speak(engine, guarded(0, text))).word_guard is None


def test_without_the_guard_nothing_is_stopped(engine: engines.Engine, forced: Forced, natural: list[int]):
    forced.scripts = [[*natural, *[natural[-1]] * 60, STOP_SPEECH_TOKEN]]
    events = speak(engine, Segment(0, TEXT, word_times=True))
    assert stats(events).word_guard is None
    assert len(samples(events)) == (len(natural) + 63) * SAMPLES_PER_TOKEN
