"""The bound on speech is far above what people need for a text, and far below babble."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.model_spec import SPEECH_TOKENS_PER_S
from engines.text.speech_bound import max_speech_tokens

TAGS = ("[laugh]", "[sigh]")

# Seconds of slow speech, read aloud and timed at about 100 words a minute, with pauses.
SLOW = {
    "Hello there.": 1.6,
    "I": 0.8,
    "7.": 1.0,
    "No.": 0.9,
    "1,000,000,000": 1.6,
    "1,234,567.": 8.0,
    "$1,234,567.89": 12.0,
    "Call 555-0123-4567.": 10.0,
    "3.14159265358979": 11.0,
    "WWW": 4.0,
    "NASA, HTTP and SQL.": 7.0,
    "XXVIII": 6.0,
    "50% & 3 + 4 = 7": 9.0,
    "[laugh]": 6.0,
    "Well [laugh] I [sigh] do not know.": 16.0,
    "Hmm... well... I... do not know...": 10.0,
    "2024-01-02 10:30:15": 14.0,
    "https://www.example.com/a?b=c": 17.0,
    "The quick brown fox jumps over the lazy dog.": 6.0,
    "Strengths, rhythms, thoughts, twelfths.": 6.0,
    "é": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("text", SLOW)
def test_slow_speech_is_never_cut(text: str) -> None:
    assert max_speech_tokens(text, TAGS) > 1.2 * SLOW[text] * SPEECH_TOKENS_PER_S


@given(st.text(st.sampled_from("abcdefghij klmn, opqrst. uvwxyz ABC 0123456789"), min_size=1, max_size=250))
def test_six_characters_a_second_always_fit(text: str) -> None:
    """Natural English has 12 to 15 characters a second; numbers are said as words of eight letters a digit."""
    digits = sum(map(str.isdigit, text))
    chars = len(" ".join(text.split())) + 7 * digits
    assert max_speech_tokens(text) >= chars / 6 * SPEECH_TOKENS_PER_S * 0.95


@given(st.text(max_size=60), st.text(max_size=60))
def test_more_text_never_has_less_time(text: str, more: str) -> None:
    assert max_speech_tokens(text + more) >= max_speech_tokens(text)
    assert max_speech_tokens(text + more) >= max_speech_tokens(more)


@pytest.mark.parametrize(
    ("text", "seconds"), [("Hi.", 7), ("Great job!", 8), ("?!", 5), ("Hello there.", 9), ("a" * 60, 20)]
)
def test_babble_ends_soon(text: str, seconds: float) -> None:
    assert max_speech_tokens(text) < seconds * SPEECH_TOKENS_PER_S
