"""How large windows are: the rungs that a plan climbs, and the named presets of the configuration.

Numbers only: tokens of new speech, of right context and of left context.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from engines.config import SCHEDULE_NAMES
from engines.model_spec import SPEECH_TOKENS_PER_S

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
    steps: tuple[Step, ...]
    left_context_tokens: int = 50

    def __post_init__(self) -> None:
        assert self.steps, "a schedule has at least one step"
        assert self.left_context_tokens >= 0
        assert all(a.hop_tokens <= b.hop_tokens for a, b in pairwise(self.steps)), "hops never shrink"

    def step(self, window_index: int) -> Step:
        return self.steps[min(window_index, len(self.steps) - 1)]

    @cached_property
    def rungs(self) -> tuple[Step, ...]:
        """The different steps, smallest hop first: what an adaptive plan chooses from."""
        return tuple(dict.fromkeys(self.steps))

    @property
    def ahead_tokens(self) -> int:
        """No window can want more tokens beyond the last decoded one."""
        return self.max_block_tokens + 1

    @property
    def max_block_tokens(self) -> int:
        return max(step.block_tokens for step in self.steps)

    @property
    def max_window_tokens(self) -> int:
        """Longest window, prompt aside; bounds the cost of a window whatever the length of the utterance.

        A segment's last window takes everything that its step would leave as pure right context.
        """
        return self.left_context_tokens + self.max_block_tokens


SCHEDULES = {
    schedule.name: schedule
    for schedule in (
        Schedule("lowest_latency", (Step(10), Step(16), Step(25), Step(25), Step(50))),
        Schedule("balanced", (Step(10), Step(16), Step(25), Step(25, 7), Step(50, 7), Step(100, 7))),
        Schedule("throughput", (Step(25), Step(50, 7), Step(100, 7), Step(200, 7))),
    )
}
assert tuple(SCHEDULES) == SCHEDULE_NAMES
