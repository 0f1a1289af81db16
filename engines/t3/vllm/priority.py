"""The priorities of requests in vLLM's scheduler: smaller goes first."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Priorities by what the listener is waiting for."""

    FIRST_WINDOW = 0  # the segment's first sound
    LATER_WINDOWS = 1  # nothing: the first window's tokens are drawn, so that there is sound to play
    AHEAD = 2  # nothing: the segment before this one is still playing


# First hop of the slowest schedule (25), 3 of lookahead and the one token more that lets the planner cut.
FIRST_WINDOW_TOKENS = 29


def priority_after(priority: int, drawn_tokens: int) -> int:
    """The priority of a request that has drawn this many tokens."""
    if priority == Priority.FIRST_WINDOW and drawn_tokens >= FIRST_WINDOW_TOKENS:
        return Priority.LATER_WINDOWS
    return priority
