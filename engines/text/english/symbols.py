"""Symbols: arithmetic, comparison, and signs between words."""

from __future__ import annotations

import re
import unicodedata

from engines.text.english.money import PER
from engines.text.english.numbers import cardinal, decimal
from engines.text.english.rule import INNER_STOP, Rule, rule, said

_BETWEEN = {
    "+": "plus",
    "=": "equals",
    "==": "equals",
    "×": "times",
    "*": "times",
    "÷": "divided by",
    "<": "is less than",
    ">": "is greater than",
    "≤": "is at most",
    "<=": "is at most",
    "≥": "is at least",
    ">=": "is at least",
    "≠": "is not equal to",
    "!=": "is not equal to",
    "≈": "is about",
    "→": "to",
    "->": "to",
    "⇒": "implies",
    "=>": "implies",
    "<-": "from",
    "&": "and",
    "&&": "and",
    "±": "plus or minus",
}
_PER = PER | {"min": "minute", "l": "liter", "L": "liter"}
_QUANTITY = re.compile(r"\s-?(?:[\d.,]+|[A-Za-z])(?!\w)")
_QUANTITY_BEFORE = re.compile(r"(?<!\w)(?:[\d.,]+\w*|[A-Za-z])\s\Z")
_POWERS = {"²": "squared", "³": "cubed"}
_LIMITS = {
    "<": "less than",
    ">": "more than",
    "≤": "at most",
    "<=": "at most",
    "≥": "at least",
    ">=": "at least",
    "≤=": "at most",
    "≥=": "at least",
}
_KEYS = {"⌘": "command", "⌥": "option", "⇧": "shift"}
_SCALES = {"C": "Celsius", "F": "Fahrenheit"}
_OPERATOR = "|".join(re.escape(sign) for sign in sorted(_BETWEEN, key=len, reverse=True))


def _operator(match: re.Match[str]) -> str:
    if match["sign"] in "<>*" and not (
        _QUANTITY_BEFORE.search(match.string, 0, match.start()) or _QUANTITY.match(match.string, match.end())
    ):
        return "star" if match["sign"] == "*" else ","  # SELECT * FROM, File > Save
    return _BETWEEN[match["sign"]]


def _glued(match: re.Match[str]) -> str:
    return f" {_BETWEEN[match['sign']]} "


def _both_scales(match: re.Match[str]) -> str:
    """72°F/22°C, whose first number stands before the match."""
    other = f"{'minus ' if match['minus'] else ''}{decimal(match['number'])} degrees {_SCALES[match['other']]}"
    return f" degrees {_SCALES[match['scale']]}, {other}"


def _greek(match: re.Match[str]) -> str:
    """A Greek letter alone, as formulas have it."""
    before = " " if match.string[match.start() - 1 : match.start()].isalnum() else ""
    after = " " if match.string[match.end() : match.end() + 1].isalnum() else ""
    name = unicodedata.name(match[0]).rpartition(" ")[2].lower().replace("lamda", "lambda")
    return f"{before}{name}{after}"


def _power(match: re.Match[str]) -> str:
    return f" to the power of {'minus ' if match['minus'] else ''}{cardinal(match['power'])}"


RULES: tuple[Rule, ...] = (
    rule(
        r"(?<!\w)(?P<left>[A-Z]{1,3})&(?P<right>[A-Z])(?P<plural>s)?(?!\w)",
        lambda match: f"{' '.join(match['left'])} and {match['right']}{chr(39) + 's' if match['plural'] else ''}",
        needs="&",
    ),
    rule(r"(?<!\w)C\+\+(?!\w)", said("C plus plus"), needs="+"),
    rule(r"(?<!\w)C\+\+(?=\d)", said("C plus plus "), needs="+"),
    rule(r"(?<=[A-Za-z])\+(?=[A-Z])", said(" plus "), needs="+"),
    rule(r"(?<!\S)\+(?=\d)", said("plus "), needs="+"),
    rule(r"(?<=\d\s)x(?=\s10\^)", said("times"), needs="^"),
    rule(r"(?<!\w)(?P<name>[CFJ])#(?!\w)", lambda match: f"{match['name']} sharp", needs="#"),
    rule(r"(?<=[A-G])[♯♭]", lambda match: " sharp" if match[0] == "♯" else " flat", needs="♯♭"),
    rule(r"№\s?(?=\d)", said("number "), needs="№"),
    rule(r"(?<=\d)/-(?!\w)", said(""), needs="/"),  # Rs. 500/-
    rule(r"(?<=\d)/(?=[$£€¥₹]\d)", said(", "), needs="/"),
    rule(r"(?<!\w)24/7/365(?!\w)", said("twenty four seven three sixty five"), needs="/"),
    rule(r"(?<![\w&])#(?=\d+[A-Z][a-z])", said("hashtag "), needs="#"),
    rule(r"(?<![\w&])#(?=\d)", said("number "), needs="#"),
    rule(r"(?<![\w&])#(?=[A-Z]+-?\d)", said("number "), needs="#"),
    rule(r"(?<![\w&])#(?=[A-Za-z])", said("hashtag "), needs="#"),
    rule(r"(?<![\w.])@(?=[A-Za-z])", said("at "), needs="@"),
    rule(r"(?<=\w)[™®©]|[©®™]\s?", said(""), needs="™®©"),
    rule(r"§\s?", said("section "), needs="§"),
    rule(r"¶\s?(?=\d)", said("paragraph "), needs="¶"),
    rule(r"√\s?(?=[\w(])", said("the square root of "), needs="√"),
    rule(r"(?<![\w)])(?<![\w)]\s)±\s?(?=[\d.])", said("plus or minus "), needs="±"),
    rule(
        r"(?<!\S)°\s?(?P<scale>[CF])(?!\w)",
        lambda match: f"degrees {_SCALES[match['scale']]}",
        needs="°",
    ),
    rule(
        r"(?:(?<=\babout )|(?<=\baround )|(?<=\broughly )|(?<=\bapproximately ))~\s?(?=[\d$£€])",
        said(""),
        needs="~",
        flags=re.IGNORECASE,
    ),
    rule(r"∞", said("infinity"), needs="∞"),
    rule(r"∑\s?(?:of\s)?", said("the sum of "), needs="∑"),
    rule(r"∫\s?", said("the integral of "), needs="∫"),
    rule(
        r"(?<![\u0370-\u03ff])[Α-Ωα-ω](?![\u0370-\u03ff])",
        _greek,
        needs="ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρςστυφχψω",
    ),
    rule(r"[⌘⌥⇧]\s?\+?\s?(?=\w)", lambda match: f"{_KEYS[match[0][0]]} ", needs="⌘⌥⇧"),
    rule(
        r"(?<!\S)(?P<left>[A-Z])/(?P<right>[A-Z])(?!\w)", lambda match: f"{match['left']} {match['right']}", needs="/"
    ),
    rule(r"(?<=\w)!\s=(?=\s)", said(" factorial equals"), needs="="),
    rule(r"(?<=[²³])/(?=[\w(])", said(" over "), needs="²³"),
    rule(r"(?<=\w)\^(?=[a-z](?!\w))", said(" to the power of "), needs="^"),
    rule(
        r"(?<![\w)])(?<![\w)]\s)(?P<sign>[<>≤≥]=?)(?=\d|[$£€]\d)",
        lambda match: f"{_LIMITS[match['sign']]} ",
        needs="<>≤≥",
    ),
    rule(
        r"(?<=[a-z]\s)(?P<sign>[<>≤≥])(?=(?!3(?![\d.%]))[\d$£€])",  # but not the heart, <3
        lambda match: f"{_LIMITS[match['sign']]} ",
        needs="<>≤≥",
    ),
    rule(r"(?<!\w)×(?=\d)", said("times "), needs="×"),
    rule(r"(?:(?<=\s)|(?<=\A))\.(?=[a-z]{2,}[\w-]*(?!\w|\.\w))", said("dot "), needs=INNER_STOP),
    rule(r"(?:(?<=GMT)|(?<=UTC))(?P<sign>[-+−])(?=\d)", lambda match: " plus " if match["sign"] == "+" else " minus "),
    rule(r"(?:(?<=%)|(?<=°[CF])|(?<=°))\s?[-–—]\s?(?=[-−]?\d)", said(" to "), needs="%°"),
    rule(r"(?<=[\w)]\s)−(?=\s[\w(])", said("minus"), needs="−"),
    rule(r"(?<=[.\"'”’]\s)&{1,2}(?=\s\w)", said("and"), needs="&"),
    rule(r"(?<=\s)@(?=\s)", said("at"), needs="@"),
    rule(r"(?<=\w)@(?=\w)", said(" at "), needs="@"),
    rule(r"°/(?=-?\d)", said(" degrees, "), needs="°"),
    rule(
        r"°(?P<scale>[CF])/(?P<minus>[-−])?(?P<number>\d+(?:\.\d+)?)\s?°(?P<other>[CF])(?!\w)",
        _both_scales,
        needs="°",
    ),
    rule(r"(?<=\d)°(?!\s?[A-Za-z/])", said(" degrees"), needs="°"),
    rule(r"(?<=[²³])(?P<sign>[+=])(?=\w)", _glued, needs="²³"),
    rule(r"(?<=\d/\d)\s?[-–—]\s?(?=\d)", said(" to "), needs="/"),
    rule(r"(?<=[A-Za-z])(?P<sign>[<>])(?=[-.]?\d)", _glued, needs="<>"),
    rule(r"(?<!\w)(?P<letter>[A-Z])\d{1,3}(?P<claim>\s?[-–]\s?)(?=(?P=letter)\d)", said(" to "), needs="-–"),
    rule(r"(?<=\d[A-Z])[-–](?=\d{1,3}[A-Z](?!\w))", said(" to ")),
    rule(r"(?<!\w)~\s?(?=[\d$£€])", said("about "), needs="~"),
    rule(r"(?<!\w)(?<![\w)]\s)≈\s?(?=[\d$£€])", said("about "), needs="≈"),
    rule(r"(?<=\d)/(?=\d+(?:[kKM]\b|,\d{3})\s?[a-z])", said(" per "), needs="/"),
    rule(r"(?<=\w)\^(?P<minus>-)?(?P<power>\d+)(?!\w)", _power, needs="^"),
    rule(r"(?<=[\w)])(?P<power>[²³])", lambda match: f" {_POWERS[match['power']]}", needs="²³"),
    rule(r"(?<=[\d%])\+(?=\s[a-z]|[.,;:!?)]|\s*\Z)", said(" plus"), needs="+"),
    rule(r"(?<=\d)\s[-−]\s(?=\d+\s?=)", said(" minus "), needs="="),
    rule(r"(?:(?<=\d)|(?<=\d[kKmMbBtT])|(?<=\d[mbt]n))\s?[-–—]\s?(?=[$£€¥₹]\d)", said(" to "), needs="$£€¥₹"),
    rule(rf"(?<=[\w)]\s)(?P<sign>{_OPERATOR})(?=\s[\w($£€¥₹₿-])", _operator, needs="+=×*÷<>≤≥!≠≈→-⇒&±"),
    rule(r"(?<=\d)(?P<sign>[+×÷=<>≤≥±])(?=\d)", _glued, needs="+×÷=<>≤≥±"),
    rule(r"(?<=\w)(?P<sign>→|==|!=|>=|<=|=|≤|≥|≠|->)(?=[\w-])", _glued, needs="→=≤≥≠>!"),
    rule(r"(?<=[a-z])(?P<sign>&)(?=[a-z])", _glued, needs="&"),
    rule(r"(?<=\.\d)/(?=\d)|(?<=\d)/(?=\d\.\d)", said(" out of "), needs="/"),
    rule(
        r"(?<=[a-z\d])/(?=(?:year|month|week|day|night|room|guest|hour|hr|minute|min|second|sec|s|person|user|seat|unit)\b)",
        said(" per "),
        needs="/",
    ),
    rule(
        rf"(?<=[\w¢])/(?P<unit>{'|'.join(PER)}|day|min|month|minute|week|hour|l|L|year|person|user)(?![\w/])",
        lambda match: f" per {_PER.get(match['unit'], match['unit'])}",
        needs="/",
    ),
    rule(r"(?<=[A-Za-z])/(?=[A-Za-z])", said(" slash "), needs="/"),
    rule(r"\s?(?<![\w:])[:;=]-?[)(DPp](?!\w)|\s?<3(?!\w)", said(""), needs=":;=<"),
)
