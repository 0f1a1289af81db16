"""How sentences become T3's texts: every phone that is said is said by the token that stands for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.tiny.codes import ALPHABET
from tools.tiny.compose import END, SILENT, Composer, Text, symbols_of, usual_sounds
from tools.tiny.dataset import Sentence
from tools.tiny.pronounce import Said
from tools.tiny.rows import Spoken
from tools.tiny.train_t3 import begun, next_spoken

_WORDS = {"one": "wʌn", "two": "tu", "seven": "sɛvᵊn", "i": "I"}


def _sentence(words: list[str]) -> Sentence:
    """Each phone has two rows; a pause stands at both ends and at a full stop, none at a comma."""
    tokens = [*words, "."]
    said = [
        Said(tuple(ALPHABET.index(c) for c in _WORDS.get(word, "")), (False,) * len(_WORDS.get(word, "")))
        for word in tokens
    ]
    rows = [(0, 0)] + [(p, i) for i, one in enumerate(said) for p in one.phones] + [(0, len(tokens) - 1)]
    letter, unit = np.repeat(np.array(rows), 2, axis=0).T
    begins = np.tile([True, False], len(rows))
    return Sentence(
        "example", " ".join(tokens), tokens, said, Spoken(letter, unit, begins, np.full(len(letter), 200.0, np.float32))
    )


SENTENCES = [_sentence(words) for words in (["one"], ["two", ",", "seven"], ["i", "seven", ",", "one", "two"])]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer(SENTENCES, usual_sounds(SENTENCES))


def _said_by_tokens(text: Text) -> list[list[int]]:
    """The phones that begin while each token is spoken."""
    rows = text.spoken
    heard: list[list[int]] = [[] for _ in text.names]
    for letter, unit, begins in zip(rows.letter, rows.unit, rows.begins, strict=True):
        if begins and letter:
            heard[unit].append(int(letter))
    return heard


@given(st.integers(0, 10_000), st.integers(1, 62))
def test_every_token_says_its_own_phones_however_words_are_cut_and_texts_joined(seed: int, target: int) -> None:
    composer = Composer(SENTENCES, usual_sounds(SENTENCES))
    text = composer.text(np.random.default_rng(seed), target)
    meant = [[int(symbol) for symbol in row if symbol < END] for row in text.symbols]
    assert _said_by_tokens(text) == meant
    assert np.all(np.diff(text.spoken.unit) >= 0)
    assert len(text.names) <= 62 * 2  # pieces and silent tokens are extra


def test_a_clean_text_has_its_sentences_tokens_but_for_marks_without_a_pause(composer: Composer) -> None:
    text = composer.joined(np.random.default_rng(0), SENTENCES[1:], clean=True)
    assert text.names == ["two", "seven", ".", "i", "seven", "one", "two", "."]
    assert text.spoken.unit[-1] == len(text.names) - 1


def test_a_pause_between_sentences_belongs_to_the_mark_before_it(composer: Composer) -> None:
    text = composer.joined(np.random.default_rng(0), SENTENCES[:2], clean=True)
    second = len(SENTENCES[0].spoken)
    assert text.spoken.unit[second - 2 : second + 2].tolist() == [1, 1, 1, 1]
    assert not text.spoken.begins[second]


def test_no_pause_is_long_and_nothing_else_is_cut(composer: Composer) -> None:
    one = SENTENCES[1]
    rows = one.spoken
    times = np.where((rows.letter == 0) & ~rows.begins, 20, 1)
    columns = (np.repeat(column, times) for column in (rows.letter, rows.unit, rows.begins, rows.f0_hz))
    long = replace(one, spoken=Spoken(*columns))
    text = composer.joined(np.random.default_rng(0), [long], clean=True)
    assert sum(text.spoken.letter != 0) == sum(rows.letter != 0)
    pauses = "".join("_" if letter == 0 else " " for letter in text.spoken.letter).split()
    assert all(5 <= len(pause) <= 9 for pause in pauses)


def test_marks_and_what_has_no_sound_have_symbols_of_their_own() -> None:
    assert symbols_of("~", Said())[0][0] == SILENT
    assert len({int(symbols_of(mark, Said())[0][0]) for mark in ",;:.!?"}) == 6
    assert symbols_of("i", SENTENCES[2].said[0])[0].tolist()[:2] == [ALPHABET.index("I"), END]


def test_the_next_spoken_token_is_looked_up_over_marks() -> None:
    names = ["i", "seven", ",", "one", "two", "."]
    symbols = np.stack([symbols_of(name, one)[0] for name, one in zip(names, SENTENCES[2].said, strict=True)])
    assert next_spoken(symbols).tolist() == [0, 1, 3, 3, 4, 6, 6]


def test_phones_of_a_token_are_counted_from_its_first() -> None:
    unit, begins = np.array([0, 0, 1, 1, 1, 2]), np.array([1, 0, 1, 0, 1, 1], bool)
    assert begun(unit, begins).tolist() == [1, 1, 1, 1, 2, 1]


def test_prompts_have_no_places(composer: Composer) -> None:
    group, index = composer.prompt(np.random.default_rng(1), 40)
    assert len(group) == len(index) == 40
    assert composer.prompt(np.random.default_rng(1), 0)[0].shape == (0,)
