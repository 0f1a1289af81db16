"""The planner of S3Gen windows over one segment's speech tokens: when to decode, and how much.

Decisions are pure: they depend on token counts and, if the caller passes a `StreamPacing`, on the listener's buffer.
Without one, windows depend on the token counts and the schedule alone, never on when tokens arrive, so that a repeated
request gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from engines.model_spec import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN
from engines.s3gen.streaming.schedule import Schedule, ScheduleStep

# Expected times are averages, so a window must be expected somewhat earlier than the listener's buffer is empty.
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
class StreamPacing:
    """How a stream stands against its real-time listener; with it, hops follow the listener's buffer.

    lead_s    audio delivered and not yet played
    token_s   time in which T3 makes one speech token
    call_s    (left context, new and lookahead tokens) -> expected seconds of a call that decodes such a window
    queue_s   (seconds until a window is due, its new and lookahead tokens) -> expected seconds until all streams that
              are due before are served
    speed     of the listener: twice as fast plays twice as much speech in the same time
    """

    lead_s: float
    token_s: float
    call_s: Callable[[int, int], float]
    queue_s: Callable[[float, int], float]
    speed: float = 1.0

    def plays_s(self, step: ScheduleStep) -> float:
        """How long this listener plays the step's new tokens."""
        return step.plays_s / self.speed


@dataclass(frozen=True)
class Wait:
    """When to ask again: once `available_tokens` have come, once T3 has ended, or after `for_s`."""

    available_tokens: int
    for_s: float | None = None


class WindowPlanner:
    """Plans one segment: every token is new in exactly one window, in order, up to the last one."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.decoded_tokens = 0
        self.windows = 0
        self.finished = False
        self.wait = Wait(0)  # set when `next` returns None

    def next(self, available_tokens: int, ended: bool, pacing: StreamPacing | None = None) -> Window | None:
        """Returns the window that is due now, or None until more tokens come (or for good, once `finished`).

        available_tokens: speech tokens of the segment so far, the closing silence included
        ended: no more will come
        pacing: None for a plan that depends on nothing but the tokens
        """
        assert available_tokens >= self.decoded_tokens
        if self.finished:
            return None
        remaining = available_tokens - self.decoded_tokens
        step = self._step(remaining, pacing, ended)
        if remaining <= step.block_tokens and not ended:
            self.wait = self._wait_for(step, remaining, pacing)
            return None
        return self._cut(step, remaining)

    def enlarge(self, window: Window, available_tokens: int, ended: bool, pacing: StreamPacing) -> Window:
        """Returns the window with as many of the tokens that have come since as the listener's buffer allows.

        `window` is the last that was planned; it must not have been decoded yet.
        """
        remaining = available_tokens - window.start
        hop = window.stop - window.start
        larger = [
            step
            for step in self.schedule.distinct_steps
            if step.hop_tokens > hop and (ended or step.block_tokens < remaining)
        ]
        if window.is_last or not larger:
            return window
        self.decoded_tokens, self.windows = window.start, window.index
        if window.index == 0:
            limit = self._first_step(remaining, pacing, ended)
        else:
            fitting = [step for step in larger if _safely(self._call_s(step, pacing)) <= pacing.lead_s]
            limit = fitting[-1] if fitting else self._catching_up(remaining, pacing)
        allowed = [step for step in larger if step.hop_tokens <= limit.hop_tokens]
        same = ScheduleStep(hop, window.lookahead_stop - window.stop)
        larger_window = self._cut(allowed[-1] if allowed else same, remaining)
        assert larger_window is not None, "there are at least the tokens of the window itself"
        return larger_window

    def _cut(self, step: ScheduleStep, remaining: int) -> Window | None:
        # One token beyond the lookahead must exist: it shows that this is not the segment's last window without
        # asking whether T3 has ended yet, which would make the plan depend on timing.
        if remaining > step.block_tokens:
            return self._advance(step.hop_tokens, step.lookahead_tokens, is_last=False)
        self.finished = True
        return self._advance(remaining, 0, is_last=True) if remaining else None

    def _wait_for(self, step: ScheduleStep, remaining: int, pacing: StreamPacing | None) -> Wait:
        """Wait for the tokens of `step`; with a pacing, until anything could change the answer."""
        if pacing is None:
            return Wait(self.decoded_tokens + step.block_tokens + 1)
        steps = self.schedule.distinct_steps
        blocks = (larger.block_tokens for larger in steps if larger.block_tokens >= remaining)
        more = next(blocks, step.block_tokens)
        tokens = self.decoded_tokens + more + 1
        if self.windows == 0 or remaining <= steps[0].block_tokens:
            return Wait(tokens)  # nothing can be decoded before, however late it is
        slack_s = pacing.lead_s - _safely(self._call_s(step, pacing))
        return Wait(tokens, slack_s if slack_s > 0 else None)

    def _step(self, remaining: int, pacing: StreamPacing | None, ended: bool) -> ScheduleStep:
        """By window index without a pacing; with one, as the load and the listener's buffer allow."""
        if pacing is None:
            return self.schedule.step(self.windows)
        smallest = self.schedule.distinct_steps[0]
        if remaining <= smallest.block_tokens:
            return smallest  # lacks tokens, as all others do
        if self.windows == 0:
            return self._first_step(remaining, pacing, ended)
        return self._largest_fitting(remaining, pacing, ended) or self._catching_up(remaining, pacing)

    def _first_step(self, remaining: int, pacing: StreamPacing, ended: bool) -> ScheduleStep:
        """The smallest step that plays until the next one's tokens are made and decoded, behind all streams that are
        due before it."""
        steps = self.schedule.distinct_steps
        for step, following in pairwise((*steps, steps[-1])):
            context = min(self.schedule.left_context_tokens, step.hop_tokens)
            have = max(remaining, step.block_tokens + 1) - step.hop_tokens
            plays_s = pacing.plays_s(step)
            if _safely(_ready_in_s(following, context, have, plays_s, pacing, ended)) <= plays_s:
                return step
        largest = steps[-1]
        alone_s = pacing.call_s(self.schedule.left_context_tokens, largest.block_tokens)
        # A device that is too slow even for one listener had better be early; one that is loaded needs its efficiency.
        return largest if alone_s < pacing.plays_s(largest) else steps[0]

    def _catching_up(self, remaining: int, pacing: StreamPacing) -> ScheduleStep:
        """The step of a stream that is late whatever is done.

        The smallest window gives sound soonest, but on a slow or loaded device it costs more time than it plays, and
        the stream would never catch up. So this is the smallest step that plays longer than it costs, or the largest;
        but none that waits for tokens while a smaller one has them.
        """
        steps = self.schedule.distinct_steps
        plays_s = pacing.plays_s

        def costs_s(step: ScheduleStep) -> float:
            return self._call_s(step, pacing) + pacing.queue_s(plays_s(step), step.block_tokens)

        lasting = (step for step in steps if costs_s(step) < plays_s(step))
        target = next(lasting, steps[-1])
        ready = [step for step in steps if step.hop_tokens <= target.hop_tokens and step.block_tokens < remaining]
        return ready[-1] if ready else steps[0]

    def _largest_fitting(self, remaining: int, pacing: StreamPacing, ended: bool) -> ScheduleStep | None:
        """The largest step whose tokens are made and decoded before the listener's buffer is empty."""
        for step in reversed(self.schedule.distinct_steps):
            if _safely(_ready_in_s(step, self._context, remaining, pacing.lead_s, pacing, ended)) <= pacing.lead_s:
                return step
        return None

    @property
    def _context(self) -> int:
        return min(self.schedule.left_context_tokens, self.decoded_tokens)

    def _call_s(self, step: ScheduleStep, pacing: StreamPacing) -> float:
        return pacing.call_s(self._context, step.block_tokens)

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


def _ready_in_s(
    step: ScheduleStep, context: int, have_tokens: int, due_s: float, pacing: StreamPacing, ended: bool
) -> float:
    """Expected seconds until a window that is due in `due_s` is decoded: its tokens come while others are decoded."""
    missing = 0 if ended else max(0, step.block_tokens + 1 - have_tokens)
    starts_s = max(missing * pacing.token_s, pacing.queue_s(due_s, step.block_tokens))
    return starts_s + pacing.call_s(context, step.block_tokens)
