"""Who goes first, and for how long."""

from __future__ import annotations

import pytest

from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.windows import WindowPlanner
from engines.t3.vllm.priority import FIRST_WINDOW_TOKENS, Urgency, after_tokens


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_request_is_urgent_until_its_first_window_can_be_cut(name: str) -> None:
    planner = WindowPlanner(SCHEDULES[name])
    assert planner.next(FIRST_WINDOW_TOKENS, ended=False) is not None


def test_urgency_falls_once_and_never_rises() -> None:
    course = [after_tokens(Urgency.FIRST_WINDOW, tokens) for tokens in range(2 * FIRST_WINDOW_TOKENS)]
    assert course == sorted(course)
    assert set(course) == {Urgency.FIRST_WINDOW, Urgency.LATER_WINDOWS}
    for urgency in (Urgency.LATER_WINDOWS, Urgency.AHEAD):
        assert {after_tokens(urgency, tokens) for tokens in range(100)} == {urgency}


def test_what_is_made_ahead_is_the_least_urgent() -> None:
    assert max(Urgency) == Urgency.AHEAD
