"""When to decode and what: the plan of S3Gen windows over one segment's speech tokens.

Pure decisions on counts and, where the caller allows it, on how far ahead of its listener the stream is. Knows no
tensors, no device and no clock of its own. Without a `Pace` windows depend on the token counts and the schedule alone,
never on when tokens arrive, so that a repeated request gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from engines.model_spec import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN
from engines.s3gen.streaming.schedule import Schedule, Step

# Expected times are averages: what must be there before the buffer is empty is planned for later than expected.
_SAFETY_RATIO = 1.25
_SAFETY_S = 0.02


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


@dataclass(frozen=True)
class Pace:
    """How a stream stands against its real-time listener; given to the planner, hops follow the listener's buffer.

    lead_s    audio delivered and not yet played
    token_s   T3 makes one speech token in this time
    call_s    (left context, new and lookahead tokens) -> expected seconds of a call that decodes such a window
    queue_s   (seconds until a window is due) -> expected seconds until all streams that are due before have been served
    """

    lead_s: float
    token_s: float
    call_s: Callable[[int, int], float]
    queue_s: Callable[[float], float]


@dataclass(frozen=True)
class Wait:
    """Ask again once so many tokens are available or T3 has ended, or after so long."""

    available_tokens: int
    for_s: float | None = None


class WindowPlanner:
    """Walks one segment: every token is new in exactly one window, in order, and the remainder is never lost."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.decoded_tokens = 0
        self.windows = 0
        self.finished = False
        self.wait = Wait(0)  # after `next` has answered None: what to wait for before asking again

    def next(self, available_tokens: int, ended: bool, pace: Pace | None = None) -> Window | None:
        """The window that is due now, or None until more tokens come (or for good, once `finished`).

        available_tokens: speech tokens of the segment so far, the closing silence included
        ended: no more will come
        pace: None for a plan that depends on nothing but the tokens
        """
        assert available_tokens >= self.decoded_tokens
        if self.finished:
            return None
        remaining = available_tokens - self.decoded_tokens
        step = self._step(remaining, pace, ended)
        if remaining <= step.block_tokens and not ended:
            self.wait = self._wait_for(step, remaining, pace)
            return None
        return self._cut(step, remaining)

    def grow(self, window: Window, available_tokens: int, ended: bool, pace: Pace) -> Window:
        """The same window, the last that was planned and not decoded yet, with as many of the tokens that have come
        since as the listener's buffer allows."""
        remaining = available_tokens - window.start
        hop = window.stop - window.start
        larger = [
            rung for rung in self.schedule.rungs if rung.hop_tokens > hop and (ended or rung.block_tokens < remaining)
        ]
        if window.is_last or not larger:
            return window
        self.decoded_tokens, self.windows = window.start, window.index
        if window.index == 0:
            limit = self._first_step(remaining, pace, ended)
        else:
            fitting = [rung for rung in larger if _safely(self._call_s(rung, pace)) <= pace.lead_s]
            limit = fitting[-1] if fitting else self._catching_up(remaining, pace)
        grown = [rung for rung in larger if rung.hop_tokens <= limit.hop_tokens]
        same = Step(hop, window.lookahead_stop - window.stop)
        larger_window = self._cut(grown[-1] if grown else same, remaining)
        assert larger_window is not None, "there are at least the tokens of the window itself"
        return larger_window

    def _cut(self, step: Step, remaining: int) -> Window | None:
        # One token beyond the lookahead must exist: it shows that this is not the segment's last window without
        # asking whether T3 has ended yet, which would make the plan depend on timing.
        if remaining > step.block_tokens:
            return self._advance(step.hop_tokens, step.lookahead_tokens, is_last=False)
        self.finished = True
        return self._advance(remaining, 0, is_last=True) if remaining else None

    def _wait_for(self, step: Step, remaining: int, pace: Pace | None) -> Wait:
        """Until `step` has its tokens; with a pace, until anything could change the answer."""
        if pace is None:
            return Wait(self.decoded_tokens + step.block_tokens + 1)
        rungs = self.schedule.rungs
        more = next((rung.block_tokens for rung in rungs if rung.block_tokens >= remaining), step.block_tokens)
        tokens = self.decoded_tokens + more + 1
        if self.windows == 0 or remaining <= rungs[0].block_tokens:
            return Wait(tokens)  # nothing can be decoded before, however late it is
        slack_s = pace.lead_s - _safely(self._call_s(step, pace))
        return Wait(tokens, slack_s if slack_s > 0 else None)

    def _step(self, remaining: int, pace: Pace | None, ended: bool) -> Step:
        """By index without a pace; with one, as the load and the listener's buffer allow."""
        if pace is None:
            return self.schedule.step(self.windows)
        smallest = self.schedule.rungs[0]
        if remaining <= smallest.block_tokens:
            return smallest  # lacks tokens, as all others do
        if self.windows == 0:
            return self._first_step(remaining, pace, ended)
        return self._largest_fitting(remaining, pace, ended) or self._catching_up(remaining, pace)

    def _first_step(self, remaining: int, pace: Pace, ended: bool) -> Step:
        """The smallest rung that plays until the next one's tokens are made and decoded, all streams that come before
        it included."""
        rungs = self.schedule.rungs
        for step, following in pairwise((*rungs, rungs[-1])):
            context = min(self.schedule.left_context_tokens, step.hop_tokens)
            have = max(remaining, step.block_tokens + 1) - step.hop_tokens
            if _safely(_ready_in_s(following, context, have, step.plays_s, pace, ended)) <= step.plays_s:
                return step
        largest = rungs[-1]
        alone_s = pace.call_s(self.schedule.left_context_tokens, largest.block_tokens)
        # A device that is too slow even for one listener had better be early; one that is loaded needs its efficiency.
        return largest if alone_s < largest.plays_s else rungs[0]

    def _catching_up(self, remaining: int, pace: Pace) -> Step:
        """Too late whatever we do. The smallest window is heard soonest, but on a slow or loaded device it costs more
        time than it plays and the stream would never catch up: take the smallest that plays longer, or the largest, but
        none that waits for tokens while a smaller one has them."""
        rungs = self.schedule.rungs
        lasting = (rung for rung in rungs if self._call_s(rung, pace) + pace.queue_s(rung.plays_s) < rung.plays_s)
        wanted = next(lasting, rungs[-1])
        there = [rung for rung in rungs if rung.hop_tokens <= wanted.hop_tokens and rung.block_tokens < remaining]
        return there[-1] if there else rungs[0]

    def _largest_fitting(self, remaining: int, pace: Pace, ended: bool) -> Step | None:
        """The largest rung whose tokens and decoding are there before the listener's buffer is empty."""
        for rung in reversed(self.schedule.rungs):
            if _safely(_ready_in_s(rung, self._context, remaining, pace.lead_s, pace, ended)) <= pace.lead_s:
                return rung
        return None

    @property
    def _context(self) -> int:
        return min(self.schedule.left_context_tokens, self.decoded_tokens)

    def _call_s(self, step: Step, pace: Pace) -> float:
        return pace.call_s(self._context, step.block_tokens)

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


def _safely(expected_s: float) -> float:
    return expected_s * _SAFETY_RATIO + _SAFETY_S


def _ready_in_s(step: Step, context: int, have_tokens: int, due_s: float, pace: Pace, ended: bool) -> float:
    """Expected seconds until a window is decoded that is due in `due_s`: its tokens come while others are decoded."""
    missing = 0 if ended else max(0, step.block_tokens + 1 - have_tokens)
    return max(missing * pace.token_s, pace.queue_s(due_s)) + pace.call_s(context, step.block_tokens)
