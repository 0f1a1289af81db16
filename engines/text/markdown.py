"""Markdown in a segment: what marks headings, lists, emphasis, links, tables and code is not spoken."""

from __future__ import annotations

import re
from collections.abc import Iterator

from engines.text.reading import Claim

_MAYBE = re.compile(r"[*_~^`#\[\]|>\\•‣⁃\u20e3]|^\s*(?:[-+]|\d{1,3}[.)]|\(?[a-zA-Z]\))\s|^[-=]{2,}", re.MULTILINE)
_CONTAINERS = r"(?:>[ \t]*|[-*+•‣⁃][ \t]+)*"  # quotes and list items, one in another
_HIDDEN = re.compile(r"(?<![\w*•])[*•xX]{3,}[ -]?(?P<last>\d{4})(?!\d)")  # a card's number, ****1234
_LINE_STARTS = (
    (
        re.compile(r"^[ \t>]*(?:\|?[ \t]*:?-{2,}:?[ \t]*)+\|?[ \t]*(?:\n|\Z)", re.MULTILINE),
        "",
    ),  # a rule, a table's line
    (re.compile(r"^[ \t>]*(?:[*_][ \t]*){3,}$|^[ \t>]*(?:={2,}|~{3,})[ \t]*$", re.MULTILINE), ""),
    (re.compile(r"(?:^|(?<=\s))[ \t]*(?:[-*+•‣⁃][ \t]+)?\[[ xX]\][ \t]+(?=\w)", re.MULTILINE), ""),
    (re.compile(rf"^[ \t]*{_CONTAINERS}(?:#{{1,6}}[ \t]+)?|(?:^|(?<=\s))[•‣⁃][ \t]*", re.MULTILINE), ""),
)
_NUMBER = re.compile(
    rf"^[ \t]*{_CONTAINERS}(?P<mark>(?:\(?(?P<number>\d{{1,3}})[.)][ \t]+|(?P<keycap>\d)\ufe0f?\u20e3[ \t]*)"
    rf"(?=\S){_CONTAINERS})",
    re.MULTILINE,
)
_CITATION = re.compile(r"(?<=[\w.,!?)\"”])\s?\[\^?\d{1,3}\](?!\()|\[\^[\w-]+\]")
_LINK_START = re.compile(r"!?\[(?=[^\[\]\n]*\]\()")
_LINK_END = re.compile(r"\]\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s\"[^\"]*\")?\)")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+.!|>~-])")
_STRONG = re.compile(
    r"(?<!\w)(?:\*{1,3}|_{1,3}|~{2,})(?=[\w\"'“‘(\[$£€¥#@-])|(?<=[\w.,:;!?\"'”’)\]%])(?:\*{1,3}|_{1,3}|~{2,})(?!\w)"
)
_STRONG_INSIDE = re.compile(r"(?<=\w)(?:\*{2,3})(?=\w)|\*\*|~~")
_CODE = re.compile(r"`+")
_LOWERED = re.compile(r"(?<=\w)~(?=\w{1,4}~)|(?<=\w~\w)~(?!~)|(?<=\^\w)\^")  # H~2~O, x^2^
_CELL = re.compile(r"[ \t]*\|[ \t]*")
_TABLE_ROW = re.compile(r"^[ \t>]*(?P<cells>\|.*\|[ \t]*)$", re.MULTILINE)


def claims(text: str) -> Iterator[Claim]:
    """The marks of Markdown in a segment. They may overlap: the earlier one holds."""
    if _MAYBE.search(text) is None:
        return
    yield from (Claim(*match.span(), "ending in " + " ".join(match["last"])) for match in _HIDDEN.finditer(text))
    for pattern, spoken in _LINE_STARTS:
        yield from (Claim(*match.span(), spoken) for match in pattern.finditer(text) if match[0])
    yield from (
        Claim(*match.span("mark"), (match["number"] or match["keycap"]) + ", ") for match in _NUMBER.finditer(text)
    )
    yield from _cells(text)
    for pattern in (_ESCAPE, _CITATION, _LINK_START, _LINK_END, _STRONG, _STRONG_INSIDE, _CODE, _LOWERED):
        yield from (Claim(*match.span(), "") for match in pattern.finditer(text))


def _cells(text: str) -> Iterator[Claim]:
    for row in _TABLE_ROW.finditer(text):
        start, end = row.span("cells")
        for match in _CELL.finditer(text, start, end):
            edge = match.start() <= start or match.end() >= end
            yield Claim(*match.span(), "" if edge else ", ")
