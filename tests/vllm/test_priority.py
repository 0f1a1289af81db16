"""Which request goes first, and for how long."""

from __future__ import annotations

import pytest

from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.windows import WindowPlanner
from engines.t3.vllm.priority import FIRST_WINDOW_TOKENS, Priority, priority_after


# a crowd and a job without listeners give up an early first window
@pytest.mark.parametrize("name", [name for name in SCHEDULES if name not in ("crowd", "offline")])
def test_a_request_goes_first_until_its_first_window_can_be_cut(name: str) -> None:
    planner = WindowPlanner(SCHEDULES[name])
    assert planner.next(FIRST_WINDOW_TOKENS, ended=False) is not None


def test_priority_falls_once_and_never_rises_by_itself() -> None:
    course = [priority_after(Priority.FIRST_WINDOW, tokens) for tokens in range(2 * FIRST_WINDOW_TOKENS)]
    assert course == sorted(course)
    assert set(course) == {Priority.FIRST_WINDOW, Priority.LATER_WINDOWS}
    for priority in (Priority.LATER_WINDOWS, Priority.AHEAD):
        assert {priority_after(priority, tokens) for tokens in range(100)} == {priority}


def test_what_is_made_ahead_goes_last() -> None:
    assert max(Priority) == Priority.AHEAD
