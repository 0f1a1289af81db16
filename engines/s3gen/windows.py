"""When to decode and what: the plan of S3Gen windows over one segment's speech tokens.

Pure decisions on counts and, where the caller allows it, on how far ahead of its listener the stream is. Knows no
tensors, no device and no clock of its own. Without a `Pace` windows depend on the token counts and the schedule alone,
never on when tokens arrive, so that a repeated request gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from engines.config import MEL_FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, SCHEDULE_NAMES, SPEECH_TOKENS_PER_S

# Expected times are averages: what must be there before the buffer is empty is planned for later than expected.
_SAFETY_RATIO = 1.25
_SAFETY_S = 0.02
_LEAST_PATIENCE_S = 0.002  # asking again at once would only keep the event loop busy

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

    def rungs(self) -> tuple[Step, ...]:
        """The different steps, smallest hop first: what an adaptive plan chooses from."""
        return tuple(dict.fromkeys(self.steps))

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
assert tuple(SCHEDULES) == SCHEDULE_NAMES


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
    decode_s  (left context, new and lookahead tokens) -> expected seconds until the samples are there, queue included
    """

    lead_s: float
    token_s: float
    decode_s: Callable[[int, int], float]


class WindowPlanner:
    """Walks one segment: every token is new in exactly one window, in order, and the remainder is never lost."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.decoded_tokens = 0
        self.windows = 0
        self.finished = False

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

    def patience_s(self, available_tokens: int, pace: Pace) -> float | None:
        """How long to wait for more tokens before asking again: until the smallest window would come too late.

        None when nothing but more tokens can change the answer.
        """
        smallest = self.schedule.rungs()[0]
        remaining = available_tokens - self.decoded_tokens
        if self.windows == 0 or remaining <= smallest.hop_tokens + smallest.lookahead_tokens:
            return None
        if not self._fitting(remaining, pace, ended=False):
            return None  # it is too late already, and the rung that was chosen lacks tokens
        return max(_LEAST_PATIENCE_S, pace.lead_s - _safely(self._decode_s(smallest, pace)))

    def _step(self, remaining: int, pace: Pace | None, ended: bool) -> Step:
        """By index without a pace; with one, the largest rung whose tokens and decoding fit the listener's buffer."""
        if pace is None or self.windows == 0:
            return self.schedule.step(self.windows)
        if fitting := self._fitting(remaining, pace, ended=ended):
            return fitting[-1]
        # Too late whatever we do. The smallest window is heard soonest, but on a slow or loaded device it costs more
        # time than it lasts and the stream would never catch up: take the smallest that does, or the cheapest.
        rungs = self.schedule.rungs()
        lasting = (rung for rung in rungs if self._decode_s(rung, pace) < rung.hop_tokens / SPEECH_TOKENS_PER_S)
        return next(lasting, rungs[-1])

    def _fitting(self, remaining: int, pace: Pace, *, ended: bool) -> list[Step]:
        rungs = self.schedule.rungs()
        return [rung for rung in rungs if _safely(self._ready_in_s(rung, remaining, pace, ended)) <= pace.lead_s]

    def _ready_in_s(self, step: Step, remaining: int, pace: Pace, ended: bool) -> float:
        missing = 0 if ended else max(0, step.hop_tokens + step.lookahead_tokens + 1 - remaining)
        return missing * pace.token_s + self._decode_s(step, pace)

    def _decode_s(self, step: Step, pace: Pace) -> float:
        context = min(self.schedule.left_context_tokens, self.decoded_tokens)
        return pace.decode_s(context, step.hop_tokens + step.lookahead_tokens)

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
