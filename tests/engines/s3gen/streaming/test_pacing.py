"""A segment's plan on a live stream: playback, other streams and decode times come together in it."""

from __future__ import annotations

import pytest

from engines.playback import ActiveStreams, PlaybackClock
from engines.s3gen.streaming.decode_times import DecodeForecast, DecodeTimes
from engines.s3gen.streaming.pacing import SegmentPlan, StreamPacer, TokenProgress
from engines.s3gen.streaming.schedule import SCHEDULES

RATE_HZ = 24_000
BALANCED = SCHEDULES["balanced"]
MILLISECOND_TOKENS = 1000


def forecast(*, cached: bool = False) -> DecodeForecast:
    """A device on which a token costs 1 ms and rows share nothing."""
    times = DecodeTimes(shared_work=0.0)
    times.observe(MILLISECOND_TOKENS, 1.0)
    return DecodeForecast(times, max_rows=8, cached=cached)


def test_a_runtime_with_caches_computes_no_context() -> None:
    assert forecast().call_s(80, 28, streams=1) == pytest.approx(0.136)
    assert forecast(cached=True).call_s(80, 28, streams=1) == pytest.approx(0.056)


def test_the_running_call_comes_before_all_that_wait() -> None:
    device = forecast(cached=True)
    device.free_at_s = 10.5
    assert device.queue_s(80, 28, windows=2, now_s=10.0) == pytest.approx(0.5 + 2 * 0.056)
    assert device.queue_s(80, 28, windows=2, now_s=11.0) == pytest.approx(2 * 0.056)


def test_a_pacing_counts_the_prompt_and_the_streams_that_are_due_before() -> None:
    streams, own, other = ActiveStreams(), PlaybackClock(RATE_HZ), PlaybackClock(RATE_HZ)
    own.deliver(0.0, 2 * RATE_HZ)
    other.deliver(0.0, RATE_HZ)
    for clock in (own, other):
        streams.update(clock, clock.dry_at_s)
    pacing = StreamPacer(own, streams, forecast(), BALANCED, prompt_tokens=20).pacing(0.5, token_s=0.01)
    assert pacing.lead_s == pytest.approx(1.5)
    assert pacing.call_s(50, 28) == pytest.approx((20 + 50 + 2 * 28) / 1000)
    assert pacing.queue_s(0.4, 28) == 0.0, "the other stream has audio for longer"
    largest = 20 + BALANCED.left_context_tokens + 2 * BALANCED.max_block_tokens
    assert pacing.queue_s(0.6, 28) == pytest.approx(largest / 1000)


def test_streams_that_are_about_to_begin_have_windows_of_its_own_size() -> None:
    streams, own, speaking = ActiveStreams(), PlaybackClock(RATE_HZ), PlaybackClock(RATE_HZ)
    speaking.deliver(0.0, RATE_HZ)
    streams.update(speaking, speaking.dry_at_s)
    for silent in (own, PlaybackClock(RATE_HZ), PlaybackClock(RATE_HZ)):
        streams.update(silent, None)
    pacing = StreamPacer(own, streams, forecast(), BALANCED, prompt_tokens=20).pacing(0.5, token_s=0.01)
    context = 20 + BALANCED.left_context_tokens
    assert pacing.queue_s(0.4, 28) == pytest.approx(2 * (context + 2 * 28) / 1000)
    largest = context + 2 * BALANCED.max_block_tokens
    assert pacing.queue_s(0.6, 28) == pytest.approx((2 * (context + 2 * 28) + largest) / 1000)


def test_the_time_of_a_token_leaves_out_the_prompt() -> None:
    progress = TokenProgress()
    assert progress.token_s == 0.0
    progress.add([1], 2.0)
    progress.add([2, 3], 2.5)
    progress.add([4], 2.6)
    assert progress.speech_tokens == [1, 2, 3, 4]
    assert progress.token_s == pytest.approx(0.2)


def test_t3s_target_stays_ahead_of_what_is_planned_and_enlarged() -> None:
    streams, playback, progress = ActiveStreams(), PlaybackClock(RATE_HZ), TokenProgress()
    streams.update(playback, None)
    pacer = StreamPacer(playback, streams, forecast(), BALANCED, prompt_tokens=20)
    targets: list[int] = []
    plan = SegmentPlan(BALANCED, progress, pacer, targets.append)
    assert targets == [BALANCED.ahead_tokens]
    assert plan.next(0.0) is None
    progress.add([0] * 14, 0.1)
    first = plan.next(0.1)
    assert first is not None
    assert targets[1:] == [first.stop + BALANCED.ahead_tokens]
    playback.deliver(0.2, 9 * RATE_HZ)
    progress.add([0] * 200, 0.2)
    second = plan.next(0.2)
    assert second is not None
    assert plan.enlarge(second, 0.2) == second, "it is as large as windows become"
    assert targets[2:] == [second.stop + BALANCED.ahead_tokens]


def test_enlarging_raises_t3s_target() -> None:
    streams, playback, progress = ActiveStreams(), PlaybackClock(RATE_HZ), TokenProgress()
    streams.update(playback, None)
    device = forecast()
    targets: list[int] = []
    plan = SegmentPlan(BALANCED, progress, StreamPacer(playback, streams, device, BALANCED, 20), targets.append)
    progress.add([0] * 14, 0.1)
    window = plan.next(0.1)
    assert window is not None
    progress.add([0] * 200, 0.2)
    for _ in range(20):  # others have come, and the first sound must last until all are served
        streams.update(PlaybackClock(RATE_HZ), None)
    larger = plan.enlarge(window, 0.2)
    assert larger.stop > window.stop
    assert targets[-1] == larger.stop + BALANCED.ahead_tokens


def test_a_repeatable_plan_depends_on_the_tokens_alone() -> None:
    progress = TokenProgress()
    plan = SegmentPlan(BALANCED, progress, None, lambda speech_tokens: None)
    progress.add([0] * 14, 0.1)
    window = plan.next(99.0)
    assert window is not None
    assert (window.start, window.stop) == (0, 10)
    with pytest.raises(AssertionError):
        plan.enlarge(window, 99.0)
