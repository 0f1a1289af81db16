"""Names of emoji, for those who want them spoken."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from engines.text import flags
from engines.text.english.rule import words_of
from engines.text.reading import Claim

_BASE = (
    "\u231a\u231b\u23e9-\u23f3\u2600-\u27bf\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\U0001f004\U0001f0cf\U0001f170-\U0001f19a"
    "\U0001f201-\U0001f251\U0001f300-\U0001f3fa\U0001f400-\U0001faff"
)
_MODIFIERS = "[\ufe0f\u20e3\U0001f3fb-\U0001f3ff]*"
_ONE = rf"(?:[{_BASE}]|(?:[^\w\s\x00-\x7f]|\u2139)\ufe0f){_MODIFIERS}"
_KEYCAP = r"(?P<key>[0-9#*])\ufe0f?\u20e3"
_EMOJI = re.compile(rf"(?P<flag>{flags.PATTERN})|{_KEYCAP}|{_ONE}(?:\u200d{_ONE})*")
_KEYS = dict(zip("0123456789#*", words_of("zero one two three four five six seven eight nine hash star"), strict=True))


def claims(text: str) -> Iterator[Claim]:
    """Every emoji and its name in Unicode, the first part's for one of several parts."""
    if text.isascii():
        return
    for match in _EMOJI.finditer(text):
        name = _name(match)
        if not name:
            continue
        before = "" if match.start() == 0 or text[match.start() - 1].isspace() else " "
        after = "" if not text[match.end() : match.end() + 1].isalnum() else " "
        yield Claim(*match.span(), before + name + after)


def _name(match: re.Match[str]) -> str:
    if match["flag"]:
        return flags.name(match["flag"])
    if match["key"]:
        return f"keycap {_KEYS[match['key']]}"
    name = unicodedata.name(match[0][0], "").lower()
    return name.removeprefix("heavy ").removeprefix("white ").replace("-", " ")
