"""SSML's say-as: a text of a kind that its writer names."""

from __future__ import annotations

import re
from collections.abc import Callable

from engines.text.english.dates import MONTHS
from engines.text.english.numbers import cardinal, decimal, ordinal, spelled, year

_NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
_DATE = re.compile(r"(\d{1,4})[/.-](\d{1,2})(?:[/.-](\d{1,4}))?")
_LETTERS = {".": "dot", "-": "dash", "_": "underscore", "@": "at", "/": "slash", "#": "hash"}


def _characters(text: str, order: str) -> str | None:
    parts = [_LETTERS.get(char) or (cardinal(char) if char in "0123456789" else char.upper()) for char in text]
    return " ".join(part for part in parts if part.strip())


def _digits(text: str, order: str) -> str | None:
    return spelled(text) or None


def _cardinal(text: str, order: str) -> str | None:
    if not _NUMBER.fullmatch(text):
        return None
    return ("minus " if text.startswith("-") else "") + decimal(text.lstrip("-"))


def _ordinal(text: str, order: str) -> str | None:
    plain = re.sub(r"(?<=\d)(?:st|nd|rd|th)\Z", "", text).replace(",", "")
    return ordinal(plain) if re.fullmatch(r"[0-9]{1,15}", plain) else None


def _telephone(text: str, order: str) -> str | None:
    groups = re.findall(r"[0-9]+", text)
    return ("plus " if text.startswith("+") else "") + ", ".join(map(spelled, groups)) if groups else None


def _date(text: str, order: str) -> str | None:
    """`order` is that of SSML's format: mdy, dmy, ymd, md, dm; without one, as the front end reads dates."""
    if not order:
        return _read(text, order)
    match = _DATE.fullmatch(text)
    if match is None or order not in ("mdy", "dmy", "ymd", "md", "dm") or len(order) != match.lastindex:
        return None
    parts = dict(zip(order, match.groups(), strict=False))
    month, day = int(parts["m"]), int(parts["d"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{MONTHS[month - 1]} {ordinal(str(day))}" + (f", {year(parts['y'])}" if "y" in parts else "")


def _read(text: str, order: str) -> str | None:
    from engines.text.front_end import read_english  # which imports this package

    return read_english(text).spoken


_KINDS: dict[str, Callable[[str, str], str | None]] = {
    "characters": _characters,
    "spell-out": _characters,
    "verbatim": _characters,
    "digits": _digits,
    "cardinal": _cardinal,
    "number": _cardinal,
    "ordinal": _ordinal,
    "telephone": _telephone,
    "date": _date,
    "time": _read,
    "currency": _read,
    "unit": _read,
    "fraction": _read,
}
SAY_AS = tuple(_KINDS)


def say_as(kind: str, text: str, order: str = "") -> str | None:
    """Returns what is spoken for a text of this kind, or None for an unknown kind or a text that is not of it."""
    speak = _KINDS.get(kind)
    return None if speak is None or not text else speak(text, order)
