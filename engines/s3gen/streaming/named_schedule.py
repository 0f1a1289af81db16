"""The schedule of a stream whose windows do not follow the load: chosen once, by the load when it opens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from engines.s3gen.streaming.decode_times import DecodeForecast
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule

_SAFETY_RATIO = 1.25  # expected times are averages
_GROWTH = 3  # a crowd grows while the stream speaks: one that opened early must last too


@dataclass(frozen=True)
class Load:
    """What a server has to do: streams that speak or are about to, the one that opens included, and T3's pace."""

    streams: int
    max_streams: int  # that it admits
    token_s: float  # in which T3 makes one speech token of each stream; 0 if it is not known
    forecast: DecodeForecast
    now_s: float


def schedule_for(smallest: Schedule, prompt_tokens: int, load: Load) -> Schedule:
    """Returns `smallest`, or the first of the larger ones with which all streams last; else the largest."""
    names = list(SCHEDULES)
    larger = [SCHEDULES[name] for name in names[names.index(smallest.name) :]]
    return next((each for each in larger if _lasts(each, prompt_tokens, load)), larger[-1])


def _lasts(schedule: Schedule, prompt_tokens: int, load: Load) -> bool:
    """Whether each step's audio lasts until the next step's tokens are made and decoded, with all streams at one step.

    T3 goes on while windows are decoded, so the first step's play time and what was left of those before count.
    """
    streams = min(_GROWTH * load.streams, load.max_streams)
    context_tokens = prompt_tokens + schedule.left_context_tokens
    spare_s = 0.0
    for step, following in pairwise((*schedule.steps, schedule.steps[-1])):
        decoded_in_s = load.forecast.queue_s(context_tokens, following.block_tokens, streams, load.now_s)
        made_in_s = following.hop_tokens * load.token_s
        spare_s += step.plays_s - _SAFETY_RATIO * max(decoded_in_s, made_in_s)
        if spare_s < 0:
            return False
    return True
