"""Sentences -> whole texts of any number of tokens, as T3 reads them, and prompts. Knows no net.

Sentences are joined, words are cut into pieces as a tokenizer cuts those it does not know, tokens that stand for
nothing are strewn in, and prompts are partly misheard.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tools.tiny import codes
from tools.tiny.codes import ALPHABET, PAUSE, Bools, Ints, Rows
from tools.tiny.corpus import MOST_ROWS, MOST_TOKENS
from tools.tiny.dataset import Sentence
from tools.tiny.engine import SPEECH_CODES
from tools.tiny.pronounce import MARKS, SLOTS, Said
from tools.tiny.rows import Spoken

END, SILENT = len(ALPHABET), len(ALPHABET) + 1  # what stands in a slot besides phones
MARK_SYMBOLS = {mark: len(ALPHABET) + 2 + i for i, mark in enumerate(MARKS)}
_SILENCE = ALPHABET.index(PAUSE)
LONG_WORD = 9  # phones: T3 counts badly to more, so such words are two tokens or more
_SPLIT_TEXTS, _SPLIT_WORDS = 0.25, 0.2
_CUTS = (1, 1, 2, 3)  # of a word that is cut, in equal shares
_BARE = 0.85  # of texts have no marks but those at which one pauses, as the tokenizer drops most of the others
_OWN_SOUND = 0.1  # of words that stand for what is said in this text, not for what they mostly sound like
_SILENT_SHARE = 0.01
_MOST_MISHEARD = 0.6
_LONGEST_PAUSE = (5, 9)  # rows
_MOST_JOINED = 7
_FILL, _FILL_NEXT = 0.4, 0.3  # how often the longest sentence that fits is taken, first and then


@dataclass(frozen=True)
class Text:
    """What T3 reads, symbols and stresses (n, SLOTS + 1), and what it is to say; units count text tokens."""

    names: list[str]
    symbols: Ints
    stressed: Ints
    spoken: Spoken
    text: str
    kind: str

    def rows(self, first: int) -> Rows:
        return self.spoken.rows(first)


def symbols_of(name: str, said: Said) -> tuple[Ints, Ints]:
    """(SLOTS + 1,) each: phones and their stress, or the symbol of what is not spoken."""
    symbols, stressed = np.full(SLOTS + 1, END, np.int64), np.zeros(SLOTS + 1, np.int64)
    if said.phones:
        symbols[: len(said.phones)], stressed[: len(said.phones)] = said.phones, said.stressed
    else:
        symbols[0] = MARK_SYMBOLS.get(name, SILENT)
    return symbols, stressed


def usual_sounds(sentences: list[Sentence]) -> dict[str, Said]:
    """What each word mostly sounds like."""
    votes: dict[str, Counter[Said]] = defaultdict(Counter)
    for one in sentences:
        for name, said in zip(one.tokens, one.said, strict=True):
            if said.phones:
                votes[name][said] += 1
    return {name: counts.most_common(1)[0][0] for name, counts in votes.items()}


class Composer:
    def __init__(self, sentences: list[Sentence], usual: dict[str, Said]) -> None:
        self._usual, self._sentences = usual, sentences
        self._of_length: dict[int, list[Sentence]] = defaultdict(list)
        for one in sentences:
            self._of_length[len(one.tokens)].append(one)
        self._lengths = np.array(sorted(self._of_length))
        self._table = codes.parts(np.arange(SPEECH_CODES))

    def text(self, draw: np.random.Generator, target: int, *, clean: bool = False) -> Text:
        """About `target` tokens. clean: as a tokenizer gives it that knows every word and how it mostly sounds."""
        left = max(2, min(target, MOST_TOKENS))
        chosen: list[Sentence] = []
        fill = draw.random() < _FILL
        while left >= 2 and len(chosen) < _MOST_JOINED:
            fits = self._lengths[self._lengths <= left]
            length = int(fits[-1] if fill or left < 6 else draw.choice(fits))
            same = self._of_length[length]
            chosen.append(same[draw.integers(len(same))])
            left -= length
            fill = draw.random() < _FILL_NEXT
        while sum(len(one.spoken) for one in chosen) > MOST_ROWS:
            chosen.pop()
        return self.joined(draw, chosen, clean=clean)

    def joined(self, draw: np.random.Generator, chosen: list[Sentence], *, clean: bool) -> Text:
        """The sentences as one text; a pause between two belongs to the mark before it."""
        cut = not clean and draw.random() < _SPLIT_TEXTS
        bare = clean or draw.random() < _BARE
        names: list[str] = []
        said: list[Said] = []
        parts: list[Spoken] = []
        for one in map(partial(_with_short_pauses, draw), chosen):
            heard = set(one.spoken.unit.tolist())
            pieces = [
                [] if bare and i not in heard and not own.phones else self._pieces(draw, name, own, cut, clean)
                for i, (name, own) in enumerate(zip(one.tokens, one.said, strict=True))
            ]
            part = _placed(one.spoken, pieces, len(names))
            parts.append(_following(part, parts[-1]) if parts else part)
            names += [name for name, own in zip(one.tokens, pieces, strict=True) for _ in own]
            said += [sound for own in pieces for sound in own]
        rows = [symbols_of(name, sound) for name, sound in zip(names, said, strict=True)]
        symbols, stressed = (np.stack([row[i] for row in rows]) for i in (0, 1))
        kind = chosen[0].kind if len(chosen) == 1 else "joined"
        return Text(names, symbols, stressed, _concatenated(parts), " ".join(one.text for one in chosen), kind)

    def _pieces(self, draw: np.random.Generator, name: str, own: Said, cut: bool, clean: bool) -> list[Said]:
        """What one word or mark becomes: itself, pieces of it, or itself behind a token that stands for nothing."""
        if len(own.phones) > LONG_WORD:
            return _cut(draw, own, [len(own.phones) // 2] if clean else None)
        if clean:
            return [self._usual.get(name, own) if own.phones else own]
        silent = [Said()] * (draw.random() < _SILENT_SHARE)
        if cut and len(own.phones) > 1 and draw.random() < _SPLIT_WORDS:
            return silent + _cut(draw, own)
        usual = own if not own.phones or draw.random() < _OWN_SOUND else self._usual.get(name, own)
        return [*silent, usual]

    def prompt(self, draw: np.random.Generator, tokens: int) -> tuple[Ints, Ints]:
        """Groups and factors of codes as the net that hears reference audio gives them: no counters, partly wrong."""
        pieces: list[tuple[Ints, Ints]] = [(np.zeros(0, np.int64), np.zeros((0, 3), np.int64))]
        have = 0
        while have < tokens:
            one = self._sentences[draw.integers(len(self._sentences))].spoken
            rows = one.rows(0)
            pieces.append(codes.split(Rows(rows.phone, 0 * rows.unit, rows.begins, rows.pitch)))
            have += len(one)
        group, index = (np.concatenate([piece[i] for piece in pieces])[:tokens] for i in (0, 1))
        wrong = draw.random(tokens) < draw.random() * _MOST_MISHEARD
        other = draw.integers(SPEECH_CODES, size=tokens)
        return np.where(wrong, self._table[0][other], group), np.where(wrong[:, None], self._table[1][other], index)


def _with_short_pauses(draw: np.random.Generator, one: Sentence) -> Sentence:
    """T3 counts badly to twelve: no pause is longer than a number that is drawn for it."""
    rows = one.spoken
    starts = np.flatnonzero(rows.begins)
    which = np.cumsum(rows.begins) - 1
    age = np.arange(len(rows)) - starts[which]
    kept = (rows.letter != _SILENCE) | (age < draw.integers(*_LONGEST_PAUSE, len(starts), endpoint=True)[which])
    return replace(one, spoken=Spoken(rows.letter[kept], rows.unit[kept], rows.begins[kept], rows.f0_hz[kept]))


def _cut(draw: np.random.Generator, said: Said, cuts: list[int] | None = None) -> list[Said]:
    """At random places unless given."""
    if cuts is None:
        count = min(len(said.phones) - 1, int(draw.choice(_CUTS)))
        cuts = np.sort(draw.choice(np.arange(1, len(said.phones)), count, replace=False)).tolist()
    bounds = zip([0, *cuts], [*cuts, len(said.phones)], strict=True)
    return [Said(said.phones[begin:end], said.stressed[begin:end]) for begin, end in bounds]


def _placed(spoken: Spoken, pieces: list[list[Said]], first: int) -> Spoken:
    """`spoken` with the tokens that its words became, from token `first` on."""
    lengths = [len(own) for own in pieces]
    starts = np.cumsum([0, *lengths[:-1]])
    unit = starts[spoken.unit]
    for i, own in enumerate(pieces):
        if len(own) > 1:
            mine = spoken.unit == i
            unit[mine] += _piece_of(spoken.begins & mine & (spoken.letter != _SILENCE), own)[mine]
    return Spoken(spoken.letter, unit + first, spoken.begins, spoken.f0_hz)


def _piece_of(begins: Bools, own: list[Said]) -> Ints:
    """(n,): which piece of the word each row speaks, by how many of its phones have begun."""
    if not any(one.phones for one in own):  # a mark behind a token that stands for nothing
        return np.full(len(begins), len(own) - 1)
    ends = np.cumsum([len(one.phones) for one in own])
    begun = np.maximum(np.cumsum(begins), 1)
    return np.minimum(np.searchsorted(ends, begun, side="left"), len(own) - 1)


def _following(part: Spoken, before: Spoken) -> Spoken:
    """`part` with its leading pause given to what was spoken before."""
    if part.letter[0] != _SILENCE:
        return part
    pause = int(np.argmax(part.letter != _SILENCE))
    unit, begins = part.unit.copy(), part.begins.copy()
    unit[:pause] = before.unit[-1]
    begins[0] = before.letter[-1] != _SILENCE
    return Spoken(part.letter, unit, begins, part.f0_hz)


def _concatenated(parts: list[Spoken]) -> Spoken:
    columns: tuple[npt.NDArray[np.generic], ...] = tuple(
        np.concatenate([getattr(part, name) for part in parts]) for name in ("letter", "unit", "begins", "f0_hz")
    )
    return Spoken(*columns)  # type: ignore[arg-type]
