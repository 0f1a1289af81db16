"""A sentence -> its text tokens, and the teacher's characters (phones, marks, stress, spaces) with the token of each.

The teacher's own rules turn words into phones. Knows no audio and no codes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

from tools.tiny.codes import ALPHABET, PAUSE
from tools.tiny.teacher import Teacher

MARKS = ",;:.!?"
SLOTS = 14  # phones that a text token can have
STRESS, LESS_STRESS, SPACE = "ˈˌ "
SPOKEN = ALPHABET.replace(PAUSE, "")
_MOST_CHARACTERS = 500
_SPLIT = re.compile(r"[a-z]+(?:'[a-z]+)?|[^\sa-z]")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Said:
    """Phones, each an index into ALPHABET, and whether each is stressed."""

    phones: tuple[int, ...] = ()
    stressed: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Pronounced:
    tokens: list[str]
    said: list[Said]  # of each token
    characters: list[tuple[str, int]]  # and the token that each belongs to


class Pronouncer:
    def __init__(self, teacher: Teacher) -> None:
        self._g2p, self._known = teacher.g2p, teacher.vocabulary
        self._letters = {letter: bare(self._g2p(letter.upper())) for letter in _LETTERS} | {"a": "A"}

    def word(self, word: str) -> Said:
        """One word as it is said alone."""
        return _said([(c, 0) for c in self._g2p(word)], 1)[0]

    def letter(self, letter: str) -> Said:
        """A letter's name."""
        return _said([(c, 0) for c in STRESS + self._letters[letter]], 1)[0]

    def __call__(self, text: str) -> Pronounced | None:
        """One sentence. None where a token does not fit."""
        tokens: list[str] = []
        characters: list[tuple[str, int]] = []
        for token in self._g2p.phonemize_tokens(self._g2p.tokenize(text[0].upper() + text[1:])):
            parts = _SPLIT.findall(token.text.lower())
            owners = self._owners(parts, token.phonemes)
            if owners is None:
                return None
            characters += [(c, len(tokens) + owner) for c, owner in zip(token.phonemes, owners, strict=True)]
            tokens += parts
            characters += [(SPACE, len(tokens) - 1)] * bool(token.whitespace)
        return self._checked(tokens, [(c, owner) for c, owner in characters if c in self._known])

    def ids(self, characters: list[tuple[str, int]]) -> list[int]:
        """What the teacher reads."""
        return [0, *(self._known[c] for c, _ in characters), 0]

    def _checked(self, tokens: list[str], characters: list[tuple[str, int]]) -> Pronounced | None:
        while characters and characters[-1][0] == SPACE:
            characters.pop()
        allowed = SPOKEN + MARKS + STRESS + LESS_STRESS + SPACE
        if not 0 < len(characters) <= _MOST_CHARACTERS or any(c not in allowed for c, _ in characters):
            return None
        said = _said(characters, len(tokens))
        silent = any(token[0].isalnum() and not one.phones for token, one in zip(tokens, said, strict=True))
        if silent or max(len(one.phones) for one in said) > SLOTS:
            return None
        return Pronounced(tokens, said, characters)

    def _owners(self, parts: list[str], phonemes: str | None) -> list[int] | None:
        """Which part says each character: one word says all, single letters their own names, anything else is None."""
        if not parts or phonemes is None or SPACE in phonemes:
            return None
        words = [i for i, part in enumerate(parts) if part[0].isalpha()]
        if len(words) <= 1:
            return [words[0] if words else 0] * len(phonemes)
        names = [self._letters.get(parts[i], "") for i in words]
        if "".join(names) != bare(phonemes):
            return None
        queue = [i for i, name in zip(words, names, strict=True) for _ in name]
        owners, at = [], 0
        for c in phonemes:  # marks of stress go with the phone behind them
            owners.append(queue[min(at, len(queue) - 1)])
            at += c in SPOKEN
        return owners


def bare(phonemes: str) -> str:
    """The phones alone."""
    return "".join(c for c in phonemes if c in SPOKEN)


def _said(characters: list[tuple[str, int]], tokens: int) -> list[Said]:
    """What each token says; a mark of stress counts for the phone behind it."""
    phones: dict[int, list[int]] = defaultdict(list)
    stressed: dict[int, list[bool]] = defaultdict(list)
    stress = False
    for c, owner in characters:
        stress |= c == STRESS
        if c in SPOKEN:
            phones[owner].append(ALPHABET.index(c))
            stressed[owner].append(stress)
            stress = False
    return [Said(tuple(phones[i]), tuple(stressed[i])) for i in range(tokens)]
