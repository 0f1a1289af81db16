"""Names of emoji, for those who want them spoken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from engines.text.reading import Claim

_BASE = "\u231a\u231b\u23e9-\u23f3\u2600-\u27bf\u2b50\u2b55\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
_FLAG = "[\U0001f1e6-\U0001f1ff]"
_MODIFIERS = "\ufe0f\u20e3\U0001f3fb-\U0001f3ff"
_EMOJI = re.compile(rf"{_FLAG}{{2}}|[{_BASE}][{_MODIFIERS}]*(?:\u200d[{_BASE}][{_MODIFIERS}]*)*")


def claims(text: str) -> Iterator[Claim]:
    """Every emoji and its name in Unicode, the first part's for one of several parts."""
    if text.isascii():
        return
    for match in _EMOJI.finditer(text):
        before = "" if match.start() == 0 or text[match.start() - 1].isspace() else " "
        after = "" if not text[match.end() : match.end() + 1].isalnum() else " "
        yield Claim(*match.span(), before + _name(match[0]) + after)


def _name(emoji: str) -> str:
    first = emoji[0]
    if "\U0001f1e6" <= first <= "\U0001f1ff":
        letters = " ".join(chr(ord(letter) - 0x1F1E6 + ord("A")) for letter in emoji)
        return f"flag of {letters}"
    name = unicodedata.name(first, "").lower()
    return name.removeprefix("heavy ").removeprefix("white ").replace("-", " ")
