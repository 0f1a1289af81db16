"""Words of a text as they are written, and the tokens that speak them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.text.reading import SpokenSpan
from engines.text.spoken import SpokenText
from engines.words.text import TokenizedText, Word, words_of

SPOKEN = SpokenText(tags=("[laugh]",), speaks_tags=False)


def tokenized(normalized: str) -> TokenizedText:
    """Tokens as a tokenizer of words and marks makes them."""
    offsets = tuple(match.span() for match in re.finditer(r"\w+|[^\w\s]", normalized))
    return TokenizedText(tuple(range(len(offsets))), offsets, normalized)


def words(text: str) -> tuple[Word, ...]:
    return words_of(text, tokenized(SPOKEN.prepare(text)), SPOKEN.blanked(text))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Hello there.", ["Hello", "there"]),
        ("hello   there", ["hello", "there"]),
        ('"Well," she said: it\'s $5.50…', ["Well", "she", "said", "it's", "$5.50"]),
        ("At 5:30 p.m. we left – all of us!", ["At", "5:30", "p.m.", "we", "left", "all", "of", "us"]),
        ("Ha [laugh] no 😀 more", ["Ha", "no", "more"]),
        ("C++ and A/B, well-known", ["C++", "and", "A/B", "well-known"]),
        ("« Ça va ? »", ["Ça", "va"]),
        ("a\u200bb c", ["a\u200bb", "c"]),
    ],
)
def test_words_are_given_as_written(text: str, written: list[str]):
    found = words(text)
    assert [word.text for word in found] == written
    assert [text[word.start_char : word.end_char] for word in found] == written
    assert all(word.spoken == word.text for word in found)


def test_every_word_has_the_tokens_that_speak_it():
    found = words("Well, 5:30 it-is.")  # Well , 5 : 30 it - is .
    assert [(word.first_token, word.stop_token) for word in found] == [(0, 1), (2, 5), (5, 8)]


def test_words_in_one_token_share_it():
    text = TokenizedText((0, 1), ((0, 9), (9, 10)), "Of course.")
    of, course = words_of("of course.", TokenizedText(text.tokens, ((0, 9), (9, 10)), text.normalized))
    assert (of.first_token, of.stop_token, of.first_share) == (0, 1, 0.0)
    assert of.stop_share == pytest.approx(course.first_share - 1 / 9)
    assert (course.first_token, course.stop_share) == (0, 1.0)


def test_what_was_said_in_other_words_is_one_word_as_it_was_written():
    written, spoken = "Pay $5 at 5 p.m. now", "Pay five dollars at five p m now"
    spans = [SpokenSpan(4, 16, 4, 6), SpokenSpan(20, 28, 10, 16)]
    found = words_of(written, tokenized(spoken + "."), spoken, spans)
    assert [word.text for word in found] == ["Pay", "$5", "at", "5 p.m.", "now"]
    assert [word.spoken for word in found] == ["Pay", "five dollars", "at", "five p m", "now"]
    assert [(word.first_token, word.stop_token) for word in found] == [(0, 1), (1, 3), (3, 4), (4, 7), (7, 8)]


def test_a_word_without_a_token_is_not_given():
    assert [word.text for word in words_of("One 二 two", TokenizedText((0, 1), ((0, 3), (6, 9)), "One 二 two"))] == [
        "One",
        "two",
    ]


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_words_of_any_text_are_parts_of_it_in_order(text: str):
    try:
        found = words(text)
    except InvalidInput:
        return
    end = tokens = 0
    for word in found:
        assert end <= word.start_char < word.end_char <= len(text)
        assert word.text == text[word.start_char : word.end_char]
        assert tokens <= word.first_token < word.stop_token
        assert 0 <= word.first_share <= 1
        assert 0 <= word.stop_share <= 1
        end, tokens = word.end_char, word.stop_token - 1
