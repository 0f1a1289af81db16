"""Words of a text as they are written, and the tokens that speak them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import InvalidInput
from engines.text.front_end import FrontEnd
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


def read(text: str) -> tuple[Word, ...]:
    """The words of a text that the front end has read."""
    reading = FrontEnd().read(text)
    return words_of(text, tokenized(reading.spoken), reading.spoken, reading.spans)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("The answer—which I like—is...yes, 5-7 °C—cold.", "The|answer|which|I|like|is|yes|5-7 °C|cold"),
        ("Send $20—$30 now", "Send|$20—$30|now"),
        ("Item 3 of [a link](http://x.org) and [two](u)", "Item|3|of|a|link|and|two"),
        ('See [the docs](https://a.b "a title") now', "See|the|docs|now"),
        ("| A | B |\n|---|---|\n| 1 | 25% |", "A|B|1|25%"),
        ("**Bold**, _it_ & `code_name`", "Bold|it|&|code_name"),
    ],
)
def test_marks_that_are_not_spoken_belong_to_no_word(text: str, written: str):
    found = read(text)
    assert [word.text for word in found] == written.split("|")
    assert [text[word.start_char : word.end_char] for word in found] == written.split("|")


def test_a_word_that_is_spoken_as_several_ends_with_the_last_of_them():
    *_, last = read("The total is $1,234.56!")  # one thousand two hundred thirty four dollars and fifty six cents
    assert (last.first_token, last.end_token, last.stop_token) == (3, 13, 14)


def test_a_sentence_without_spaces_ends_near_its_end():
    text = "今天天气很好我们去公园散步吧明天也会是好天气的今天天气很好"
    each_char = TokenizedText(tuple(range(len(text))), tuple((i, i + 1) for i in range(len(text))), text)
    (word,) = words_of(text, each_char)
    assert word.first_token == 0 < word.end_token < word.stop_token


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
