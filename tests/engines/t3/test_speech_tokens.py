"""Where a segment ends, and which drawn tokens are speech."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engines.config import Sampling
from engines.t3.speech_tokens import SpeechTokens

START, STOP, SILENCE = 6561, 6562, [4299] * 3


def play(drawn: list[int], max_speech_tokens: int = 1000) -> tuple[SpeechTokens, list[int]]:
    """Accept tokens until the segment is finished; returns the speech tokens too."""
    speech, speech_tokens = SpeechTokens(max_speech_tokens), []
    for token in drawn:
        speech_tokens += speech.accept(token)
        if speech.finished:
            break
    return speech, speech_tokens


def test_a_stop_ends_the_segment_with_three_silences() -> None:
    speech, speech_tokens = play([5, 6, STOP, 7])
    assert speech_tokens == [5, 6, *SILENCE]
    assert speech.raw == [5, 6, STOP]
    assert not speech.hit_limit


def test_a_stop_drawn_first_is_not_a_stop() -> None:
    speech, speech_tokens = play([STOP, 5, STOP])
    assert speech_tokens == [5, *SILENCE]
    assert speech.raw == [STOP, 5, STOP]


def test_marks_in_the_middle_are_raw_tokens_but_not_speech() -> None:
    speech, speech_tokens = play([5, START, 6, STOP])
    assert speech_tokens == [5, 6, *SILENCE]
    assert speech.raw == [5, START, 6, STOP]


def test_the_default_limit_allows_upstreams_1001_tokens() -> None:
    speech, speech_tokens = play([1] * 2000, Sampling().max_speech_tokens)
    assert len(speech.raw) == 1001
    assert speech_tokens == [1] * 1001 + SILENCE
    assert speech.hit_limit


def test_a_stop_at_the_limit_is_a_stop() -> None:
    speech, speech_tokens = play([1, 2, STOP], max_speech_tokens=2)
    assert speech.finished
    assert not speech.hit_limit
    assert speech_tokens == [1, 2, *SILENCE]


@given(st.lists(st.integers(0, 6562), min_size=1, max_size=60), st.integers(1, 40))
def test_speech_is_the_raw_tokens_without_marks_and_silence_once(drawn: list[int], limit: int) -> None:
    speech, speech_tokens = play(drawn, limit)
    assert len(speech.raw) <= 1 + limit
    tail = SILENCE if speech.finished else []
    assert speech_tokens == [token for token in speech.raw if token < 6561] + tail
    assert speech.finished == (STOP in speech.raw[1:] or len(speech.raw) == 1 + limit)


def test_a_runaway_bound_ends_speech_between_a_stop_and_the_limit() -> None:
    speech = SpeechTokens(10, runaway_tokens=4)
    made = [speech.accept(token) for token in (1, 2, 3, 4, 5)]
    assert made == [[1], [2], [3], [4], [5, *[4299] * 3]]
    assert (speech.finished, speech.ran_away, speech.hit_limit) == (True, True, False)
    stopped = SpeechTokens(10, runaway_tokens=4)
    for token in (1, 2, 3, 4, 6562):
        stopped.accept(token)
    assert (stopped.finished, stopped.ran_away, stopped.hit_limit) == (True, False, False)
    limited = SpeechTokens(4, runaway_tokens=4)
    for token in (1, 2, 3, 4, 5):
        limited.accept(token)
    assert (limited.finished, limited.ran_away, limited.hit_limit) == (True, False, True)
