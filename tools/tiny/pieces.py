"""Pieces of words and the phones they mostly stand for, learned by aligning letters with phones.

A word that is in no vocabulary is read as the pieces that cover it, the longest first, so pieces are chosen by how
often they say what the word says there. Knows spelling and phones; knows no tokenizer file.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tools.tiny.pronounce import Said

_MOST_PHONES = 2  # of a letter
_ROUNDS = 4
_LONGEST = 6
_FLOOR = 1e-4
Chunk = tuple[int, ...]


@dataclass(frozen=True)
class Word:
    letters: str
    said: Said


Aligned = tuple[Word, list[Chunk]]  # and which phones each letter says


@dataclass(frozen=True)
class Pieces:
    """What stands at the begin of a word, and what stands behind another piece."""

    first: dict[str, Said]
    later: dict[str, Said]


def learn(aligned: Sequence[Aligned], first_count: int, later_count: int) -> Pieces:
    """The best pieces of words. Every two letters can begin a word, every letter can go on."""
    votes: tuple[dict[str, Counter[Said]], ...] = (defaultdict(Counter), defaultdict(Counter))
    for word, chunks in aligned:
        for begin, end, said in _spans(word, chunks):
            votes[begin > 0][word.letters[begin:end]][said] += 1
    later = _best(votes[1], later_count, 1)
    alone = {letter: counts.most_common(1)[0][0] for letter, counts in votes[0].items() if len(letter) == 1}
    pairs = {a + b: _joined(alone[a], later[b]) for a in alone for b in later if len(b) == 1}
    return Pieces(pairs | _best(votes[0], first_count, 2), later)


def read(letters: str, pieces: Pieces) -> Said | None:
    """What the pieces say, the longest first; None where nothing covers a letter."""
    phones: list[int] = []
    stressed: list[bool] = []
    at = 0
    while at < len(letters):
        known = pieces.later if at else pieces.first
        end = next((e for e in range(len(letters), at, -1) if letters[at:e] in known), None)
        if end is None:
            return None
        phones += known[letters[at:end]].phones
        stressed += known[letters[at:end]].stressed
        at = end
    return Said(tuple(phones), tuple(stressed))


def halved(word: Word, chunks: list[Chunk] | None, longest: int, taken: dict[str, Said]) -> dict[str, Said]:
    """Two pieces with exactly the phones of a word of more than `longest`; none where it is shorter or has no such.

    What is taken keeps its sound, and nothing longer of it may begin the word.
    """
    count = len(word.letters)
    if chunks is None or len(word.said.phones) <= longest:
        return {}
    spans = {(begin, end): said for begin, end, said in _spans(word, chunks, count)}
    for cut in sorted(range(2, count - 1), key=lambda at: abs(at - count / 2)):
        pair = {word.letters[:cut]: spans[0, cut], f"##{word.letters[cut:]}": spans[cut, count]}
        short = all(0 < len(said.phones) <= longest for said in pair.values())
        free = all(taken.get(name, said) == said for name, said in pair.items())
        if short and free and not any(word.letters[:end] in taken for end in range(cut + 1, count)):
            return pair
    return {}


def _joined(a: Said, b: Said) -> Said:
    return Said(a.phones + b.phones, a.stressed + b.stressed)


def _best(votes: dict[str, Counter[Said]], count: int, least: int) -> dict[str, Said]:
    """The pieces that are right most often, less often than not wrong; all of the shortest."""
    worth = {piece: 2 * counts.most_common(1)[0][1] - counts.total() for piece, counts in votes.items()}
    short = [piece for piece in votes if len(piece) == least]
    longer = [piece for piece in votes if len(piece) > least]
    ranked = sorted(longer, key=lambda piece: (-worth[piece] * len(piece), piece))
    chosen = short + ranked[: max(0, count - len(short))]
    return {piece: votes[piece].most_common(1)[0][0] for piece in chosen}


def _spans(word: Word, chunks: list[Chunk], longest: int = _LONGEST) -> Iterable[tuple[int, int, Said]]:
    """All short stretches of letters, but the whole word, with what they say."""
    starts = [0]
    for chunk in chunks:
        starts.append(starts[-1] + len(chunk))
    count = len(word.letters)
    for begin in range(count):
        for end in range(begin + 1, min(count, begin + longest) + 1):
            if end - begin < count:
                said = slice(starts[begin], starts[end])
                yield begin, end, Said(word.said.phones[said], word.said.stressed[said])


def align(words: Sequence[Word]) -> list[Aligned]:
    """Which phones each letter says: the likeliest split, learned by counting likeliest splits."""
    likely: dict[tuple[str, Chunk], float] = {}
    done: list[Aligned] = []
    for _ in range(_ROUNDS):
        counts: Counter[tuple[str, Chunk]] = Counter()
        done = [(word, chunks) for word in words if (chunks := _align(word, likely)) is not None]
        for word, chunks in done:
            counts.update(zip(word.letters, chunks, strict=True))
        letters: Counter[str] = Counter()
        for (letter, _), count in counts.items():
            letters[letter] += count
        likely = {key: math.log(count / letters[key[0]]) for key, count in counts.items()}
    return done


def _align(word: Word, likely: dict[tuple[str, Chunk], float]) -> list[Chunk] | None:
    """None where there are too many phones for the letters."""
    phones, letters = word.said.phones, word.letters
    best: list[dict[int, tuple[float, int]]] = [{0: (0.0, 0)}]
    for i, letter in enumerate(letters):
        row: dict[int, tuple[float, int]] = {}
        for at, (score, _) in best[-1].items():
            for count in range(min(_MOST_PHONES, len(phones) - at) + 1):
                value = score + _score(letter, phones[at : at + count], likely, i / len(letters) - at / len(phones))
                if at + count not in row or value > row[at + count][0]:
                    row[at + count] = (value, count)
        best.append(row)
    if len(phones) not in best[-1]:
        return None
    chunks, at = [], len(phones)
    for row in reversed(best[1:]):
        count = row[at][1]
        chunks.append(phones[at - count : at])
        at -= count
    return chunks[::-1]


def _score(letter: str, chunk: Chunk, likely: dict[tuple[str, Chunk], float], off: float) -> float:
    """Before anything is known, letters and phones go side by side."""
    if not likely:
        return -abs(len(chunk) - 1) - off * off
    return likely.get((letter, chunk), math.log(_FLOOR))
