"""How languages write: what ends a sentence or a clause, which words with a full stop do not, and how long a segment
may be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

UNSPACED_STOPS = "。！？｡．।॥။៕"  # of scripts without a space after sentences, or without another use of the full stop
STOPS = ".!?…‽؟۔։።" + UNSPACED_STOPS
CLOSERS = "\"'”’»›)]}」』）】〕》〉"

_STRONG = re.compile(rf"[;:؛][{re.escape(CLOSERS)}]*(?=\s)|[；：]|\s?—\s?|\s[-–]\s")
_COMMA = re.compile(rf"[,،][{re.escape(CLOSERS)}]*(?=\s)|[，、]")
_NEVER = re.compile(r"(?!)")
_ALPHABETIC_CHARS = 250  # 17 s of usual speech


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _before(words: str) -> re.Pattern[str]:
    """The white space before one of these words."""
    return re.compile(rf"\s(?=(?:{'|'.join(words.split())})\s)") if words else _NEVER


@dataclass(frozen=True)
class SentenceRules:
    """The rules of one language.

    never_last    abbreviations that never end a sentence, without their last full stop, in lower case
    maybe_last    abbreviations that end a sentence if the next word is one of `starters`, or where these are empty if
                  it begins with a capital
    numbered      abbreviations only in front of a number: "no" is a word, too
    starters      words that often begin a sentence, in lower case
    after_a_time  words that continue the time after "5 p.m."
    ordinals      whether a number with a full stop is an ordinal: "small" before small letters, "all" also before
                  capitals that are not of `starters`
    questions     characters that are question marks in this language alone
    closers       further closing quotes, directly behind a stop
    spaced_quotes whether » stands behind a space
    unspaced      whether sentences have no spaces between them, also after ! and ?
    titles        whether a first line of capitalised words is a headline
    conjunctions  the words before which a long sentence may be cut
    prepositions  the words before which a sentence that is being written may be cut
    split_chars   the length in characters at which a sentence is split
    """

    never_last: frozenset[str] = frozenset()
    maybe_last: frozenset[str] = frozenset()
    numbered: frozenset[str] = frozenset()
    starters: frozenset[str] = frozenset()
    after_a_time: frozenset[str] = frozenset()
    ordinals: str = ""
    questions: str = ""
    closers: str = ""
    spaced_quotes: bool = False
    unspaced: bool = False
    titles: bool = False
    conjunctions: str = ""
    prepositions: str = ""
    split_chars: int = _ALPHABETIC_CHARS
    strong_clause: re.Pattern[str] = field(default=_STRONG, repr=False)
    comma: re.Pattern[str] = field(default=_COMMA, repr=False)
    conjunction: re.Pattern[str] = field(default=_NEVER, init=False, repr=False)
    preposition: re.Pattern[str] = field(default=_NEVER, init=False, repr=False)
    candidate: re.Pattern[str] = field(default=_NEVER, init=False, repr=False)  # where a sentence may end

    def __post_init__(self) -> None:
        closers = re.escape(CLOSERS + self.closers)
        quoted = rf"(?:[{closers}]| [»›])*" if self.spaced_quotes else rf"[{closers}]*"
        candidate = rf"(?P<stop>[{STOPS}{re.escape(self.questions)}]+){quoted}|\n|\s(?=[•‣⁃])"
        object.__setattr__(self, "candidate", re.compile(candidate))
        object.__setattr__(self, "conjunction", _before(self.conjunctions))
        object.__setattr__(self, "preposition", _before(self.prepositions))
