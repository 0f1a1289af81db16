"""Pieces of words: learned from spelling, and long words halved without a change of what they say."""

from __future__ import annotations

from tools.tiny.codes import ALPHABET
from tools.tiny.pieces import Word, align, halved, learn, read
from tools.tiny.pronounce import Said

_SOUNDS = {
    "tab": "tæb", "bat": "bæt", "tub": "tʌb", "but": "bʌt", "nab": "næb", "tan": "tæn", "ban": "bæn", "nut": "nʌt",
    "batman": "bætmæn", "tabun": "tæbʌn", "mat": "mæt", "man": "mæn", "mutt": "mʌt", "numb": "nʌm",
}  # fmt: skip


def _said(phones: str) -> Said:
    return Said(tuple(ALPHABET.index(c) for c in phones), (False,) * len(phones))


ALIGNED = align([Word(word, _said(phones)) for word, phones in _SOUNDS.items()])


def test_an_unknown_word_is_read_as_it_is_spelled() -> None:
    pieces = learn(ALIGNED, 40, 20)
    assert read("nubat", pieces) == _said("nʌbæt")
    assert read("xylo", pieces) is None


def test_a_long_word_is_two_pieces_that_say_the_same() -> None:
    chunks = dict(ALIGNED)
    word = Word("batman", _said("bætmæn"))
    pair = halved(word, chunks[word], 4, {})
    assert list(pair) == ["bat", "##man"]
    assert [said.phones for said in pair.values()] == [_said("bæt").phones, _said("mæn").phones]


def test_it_stays_whole_where_it_is_short_or_another_word_hides_its_pieces() -> None:
    chunks = dict(ALIGNED)
    word = Word("batman", _said("bætmæn"))
    assert halved(word, chunks[word], 6, {}) == {}
    hiding = {word.letters[:end]: _said("t") for end in range(2, 6)}
    assert halved(word, chunks[word], 4, hiding) == {}
