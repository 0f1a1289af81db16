"""Normalisation of a segment's text: what is not spoken is removed, then punctuation becomes what T3 was trained on."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from engines.errors import InvalidInput

MAX_TEXT_CHARS = 1000

_COLON = re.compile(r"(?<!\d):|:(?!\d)")  # 10:30, 16:9 and John 3:16 keep theirs
# In this order, after "…" and ":", which can leave " ," behind a space.
_REPLACEMENTS = (
    ("—", "-"),
    ("–", "-"),
    (" ,", ","),
    ("“", '"'),
    ("”", '"'),
    ("‘", "'"),
    ("’", "'"),
)
_ENDINGS = (".", "!", "?", "-", ",")

_CONTROLS = dict.fromkeys([*range(0x09), *range(0x0E, 0x1C), 0x7F])  # the others are white space
# A terminal's colours and links, in what a program pipes to `mynah say -`: without the escape "[31m" would be spoken
_TERMINAL = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# Blank, or only a part of an emoji, without being of the categories Cf and Cc: joiners, fillers, variation selectors
# and keycaps.
_UNSEEN = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u20e3\ufffc\ufffd")
_PICTOGRAPHS = "\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25a0-\u27bf\u2b00-\u2bff\u3030\u303d\U0001f000-\U0001faff"
_PICTOGRAPH = re.compile(rf"\s*[{_PICTOGRAPHS}](?:\s*[{_PICTOGRAPHS}])*(?P<end>\s*(?=[.,!?;:)\]]|\Z))?")
# Any sign that a variation selector shows as an emoji, e.g. that of information; the keycaps without a digit
_SHOWN = re.compile(r"(?:[^\w\s\x00-\x7f]|\u2139)\ufe0f|[#*]\ufe0f?\u20e3")


def control_sequences(text: str) -> list[tuple[int, int]]:
    """Returns where a terminal's control sequences stand, which no rule may read: "0m" is no length."""
    return [match.span() for match in _TERMINAL.finditer(text)] if "\x1b" in text or "\x9b" in text else []


def clean(text: str) -> str:
    """Returns `text` without what is not spoken: invisible and control characters, a terminal's control sequences,
    emoji and other pictographs.

    A keycap keeps its digit. A pictograph between two words leaves a space. White space stays as it is elsewhere.
    """
    if "\x1b" in text or "\x9b" in text:
        text = _TERMINAL.sub("", text)
    if not text.isascii():
        if "\ufe0f" in text or "\u20e3" in text:
            text = _SHOWN.sub("\u2b50", text)
        text = "".join(char for char in text if char < "\x80" or not _is_invisible(char))
        text = _PICTOGRAPH.sub(lambda match: "" if match["end"] is not None else " ", text)
    return text.translate(_CONTROLS)


@lru_cache(maxsize=4096)
def _is_invisible(char: str) -> bool:
    if char in _UNSEEN or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return True
    category = unicodedata.category(char)
    return category == "Cf" or (category == "Cc" and not char.isspace())


def normalize(text: str) -> str:
    """Returns `text` with the punctuation that T3 was trained on; ends in . ! ? - or a comma.

    Upstream's `punc_norm`, except that a colon between two digits stays: "10,30" is another time than "10:30".
    The text must not be blank.
    """
    assert text.strip(), "blank text is refused before"
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    text = _COLON.sub(",", text.replace("…", ", "))
    for old, new in _REPLACEMENTS:
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(_ENDINGS) else text + "."


# Of standard and Multilingual, in this order
_PUNCTUATION = (
    ("...", ", "),
    ("…", ", "),
    (":", ","),
    (" - ", ", "),
    (";", ", "),
    *_REPLACEMENTS,
)
_WIDE_ENDINGS = ("、", "，", "。", "？", "！")


def normalize_punctuation(text: str, *, wide_endings: bool = False) -> str:
    """Returns `text` with the punctuation that standard and Multilingual were trained on, as upstream's `punc_norm`.

    wide_endings: whether the wide stops and commas of Chinese and Japanese end a text too
    The text must not be blank.
    """
    assert text.strip(), "blank text is refused before"
    if text[0].islower():
        text = text[0].upper() + text[1:]
    text = " ".join(text.split())
    for old, new in _PUNCTUATION:
        text = text.replace(old, new)
    text = text.rstrip(" ")
    return text if text.endswith(_ENDINGS + (_WIDE_ENDINGS if wide_endings else ())) else text + "."


def check_text(text: str, max_chars: int = MAX_TEXT_CHARS) -> None:
    """Raises InvalidInput with reason TEXT_TOO_LONG if `text` has more than `max_chars` characters, TEXT_NOT_UNICODE if
    it has a lone surrogate."""
    if len(text) > max_chars:
        allowed = f"at most {max_chars} characters"
        message = f"text has {len(text)} characters; a segment must have {allowed}."
        raise InvalidInput("text", message, "TEXT_TOO_LONG", value=repr(text[:80]), allowed=allowed)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        allowed = "Unicode text without lone surrogates"
        message = f"text has a lone surrogate at character {error.start}; it must be {allowed}."
        raise InvalidInput("text", message, "TEXT_NOT_UNICODE", value=repr(text), allowed=allowed) from error
