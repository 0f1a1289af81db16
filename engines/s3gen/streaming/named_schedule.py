"""The schedule of a stream whose windows do not follow the load: chosen once, by the load when it opens."""

from __future__ import annotations

from itertools import pairwise

from engines.s3gen.streaming.decode_times import DecodeForecast
from engines.s3gen.streaming.schedule import SCHEDULES, Schedule, ScheduleStep

_SAFETY_RATIO = 1.25  # expected times are averages


def schedule_for(
    smallest: Schedule, streams: int, prompt_tokens: int, forecast: DecodeForecast, now_s: float
) -> Schedule:
    """Returns `smallest`, or the first of the larger ones with which `streams` streams last; else the largest."""
    names = list(SCHEDULES)
    larger = [SCHEDULES[name] for name in names[names.index(smallest.name) :]]
    lasting = (each for each in larger if _lasts(each, streams, prompt_tokens, forecast, now_s))
    return next(lasting, larger[-1])


def _lasts(schedule: Schedule, streams: int, prompt_tokens: int, forecast: DecodeForecast, now_s: float) -> bool:
    """Whether the windows of all streams' next step are decoded while their last one plays, if all are at one step."""
    played_s = 0.0
    needed_s = 0.0
    for step, following in pairwise((*schedule.steps, schedule.steps[-1])):
        played_s += step.plays_s
        needed_s += _all_decoded_in_s(schedule, following, streams, prompt_tokens, forecast, now_s)
        if needed_s > played_s:
            return False
    return True


def _all_decoded_in_s(
    schedule: Schedule, step: ScheduleStep, streams: int, prompt_tokens: int, forecast: DecodeForecast, now_s: float
) -> float:
    context_tokens = prompt_tokens + schedule.left_context_tokens
    return _SAFETY_RATIO * forecast.queue_s(context_tokens, step.block_tokens, streams, now_s)
