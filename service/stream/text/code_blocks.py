"""Code between fences of three backticks or tildes, in text that arrives in fragments: it is not spoken.

More than four tildes are no fence here: a line of them is decoration more often, and would take all that follows.
"""

from __future__ import annotations

import re

_MAX_INFO_CHARS = 100
_OPENING = re.compile(r"(?:(?P<backticks>`{3,})[^`\n]*|(?P<tildes>~{3,4})(?!~)[^\n]*)\n")
_OPENING_BEGUN = re.compile(
    rf"(?:`{{1,2}}|`{{3,}}[^`\n]{{0,{_MAX_INFO_CHARS}}}|~{{1,2}}|~{{3,4}}(?!~)[^\n]{{0,{_MAX_INFO_CHARS}}})\Z"
)


class CodeBlocks:
    """One stream's filter. The joined results do not depend on how the text was fragmented."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget the text fed so far."""
        self._held = ""
        self._fence = ""  # of the block that has begun
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
                kept.append("\n\n")
                self._fence = opening["backticks"] or opening["tildes"]
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
        """Drop a line of code; hold one that has no end yet."""
        end = text.find("\n", at) + 1
        if not end:
            self._held = self._begun_line(text[at:].lstrip(" \t"))
            return len(text)
        line = text[at:end].strip()
        if len(line) >= len(self._fence) and not line.strip(self._fence[0]):
            self._fence = ""
            self._at_line_start = True
        return end

    def _begun_line(self, line: str) -> str:
        """What must be held of a line of code to tell later whether it ends the block."""
        if not line.strip(self._fence[0]):
            return line[:_MAX_INFO_CHARS]
        return line[:1] + "x" if line.strip(self._fence[0] + " \t") else line[:_MAX_INFO_CHARS]
