"""How large windows are: the steps of a schedule, and the presets that a configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from engines.config import SCHEDULE_NAMES
from engines.model_spec import SPEECH_TOKENS_PER_S

# The flow encoder's lookahead convolution sees this many tokens ahead; with fewer, a token's frames are provisional.
FLOW_LOOKAHEAD_TOKENS = 3


@dataclass(frozen=True)
class ScheduleStep:
    """The size of one window: its new tokens and its right context."""

    hop_tokens: int
    lookahead_tokens: int = FLOW_LOOKAHEAD_TOKENS

    def __post_init__(self) -> None:
        assert self.hop_tokens >= 1
        assert self.lookahead_tokens >= FLOW_LOOKAHEAD_TOKENS

    @property
    def block_tokens(self) -> int:
        """New tokens and their right context."""
        return self.hop_tokens + self.lookahead_tokens

    @property
    def plays_s(self) -> float:
        """How long its new tokens play."""
        return self.hop_tokens / SPEECH_TOKENS_PER_S


@dataclass(frozen=True)
class Schedule:
    """Hops by window: the first as small as quality allows, later ones larger; the last step repeats.

    Right context is worth more than left, so it grows as soon as the listener has a buffer.
    """

    name: str
    steps: tuple[ScheduleStep, ...]
    left_context_tokens: int = 50

    def __post_init__(self) -> None:
        assert self.steps, "a schedule has at least one step"
        assert self.left_context_tokens >= 0
        assert all(a.hop_tokens <= b.hop_tokens for a, b in pairwise(self.steps)), "hops never shrink"

    def step(self, window_index: int) -> ScheduleStep:
        return self.steps[min(window_index, len(self.steps) - 1)]

    @cached_property
    def distinct_steps(self) -> tuple[ScheduleStep, ...]:
        """The steps without repetitions, smallest hop first: an adaptive plan chooses from them."""
        return tuple(dict.fromkeys(self.steps))

    @property
    def ahead_tokens(self) -> int:
        """The most tokens beyond the last decoded one that a window may need."""
        return self.max_block_tokens + 1

    @property
    def max_block_tokens(self) -> int:
        return max(step.block_tokens for step in self.steps)

    @property
    def max_window_tokens(self) -> int:
        """Longest window without the prompt; it bounds the cost of a window whatever the length of the segment.

        A segment's last window takes as new what its step would leave as right context.
        """
        return self.left_context_tokens + self.max_block_tokens


def _steps(*sizes: int | tuple[int, int]) -> tuple[ScheduleStep, ...]:
    """Steps from hops, or from (hop, lookahead)."""
    return tuple(ScheduleStep(size) if isinstance(size, int) else ScheduleStep(*size) for size in sizes)


SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Schedule("lowest_latency", _steps(10, 16, 25, 25, 50)),
        Schedule("balanced", _steps(10, 16, 25, (25, 7), (50, 7), (100, 7))),
        Schedule("throughput", _steps(25, (50, 7), (100, 7), (200, 7))),
        Schedule("crowd", _steps((100, 7), (100, 7), (200, 7))),
    )
}
assert tuple(SCHEDULES) == SCHEDULE_NAMES
# As few windows as live streams can wait for: the least work, for audio without a listener while it is made.
OFFLINE = Schedule("offline", _steps((200, 7)))
STREAM_SCHEDULES = {**SCHEDULES, OFFLINE.name: OFFLINE}
