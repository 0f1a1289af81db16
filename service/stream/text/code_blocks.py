"""Code between fences of three backticks or tildes, in text that arrives in fragments: it is not spoken.

A fence may stand in quotes and list items: behind ">", "-" or "1.". A block in a quote ends with the quote, as
CommonMark has it; one in a list item ends with its fence alone, because its lines are often not indented. More than
four tildes are no fence here: a line of them is decoration more often, and would take all that follows.
"""

from __future__ import annotations

import re

_MAX_INFO_CHARS = 100
_MAX_CONTAINERS = 8
_BLANK = " \t\r"  # what may stand beside a closing fence
_QUOTE_MARK = re.compile(r"[ \t]{0,8}>")
_QUOTE_BEGUN = re.compile(r"[ \t]{0,8}\Z")
_CONTAINER = r"(?:>|(?:[-*+]|\d{1,3}[.)])(?=[ \t]))[ \t]{0,8}"
_CONTAINERS = rf"(?P<containers>(?:{_CONTAINER}){{0,{_MAX_CONTAINERS}}})"
_OPENING = re.compile(rf"{_CONTAINERS}(?:(?P<backticks>`{{3,}})[^`\n]*|(?P<tildes>~{{3,4}})(?!~)[^\n]*)\n")
_OPENING_BEGUN = re.compile(
    rf"{_CONTAINERS}(?:[-*+]|\d{{1,3}}[.)]?|`{{0,2}}|`{{3,}}[^`\n]{{0,{_MAX_INFO_CHARS}}}|"
    rf"~{{1,2}}|~{{3,4}}(?!~)[^\n]{{0,{_MAX_INFO_CHARS}}})\Z"
)


class CodeBlocks:
    """One stream's filter. The joined results do not depend on how the text was fragmented."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the text fed so far."""
        self._held = ""
        self._fence = ""  # of the block that has begun
        self._quotes = 0  # that the block stands in
        self._at_line_start = True

    @property
    def pending_chars(self) -> int:
        """The characters held back."""
        return len(self._held)

    def feed(self, fragment: str) -> str:
        """Append a fragment. Returns the text that follows from it."""
        text, self._held = self._held + fragment, ""
        kept: list[str] = []
        at = 0
        while at < len(text):
            at = self._skip(text, at) if self._fence else self._read(text, at, kept)
        return "".join(kept)

    def flush(self) -> str:
        """Returns what is held back, as if the text ended here. Code of an open block stays unspoken."""
        if self._fence:
            return ""
        held, self._held = self._held, ""
        self._at_line_start = self._at_line_start and not held.strip()
        return held

    def _read(self, text: str, at: int, kept: list[str]) -> int:
        """Keep the text up to the next line that begins with a fence. Returns where to go on."""
        if self._at_line_start:
            start = len(text) - len(text[at:].lstrip(" \t"))
            if start == len(text):
                kept.append(text[at:])
                return len(text)
            if (opening := _OPENING.match(text, start)) is not None:
                kept.append(text[at:start] + "\n\n")
                self._fence = opening["backticks"] or opening["tildes"]
                self._quotes = opening["containers"].count(">")
                return opening.end()
            if _OPENING_BEGUN.match(text, start):
                kept.append(text[at:start])
                self._held = text[start:]
                return len(text)
        end = text.find("\n", at) + 1
        self._at_line_start = end > 0
        kept.append(text[at:end] if end else text[at:])
        return end or len(text)

    def _skip(self, text: str, at: int) -> int:
        """Drop a line of code; hold one that has no end yet. Returns where to go on."""
        start = self._line_start(text, at)
        if start is None:  # the quote has ended, and the block with it
            self._fence = ""
            self._at_line_start = True
            return at
        end = text.find("\n", at) + 1
        if not end:
            self._held = text[at:start] + self._begun_line(text[start:].lstrip(_BLANK))
            return len(text)
        line = text[start:end].strip(_BLANK + "\n")
        if len(line) >= len(self._fence) and not line.strip(self._fence[0]):
            self._fence = ""
            self._at_line_start = True
        return end

    def _line_start(self, text: str, at: int) -> int | None:
        """Where the line that begins at `at` goes on behind the marks of the block's quotes, which may not all be here
        yet; None if it lacks one."""
        for _ in range(self._quotes):
            mark = _QUOTE_MARK.match(text, at)
            if mark is None:
                return len(text) if _QUOTE_BEGUN.match(text, at) else None
            at = mark.end()
        return at

    def _begun_line(self, line: str) -> str:
        """What must be held of a line of code to tell later whether it ends the block."""
        if not line.strip(self._fence[0]):
            return line[:_MAX_INFO_CHARS]
        return line[:1] + "x" if line.strip(self._fence[0] + _BLANK) else line[:_MAX_INFO_CHARS]
