"""Phone numbers, codes and other numbers that are read digit by digit."""

from __future__ import annotations

import re

from engines.text.english.numbers import cardinal, spelled
from engines.text.english.rule import INNER_STOP, Rule, rule


def _one_by_one(code: str) -> str:
    return " ".join(spelled(char) or char for char in code)


def _hexadecimal(match: re.Match[str]) -> str:
    return _one_by_one(match[0].upper())


def _hexadecimal_groups(match: re.Match[str]) -> str:
    return ", ".join(map(_one_by_one, re.split("[:-]", match[0].upper())))


def _thousands(match: re.Match[str]) -> str:
    """1 000 000"""
    return cardinal(re.sub(r"\s", "", match["number"]))


def _paragraph(match: re.Match[str]) -> str:
    part = f" {cardinal(match['part'])}" if match["part"] else ""
    number = cardinal(match["other"]) if match["other"] else f"{cardinal(match['tens'])} oh {cardinal(match['ones'])}"
    return f"{number} {match['letter']}{part}"


def _phone(match: re.Match[str]) -> str:
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(spelled(group) for group in re.findall(r"\d+", match[0]))


def words_of_groups(match: re.Match[str]) -> str:
    """A number that is written in groups, digit by digit."""
    groups = re.findall(r"[A-Z0-9]+", match[0])
    if all(re.fullmatch(r"[1-9]?\d", group) for group in groups):
        return ", ".join(map(cardinal, groups))  # won, lost and drawn
    return ", ".join(map(_one_by_one, groups))


def _tracking(match: re.Match[str]) -> str:
    return _one_by_one(match[0])


def _code(match: re.Match[str]) -> str:
    return spelled(match["digits"])


PHONES: tuple[Rule, ...] = (
    rule(
        r"(?<![\w.,-])(?<!\d )(?P<number>[1-9]\d?(?:[ \u00a0\u202f]\d{3}){2,})(?![\w-])(?! \d)",
        _thousands,
        needs=" \u00a0\u202f",
        with_digit=True,
    ),
    rule(r"(?<!\w)(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}(?!\w)", _hexadecimal_groups, needs=":", with_digit=True),
    rule(
        r"(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])",
        _hexadecimal_groups,
        needs="-",
        with_digit=True,
    ),
    rule(r"(?<![\w.,-])(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{7,}(?!\w)", _hexadecimal),
    rule(r"(?<!\w)0x[0-9A-Fa-f]+(?!\w)", _hexadecimal, needs="x"),
    rule(
        r"(?<![\w.,-])(?:[A-Z]{2}\d\d(?: ?\d{4}){2,}(?: ?\d{1,4})?|\d{4}(?:[ -]\d{4}){2,4})(?![\w-])", words_of_groups
    ),
    rule(r"(?<![\w-])(?=[A-Z0-9]*[A-Z])(?=[A-Z0-9]*\d[A-Z0-9]*\d)[A-Z0-9]{8,}(?![\w-])", _tracking),
    rule(r"(?<![\w.])\d{3}\.\d{3}\.\d{4}(?![\w.-])", _phone, needs=INNER_STOP, with_digit=True),
    rule(r"(?<![\w.])\+\d{1,3} ?\(0\) ?\d{1,5}(?:[ .-]?\d{2,8}){1,3}(?![\w-])", _phone, needs="+", with_digit=True),
    rule(r"(?<![\w.])\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,4}(?![\w-])", _phone, needs="+", with_digit=True),
    rule(
        r"(?<=\d{4} )x(?P<digits>\d{2,6})(?!\w)",
        lambda match: f"extension {spelled(match['digits'])}",
        needs="x",
        with_digit=True,
    ),
    rule(
        r"(?<![\w.,-])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[.-]\d{4}(?![\w-])", _phone, needs="-.", with_digit=True
    ),
    rule(r"(?<![\w.,$£€-])\d{3}-\d{4}(?![\w-])", _phone, needs="-", with_digit=True),
    rule(r"(?<![\w.,-])0\d{2,4}(?: \d{3,6}){1,2}(?![\w.,-]*\d)", _phone),
    rule(r"(?<=\b[Dd]ial )(?P<digits>\d{3})(?!\d)", _code),
    rule(r"(?<=\b[Cc]all )(?P<digits>[1-9]11)(?!\d)", _code),
    rule(r"(?:(?<=\b[Ee]xt\. )|(?<=\b[Ee]xtension )|(?<=\b[Ee]xt ))(?P<digits>\d{3,6})(?!\d)", _code),
    rule(r"(?:(?<=\bcode is )|(?<=\bPIN is )|(?<=\bcode )|(?<=\bpassword is ))(?P<digits>\d{4,8})(?!\d)", _code),
)
CODES: tuple[Rule, ...] = (
    rule(
        r"\b[Tt]ext\s(?:[A-Z\"'“”‘’]+\s)?to\s(?P<claim>\d{5,6})(?!\w)",
        lambda match: spelled(match["claim"]),
    ),
    rule(
        r"(?<!\w)(?:(?P<tens>\d)0(?P<ones>\d)|(?P<other>\d+))\((?P<letter>[a-z])\)(?:\((?P<part>\d)\))?",  # 401(k)
        _paragraph,
        needs="(",
        with_digit=True,
    ),
    rule(
        r",\s[A-Z]{2}\s(?P<claim>\d{5}(?:-\d{4})?)(?![\w-])",
        lambda match: spelled(match["claim"]),
        needs=",",
        with_digit=True,
    ),
    rule(
        r"\b(?:[Cc]odes?|OTP|PIN|SSN|[Pp]asscode|[Pp]assword)(?:\s(?:number|is|was))*:?\s(?P<claim>\d{4,8})(?![\w%])(?![.,:/-]\d)",
        lambda match: spelled(match["claim"]),
    ),
    rule(
        r"\b(?:[Cc]ard|[Aa]ccount|[Nn]umber|SSN|PIN|[Pp]hone|[Ii]t)\s(?:that\s)?end(?:s|ing)\s(?:in|with)\s(?P<claim>\d{3,4})(?!\w)",
        lambda match: spelled(match["claim"]),
    ),
    rule(
        r"(?<![\w.,$£€¥₹])(?P<number>\d{1,2}(?:,\d{2})+,\d{3})(?![\w])(?![.,]\d)",
        lambda match: cardinal(match["number"]),
        needs=",",
        with_digit=True,
    ),
)
