"""Units, fractions, ranges, and numbers that nothing else has read."""

from __future__ import annotations

import re

from engines.text.english.codes import words_of_groups
from engines.text.english.money import SCALES
from engines.text.english.numbers import as_ordinal, cardinal, decimal, ordinal, plural, spelled
from engines.text.english.rule import BEFORE, DASH, INNER_STOP, INTEGER, NUMBER, Rule, rule
from engines.text.english.units import UNITS_OF_MEASURE

_UNIT = "|".join(re.escape(unit) for unit in sorted(UNITS_OF_MEASURE, key=len, reverse=True))
_ARTICLE = re.compile(r"\ban?\s\Z", re.IGNORECASE)
_NOUN = re.compile(r"\s[a-z]{3,}")
_NO_NOUN = re.compile(r"\s(?:and|or|but|for|from|with|when|was|were|will|that|into|over|off|ago|away|later|to)\b")

_DENOMINATORS = {2: "half", 4: "quarter"}
_FRACTION_SIGNS = {
    "½": (1, 2),
    "⅓": (1, 3),
    "⅔": (2, 3),
    "¼": (1, 4),
    "¾": (3, 4),
    "⅕": (1, 5),
    "⅛": (1, 8),
    "⅜": (3, 8),
    "⅝": (5, 8),
    "⅞": (7, 8),
}
_SIGNS = "".join(_FRACTION_SIGNS)
_FEET = "'′"
_CODE = r"(?<![\w.,])"


def _unit(match: re.Match[str]) -> str:
    number, low = match["number"], match["low"]
    one, many = UNITS_OF_MEASURE[match["unit"].replace("μ", "µ")]
    before, after = match.string[: match.start()], match.string[match.end() :]
    adjective = _ARTICLE.search(before) and _NOUN.match(after) and not _NO_NOUN.match(after)
    adjective = adjective or match.string[match.end("number") : match.start("unit")] == "-"
    unit = one if number.replace(",", "") == "1" or adjective else many
    minus = "minus " if match["minus"] else ""
    stop = "." if match["dot"] and not after.strip(" \"'”’)") else ""
    return f"{minus}{decimal(low) + ' to ' if low else ''}{decimal(number)} {unit}{stop}"


def _unit_of_a_fraction(match: re.Match[str]) -> str:
    one, many = UNITS_OF_MEASURE[match["unit"]]
    top, bottom = float(match["top"] or 0), float(match["bottom"] or 1)
    if "." in (match["top"] or "") + (match["bottom"] or ""):
        return many
    return many if match["whole"] or top > bottom else one


def _dimensions(match: re.Match[str]) -> str:
    sizes = " by ".join(decimal(size) for size in re.findall(r"\d+(?:\.\d+)?", match["sizes"]))
    unit = match["unit"] or ("in" if re.search(r"[\"″]", match["sizes"]) else "")
    stop = "." if match["dot"] and not match.string[match.end() :].strip(" \"'”’)") else ""
    return sizes + (f" {UNITS_OF_MEASURE.get(unit, ('inch', 'inches'))[1]}" if unit else "") + stop


def _height(match: re.Match[str]) -> str:
    return f"{cardinal(match['feet'])} {'feet' if match['gap'] else 'foot'} {cardinal(match['inches'])}"


def _angle(match: re.Match[str]) -> str:
    """50°12'30\" of a map."""
    seconds = f" {decimal(match['seconds'])} seconds" if match["seconds"] else ""
    return f"{cardinal(match['degrees'])} degrees {cardinal(match['minutes'])} minutes{seconds}"


def _fraction(top: int, bottom: int) -> str:
    if bottom > 20 and bottom not in (32, 50, 64, 100, 1000):
        return f"{cardinal(str(top))} over {cardinal(str(bottom))}"
    name = _DENOMINATORS.get(bottom) or ordinal(str(bottom))
    if top != 1:
        name = "halves" if bottom == 2 else plural(name) if bottom != 4 else "quarters"
    return f"{cardinal(str(top))} {name}"


def _slashed(match: re.Match[str]) -> str | None:
    top, bottom, whole = int(match["top"]), int(match["bottom"]), match["whole"]
    if (top, bottom) == (24, 7) or top == bottom or (top + bottom == 100 and not whole):
        return f"{cardinal(match['top'])} {cardinal(match['bottom'])}"  # 24/7, 50/50, 80/20
    if bottom in (10, 20, 100) and top > 1 and not whole:
        return f"{cardinal(match['top'])} out of {cardinal(match['bottom'])}"
    if bottom < 2 or (whole and top >= bottom):
        return None
    if not whole:
        return _fraction(top, bottom)
    return f"{cardinal(whole)} and {'a half' if (top, bottom) == (1, 2) else _fraction(top, bottom)}"


def _signed(match: re.Match[str]) -> str:
    top, bottom = _FRACTION_SIGNS[match["sign"]]
    if not match["whole"]:
        return _fraction(top, bottom)
    return f"{cardinal(match['whole'])} and {'a half' if (top, bottom) == (1, 2) else _fraction(top, bottom)}"


_PARTS_OF_TIME = {"d": "day", "h": "hour", "m": "minute", "s": "second"}
_DURATION = "".join(rf"(?:\d+\s?{names}\s?)?" for names in ("d", "hr?s?", "m(?:in)?s?", "s(?:ec)?s?"))


def _duration(match: re.Match[str]) -> str | None:
    parts = re.findall(r"(\d+)\s?([dhms])", match[0])
    if len(parts) < 2:
        return None
    words = [f"{cardinal(count)} {_PARTS_OF_TIME[unit]}{'' if count == '1' else 's'}" for count, unit in parts]
    return " ".join(words) + (" " if match[0].endswith(" ") else "")


def _range(match: re.Match[str]) -> str:
    if re.match(r"0\d", match["high"]):  # no range: a number in two parts
        return f"{spelled(match['low'])}, {spelled(match['high'])}"
    join = " " if match["low"] == match["high"] else " to "  # 50-50
    return f"{decimal(match['low'])}{join}{decimal(match['high'])}"


def _first_scale(match: re.Match[str]) -> str:
    return f" {SCALES[match['first']]}" if match["first"] else ""


def _scaled(match: re.Match[str]) -> str:
    return f"{decimal(match['number'])} {SCALES[match['scale']]}"


def _ordinal(match: re.Match[str]) -> str:
    return ordinal(match["number"]) if "," not in match["number"] else as_ordinal(cardinal(match["number"]))


def _exponent(match: re.Match[str]) -> str:
    sign = "minus " if match["power"].startswith("-") else ""
    return f"{decimal(match['number'])} times ten to the {sign}{cardinal(match['power'].lstrip('+-'))}"


def _times(match: re.Match[str]) -> str:
    left, right = match["left"], match["right"]
    return f"{_size(left)} by {_size(right)}"


def _size(digits: str) -> str:
    if len(digits) == 4 and digits[1:3] != "00" and digits[2:] != "00":
        return f"{cardinal(digits[:2])} {cardinal(digits[2:]) if digits[2] != '0' else 'oh ' + cardinal(digits[2:])}"
    return cardinal(digits)


def _number(match: re.Match[str]) -> str:
    minus = "minus " if match["minus"] else ""
    number = match["number"]
    if re.fullmatch(r"0\d+", number):
        return minus + spelled(number)
    return minus + decimal(number)


def _glued_number(match: re.Match[str]) -> str:
    """A number beside letters: words of its own."""
    before = " " if match.string[match.start() - 1 : match.start()].isalnum() else ""
    after = " " if match.string[match.end() : match.end() + 1].isalnum() else ""
    return before + _number(match) + after


def _lettered(match: re.Match[str]) -> str:
    return f"{cardinal(match['number'])} {match['letter']}"


_LEADING_MINUS = r"(?:(?<=\s)|(?<=\A)|(?<=[(=]))(?P<minus>[-−])(?=[\d.])"
_MINUS = r"(?P<minus>(?:(?<=\s)|(?<=\A)|(?<=[(=]))[-−](?=[\d.]))?"
DURATIONS: tuple[Rule, ...] = (rule(rf"(?<![\w.,:/$£€-])(?=\d){_DURATION}(?<=[a-z\s])(?![\w/])", _duration),)
_SIZE = r"\d+(?:\.\d+)?[\"″]?"
UNITS: tuple[Rule, ...] = (
    rule(
        r"(?<![\w.])(?P<degrees>\d{1,3})°\s?(?P<minutes>\d{1,2})['′’](?:\s?(?P<seconds>\d{1,2}(?:\.\d+)?)[\"″”])?",
        _angle,
        needs="°",
    ),
    rule(
        rf"{_CODE}(?P<feet>\d{{1,2}})(?:['′](?P<gap>\s)?)(?P<inches>\d{{1,2}})(?:[\"″]|'')",
        _height,
        needs="'′",
        with_digit=True,
    ),
    rule(
        rf"{_CODE}(?P<number>\d+(?:\.\d+)?)(?P<sign>[\"″'′])(?=\s(?:wide|tall|long|high|deep|thick)\b)",
        lambda match: f"{decimal(match['number'])} {'feet' if match['sign'] in _FEET else 'inches'}",
        needs="\"″'′",
        with_digit=True,
    ),
    rule(
        rf"{_CODE}(?P<number>\d+(?:\.\d+)?)[\"″](?=\s(?:4K|HD|TV|monitor|screen|display|floppy|disk|pipe|pizza|record|vinyl)\b)",
        lambda match: f"{decimal(match['number'])} inch",
        needs='"″',
        with_digit=True,
    ),
    rule(
        rf"{_CODE}(?P<sizes>{_SIZE}(?:\s?[x×]\s?{_SIZE}){{1,2}})\s?(?P<unit>mm|cm|m|km|ft|px|in(?:ch(?:es)?)?)(?![\w/²³'’])(?:(?<=in)(?P<dot>\.)(?!\w))?",
        _dimensions,
        needs="x×",
    ),
    rule(
        rf"{_CODE}(?P<sizes>{_SIZE}(?:\s?x\s?{_SIZE}){{2}}|\d+[\"″]\s?[x×]\s?\d+[\"″])(?P<unit>)(?P<dot>)(?!\w)",
        _dimensions,
        needs="x×",
    ),
    rule(
        rf"{BEFORE}(?P<number>{NUMBER})\s?in\.(?=[,;)]|\s(?:wide|long|tall|deep|high|thick|by|x)\b)",
        lambda match: f"{decimal(match['number'])} {'inch' if match['number'] == '1' else 'inches'}",
        needs=INNER_STOP,
        with_digit=True,
    ),
    rule(
        rf"(?:(?<=\b[Aa] )|(?<=\b[Aa]n ))(?P<number>{NUMBER})(?:[\"″]|''|-in\b)(?=\s[a-z])",
        lambda match: f"{decimal(match['number'])} inch",
    ),
    rule(
        rf"{_CODE}(?P<feet>\d)\s?(?:ft|foot|feet)\.?\s(?P<inches>\d{{1,2}})\s?in(?:ches)?\b",
        lambda match: f"{cardinal(match['feet'])} feet {cardinal(match['inches'])} inches",
    ),
    rule(
        rf"(?:{_LEADING_MINUS}|{BEFORE})(?:(?P<low>{NUMBER}){DASH})?(?P<number>{NUMBER})(?:\s|-(?=\w\w))?(?P<unit>{_UNIT})"
        r"(?![\w/²³'’])(?:(?<=[a-z])(?P<dot>\.)(?=\s*\Z|\s+[a-z\d]|[,;)]))?",
        _unit,
    ),
    rule(
        rf"(?:(?P<whole>\d+)\s?)?(?:[{_SIGNS}]|(?<![\d/.])(?P<top>\d{{1,3}}(?:\.\d+)?)/(?P<bottom>\d{{1,3}}(?:\.\d+)?))\s"
        rf"(?P<claim>(?P<unit>{_UNIT})(?![\w/²³'’])(?:(?<=[a-z])\.(?=\s+[a-z]))?)",
        _unit_of_a_fraction,
        needs=f"/{_SIGNS}",
    ),
    rule(rf"{_CODE}(?P<number>\d{{1,3}})(?P<letter>[AC-JLN-SU-Z])(?!\w)", _lettered),
)
RULES: tuple[Rule, ...] = (
    rule(
        r"(?<![\w.,/])(?:(?P<whole>\d+) )?(?P<top>\d{1,3})/(?P<bottom>\d{1,4})(?:rds?|ths?)?(?![\w/])(?!\.\d)", _slashed
    ),
    rule(rf"(?<![\d.,])(?:(?P<whole>\d+)\s?)?(?P<sign>[{_SIGNS}])", _signed, needs=_SIGNS),
    rule(rf"{_CODE}(?P<number>{NUMBER})[eE](?P<power>[+-]?\d{{1,3}})(?!\w)", _exponent, needs="eE", with_digit=True),
    rule(
        rf"{_CODE}(?P<left>\d+)\s?[x×]\s?(?P<right>\d+)(?!\w)(?!\s?=)",
        lambda m: None if "×" in m[0] else _times(m),
        needs="x×",
        with_digit=True,
    ),
    rule(
        rf"{_CODE}(?<![=+*/^−-]\s)(?P<number>{NUMBER})x(?!\w)(?!\s?[-+−=^*/<>≤≥])",
        lambda m: f"{decimal(m['number'])} times",
        needs="x",
        with_digit=True,
    ),
    rule(rf"{_CODE}(?P<number>{INTEGER})(?:st|nd|rd|th)\b", _ordinal),
    rule(
        rf"{_CODE}(?P<number>{NUMBER})[kK](?=\s(?:run|race|walk)\b)",
        lambda match: f"{decimal(match['number'])} K",
        needs="kK",
        with_digit=True,
    ),
    rule(
        rf"{_CODE}(?P<number>\d{{1,2}})[kK](?=\s(?:gold|Gold|rose|white|yellow|[A-Z][a-z]+[\"”]))",
        lambda match: f"{cardinal(match['number'])} {'carat' if match.string[match.end() + 1] in 'gGrwy' else 'K'}",
    ),
    rule(
        rf"{BEFORE}(?P<low>{NUMBER})(?P<first>[kKM])?[-–—](?P<number>{NUMBER})(?P<scale>[kKM]|bn|tn)(?!\w)",
        lambda match: f"{decimal(match['low'])}{_first_scale(match)} to {_scaled(match)}",
        needs="-–—",
        with_digit=True,
    ),
    rule(rf"{_CODE}(?<![A-Za-z]\d-)(?P<number>{NUMBER})(?P<scale>[kKM]|bn|tn)(?!\w)(?!')", _scaled),
    rule(r"(?<![\w.,/:-])\d+(?:-\d+){2,}(?![\w-])(?!\.\d)", words_of_groups, needs="-", with_digit=True),
    rule(
        rf"{BEFORE}(?P<low>{NUMBER})(?:[-–—]|\s–\s|\s-\s(?!\d+\s?=))(?P<high>{NUMBER})(?![\w-])(?!\.\d)",
        _range,
        needs="-–—",
        with_digit=True,
    ),
    rule(rf"{_MINUS}(?<![\w.])(?P<number>{NUMBER})(?!\w)(?![.,]\d)", _number),
    rule(rf"{_MINUS}(?<!\d)(?P<number>{INTEGER}(?:\.\d+)?)", _glued_number),
    rule(r"(?P<minus>(?!))?(?P<number>\d)", _glued_number),
)
