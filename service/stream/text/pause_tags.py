"""Pauses written as [pause:0.5s] or [pause:500ms], in text that arrives in fragments."""

from __future__ import annotations

import re

from service.stream.text.items import MAX_PAUSE_S, Anchors, Pause

_TAG = re.compile(r"\[pause:\s{0,3}(?P<count>\d{1,6}(?:\.\d{1,6})?)\s{0,3}(?P<unit>ms|s)\s{0,3}\]", re.IGNORECASE)
_BEGUN = re.compile(
    r"\[(?:p(?:a(?:u(?:s(?:e(?::\s{0,3}(?:\d{1,6}(?:\.\d{0,6})?\s{0,3}(?:m|ms\s{0,3}|s\s{0,3})?)?)?)?)?)?)?)?\Z",
    re.IGNORECASE,
)


class PauseTags:
    """One stream's filter: a tag becomes an anchor, and a longer pause one of 10 s.

    The joined results do not depend on how the text was fragmented.
    """

    def __init__(self, anchors: Anchors) -> None:
        self._anchors = anchors
        self._held = ""

    @property
    def pending_chars(self) -> int:
        """The characters held back."""
        return len(self._held)

    def reset(self) -> None:
        """Forget the text fed so far."""
        self._held = ""

    def feed(self, fragment: str) -> str:
        """Append a fragment. Returns the text that follows from it."""
        if not self._held and "[" not in fragment:
            return fragment
        text, self._held = self._held + fragment, ""
        at = text.rfind("[")
        if at >= 0 and _BEGUN.match(text, at):
            text, self._held = text[:at], text[at:]
        return _TAG.sub(self._pause, text)

    def flush(self) -> str:
        """Returns what is held back, as if the text ended here."""
        held, self._held = self._held, ""
        return held

    def _pause(self, tag: re.Match[str]) -> str:
        seconds = float(tag["count"]) * (0.001 if tag["unit"].lower() == "ms" else 1.0)
        return self._anchors.add(Pause(min(seconds, MAX_PAUSE_S))) if seconds else ""
