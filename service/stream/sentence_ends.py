"""Sentence ends in text that is still being received: rules on characters and words.

Every rule looks at the sentence before a stop and at no more than one word after it. A rule decides only when it has
seen enough, so a decision holds whatever text follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_QUESTIONS = "!?‽؟！？"
_UNSPACED_STOPS = "。！？｡．।॥။៕"  # of scripts without a space after sentences, or without another use of the full stop
_STOPS = ".!?…‽؟۔։።" + _UNSPACED_STOPS
CLOSERS = "\"'”’»›)]}」』）】〕》〉"

_CANDIDATE = re.compile(rf"(?P<stop>[{_STOPS}]+)[{re.escape(CLOSERS)}]*|\n|\s(?=[•‣⁃])")
_WORD_BEFORE = re.compile(r"[^\s\"'“”‘’«»()\[\]{}—–/]*\Z")
_WORD = re.compile(r"[^\W\d_]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # U.S, B.C, the last full stop left out
# "# " of a heading, bullets, numbers, and the rule under a heading, "---" or "==="
_MARKER = re.compile(r"(?:[-*+•‣⁃–—]|#{1,6}|-{2,}|={2,}|\(?\d{1,3}[.)]|\(?[A-Za-z][.)])\s")
_MARKER_BEGUN = re.compile(r"(?:[-*+•‣⁃–—]?|#{0,6}|-*|=*|\(?\d{0,3}[.)]?|\(?[A-Za-z]?[.)]?)\s?")
_HEADING = re.compile(r"#{1,6}\s[^\n]*|\*\*[^*\n]+\*\*:?|__[^_\n]+__:?")
# Two to eight words of a first line that all begin with a capital or a digit, but for small words between them
_TITLE_WORD = r"[\"'“‘(]?[A-Z0-9][\w'’&/-]*[)\"'”’]?"
_TITLE = re.compile(
    rf"{_TITLE_WORD}(?:\s(?:{_TITLE_WORD}|a|an|and|as|at|by|for|from|in|of|on|or|the|to|with))"
    rf"{{0,6}}\s{_TITLE_WORD}"
)
_MARKER_STOP = re.compile(r"(?:[-*•‣⁃–—]\s?)?\(?(?:\d{1,3}|[^\W\d_])")  # the number of "1." at a sentence's start
_LETTER_MARKER = re.compile(r"[A-Za-z]\)")

_BULLETS = ("•", "‣", "⁃")
_MAX_WORD_CHARS = 14  # no word in the lists below is longer
_MAX_MARKER_CHARS = 6


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Abbreviations that never end a sentence.
_NEVER_LAST = _words(
    "mr mrs ms messrs mme mlle dr drs prof rev hon fr gen col maj capt cmdr lt sgt cpl adm gov sen rep pres sec'y supt "
    "insp det amb atty p.s n.b e.g i.e eg ie cf viz vs v approx ca incl esp fig figs eq eqs vol vols pp nos ch chap"
)
# Abbreviations that end a sentence if the next word is one of _STARTERS.
_MAYBE_LAST = _words(
    "inc ltd co corp assoc assn bros llc plc dept univ est jr sr st ave blvd rd hwy sq mt ft pt etc al ed eds ext apt "
    "tel ph.d jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri sat sun"
)
# Abbreviations only in front of a number: "no" and "sec" are words too.
_NUMBERED = (
    _words("no n° nr c p par para art sec ex pt st op ver ref rm ste bldg approx ca") | _NEVER_LAST | _MAYBE_LAST
)
# After "5 p.m." these continue the time.
_AFTER_A_TIME = _words(
    "monday tuesday wednesday thursday friday saturday sunday january february march april june july august september "
    "october november december est edt cst cdt mst mdt pst pdt et ct mt pt gmt utc bst cet cest eastern central "
    "mountain pacific"
)
_STARTERS = _words(
    "a an the this that these those there here he she it we they you i his her its our their my your who what when "
    "where why how which if but and or so then as at in on for from to with by after before although because while "
    "once since until now not no yes one some many most all both each every another such please let do does did is "
    "are was were can could would should might must have has had even still also however meanwhile finally next maybe "
    "perhaps nobody everybody everyone somebody someone nothing everything"
)


@dataclass(frozen=True)
class Search:
    """The result of a search. `end` is the index after the sentence; if it is None, search again from `resume`."""

    end: int | None
    resume: int


def find_end(text: str, start: int, complete: bool) -> Search:
    """The first sentence end of `text` from `start` on. The sentence begins at index 0.

    Runs of white space must have been replaced by one space, or by one line feed where a line ended, and removed at
    the end. `complete` says that no text follows; otherwise a stop is left open until enough text around it is known.
    The end of `text` itself is never reported.
    """
    for candidate in _CANDIDATE.finditer(text, start):
        ends = _judge(text, candidate, complete)
        if ends:
            return Search(candidate.end(), candidate.end())
        if ends is None:
            return Search(None, candidate.start())
    return Search(None, len(text))


def _judge(text: str, candidate: re.Match[str], complete: bool) -> bool | None:
    if candidate["stop"] is not None:
        return _ends_sentence(text, candidate, complete)
    return text[candidate.end() : candidate.end() + 1] in _BULLETS or _ends_line(text, candidate.start(), complete)


def _ends_line(text: str, at: int, complete: bool) -> bool | None:
    """Whether the line feed at `at` ends a heading or a list item, or precedes one. Other lines are only wrapped."""
    if _HEADING.fullmatch(text, text.rfind("\n", 0, at) + 1, at):
        return True
    following = text[at + 1 : at + 1 + _MAX_MARKER_CHARS]
    if not following:
        return None
    if _MARKER.match(following):
        return True
    if not complete and len(following) < _MAX_MARKER_CHARS and _MARKER_BEGUN.fullmatch(following):
        return None
    return bool(_MARKER.match(text) or _TITLE.fullmatch(text, 0, at)) and not following[0].islower()


def _ends_sentence(text: str, candidate: re.Match[str], complete: bool) -> bool | None:
    end = candidate.end()
    if end == len(text):
        return None
    if not text[end].isspace():
        return _ends_unspaced(text, candidate)
    following = text[end + 1]
    if following in ".,;:!?…" or (following in "-–—" and text[end] == " "):
        return False
    stop = candidate["stop"]
    closed = end > candidate.end("stop")
    if closed and (following.islower() or text[: candidate.start()].endswith(("(", "["))):
        return False  # "Stop!" he said. (!) [...]
    if any(char in _QUESTIONS for char in stop):
        return not following.islower() or _ends_before_small(text, "", end, complete)
    if stop[-1] in _STOPS and stop[-1] not in ".…":
        return True
    if len(stop) > 1 or stop == "…" or text[: candidate.start()].endswith(". "):
        return _ends_ellipsis(text, end, complete)
    return _ends_full_stop(text, candidate.start(), end, complete)


def _ends_unspaced(text: str, candidate: re.Match[str]) -> bool:
    """Whether a stop without a space after it ends a sentence: in some scripts; in others it is part of a word."""
    if candidate["stop"][-1] not in _UNSPACED_STOPS:
        return False
    quoted = candidate.end() > candidate.end("stop")
    return not (quoted and text[candidate.end()] in "とっ、，,")  # 「行く。」と言った


def _ends_ellipsis(text: str, end: int, complete: bool) -> bool | None:
    following = text[end + 1]
    if following.islower() or following.isdigit():
        return False
    word = _word_after(text, end, complete)
    return None if word is None else word != "I"  # I... I don't know


def _ends_full_stop(text: str, stop: int, end: int, complete: bool) -> bool | None:
    word = _WORD_BEFORE.search(text, max(0, stop - 40), stop)
    before = word[0].lower() if word else ""
    if _MARKER_STOP.fullmatch(text, 0, stop):
        return False
    following = text[end + 1]
    if following.isdigit():
        return before not in _NUMBERED and not _DOTTED.fullmatch(before) and not _is_initial(before)
    if following.islower():
        return _ends_before_small(text, before, end, complete)
    if before in _NEVER_LAST:
        return False
    if before in _MAYBE_LAST or _DOTTED.fullmatch(before) or _is_initial(before):
        return _ends_abbreviation(text, before, end, complete)
    return True


def _ends_before_small(text: str, before: str, end: int, complete: bool) -> bool | None:
    """A lower-case letter continues the sentence, except in iPhone, in "b)", and in text without capitals."""
    if len(text) == end + 2 and not complete:
        return None
    if text[end + 2 : end + 3].isupper() or _LETTER_MARKER.match(text, end + 1):
        return True
    capitals = text[:end] != text[:end].lower()
    return not capitals and before not in _NUMBERED and not _DOTTED.fullmatch(before)


def _ends_abbreviation(text: str, before: str, end: int, complete: bool) -> bool | None:
    word = _word_after(text, end, complete)
    if word is None:
        return None
    if before in ("a.m", "p.m"):
        return word != "" and word.lower() not in _AFTER_A_TIME
    after = end + 1 + len(word)
    next_initial = len(word) == 1 and text[after : after + 1] == "."  # the A. of "J. A. Smith"
    return word.lower() in _STARTERS and not next_initial


def _is_initial(word: str) -> bool:
    return len(word) == 1 and word.isalpha()


def _word_after(text: str, end: int, complete: bool) -> str | None:
    """The letters after the space at `end`, possibly none; None while more of them may follow."""
    word = _WORD.match(text, end + 1)
    if word is None:
        return ""
    if word.end() == len(text) and not complete and len(word[0]) <= _MAX_WORD_CHARS:
        return None
    return word[0]
