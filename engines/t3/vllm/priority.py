"""How urgent a request is. Pure; smaller goes first, as vLLM's priorities do."""

from __future__ import annotations

from enum import IntEnum


class Urgency(IntEnum):
    """What a request's listener is waiting for."""

    FIRST_WINDOW = 0  # nothing to hear yet
    LATER_WINDOWS = 1  # the first window's tokens are made: there is, or soon will be, something to play
    AHEAD = 2  # a segment made while the one before it is still playing


# First hop of the slowest schedule (25), 3 of lookahead and the one token more that lets the planner cut.
FIRST_WINDOW_TOKENS = 29


def after_tokens(urgency: int, drawn_tokens: int) -> int:
    """How urgent a request still is once it has drawn so many tokens."""
    if urgency == Urgency.FIRST_WINDOW and drawn_tokens >= FIRST_WINDOW_TOKENS:
        return Urgency.LATER_WINDOWS
    return urgency
