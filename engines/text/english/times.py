"""Times of day and ratios."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal
from engines.text.english.rule import BEFORE, DASH, Rule, kept_stop, rule, said, words_of

_HALF = r"(?P<half>[aApP])\.?[mM](?P<dot>\.?)(?!\w)"
_CLOCK = r"(?P<hour>[01]?\d|2[0-4])"
_BOOKS = "|".join(
    words_of(
        "Genesis Gen Exodus Exod Leviticus Lev Numbers Num Deuteronomy Deut Joshua Judges Ruth Samuel Sam Kings "
        "Chronicles Ezra Nehemiah Esther Job Psalms Psalm Ps Proverbs Prov Ecclesiastes Isaiah Isa Jeremiah Jer "
        "Lamentations Ezekiel Daniel Hosea Joel Amos Obadiah Jonah Micah Nahum Habakkuk Zephaniah Haggai Zechariah "
        "Malachi Matthew Matt Mark Luke John Acts Romans Rom Corinthians Cor Galatians Gal Ephesians Eph Philippians "
        "Phil Colossians Col Thessalonians Thess Timothy Tim Titus Philemon Hebrews Heb James Jas Peter Pet Jude "
        "Revelation Rev Surah Quran"
    )
)
_NO_TIME = r"(?<![\w.,:/$£€-])"


def _time(match: re.Match[str]) -> str:
    hour, minute = cardinal(match["hour"]), match["minute"]
    half = f" {match['half'].upper()} M" + kept_stop(match) if match["half"] else ""
    return words_of_clock(hour, minute, exact=not half) + half


def words_of_clock(hour: str, minute: str, *, exact: bool = True) -> str:
    """Returns "ten oh five" of "ten" and "05"; `exact`: whether a full hour is "o'clock"."""
    if not int(minute):
        return f"{hour} o'clock" if exact and hour != "zero" else hour if not exact else f"{hour} hundred"
    return f"{hour} oh {cardinal(minute)}" if int(minute) < 10 else f"{hour} {cardinal(minute)}"


def _seconds(match: re.Match[str]) -> str:
    clock = words_of_clock(cardinal(match["hour"]), match["minute"])
    count = int(match["second"])
    return f"{clock} and {cardinal(match['second'])} second{'' if count == 1 else 's'}"


def _hour(match: re.Match[str]) -> str:
    first = f"{cardinal(match['first'])} to " if match["first"] else ""
    return f"{first}{cardinal(match['hour'])} {match['half'].upper()} M{kept_stop(match)}"


def _verses(match: re.Match[str]) -> str | None:
    if match["verse"].startswith("0"):
        return None  # Mark, 10:05
    last = f" to {cardinal(match['last'])}" if match["last"] else ""
    return f"{cardinal(match['chapter'])} {cardinal(match['verse'])}{last}"


def _ratio(match: re.Match[str]) -> str:
    return f"{cardinal(match['left'])} to {cardinal(match['right'])}"


RULES: tuple[Rule, ...] = (
    rule(
        rf"\b(?:{_BOOKS})\.?\s(?P<claim>(?P<chapter>\d{{1,3}}):(?P<verse>\d{{1,3}})(?:[-–](?P<last>\d{{1,3}}))?)(?![\w:])"
        r"(?!\s?[aApP]\.?[mM])",
        _verses,
        needs=":",
    ),
    rule(r"(?<=[A-Za-z])/(?=\d{1,2}:[0-5]\d)", said(", "), needs="/"),
    rule(
        rf"(?<=[A-Za-z]/){_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))",
        _time,
        needs="/",
        with_digit=True,
    ),
    rule(rf"{_NO_TIME}12:00(?=\s(?:noon|midnight)\b)", said("twelve"), needs=":", with_digit=True),
    rule(
        rf"{_NO_TIME}(?P<hour>[01]?\d|2[0-4])h(?P<minute>[0-5]\d)(?!\w)",
        lambda m: words_of_clock(cardinal(m["hour"]), m["minute"]),
        needs="h",
        with_digit=True,
    ),
    rule(rf"{_NO_TIME}{_CLOCK}:(?P<minute>[0-5]\d):(?P<second>[0-5]\d)(?![\w:])", _seconds, needs=":", with_digit=True),
    rule(
        rf"{_NO_TIME}{_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))", _time, needs=":", with_digit=True
    ),
    rule(rf"{_NO_TIME}{_CLOCK}:(?P<minute>[0-5]\d)(?P<half>[aApP])(?P<dot>)(?!\w)", _time, needs=":"),
    rule(
        rf"(?<=[-–—]){_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))", _time, needs=":", with_digit=True
    ),
    rule(rf"{BEFORE}(?:(?P<first>1[0-2]|[1-9]){DASH})?(?P<hour>1[0-2]|0?[1-9])\s?{_HALF}", _hour),
    rule(rf"(?<=[mM][-–—])(?P<first>(?!))?(?P<hour>1[0-2]|0?[1-9])\s?{_HALF}", _hour, needs="-–—", with_digit=True),
    rule(
        r"(?<=\d)\s?[-–—]\s?(?=[0-2]?\d:[0-5]\d)|(?<=[\d\s][aApP][mM])\s?[-–—]\s?(?=\d|noon\b|midnight\b)",
        said(" to "),
        needs="-–—",
        with_digit=True,
    ),
    rule(rf"{_NO_TIME}(?P<left>\d{{1,3}}):(?P<right>\d{{1,3}})(?![\w:])", _ratio, needs=":", with_digit=True),
    rule(
        rf"{_NO_TIME}\d{{1,3}}(?::\d{{1,3}}){{2,}}(?![\w:])",
        lambda match: " to ".join(cardinal(part) for part in match[0].split(":")),
        needs=":",
        with_digit=True,
    ),
)
