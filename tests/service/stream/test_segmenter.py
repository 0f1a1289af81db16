"""Where and when text is cut into segments, whatever its fragments and its size."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from service.stream.segmenter import Segmenter
from tests.service.stream.segmenter_cases import RAW_CASES, SPACED_CASES

CASES = [(" ".join(case), [*case]) for case in SPACED_CASES]
CASES += [("".join(case), [segment.strip() for segment in case]) for case in RAW_CASES]

# Pieces that meet every rule, and everything that can stand between them.
WORDS = (
    "Hello", "i", "I", "U.S.", "Mr.", "Dr", "e.g.", "p.m.", "5", "3.14", "No.", "st.", "etc.", "The", "he", "Friday",
    "a)", "1.", "2)", "-", "•", "www.example.com", "[laugh]", "[clear throat]", "(what?!)", '"Stop!"', "...", "…", ".",
    "!", "?", ";", "and", "—", "日本。", "「行く。」", "と", "है।", "é\u0301", "👩\u200d👧", "iPhone", "x" * 40,
    "z" * 15, "?!?!", ".”",
)  # fmt: skip
SPACES = ("", " ", "  ", "\n", "\n\n", "\t", " \n ", "\u00a0")
TEXTS = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(SPACES)), max_size=60).map(
    lambda pairs: "".join(word + space for word, space in pairs)
)


def segments_of(fragments: Iterable[str], max_chars: int = 250) -> list[str]:
    segmenter = Segmenter(max_chars)
    return [segment for fragment in fragments for segment in segmenter.feed(fragment)] + segmenter.flush()


def letters(text: str) -> str:
    return "".join(text.split())


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_sentences_end_where_a_reader_would_stop(text: str, expected: list[str]) -> None:
    assert segments_of([text]) == expected
    assert segments_of(text) == expected


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(20, 120), st.randoms(use_true_random=False))
@example("Wait" + "." * 300 + " And on", 40, random.Random(0))
@example("a." + " b" * 200, 33, random.Random(1))
@example("word " * 20 + ". " * 60, 100, random.Random(2))
@example("a" * 17 + ". " * 60, 20, random.Random(3))
def test_segments_do_not_depend_on_the_fragments(text: str, max_chars: int, shuffled: random.Random) -> None:
    whole = segments_of([text], max_chars)
    assert segments_of(text, max_chars) == whole
    cuts = sorted(shuffled.sample(range(len(text) + 1), min(len(text), 7)))
    assert segments_of([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)], max_chars) == whole


@settings(max_examples=400, deadline=None)
@given(st.one_of(TEXTS, st.text(max_size=400)), st.integers(20, 120))
def test_nothing_is_lost_blank_or_too_long(text: str, max_chars: int) -> None:
    segments = segments_of([text], max_chars)
    assert letters("".join(segments)) == letters(text)
    for segment in segments:
        assert segment == segment.strip() != ""
        assert len(segment) <= max_chars


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_returned_segments_do_not_depend_on_later_text(text: str, more: str) -> None:
    segmenter = Segmenter(80)
    early = segmenter.feed(text)
    assert segments_of([text, more], 80)[: len(early)] == early


@pytest.mark.parametrize(
    ("fragments", "released"),
    [
        (["Hello there", ".", " ", "H"], [0, 0, 0, 1]),  # the next sentence's first letter proves it
        (["Hello there.", '"', " Then"], [0, 0, 1]),
        (["It is 3", ".", "14 now"], [0, 0, 0]),
        (["Mr", ".", " S", "mith"], [0, 0, 0, 0]),
        (["The U.S.", " A", "r", "m", "y is big"], [0, 0, 0, 0, 0]),
        (["In the U.S.", " It", " i"], [0, 0, 1]),  # only the whole word tells
        (["Wait.", "\n", "\n"], [0, 0, 1]),  # an empty line ends anything
        (["好。", "好"], [0, 1]),
    ],
)
def test_an_end_is_known_as_soon_as_the_text_after_it_shows_it(fragments: list[str], released: list[int]) -> None:
    segmenter = Segmenter()
    assert [len(segmenter.feed(fragment)) for fragment in fragments] == released


def tokens_of(word: str) -> int:
    """Four letters of English are a token, as is every character of other scripts and every digit."""
    letters = sum(char.isascii() and not char.isdigit() for char in word.strip())
    return len(word.strip()) - letters + -(-letters // 4)


def split_by_tokens(fragments: Iterable[str], max_tokens: int, max_chars: int = 250) -> list[str]:
    segmenter = Segmenter(max_chars, max_tokens, tokens_of)
    return [segment for fragment in fragments for segment in segmenter.feed(fragment)] + segmenter.flush()


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(17, 60), st.integers(20, 120), st.randoms(use_true_random=False))
def test_token_limits_do_not_depend_on_the_fragments(
    text: str, max_tokens: int, max_chars: int, shuffled: random.Random
) -> None:
    whole = split_by_tokens([text], max_tokens, max_chars)
    assert split_by_tokens(text, max_tokens, max_chars) == whole
    cuts = sorted(shuffled.sample(range(len(text) + 1), min(len(text), 7)))
    fragments = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split_by_tokens(fragments, max_tokens, max_chars) == whole
    assert letters("".join(whole)) == letters(text)
    assert all(sum(map(tokens_of, segment.split())) <= max_tokens for segment in whole)


def test_a_sentence_of_many_tokens_is_split_and_no_other() -> None:
    short = "The cat sat on the mat. "  # 7 tokens
    assert split_by_tokens([short * 3], 7) == [short.strip()] * 3
    cyrillic = "Приветмир " * 90  # 900 letters
    pieces = split_by_tokens([cyrillic], 60)
    assert all(48 <= len("".join(piece.split())) <= 60 for piece in pieces[:-1])
    assert letters("".join(pieces)) == letters(cyrillic)
    assert split_by_tokens(["日本" * 50], 30) == ["日本" * 15] * 3 + ["日本" * 5]
    clauses = "one two three four; five six seven, eight nine ten eleven twelve"
    assert split_by_tokens([clauses], 9)[0] == "one two three four;"


def test_words_are_measured_once_however_small_the_fragments() -> None:
    measured: list[str] = []

    def count(word: str) -> int:
        measured.append(word)
        return 1

    segmenter = Segmenter(250, 20, count)
    text = "word " * 2000
    segments = [segment for char in text for segment in segmenter.feed(char)] + segmenter.flush()
    assert all(segment == " ".join(["word"] * 20) for segment in segments)
    assert len(measured) < 2 * 2000


def test_flush_hands_out_the_rest_and_starts_anew() -> None:
    segmenter = Segmenter()
    assert segmenter.feed("One. Two") == ["One."]
    assert segmenter.flush() == ["Two"]
    assert segmenter.flush() == []
    assert segmenter.feed(" three. F") == ["three."]
    assert segmenter.pending_chars == 1


def test_a_long_sentence_is_cut_after_its_best_late_clause() -> None:
    filler = "word " * 12  # 60 characters
    semicolon = f"{filler}here; {filler}there, {filler}on"
    assert segments_of([semicolon], 160)[0] == f"{filler}here; {filler}there,".split(" there,")[0] + " there,"
    assert segments_of([f"{filler}a, {filler}b; {filler}c, {filler}d"], 200)[0].endswith(" b;")
    assert segments_of([f"{filler}one {filler}and then {filler}"], 130)[0].endswith(" word")
    assert segments_of([f"{filler}one {filler}and then {filler}"], 130)[1].startswith("and then")
    assert segments_of([filler * 3], 100)[0] == ("word " * 20).strip()


def test_a_word_longer_than_a_segment_is_cut_between_characters() -> None:
    family = "👩\u200d👩\u200d👧\u200d👦"  # seven code points, one sign
    text = "x" * 17 + family + "y" * 30
    assert segments_of([text], 20)[0] == "x" * 17
    assert segments_of(["é" * 3 + "e\u0301" * 30], 20)[0].endswith("\u0301")


def test_a_tag_is_never_cut() -> None:
    for before in range(1, 60):
        text = "a" * before + " [clear throat] " + "b " * 40
        assert sum("[clear throat]" in segment for segment in segments_of([text], 40)) == 1
        assert sum("[clear throat]" in segment for segment in segments_of(["a" * before + text.strip("a ")], 40)) == 1


def test_what_waits_is_bounded() -> None:
    segmenter = Segmenter(100)
    for unit in ("x", "word ", ". ", "!", " ", "\n", "[", "1.", "é"):
        for _ in range(3):
            segmenter.feed(unit * 1000)
            assert segmenter.pending_chars <= 132


@pytest.mark.parametrize("unit", ["x", "word ", "a, ", "!", " ", "\n", "U.S. ", "1. ", "[x", "\u0301"])
def test_time_is_linear_in_the_text(unit: str) -> None:
    def seconds(length: int) -> float:
        fragments = [unit * 1000] * (length // len(unit) // 1000)
        start = time.process_time()
        segments_of(fragments)
        return time.process_time() - start

    small, large = min(seconds(50_000) for _ in range(3)), seconds(500_000)
    assert large < 30 * small + 0.1  # quadratic would be 100 times


def test_a_megabyte_at_once_and_in_single_characters_is_quick() -> None:
    text = "no stop at all in here " * 45_000
    start = time.process_time()
    at_once = segments_of([text])
    assert segments_of(text[:200_000])[:100] == at_once[:100]
    assert time.process_time() - start < 10.0


@pytest.mark.parametrize("max_chars", [0, 19, -5])
def test_a_useless_limit_is_refused(max_chars: int) -> None:
    with pytest.raises(ValueError, match=f"max_chars is {max_chars}; it must be at least 20."):
        Segmenter(max_chars)


@pytest.mark.parametrize("sentence", ["中。", "It is. ", "\n- a", "No!\n\n"])
def test_each_part_of_short_sentences_is_measured_a_few_times_at_most(sentence: str):
    """A text of thousands of sentences would otherwise take a hundred times as long as one of words."""
    measured: list[str] = []

    def count(word: str) -> int:
        measured.append(word)
        return 1

    text = sentence * 500
    segmenter = Segmenter(count_tokens=count)
    segments = [*segmenter.feed(text), *segmenter.flush()]
    assert len(segments) > 100
    assert sum(map(len, measured)) < 3 * len(text)
