"""The planner's promises, for every schedule, length and pattern of arrival."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.s3gen.streaming.schedule import FLOW_LOOKAHEAD_TOKENS, SCHEDULES, Schedule, ScheduleStep
from engines.s3gen.streaming.windows import StreamPacing, Window, WindowPlanner

hops = st.lists(st.integers(1, 60), min_size=1, max_size=5).map(sorted)
schedules = st.one_of(
    st.sampled_from(list(SCHEDULES.values())),
    st.builds(
        lambda h, ahead, left: Schedule("any", tuple(ScheduleStep(n, ahead) for n in h), left),
        hops,
        st.integers(FLOW_LOOKAHEAD_TOKENS, 25),
        st.integers(0, 60),
    ),
)
arrivals = st.lists(st.integers(1, 40), max_size=60)


def plan(schedule: Schedule, arrivals: list[int], *, end_known_late: bool = False) -> list[Window]:
    """Every window of a segment whose tokens come in these portions; its end is known with or after the last."""
    planner, windows, available = WindowPlanner(schedule), [], 0
    for i, portion in enumerate(arrivals):
        available += portion
        ended = i == len(arrivals) - 1 and not end_known_late
        while (window := planner.next(available, ended)) is not None:
            windows.append(window)
    while (window := planner.next(available, True)) is not None:
        windows.append(window)
    assert planner.finished
    return windows


@given(schedules, arrivals)
def test_every_token_is_new_exactly_once_and_in_order(schedule: Schedule, arrivals: list[int]) -> None:
    windows = plan(schedule, arrivals)
    assert [t for w in windows for t in range(w.start, w.stop)] == list(range(sum(arrivals)))


@given(schedules, arrivals)
def test_only_the_last_window_is_last_and_it_needs_no_lookahead(schedule: Schedule, arrivals: list[int]) -> None:
    windows = plan(schedule, arrivals)
    assert [w.is_last for w in windows] == [False] * (len(windows) - 1) + [True] * bool(windows)
    assert all(w.lookahead_stop - w.stop >= FLOW_LOOKAHEAD_TOKENS for w in windows[:-1])


@given(schedules, arrivals, st.randoms(use_true_random=False), st.booleans())
def test_the_plan_does_not_depend_on_when_tokens_arrive(schedule, arrivals, random, end_known_late) -> None:
    total = sum(arrivals)
    cuts = sorted(random.sample(range(1, total), min(total - 1, random.randint(0, 8)))) if total > 1 else []
    other = [b - a for a, b in zip([0, *cuts], [*cuts, total], strict=True)] if total else []
    assert plan(schedule, other, end_known_late=end_known_late) == plan(schedule, arrivals)


@given(schedules, st.integers(1, 2000))
def test_a_window_costs_the_same_however_long_the_utterance(schedule: Schedule, total: int) -> None:
    assert all(w.tokens <= schedule.max_window_tokens for w in plan(schedule, [total]))


@given(schedules, st.integers(1, 400))
def test_the_first_window_comes_as_soon_as_its_tokens_and_lookahead_do(schedule: Schedule, total: int) -> None:
    first = schedule.step(0)
    planner = WindowPlanner(schedule)
    window = planner.next(total, ended=False)
    assert (window is not None) == (total > first.hop_tokens + first.lookahead_tokens)


def test_hops_follow_the_schedule_and_then_repeat_its_last_step() -> None:
    windows = plan(SCHEDULES["lowest_latency"], [400])
    assert [w.stop - w.start for w in windows[:7]] == [10, 16, 25, 25, 50, 50, 50]


def test_nothing_to_say_plans_nothing() -> None:
    assert plan(SCHEDULES["balanced"], []) == []


def test_a_schedule_without_steps_is_our_own_bug() -> None:
    with pytest.raises(AssertionError):
        Schedule("empty", ())


def pacing(lead_s: float, *, token_s: float = 0.005, decode_s: float = 0.05) -> StreamPacing:
    return StreamPacing(lead_s, token_s, lambda context, block: decode_s, lambda due_s, block: 0.0)


def hop(lead_s: float, available: int = 500, *, ended: bool = True, **costs: float) -> int | None:
    """New tokens of the second window of a segment when the listener is so far behind the stream."""
    planner = WindowPlanner(SCHEDULES["balanced"])
    assert planner.next(available, ended) is not None
    window = planner.next(available, ended, pacing(lead_s, **costs))
    return window and window.stop - window.start


def test_hops_follow_the_listeners_buffer() -> None:
    assert [hop(lead_s, decode_s=0.1) for lead_s in (0.05, 0.2)] == [10, 100]
    slow = {"decode_s": 0.0, "ended": False, "token_s": 0.02}
    assert hop(0.05, available=25, **slow) == 10, "16 new tokens would need 5 more, 100 ms away"
    assert hop(0.15, available=25, **slow) is None, "there is time to wait for them"
    assert hop(0.15, available=30, **slow) == 16, "25 would need 9 more, 180 ms away"
    assert hop(0.05, available=39, **slow) == 25
    assert hop(9.0, available=110, **slow) is None


def test_on_a_device_that_cannot_keep_up_windows_grow_instead_of_piling_up() -> None:
    slow = 0.9  # longer than 10, 16 or 20 tokens last
    assert hop(0.1, decode_s=slow) == 25
    assert hop(0.1, decode_s=9.0) == 100


@given(schedules, arrivals, st.lists(st.floats(-2, 5), min_size=1, max_size=30), st.floats(0, 0.1), st.floats(0, 2))
def test_an_adaptive_plan_loses_and_repeats_nothing_either(schedule, arrivals, leads, token_s, decode_s) -> None:
    planner, windows, available = WindowPlanner(schedule), [], 0
    for i, portion in enumerate([*arrivals, 0]):
        available += portion
        ended = i == len(arrivals)
        lead = pacing(leads[i % len(leads)], token_s=token_s, decode_s=decode_s)
        while (window := planner.next(available, ended, lead)) is not None:
            windows.append(window)
    assert planner.finished
    assert [t for w in windows for t in range(w.start, w.stop)] == list(range(available))
    assert all(w.tokens <= schedule.max_window_tokens for w in windows)


@given(st.floats(-1, 5), st.floats(0, 1), st.integers(0, 300))
def test_waiting_ends_before_the_window_that_is_waited_for_would_be_late(lead_s, decode_s, available) -> None:
    planner = WindowPlanner(SCHEDULES["balanced"])
    planner.next(14, ended=False)
    if planner.next(available + 10, ended=False, pacing=pacing(lead_s, decode_s=decode_s)) is not None:
        return
    assert planner.wait.available_tokens > available + 10, "asking again at once would spin"
    if available <= 13:
        assert planner.wait.for_s is None, "only tokens help"
    else:
        assert planner.wait.for_s is not None
        assert 0 < planner.wait.for_s < lead_s - decode_s


def test_a_late_stream_takes_the_tokens_that_it_has() -> None:
    assert hop(-1.0, available=60, ended=False, decode_s=9.0) == 25, (
        "100 cost less, but there is no time to wait for them"
    )
    assert hop(-1.0, available=20, ended=False, decode_s=9.0) is None


def first_hop(
    available: int = 500, *, call_s: float = 0.1, rivals_s: float = 0.0, token_s: float = 0.001
) -> int | None:
    planner = WindowPlanner(SCHEDULES["balanced"])
    crowded = StreamPacing(0.0, token_s, lambda context, block: call_s, lambda due_s, block: rivals_s)
    window = planner.next(available, ended=False, pacing=crowded)
    return window and window.stop - window.start


def test_the_first_window_grows_with_the_load() -> None:
    assert [first_hop(rivals_s=s) for s in (0.0, 0.3, 0.5, 1.2, 2.0)] == [10, 16, 25, 50, 100]
    assert first_hop(available=14, token_s=0.02) is None, "the next 16 tokens and 100 ms would take more than 400 ms"
    assert first_hop(available=20, token_s=0.02) == 10
    assert first_hop(available=40, rivals_s=1.2) is None, "it waits for its 50 tokens"


def test_a_device_that_cannot_carry_one_listener_is_at_least_early() -> None:
    assert first_hop(call_s=9.0) == 10
    assert first_hop(call_s=1.0, rivals_s=9.0) == 100, "a crowd is another matter"


def enlarged(available: int, pacing: StreamPacing, *, ended: bool = False, first: int = 25) -> Window:
    """The second window of a segment, planned at `first` tokens and enlarged once `available` had come."""
    planner = WindowPlanner(SCHEDULES["balanced"])
    planner.next(14, ended=False)
    window = planner.next(10 + first, ended=False, pacing=StreamPacing(0.0, 0.0, lambda *_: 9.0, lambda *_: 9.0))
    assert window is not None
    return planner.enlarge(window, available, ended, pacing)


def test_a_window_that_waits_grows_as_far_as_its_listener_has_time() -> None:
    def hop_of(available: int, lead_s: float) -> int:
        window = enlarged(available, StreamPacing(lead_s, 0.0, lambda context, block: block / 100, lambda *_: 9.0))
        return window.stop - window.start

    assert hop_of(36, 9.0) == 16, "nothing came"
    assert [hop_of(500, lead_s) for lead_s in (0.5, 0.8, 9.0)] == [25, 50, 100]
    assert hop_of(500, 0.1) == 100, "too late whatever is done: then the most for its cost"


def test_a_window_that_waits_becomes_the_last_when_the_end_has_come() -> None:
    window = enlarged(60, pacing(9.0), ended=True)
    assert (window.start, window.stop, window.is_last) == (10, 60, True)


@given(schedules, arrivals, st.lists(st.floats(-2, 5), min_size=1, max_size=30), st.floats(0, 2))
def test_windows_that_grow_lose_and_repeat_nothing(schedule, arrivals, leads, decode_s) -> None:
    planner, windows, available = WindowPlanner(schedule), [], 0
    for i, portion in enumerate([*arrivals, 0]):
        available += portion
        lead = pacing(leads[i % len(leads)], decode_s=decode_s)
        ended = i == len(arrivals)
        if windows and not windows[-1].is_last:  # it waited while the portion came
            longer = planner.enlarge(windows[-1], available, ended, lead)
            assert longer.start == windows[-1].start
            assert longer.stop >= windows[-1].stop
            windows[-1] = longer
        while (window := planner.next(available, ended, lead)) is not None:
            windows.append(window)
    assert planner.finished
    assert [t for w in windows for t in range(w.start, w.stop)] == list(range(available))
    assert [w.is_last for w in windows] == [False] * (len(windows) - 1) + [True] * bool(windows)
    assert [w.index for w in windows] == list(range(len(windows)))
    assert all(w.tokens <= schedule.max_window_tokens for w in windows)


def test_at_twice_the_speed_the_first_window_must_be_larger() -> None:
    """The next window takes as long as before, and the first one is played in half the time."""

    def first(speed: float) -> int:
        slow = StreamPacing(0.0, 0.0, lambda context, block: 0.25, lambda due_s, block: 0.0, speed)
        window = WindowPlanner(SCHEDULES["balanced"]).next(500, True, slow)
        assert window is not None
        return window.stop

    assert (first(1.0), first(2.0)) == (10, 25)
