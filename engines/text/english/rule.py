"""A rule of the front end: a pattern, and what is spoken for a match of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

# Before and after a number: no letter or digit, and no part of another number.
BEFORE = r"(?<![\w.,/:-])(?<![$£€¥₹])"
AFTER = r"(?![\w])(?![.,:/-]\d)"
INTEGER = r"(?:\d{1,3}(?:,\d{3})+|\d+)"
NUMBER = rf"(?:{INTEGER}(?:\.\d+)?|\.\d+)"
YEAR = r"(?P<year>1\d{3}|20\d{2})"
DASH = r"\s?[-–—]\s?"


DIGITS = "0123456789"
_QUOTES = " \"'”’)"
INNER_STOP = ("a stop inside",)  # a full stop with anything but white space behind it


@dataclass(frozen=True)
class Rule:
    """`speak` returns what is said for a match, or None if a later rule reads it. With a group `claim` the match is
    that group, and the rest is only looked at.

    `needs`: a text with none of these signs has no match, and costs nothing; empty if any may have one. A sign is a
    character, or that of INNER_STOP. `with_digit`: the same of a text without a digit.
    """

    pattern: re.Pattern[str]
    speak: Callable[[re.Match[str]], str | None]
    needs: frozenset[str]
    with_digit: bool = False

    def may_match(self, signs: frozenset[str]) -> bool:
        """Whether a text with these signs may have a match."""
        if self.with_digit and signs.isdisjoint(DIGITS):
            return False
        return not self.needs or not self.needs.isdisjoint(signs)


def rule(
    pattern: str,
    speak: Callable[[re.Match[str]], str | None],
    needs: Iterable[str] = DIGITS,
    flags: int = 0,
    *,
    with_digit: bool = False,
) -> Rule:
    """Returns the rule of a pattern."""
    return Rule(re.compile(pattern, flags), speak, frozenset(needs), with_digit)


def signs_of(text: str) -> frozenset[str]:
    """Returns what `needs` of rules are compared with."""
    return frozenset((*text, *INNER_STOP) if "." in text.rstrip()[:-1] else text)


def said(words: str) -> Callable[[re.Match[str]], str]:
    """Returns a function that says the same for every match."""
    return lambda match: words


def words_of(text: str) -> tuple[str, ...]:
    """Returns the words of a list that is written as one text."""
    return tuple(text.split())


def is_last(match: re.Match[str]) -> bool:
    """Whether only quotes and brackets follow a match, so that its full stop also ends the text."""
    return not match.string[match.end() :].strip(_QUOTES)


def kept_stop(match: re.Match[str]) -> str:
    """Returns a full stop for a match whose group `dot` also ends the text: "p.m."."""
    return "." if match["dot"] and is_last(match) else ""
