"""Dates, months and days of the week."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, ordinal, year
from engines.text.english.rule import AFTER, BEFORE, DASH, INNER_STOP, YEAR, Rule, kept_stop, rule, said, words_of
from engines.text.english.times import words_of_clock

MONTHS = words_of("January February March April May June July August September October November December")
_MONTH_NAMES = {month[:3].lower(): month for month in MONTHS} | {"sept": "September"}
_MONTH = (
    r"(?P<month>January|February|March|April|May|June|July|August|September|October|November|December|"
    r"(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b\.?)"
)
_SHORT_MONTHS = "Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec"
_DAYS = {
    "Mon": "Monday",
    "Tue": "Tuesday",
    "Tues": "Tuesday",
    "Wed": "Wednesday",
    "Thu": "Thursday",
    "Thur": "Thursday",
    "Thurs": "Thursday",
    "Fri": "Friday",
    "Sat": "Saturday",
    "Sun": "Sunday",
}
_SHORT_DAYS = "Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun"
_WEEKDAYS = rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|{_SHORT_DAYS}"
_DAYS_OF_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MONTH_DAY = r"(?P<first>\d{1,2})/(?P<second>\d{1,2})"
_PAIR = re.compile(_MONTH_DAY)
_ALONE = r"(?<![\w.,/-])(?<!\d\s)"
# Behind a date: neither more of a number nor what is measured in fractions
_NO_FRACTION = (
    r"(?![\w/])(?!\.\d)(?![\s-](?:of|as|inch(?:es)?|in\.|cups?|tsp|tbsp|teaspoons?|tablespoons?|pounds?|lbs?|ounces?|oz|"
    r"miles?|mi|hours?|hrs?|full|empty|done|complete|finished|majority|scale|time|chance|odds|speed|length|size)\b)(?![\"″])"
)
_CLOCK_TIME = r"(?:\d{1,2}(?::[0-5]\d|\s?[aApP]\.?[mM])|noon\b|midnight\b)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"


def _month(match: re.Match[str]) -> str:
    return _MONTH_NAMES[match["month"][:3].lower()]


def _spoken_year(digits: str | None) -> str:
    return f", {year(digits)}" if digits else ""


def _month_day(match: re.Match[str]) -> str:
    last = f" to {ordinal(match['last'])}" if match["last"] else ""
    return f"{_month(match)} {ordinal(match['day'])}{last}{_spoken_year(match['year'])}"


def _day_month(match: re.Match[str]) -> str:
    article = "" if match.string[: match.start()].lower().endswith("the ") else "the "
    return f"{article}{ordinal(match['day'])} of {_month(match)}{_spoken_year(match['year'])}"


def _month_year(match: re.Match[str]) -> str:
    return f"{_month(match)} {year(match['year'])}"


def _iso(match: re.Match[str]) -> str | None:
    return _numeric(int(match["month"]), match["day"], match["year"])


def _timestamp(match: re.Match[str]) -> str | None:
    date = _iso(match)
    if date is None:
        return None
    zone = " U T C" if match["utc"] or match["zone"] else ""
    if match["zone"] and (int(match["zone"]) or int(match["part"])):
        part = f" {cardinal(match['part'])}" if int(match["part"]) else ""
        zone += f" {'plus' if match['sign'] == '+' else 'minus'} {cardinal(match['zone'])}{part}"
    return f"{date}, at {words_of_clock(cardinal(match['hour']), match['minute'])}{zone}"


def _dotted(match: re.Match[str]) -> str | None:
    """The day comes first where dots part them, unless it cannot."""
    day, month = match["first"], match["second"]
    if int(month) > 12:
        day, month = month, day
    return _numeric(int(month), day, match["year"])


def _slashes(match: re.Match[str]) -> str | None:
    first, second = match["first"], match["second"]
    month, day = (first, second) if int(first) <= 12 else (second, first)
    return _numeric(int(month), day, match["year"])


def _short_year(match: re.Match[str]) -> str | None:
    month, day = match["first"], match["second"]
    if int(month) > 12:
        month, day = day, month
    return _numeric(int(month), day, f"{'20' if int(match['year']) < 50 else '19'}{match['year']}")


def _numeric(month: int, day: str, digits: str) -> str | None:
    if not (1 <= month <= 12 and 1 <= int(day) <= 31):
        return None
    return f"{MONTHS[month - 1]} {ordinal(day)}, {year(digits)}"


def _short(match: re.Match[str]) -> str | None:
    """A month and a day where the words around say that it is a date."""
    return _month_and_day(match["first"], match["second"])


def _likely(match: re.Match[str]) -> str | None:
    """A month and a day where the words around allow both, if it would be an odd fraction."""
    return _short(match) if _is_odd_fraction(match["first"], match["second"]) else None


def _short_dates(match: re.Match[str]) -> str | None:
    """Dates in a row, one of which would be an odd fraction, or two days of one month."""
    pairs = [(each["first"], each["second"]) for each in _PAIR.finditer(match[0])]
    (first, begin), (last, end) = pairs[0], pairs[-1]
    in_a_month = first == last != "1" and int(begin) < int(end) and int(end) not in (4, 8, 16)
    if not (in_a_month or any(_is_odd_fraction(*pair) for pair in pairs)):
        return None
    dates = [_month_and_day(*pair) for pair in pairs]
    joins = [" to " if join.strip() in "-–—" else join for join in _PAIR.sub("|", match[0]).split("|")[1:-1]]
    return None if None in dates else "".join(f"{join}{date}" for join, date in zip(["", *joins], dates, strict=True))


def _month_and_day(first: str, second: str) -> str | None:
    """The month comes first, unless it cannot."""
    if (first, second) == ("9", "11"):
        return "nine eleven"
    month, day = (int(first), int(second)) if int(first) <= 12 else (int(second), int(first))
    if (first, second) == ("24", "7") or not (1 <= month <= 12 and 1 <= day <= _DAYS_OF_MONTHS[month - 1]):
        return None
    return f"{MONTHS[month - 1]} {ordinal(str(day))}"


def _is_odd_fraction(top: str, bottom: str) -> bool:
    """Whether a number of parts that is rarely written as a fraction: 12/25, 5/1, 11/8."""
    parts = int(bottom)
    return parts == 1 or (parts > 12 and parts not in (16, 20)) or int(top) > 12 or int(top) > max(9, parts)


def _month_of_year(match: re.Match[str]) -> str:
    return f"{MONTHS[int(match['month']) - 1]} {year(match['year'])}"


_ISO = r"(?P<year>1\d{3}|20\d{2})-(?P<month>0[1-9]|1[0-2])-(?P<day>[0-3]\d)"
STAMPS: tuple[Rule, ...] = (
    rule(
        rf"(?<![\w-]){_ISO}T(?P<hour>[01]\d|2[0-4]):(?P<minute>[0-5]\d)(?::[0-5]\d(?:\.\d+)?)?"
        r"(?:(?P<utc>Z)|(?P<sign>[+-])(?P<zone>\d\d):?(?P<part>\d\d))?(?!\w)",
        _timestamp,
        needs="T",
        with_digit=True,
    ),
    rule(
        r"(?<![\w.])(?P<first>[0-3]?\d)\.(?P<second>[01]?\d)\.(?P<year>(?:19|20)\d\d)(?!\w)(?!\.\d)",
        _dotted,
        needs=INNER_STOP,
        with_digit=True,
    ),
)
RULES: tuple[Rule, ...] = (
    rule(
        r"(?<![\w/])(?P<year>(?:19|20)\d\d)/(?P<month>0?[1-9]|1[0-2])/(?P<day>[0-3]?\d)(?![\w/])",
        _iso,
        needs="/",
        with_digit=True,
    ),
    rule(
        r"(?<![\w/.-])(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d\d)(?![\w/])",
        _short_year,
        needs="/",
        with_digit=True,
    ),
    rule(
        r"(?<![\w/.-])(?P<first>\d{1,2})-(?P<second>\d{1,2})-(?P<year>(?:19|20)\d\d)(?![\w-])",
        _slashes,
        needs="-",
        with_digit=True,
    ),
    rule(
        r"(?<![\w.,/-])(?P<month>0[1-9]|1[0-2])/(?P<year>(?:19|20)\d\d)(?![\w/])",
        _month_of_year,
        needs="/",
        with_digit=True,
    ),
    rule(r"(?<![\w.,/-])(?P<month>[1-9])/(?P<year>20[1-3]\d)(?![\w/])", _month_of_year, needs="/", with_digit=True),
    rule(
        rf"{_ALONE}\d{{1,2}}/\d{{1,2}}(?:(?:\s(?:to|through|thru|until|and|or)\s|,\s(?:and\s|or\s)?|\s?[-–—]\s?)"
        rf"\d{{1,2}}/\d{{1,2}}{_NO_FRACTION})+",
        _short_dates,
        needs="/",
        with_digit=True,
    ),
    rule(
        rf"(?:\b(?i:on|until|till|before|due|since|effective|dated|(?:date|deadline|birthday)(?:\sis)?)|\b(?:{_WEEKDAYS})\.?),?:?\s\(?"
        rf"(?P<claim>{_MONTH_DAY}{_NO_FRACTION})",
        _short,
        needs="/",
        with_digit=True,
    ),
    rule(
        rf"{_ALONE}{_MONTH_DAY}{_NO_FRACTION}(?=(?:,|,?\sat|\s@)?\s{_CLOCK_TIME})", _short, needs="/", with_digit=True
    ),
    rule(
        r"(?:\b(?i:by|after|from|through|thru|between|starting|starts|beginning|begins|ending|ends|as of|week of)\s|\()"
        rf"(?P<claim>{_MONTH_DAY}{_NO_FRACTION})",
        _likely,
        needs="/",
        with_digit=True,
    ),
    rule(rf"(?<![\w.,/-])9/11{_NO_FRACTION}", said("nine eleven"), needs="/", with_digit=True),
    rule(rf"(?<![\w-]){_ISO}(?![\w-])", _iso, needs="-", with_digit=True),
    rule(rf"{BEFORE}(?P<first>\d{{1,2}})/(?P<second>\d{{1,2}})/{YEAR}{AFTER}", _slashes, needs="/", with_digit=True),
    rule(
        rf"\b{_MONTH}\s{_DAY}(?:{DASH}(?P<last>[0-3]?\d)(?:st|nd|rd|th)?(?!\w))?(?![\w%°])(?![.:]\d)"
        rf"(?:,?\s{YEAR}(?!\w)(?![.,]\d))?",
        _month_day,
    ),
    rule(rf"(?<![\w.,/:-]){_DAY}\s(?:of\s)?{_MONTH}(?!\w)(?:,?\s{YEAR}(?!\w))?", _day_month),
    rule(rf"\b{_MONTH}\s{YEAR}(?!\w)(?![.,]\d)", _month_year),
    rule(rf"\b{_MONTH}\s['’](?P<year>\d\d)(?!\w)", lambda match: f"{_month(match)} {year('20' + match['year'])}"),
    rule(
        rf"(?<![-–\w])(?P<name>{_SHORT_DAYS})\b\.?(?=,\s(?:\d|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))",
        lambda match: _DAYS[match["name"]],
        needs=",",
    ),
    rule(
        rf"(?<!\w)(?P<first>{_SHORT_DAYS})\.?\s?[-–]\s?(?P<last>{_SHORT_DAYS})(?!\w)",
        lambda match: f"{_DAYS[match['first']]} to {_DAYS[match['last']]}",
        needs="-–",
    ),
    rule(
        r"(?:(?<=\bin )|(?<=\bof )|(?<=\bby )|(?<=last )|(?<=next )|(?<=since )|(?<=until )|(?<=early )|(?<=late ))"
        r"(?P<month>Jan|Feb|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b(?P<dot>\.?)",
        lambda match: _month(match) + kept_stop(match),
        needs="JFASOND",
    ),
    rule(
        r"(?:(?<=\bon )|(?<=\bby )|(?<=last )|(?<=next )|(?<=until ))"
        rf"(?P<name>{_SHORT_DAYS})\b(?P<dot>\.?)",
        lambda match: _DAYS[match["name"]] + kept_stop(match),
        needs="MTWFS",
    ),
    rule(
        rf"(?<!\w)(?P<name>{_SHORT_DAYS})\b\.?"
        r"(?=\s\(?\d{1,2}(?::\d\d|\s?[-–]\s?\d{1,2}|\s?[aApP]\.?[mM]|/\d{1,2})(?!\w))",
        lambda match: _DAYS[match["name"]],
    ),
    rule(
        r"(?<=\()(?P<life>[bd])\.(?=\s\d{4})",
        lambda match: "born" if match["life"] == "b" else "died",
        needs="(",
        with_digit=True,
    ),
    rule(
        rf"(?<!\w)(?P<first>{_SHORT_MONTHS})\.?\s?[-–]\s?(?P<last>{_SHORT_MONTHS})\b(?P<dot>\.?)",
        lambda match: (
            f"{_MONTH_NAMES[match['first'][:3].lower()]} to {_MONTH_NAMES[match['last'][:3].lower()]}"
            + kept_stop(match)
        ),
        needs="-–",
    ),
    rule(
        r"(?<=[a-z.])\s?[–—-]\s?(?=[0-3]?\d\s(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))",
        said(" to "),
        needs="-–—",
        with_digit=True,
    ),
)
