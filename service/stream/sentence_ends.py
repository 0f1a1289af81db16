"""Sentence ends in text that is still being received: rules on characters and words.

Every rule looks at the sentence before a stop and at no more than one word after it. A rule decides only when it has
seen enough, so a decision holds whatever text follows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from service.stream.sentences.english import ENGLISH
from service.stream.sentences.rules import STOPS, UNSPACED_STOPS, SentenceRules

_QUESTIONS = "!?‽؟！？"
_UNSPACED_LETTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")  # kana, Chinese characters
_NOT_INITIALS = re.compile(r"[\u1100-\u11ff\u3040-\u30ff\u3130-\u318f\u3400-\u9fff\uac00-\ud7ff\uf900-\ufaff]")

_WORD_BEFORE = re.compile(r"[^\s\"'“”‘’«»()\[\]{}—–/]*\Z")
_WORD = re.compile(r"[^\W\d_]+")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # U.S, B.C, the last full stop left out
# "# " of a heading, bullets, numbers, and the rule under a heading, "---" or "===", also in quotes
_QUOTED = r"(?:>\s?){0,2}"
_MARKER = re.compile(rf"{_QUOTED}(?:[-*+•‣⁃–—]|#{{1,6}}|-{{2,}}|={{2,}}|\(?\d{{1,3}}[.)]|\(?[A-Za-z][.)])\s")
_MARKER_BEGUN = re.compile(rf"{_QUOTED}(?:[-*+•‣⁃–—]?|#{{0,6}}|-*|=*|\(?\d{{0,3}}[.)]?|\(?[A-Za-z]?[.)]?)\s?")
_HEADING = re.compile(r"#{1,6}\s[^\n]*|\*\*[^*\n]+\*\*:?|__[^_\n]+__:?")
# Two to eight words of a first line that all begin with a capital or a digit, but for small words between them
_TITLE_WORD = r"[\"'“‘(]?[A-Z0-9][\w'’&/-]*[)\"'”’]?"
_TITLE = re.compile(
    rf"{_TITLE_WORD}(?:\s(?:{_TITLE_WORD}|a|an|and|as|at|by|for|from|in|of|on|or|the|to|with))"
    rf"{{0,6}}\s{_TITLE_WORD}"
)
# The number of "1." at a sentence's start
_MARKER_STOP = re.compile(r"(?:>\s?){0,2}(?:[-*•‣⁃–—]\s?)?\(?(?:\d{1,3}|[^\W\d_])")
_ORDINAL = re.compile(r"\d{1,2}")
_LETTER_MARKER = re.compile(r"[A-Za-z]\)")

_BULLETS = ("•", "‣", "⁃")
_MAX_WORD_CHARS = 14  # no starter of a sentence is longer
_MAX_MARKER_CHARS = 9


@dataclass(frozen=True)
class Search:
    """The result of a search. `end` is the index after the sentence; if it is None, search again from `resume`."""

    end: int | None
    resume: int


def find_end(text: str, start: int, complete: bool, rules: SentenceRules = ENGLISH) -> Search:
    """The first sentence end of `text` from `start` on, by the rules of its language. The sentence begins at index 0.

    Runs of white space must have been replaced by one space, or by one line feed where a line ended, and removed at
    the end. `complete` says that no text follows; otherwise a stop is left open until enough text around it is known.
    The end of `text` itself is never reported.
    """
    for candidate in rules.candidate.finditer(text, start):
        ends = _judge(text, candidate, complete, rules)
        if ends:
            return Search(candidate.end(), candidate.end())
        if ends is None:
            return Search(None, candidate.start())
    return Search(None, len(text))


def _judge(text: str, candidate: re.Match[str], complete: bool, rules: SentenceRules) -> bool | None:
    if candidate["stop"] is not None:
        return _ends_sentence(text, candidate, complete, rules)
    is_bullet = text[candidate.end() : candidate.end() + 1] in _BULLETS
    return is_bullet or _ends_line(text, candidate.start(), complete, rules)


def _ends_line(text: str, at: int, complete: bool, rules: SentenceRules) -> bool | None:
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
    headed = _MARKER.match(text) or (rules.titles and _TITLE.fullmatch(text, 0, at))
    return bool(headed) and not following[0].islower()


def _ends_sentence(text: str, candidate: re.Match[str], complete: bool, rules: SentenceRules) -> bool | None:
    end = candidate.end()
    if end == len(text):
        return None
    if not text[end].isspace():
        return _ends_unspaced(text, candidate, rules)
    following = text[end + 1]
    if following in ".,;:!?…" or (following in "-–—" and text[end] == " "):
        return False
    stop = candidate["stop"]
    closed = end > candidate.end("stop")
    if closed and (following.islower() or text[: candidate.start()].endswith(("(", "["))):
        return False  # "Stop!" he said. (!) [...]
    if any(char in _QUESTIONS or char in rules.questions for char in stop):
        return not following.islower() or _ends_before_small(text, "", end, complete, rules)
    if stop[-1] in STOPS and stop[-1] not in ".…":
        return True
    if len(stop) > 1 or stop == "…" or text[: candidate.start()].endswith(". "):
        return _ends_ellipsis(text, end, complete)
    return _ends_full_stop(text, candidate.start(), end, complete, rules)


def _ends_unspaced(text: str, candidate: re.Match[str], rules: SentenceRules) -> bool:
    """Whether a stop without a space after it ends a sentence: in some scripts; in others it is part of a word."""
    start, end = candidate.span()
    if candidate["stop"][-1] not in UNSPACED_STOPS:
        if not rules.unspaced or candidate["stop"][-1] not in ".!?":
            return False
        # 你好!你是谁? as keyboards for Latin write it, but not 3.0版 and a?b=c
        beside = [bool(_UNSPACED_LETTER.match(text, at)) for at in (max(0, start - 1), end)]
        if not (all(beside) if candidate["stop"][-1] == "." else any(beside)):
            return False
    quoted = end > candidate.end("stop")
    return not (quoted and text[end] in "とっ、，,")  # 「行く。」と言った


def _ends_ellipsis(text: str, end: int, complete: bool) -> bool | None:
    following = text[end + 1]
    if following.islower() or following.isdigit():
        return False
    word = _word_after(text, end, complete)
    return None if word is None else word != "I"  # I... I don't know


def _ends_full_stop(text: str, stop: int, end: int, complete: bool, rules: SentenceRules) -> bool | None:
    word = _WORD_BEFORE.search(text, max(0, stop - 40), stop)
    written = word[0] if word else ""
    before = written.lower()
    if _MARKER_STOP.fullmatch(text, 0, stop) and not _NOT_INITIALS.match(written):
        return False
    following = text[end + 1]
    if following.isdigit():
        return not _continues_before_number(written, rules)
    if following.islower():
        return _ends_before_small(text, written, end, complete, rules)
    if before in rules.never_last:
        return False
    if _may_be_last(written, rules):
        return _ends_abbreviation(text, before, end, complete, rules)
    return True


def _may_be_last(written: str, rules: SentenceRules) -> bool:
    """Whether it depends on the next word if a full stop behind this one ends the sentence."""
    before = written.lower()
    is_ordinal = rules.ordinals == "all" and bool(_ORDINAL.fullmatch(written))
    return before in rules.maybe_last or bool(_DOTTED.fullmatch(before)) or _is_initial(written, rules) or is_ordinal


def _continues_before_number(written: str, rules: SentenceRules) -> bool:
    before = written.lower()
    is_ordinal = bool(rules.ordinals) and bool(_ORDINAL.fullmatch(written))
    return before in rules.numbered or bool(_DOTTED.fullmatch(before)) or _is_initial(written, rules) or is_ordinal


def _ends_before_small(text: str, written: str, end: int, complete: bool, rules: SentenceRules) -> bool | None:
    """A lower-case letter continues the sentence, except in iPhone, in "b)", and in text without capitals."""
    if len(text) == end + 2 and not complete:
        return None
    if text[end + 2 : end + 3].isupper() or _LETTER_MARKER.match(text, end + 1):
        return True
    if text[:end] != text[:end].lower() or written.lower() in rules.numbered or _DOTTED.fullmatch(written.lower()):
        return False
    return not (rules.ordinals and _ORDINAL.fullmatch(written))


def _ends_abbreviation(text: str, before: str, end: int, complete: bool, rules: SentenceRules) -> bool | None:
    if not rules.starters:
        return before in rules.maybe_last
    word = _word_after(text, end, complete)
    if word is None:
        return None
    if before in ("a.m", "p.m") and rules.after_a_time:
        return word != "" and word.lower() not in rules.after_a_time
    after = end + 1 + len(word)
    next_initial = len(word) == 1 and text[after : after + 1] == "."  # the A. of "J. A. Smith"
    return word.lower() in rules.starters and not next_initial


def _is_initial(written: str, rules: SentenceRules) -> bool:
    """Whether a word is the first letter of a name. In English any letter is, so that "I." depends on what follows."""
    if len(written) != 1 or not written.isalpha():
        return False
    return rules is ENGLISH or not (written.islower() or _NOT_INITIALS.match(written))


def _word_after(text: str, end: int, complete: bool) -> str | None:
    """The letters after the space at `end`, possibly none; None while more of them may follow."""
    word = _WORD.match(text, end + 1)
    if word is None:
        return ""
    if word.end() == len(text) and not complete and len(word[0]) <= _MAX_WORD_CHARS:
        return None
    return word[0]
