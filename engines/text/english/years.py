"""Years, decades, seasons and eras."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, plural, year
from engines.text.english.rule import AFTER, BEFORE, DASH, INNER_STOP, YEAR, Rule, rule, said

_NUMBER_OF_A_YEAR = r"(?:1[1-9]\d{2}|20\d{2})"
_DURATION = re.compile(r"(?:\b(?:in|for|after|within|every|takes|took|about|to|wait)\s|[=~<>]\s?)\Z", re.IGNORECASE)
_ERAS = {"BC": "B C", "BCE": "B C E", "AD": "A D", "CE": "C E"}


def _years(match: re.Match[str]) -> str:
    last = match["last"]
    return f"{year(match['year'])} to {year(last) if len(last) == 4 else cardinal(last)}"


def _season(match: re.Match[str]) -> str | None:
    """Two years in a row."""
    follows = (int(match["year"]) + 1) % 100 == int(match["last"])
    return f"{year(match['year'])} to {cardinal(match['last'])}" if follows else None


def _decade(match: re.Match[str]) -> str | None:
    digits = match["decade"]
    if len(digits) == 2 and _DURATION.search(match.string, 0, match.start()):
        return None  # wait for 30s
    return plural(year(digits) if len(digits) == 4 else cardinal(digits))


def _thousands(match: re.Match[str]) -> str:
    return plural(cardinal(match["number"])).removeprefix("one ")


def _one_year(match: re.Match[str]) -> str:
    return year(match["year"])


def _era(match: re.Match[str]) -> str:
    digits = match["year"]
    return f"{year(digits) if len(digits) == 4 else cardinal(digits)} {_ERAS[match['era']]}"


RULES: tuple[Rule, ...] = (
    rule(r"(?<=\ds)\s?[-–]\s?(?=[1-9]0s\b)", said(" to "), needs="-–—", with_digit=True),
    rule(
        r"(?<!\w)Q(?P<quarter>[1-4])\s?['’](?P<year>\d\d)(?!\w)",
        lambda match: f"Q {cardinal(match['quarter'])} {year('20' + match['year'])}",
        needs="'’",
        with_digit=True,
    ),
    rule(
        r"(?<!\w)c\.\s?(?P<year>\d{3,4})(?!\w)",
        lambda match: f"circa {year(match['year'])}",
        needs=INNER_STOP,
        with_digit=True,
    ),
    rule(rf"{BEFORE}(?P<year>\d{{1,4}})\s?(?P<era>BCE?|AD|CE)\b", _era),
    rule(rf"{BEFORE}(?P<year>(?:19|20)\d\d)/(?P<last>\d\d)(?![\w/])", _season, needs="/", with_digit=True),
    rule(
        r"(?<!\w)(?P<name>[FC])Y\s?(?P<year>20\d\d)[/–-](?P<last>\d\d)(?!\w)",
        lambda match: f"{match['name']} Y {_years(match)}",
        needs="Y",
        with_digit=True,
    ),
    rule(rf"{BEFORE}{YEAR}{DASH}(?P<last>{_NUMBER_OF_A_YEAR}|\d{{2}}){AFTER}", _years, needs="-–—", with_digit=True),
    rule(r"(?<![\w.,])['’]?(?P<decade>(?:1\d|20)\d0|[1-9]0)['’]?s\b", _decade),
    rule(
        r"(?:(?<=\bin\s)|(?<=\bby\s)|(?<=\bof\s))(?P<year>1[0-9]\d{2}|20\d{2})(?![\w%°])(?![.,:/-]\d)(?!\s?(?:%|[a-z]{3,}s\b))",
        _one_year,
        flags=re.IGNORECASE,
    ),
    rule(
        r"(?:(?<=\bfrom\s)|(?<=\buntil\s)|(?<=\bsince\s)|(?<=\bearly\s))(?P<year>1[0-9]\d{2}|20\d{2})(?!\w)(?![.,:/-]\d)(?!\s?(?:%|[a-z]{3,}s\b))",
        _one_year,
        flags=re.IGNORECASE,
    ),
    rule(r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+)s\b", _thousands, needs=",", with_digit=True),
    rule(rf"{BEFORE}(?P<year>1[5-8]\d{{2}})(?=[,.;)]?(?:\s?\Z|[,;)]))", _one_year),
    rule(r"(?<=\d\sto\s)(?P<year>1[1-9]\d{2})(?!\w)(?![.,]\d)", _one_year),
    rule(rf"{BEFORE}(?P<year>(?:19|20)\d{{2}}){AFTER}(?!\s?[%°])", _one_year),
)
