"""When to decode and what: the plan of S3Gen windows over one segment's speech tokens.

Pure decisions on counts; knows no tensors, no clock and no device. Windows depend on the token counts and the
schedule alone, never on when tokens arrive, so that a repeated request gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from engines.config import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN

# The flow encoder's lookahead convolution sees this many tokens ahead; with fewer, a token's frames are provisional.
FLOW_LOOKAHEAD_TOKENS = 3


@dataclass(frozen=True)
class Step:
    """One rung of a schedule: how many new tokens to decode, and with how many tokens of right context."""

    hop_tokens: int
    lookahead_tokens: int = FLOW_LOOKAHEAD_TOKENS

    def __post_init__(self) -> None:
        assert self.hop_tokens >= 1
        assert self.lookahead_tokens >= FLOW_LOOKAHEAD_TOKENS


@dataclass(frozen=True)
class Schedule:
    """Hops by window: the first as small as quality allows, later ones larger; the last step repeats.

    Right context is worth more than left, so it grows as soon as the listener has a buffer.
    """

    name: str
    steps: tuple[Step, ...]
    left_context_tokens: int = 50

    def __post_init__(self) -> None:
        assert self.steps, "a schedule has at least one step"
        assert self.left_context_tokens >= 0
        assert all(a.hop_tokens <= b.hop_tokens for a, b in pairwise(self.steps)), "hops never shrink"

    def step(self, window_index: int) -> Step:
        return self.steps[min(window_index, len(self.steps) - 1)]

    @property
    def max_window_tokens(self) -> int:
        """Longest window, prompt aside; bounds the cost of a window whatever the length of the utterance.

        A segment's last window takes everything that its step would leave as pure right context.
        """
        return self.left_context_tokens + max(s.hop_tokens + s.lookahead_tokens for s in self.steps)


SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Schedule("lowest_latency", (Step(10), Step(16), Step(25), Step(25), Step(50))),
        Schedule("balanced", (Step(10), Step(16), Step(25), Step(25, 7), Step(50, 7), Step(100, 7))),
        Schedule("throughput", (Step(25), Step(50, 7), Step(100, 7), Step(200, 7))),
    )
}


@dataclass(frozen=True)
class Window:
    """One S3Gen call over the segment's tokens [context_start, lookahead_stop), of which [start, stop) are new.

    Mel frames and samples of the new tokens become final; those of the lookahead are provisional and serve as the
    vocoder's right context.
    """

    index: int
    context_start: int
    start: int
    stop: int
    lookahead_stop: int
    is_last: bool

    def __post_init__(self) -> None:
        assert 0 <= self.context_start <= self.start < self.stop <= self.lookahead_stop
        assert not self.is_last or self.stop == self.lookahead_stop

    @property
    def tokens(self) -> int:
        return self.lookahead_stop - self.context_start

    @property
    def first_frame(self) -> int:
        """Absolute index in the segment of the window's first mel frame."""
        return self.context_start * MEL_FRAMES_PER_TOKEN

    @property
    def new_frames(self) -> slice:
        """The final frames, relative to the window's first frame."""
        return slice(
            (self.start - self.context_start) * MEL_FRAMES_PER_TOKEN,
            (self.stop - self.context_start) * MEL_FRAMES_PER_TOKEN,
        )

    @property
    def new_samples(self) -> int:
        return (self.stop - self.start) * SAMPLES_PER_TOKEN


class WindowPlanner:
    """Walks one segment: every token is new in exactly one window, in order, and the remainder is never lost."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.decoded_tokens = 0
        self.windows = 0
        self.finished = False

    def next(self, available_tokens: int, ended: bool) -> Window | None:
        """The window that is due now, or None until more tokens come (or for good, once `finished`).

        available_tokens: speech tokens of the segment so far, the closing silence included
        ended: no more will come
        """
        assert available_tokens >= self.decoded_tokens
        if self.finished:
            return None
        step = self.schedule.step(self.windows)
        remaining = available_tokens - self.decoded_tokens
        # One token beyond the lookahead must exist: it shows that this is not the segment's last window without
        # asking whether T3 has ended yet, which would make the plan depend on timing.
        if remaining > step.hop_tokens + step.lookahead_tokens:
            return self._advance(step.hop_tokens, step.lookahead_tokens, is_last=False)
        if not ended:
            return None
        self.finished = True
        if remaining == 0:
            return None
        return self._advance(remaining, 0, is_last=True)

    def _advance(self, hop_tokens: int, lookahead_tokens: int, *, is_last: bool) -> Window:
        start = self.decoded_tokens
        window = Window(
            index=self.windows,
            context_start=max(0, start - self.schedule.left_context_tokens),
            start=start,
            stop=start + hop_tokens,
            lookahead_stop=start + hop_tokens + lookahead_tokens,
            is_last=is_last,
        )
        self.decoded_tokens = window.stop
        self.windows += 1
        return window
