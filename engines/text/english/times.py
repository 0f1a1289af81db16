"""Times of day, dates and years."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, ordinal, plural, spelled, year
from engines.text.english.rule import AFTER, BEFORE, DASH, Rule, rule, said, words_of

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
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_YEAR = r"(?P<year>1\d{3}|20\d{2})"
_NUMBER_OF_A_YEAR = r"(?:1[1-9]\d{2}|20\d{2})"
_HALF = r"(?P<half>[aApP])\.?[mM](?P<dot>\.?)(?!\w)"
_CLOCK = r"(?P<hour>[01]?\d|2[0-4])"
_NO_TIME = r"(?<![\w.,:/$£€-])"
_DURATION = re.compile(r"(?:\b(?:in|for|after|within|every|takes|took|about|to|wait)\s|[=~<>]\s?)\Z", re.IGNORECASE)
_ERAS = {"BC": "B C", "BCE": "B C E", "AD": "A D", "CE": "C E"}


def _time(match: re.Match[str]) -> str:
    hour, minute = cardinal(match["hour"]), match["minute"]
    half = f" {match['half'].upper()} M" + _kept_stop(match) if match["half"] else ""
    return _clock(hour, minute, exact=not half) + half


def _clock(hour: str, minute: str, *, exact: bool = True) -> str:
    if not int(minute):
        return f"{hour} o'clock" if exact and hour != "zero" else hour if not exact else f"{hour} hundred"
    return f"{hour} oh {cardinal(minute)}" if int(minute) < 10 else f"{hour} {cardinal(minute)}"


def _kept_stop(match: re.Match[str]) -> str:
    """The full stop of "p.m." also ends a text."""
    return "." if match["dot"] and not match.string[match.end() :].strip(" \"'”’)") else ""


def _seconds(match: re.Match[str]) -> str:
    clock = _clock(cardinal(match["hour"]), match["minute"])
    count = int(match["second"])
    return f"{clock} and {cardinal(match['second'])} second{'' if count == 1 else 's'}"


def _hour(match: re.Match[str]) -> str:
    first = f"{cardinal(match['first'])} to " if match["first"] else ""
    return f"{first}{cardinal(match['hour'])} {match['half'].upper()} M{_kept_stop(match)}"


def _ratio(match: re.Match[str]) -> str:
    return f"{cardinal(match['left'])} to {cardinal(match['right'])}"


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
    return f"{date}, at {_clock(cardinal(match['hour']), match['minute'])}{zone}"


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


def _on_slashes(match: re.Match[str]) -> str | None:
    month, day = int(match["first"]), match["second"]
    if (match["first"], day) == ("9", "11"):
        return "nine eleven"
    if not (1 <= month <= 12 and 1 <= int(day) <= 31):
        return None
    return f"{MONTHS[month - 1]} {ordinal(day)}"


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


def _digits(match: re.Match[str]) -> str:
    return spelled(match["digits"])


_ISO = r"(?P<year>1\d{3}|20\d{2})-(?P<month>0[1-9]|1[0-2])-(?P<day>[0-3]\d)"
DATES: tuple[Rule, ...] = (
    rule(
        rf"(?<![\w-]){_ISO}T(?P<hour>[01]\d|2[0-4]):(?P<minute>[0-5]\d)(?::[0-5]\d(?:\.\d+)?)?"
        r"(?:(?P<utc>Z)|(?P<sign>[+-])(?P<zone>\d\d):?(?P<part>\d\d))?(?!\w)",
        _timestamp,
    ),
    rule(r"(?<![\w.])(?P<first>[0-3]?\d)\.(?P<second>[01]?\d)\.(?P<year>(?:19|20)\d\d)(?!\w)(?!\.\d)", _dotted),
)
RULES: tuple[Rule, ...] = (
    # dates
    rule(r"(?<![\w/])(?P<year>(?:19|20)\d\d)/(?P<month>0?[1-9]|1[0-2])/(?P<day>[0-3]?\d)(?![\w/])", _iso),
    rule(r"(?<![\w/.-])(?P<first>\d{1,2})/(?P<second>\d{1,2})/(?P<year>\d\d)(?![\w/])", _short_year),
    rule(r"(?<![\w/.-])(?P<first>\d{1,2})-(?P<second>\d{1,2})-(?P<year>(?:19|20)\d\d)(?![\w-])", _slashes),
    rule(r"(?<=\bby\s)(?P<first>\d{1,2})/(?P<second>1[3-579]|2\d|3[01])(?![\w/])", _on_slashes),
    rule(
        r"(?:(?<=\bon\s)|(?<=\buntil\s)|(?<=\bbefore\s)|(?<=\bdue\s)|(?<=\bsince\s))"
        r"(?P<first>\d{1,2})/(?P<second>\d{1,2})(?![\w/])",
        _on_slashes,
        flags=re.IGNORECASE,
    ),
    rule(r"(?<![\w-])(?P<year>1\d{3}|20\d{2})-(?P<month>0[1-9]|1[0-2])-(?P<day>[0-3]\d)(?![\w-])", _iso),
    rule(rf"{BEFORE}(?P<first>\d{{1,2}})/(?P<second>\d{{1,2}})/{_YEAR}{AFTER}", _slashes),
    rule(
        rf"\b{_MONTH}\s{_DAY}(?:{DASH}(?P<last>[0-3]?\d)(?:st|nd|rd|th)?(?!\w))?(?![\w%°])(?![.:]\d)"
        rf"(?:,?\s{_YEAR}(?!\w)(?![.,]\d))?",
        _month_day,
    ),
    rule(rf"(?<![\w.,/:-]){_DAY}\s(?:of\s)?{_MONTH}(?!\w)(?:,?\s{_YEAR}(?!\w))?", _day_month),
    rule(rf"\b{_MONTH}\s{_YEAR}(?!\w)(?![.,]\d)", _month_year),
    rule(
        r"(?<![-–\w])(?P<name>Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\b\.?(?=,\s(?:\d|Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))",
        lambda match: _DAYS[match["name"]],
        needs=",",
    ),
    rule(
        r"(?<!\w)(?P<first>Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\.?\s?[-–]\s?(?P<last>Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)(?!\w)",
        lambda match: f"{_DAYS[match['first']]} to {_DAYS[match['last']]}",
        needs="-–",
    ),
    rule(
        r"(?:(?<=\bin )|(?<=\bof )|(?<=\bby )|(?<=last )|(?<=next )|(?<=since )|(?<=until )|(?<=early )|(?<=late ))"
        r"(?P<month>Jan|Feb|Apr|Jun|Jul|Aug|Sept|Sep|Oct|Nov|Dec)\b(?P<dot>\.?)",
        lambda match: _month(match) + _kept_stop(match),
        needs="JFASOND",
    ),
    rule(
        r"(?:(?<=\bon )|(?<=\bby )|(?<=last )|(?<=next )|(?<=until ))"
        r"(?P<name>Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\b(?P<dot>\.?)",
        lambda match: _DAYS[match["name"]] + _kept_stop(match),
        needs="MTWFS",
    ),
    rule(
        r"(?<!\w)(?P<name>Mon|Tues?|Wed|Thur?s?|Fri|Sat|Sun)\b\.?"
        r"(?=\s\d{1,2}(?::\d\d|\s?[-–]\s?\d{1,2}|\s?[aApP]\.?[mM])(?!\w))",
        lambda match: _DAYS[match["name"]],
    ),
    rule(r"(?<=\()(?P<life>[bd])\.(?=\s\d{4})", lambda match: "born" if match["life"] == "b" else "died"),
    rule(
        rf"(?<!\w)(?P<first>{_SHORT_MONTHS})\.?\s?[-–]\s?(?P<last>{_SHORT_MONTHS})\b(?P<dot>\.?)",
        lambda match: (
            f"{_MONTH_NAMES[match['first'][:3].lower()]} to {_MONTH_NAMES[match['last'][:3].lower()]}"
            + _kept_stop(match)
        ),
        needs="-–",
    ),
    # times
    rule(r"(?<=[A-Za-z])/(?=\d{1,2}:[0-5]\d)", said(", "), needs="/"),
    rule(rf"(?<=[A-Za-z]/){_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))", _time),
    rule(rf"{_NO_TIME}12:00(?=\s(?:noon|midnight)\b)", said("twelve")),
    rule(
        rf"{_NO_TIME}(?P<hour>[01]?\d|2[0-4])h(?P<minute>[0-5]\d)(?!\w)",
        lambda m: _clock(cardinal(m["hour"]), m["minute"]),
    ),
    rule(rf"{_NO_TIME}{_CLOCK}:(?P<minute>[0-5]\d):(?P<second>[0-5]\d)(?![\w:])", _seconds),
    rule(rf"{_NO_TIME}{_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))", _time),
    rule(rf"(?<=[-–—]){_CLOCK}:(?P<minute>[0-5]\d)(?:\s?{_HALF}|(?![\w:])(?P<none>))", _time),
    rule(rf"{BEFORE}(?:(?P<first>1[0-2]|[1-9]){DASH})?(?P<hour>1[0-2]|0?[1-9])\s?{_HALF}", _hour),
    rule(rf"(?<=[mM][-–—])(?P<first>(?!))?(?P<hour>1[0-2]|0?[1-9])\s?{_HALF}", _hour),
    rule(r"(?<=\d)\s?[-–—]\s?(?=[0-2]?\d:[0-5]\d)|(?<=\d[aApP][mM])\s?[-–—]\s?(?=\d)", said(" to ")),
    rule(rf"{_NO_TIME}(?P<left>\d{{1,3}}):(?P<right>\d{{1,3}})(?![\w:])", _ratio),
    rule(
        r"(?<=[a-z.])\s?[–—-]\s?(?=[0-3]?\d\s(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec))",
        said(" to "),
    ),
    rule(
        rf"{_NO_TIME}\d{{1,3}}(?::\d{{1,3}}){{2,}}(?![\w:])",
        lambda match: " to ".join(cardinal(part) for part in match[0].split(":")),
    ),
    # years
    rule(r"(?<=\ds)\s?[-–]\s?(?=[1-9]0s\b)", said(" to ")),
    rule(
        r"(?<!\w)Q(?P<quarter>[1-4])\s?['’](?P<year>\d\d)(?!\w)",
        lambda match: f"Q {cardinal(match['quarter'])} {year('20' + match['year'])}",
    ),
    rule(r"(?<!\w)c\.\s?(?P<year>\d{3,4})(?!\w)", lambda match: f"circa {year(match['year'])}"),
    rule(rf"{BEFORE}(?P<year>\d{{1,4}})\s?(?P<era>BCE?|AD|CE)\b", _era),
    rule(rf"{BEFORE}(?P<year>(?:19|20)\d\d)/(?P<last>\d\d)(?![\w/])", _season),
    rule(
        r"(?<!\w)(?P<name>[FC])Y\s?(?P<year>20\d\d)[/–-](?P<last>\d\d)(?!\w)",
        lambda match: f"{match['name']} Y {_years(match)}",
    ),
    rule(rf"{BEFORE}{_YEAR}{DASH}(?P<last>{_NUMBER_OF_A_YEAR}|\d{{2}}){AFTER}", _years),
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
    rule(r"(?<![\w.,])(?P<number>\d{1,3}(?:,\d{3})+)s\b", _thousands),
    rule(rf"{BEFORE}(?P<year>1[5-8]\d{{2}})(?=[,.;)]?(?:\s?\Z|[,;)]))", _one_year),
    rule(r"(?<=\d\sto\s)(?P<year>1[1-9]\d{2})(?!\w)(?![.,]\d)", _one_year),
    rule(rf"{BEFORE}(?P<year>(?:19|20)\d{{2}}){AFTER}(?!\s?[%°])(?!\s[a-z]{(3,)}s\b)", _one_year),
)
