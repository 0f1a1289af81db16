"""What a stream's text consists of beside words: pauses, marks, and parts whose spoken form the client gives."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_PAUSE_S = 10.0


@dataclass(frozen=True)
class Pause:
    """Silence of this length."""

    duration_s: float


@dataclass(frozen=True)
class Mark:
    """A place in the text whose position on the timeline is reported."""

    name: str


@dataclass(frozen=True)
class Cut:
    """The end of a segment."""


@dataclass(frozen=True)
class Rate:
    """The speed of the segments that follow."""

    speed: float


@dataclass(frozen=True)
class Fixed:
    """A part of a segment whose spoken form is given."""

    written: str
    spoken: str


Boundary = Pause | Mark | Cut | Rate

_BOUNDARIES, _INLINE = 0xF0000, 0xF8000  # private-use characters, half of a plane each
_PER_KIND = 0x7FF0
BOUNDARY = re.compile("([\U000f0000-\U000f7fff])")
INLINE = re.compile("[\U000f8000-\U000fffff]")
_ANY = re.compile("[\U000f0000-\U000fffff]")


class Anchors:
    """One stream's items, each of which stands in the text as one private-use character.

    A Boundary ends the segment before it; a Fixed part is a word of its segment, so the rules for sentences see a word.
    """

    def __init__(self) -> None:
        self._items: dict[str, Boundary | Fixed] = {}
        self._number = 0

    def add(self, item: Boundary | Fixed) -> str:
        """Returns the character that stands for `item`."""
        char = chr((_INLINE if isinstance(item, Fixed) else _BOUNDARIES) + self._number)
        self._number = (self._number + 1) % _PER_KIND
        self._items[char] = item
        return char

    def take_boundary(self, char: str) -> Boundary:
        item = self._items.pop(char)
        assert not isinstance(item, Fixed)
        return item

    def take_fixed(self, char: str) -> Fixed:
        item = self._items.pop(char)
        assert isinstance(item, Fixed)
        return item

    def clear(self) -> None:
        self._items.clear()


def without_anchors(text: str) -> str:
    """Returns a client's text without the characters that anchors use."""
    return text if text.isascii() else _ANY.sub("", text)
