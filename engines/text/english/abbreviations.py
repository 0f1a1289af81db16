"""Abbreviations: titles, words after names, words before numbers, and phrases."""

from __future__ import annotations

import re

from engines.text.english.rule import INNER_STOP, Rule, is_last, rule, said

_TITLES = {
    "Dr": "Doctor",
    "Mr": "Mister",
    "Mrs": "Missus",
    "Ms": "Miz",
    "Prof": "Professor",
    "Rev": "Reverend",
    "Gen": "General",
    "Capt": "Captain",
    "Lt": "Lieutenant",
    "Col": "Colonel",
    "Maj": "Major",
    "Adm": "Admiral",
    "Hon": "Honorable",
    "Sgt": "Sergeant",
    "Gov": "Governor",
    "Sen": "Senator",
    "Mt": "Mount",
    "Ft": "Fort",
}
_AFTER_A_NAME = {
    "Jr": "Junior",
    "Sr": "Senior",
    "Inc": "Incorporated",
    "Ltd": "Limited",
    "Corp": "Corporation",
    "Co": "Company",
    "St": "Street",
    "Ave": "Avenue",
    "Blvd": "Boulevard",
    "Rd": "Road",
}
_PHRASES = {
    "e.g.": "for example",
    "eg.": "for example",
    "E.g.": "For example",
    "I.e.": "That is",
    "i.e.": "that is",
    "etc.": "et cetera",
    "incl.": "including",
    "tsp": "teaspoon",
    "tsp.": "teaspoon",
    "tbsp.": "tablespoon",
    "PhDs": "P H D's",
    "tbsp": "tablespoon",
    "WWI": "World War One",
    "WWII": "World War Two",
    "pts": "points",
    "tok/s": "tokens per second",
    "vs.": "versus",
    "vs": "versus",
    "approx.": "approximately",
    "a.k.a.": "also known as",
    "et al.": "and others",
    "cf.": "compare",
    "ca.": "around",
    "w/o": "without",
    "w/": "with",
    "and/or": "and or",
    "he/she": "he or she",
    "she/he": "she or he",
    "his/her": "his or her",
    "him/her": "him or her",
    "s/he": "she or he",
    "P.S.": "P S",
    "Ph.D.": "P H D",
    "PhD": "P H D",
    "BSc": "B S C",
    "MSc": "M S C",
    "B2B": "B to B",
    "B2C": "B to C",
    "P2P": "P to P",
    "WiFi": "wifi",
    "Wi-Fi": "wifi",
    "GitHub": "git hub",
    "JSON": "Jason",
    "PostgreSQL": "postgress Q L",
    "MySQL": "my S Q L",
    "NoSQL": "no S Q L",
    "iOS": "i O S",
    "macOS": "mac O S",
    "OAuth": "O auth",
    "LaTeX": "lah tech",
    "max.": "maximum",
    "avg.": "average",
    "yrs": "years",
    "Tel.": "telephone",
    "tel.": "telephone",
    "YoY": "year over year",
    "QoQ": "quarter over quarter",
    "MoM": "month over month",
    "TL;DR": "T L D R",
    "either/or": "either or",
    "N/A": "not applicable",
    "n/a": "not applicable",
}
_NUMBERED = {
    "No.": "number",
    "Nos.": "numbers",
    "Fig.": "Figure",
    "Figs.": "Figures",
    "Eq.": "Equation",
    "Sec.": "Section",
    "Ch.": "Chapter",
    "Vol.": "Volume",
    "Art.": "Article",
    "Pt.": "Part",
    "pp.": "pages",
    "p.": "page",
    "Apt.": "Apartment",
    "ext.": "extension",
    "Ext.": "Extension",
    "vol.": "volume",
    "bldg.": "building",
    "op.": "opus",
    "Op.": "Opus",
    "no.": "number",
    "fig.": "figure",
    "ch.": "chapter",
    "sec.": "section",
    "Rm.": "Room",
}


def _phrase(match: re.Match[str]) -> str:
    return _PHRASES[match[0]] + ("." if match[0].endswith(".") and is_last(match) else "")


def _title(match: re.Match[str]) -> str:
    return _TITLES[match["title"]]


def _after_a_name(match: re.Match[str]) -> str:
    stop = "." if match["dot"] and is_last(match) else ""
    return _AFTER_A_NAME[match["name"]] + stop


def _numbered(match: re.Match[str]) -> str:
    return _NUMBERED[match["word"]] + (" " if match.string[match.end()].isdecimal() else "")


_PHRASE = "|".join(re.escape(phrase) for phrase in sorted(_PHRASES, key=len, reverse=True))
_NUMBERED_WORDS = "|".join(re.escape(word) for word in _NUMBERED)
PHRASES: tuple[Rule, ...] = (rule(rf"(?<![\w/.])(?:{_PHRASE})(?![\w/])", _phrase, needs=""),)
RULES: tuple[Rule, ...] = (
    rule(rf"(?<!\w)(?P<word>{_NUMBERED_WORDS})(?=\s?\d|\s[IVXL]+\b)", _numbered, needs=INNER_STOP),
    rule(rf"(?<!\w)(?P<title>{'|'.join(_TITLES)})\.(?=\s(?:[A-Z]|and\s|&\s))", _title, needs=INNER_STOP),
    rule(r"(?<!\w)(?<![A-Za-z] )St\.(?=\s[A-Z])", said("Saint"), needs=INNER_STOP),
    rule(
        rf"(?<=[\w,] )(?P<name>{'|'.join(_AFTER_A_NAME)})(?P<dot>\.)"
        r"(?=\s[a-z]|\s(?:[NS][EW]?|[EW])\b|,|\s*\Z|[\"'”’)])",
        _after_a_name,
        needs=".",
    ),
    rule(r"(?<=[a-z] )(?P<name>St|Ave|Blvd|Rd)(?P<dot>)(?=,|\s*\Z)", _after_a_name, needs="SABR"),
)
