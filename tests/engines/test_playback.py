"""The playback clock and the active streams, on given times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.playback import ActiveStreams, PlaybackClock

RATE_HZ = 24_000


def test_a_stream_that_keeps_ahead_never_runs_dry() -> None:
    listener = PlaybackClock(RATE_HZ)
    listener.begin_segment(0.0)
    for second in range(10):
        listener.deliver(second * 0.9, RATE_HZ)
    assert listener.underruns == 0
    assert listener.lead_s(8.1) == pytest.approx(10 - 8.1)
    assert listener.max_gap_s == pytest.approx(0.9)


def test_running_dry_is_counted_once_with_its_duration() -> None:
    listener = PlaybackClock(RATE_HZ)
    listener.begin_segment(0.0)
    listener.deliver(1.0, RATE_HZ)  # lasts until 2.0
    listener.deliver(2.5, RATE_HZ)  # half a second of silence, then until 3.5
    listener.deliver(3.0, RATE_HZ)
    assert (listener.underruns, listener.underrun_s) == (1, pytest.approx(0.5))
    assert listener.lead_s(3.0) == pytest.approx(1.5)


def test_the_buffer_is_measured_when_a_chunk_comes() -> None:
    listener = PlaybackClock(RATE_HZ)
    listener.begin_segment(0.0)
    listener.deliver(1.0, RATE_HZ)  # lasts until 2.0
    assert listener.min_buffer_s is None, "nothing was playing"
    listener.deliver(1.4, RATE_HZ)
    listener.deliver(1.5, RATE_HZ)
    assert listener.min_buffer_s == pytest.approx(0.6)
    listener.deliver(4.5, RATE_HZ)
    assert listener.min_buffer_s == 0.0, "it had run dry"
    listener.begin_segment(4.5)
    assert listener.min_buffer_s is None


def test_waiting_for_text_between_segments_is_no_underrun() -> None:
    listener = PlaybackClock(RATE_HZ)
    listener.begin_segment(0.0)
    listener.deliver(0.5, RATE_HZ)
    listener.begin_segment(10.0)
    listener.deliver(10.3, RATE_HZ)
    assert listener.underruns == 0
    assert listener.max_gap_s == 0


def test_a_segment_that_comes_late_while_the_last_one_plays_is_an_underrun() -> None:
    listener = PlaybackClock(RATE_HZ)
    listener.begin_segment(0.0)
    listener.deliver(0.5, RATE_HZ)
    listener.begin_segment(1.0)  # still playing until 1.5
    listener.deliver(1.75, RATE_HZ)
    assert (listener.underruns, listener.underrun_s) == (1, pytest.approx(0.25))


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, RATE_HZ)), min_size=1, max_size=40))
def test_stalls_plus_audio_account_for_all_time(chunks: list[tuple[float, int]]) -> None:
    listener, now_s, first_s = PlaybackClock(RATE_HZ), 0.0, None
    listener.begin_segment(0.0)
    for wait_s, samples in chunks:
        now_s += wait_s
        first_s = now_s if first_s is None else first_s
        listener.deliver(now_s, samples)
    heard_s = sum(samples for _, samples in chunks) / RATE_HZ
    assert listener.lead_s(now_s) == pytest.approx(first_s + heard_s + listener.underrun_s - now_s, abs=1e-6)


def test_streams_due_before_are_the_others() -> None:
    audience = ActiveStreams()
    for name, dry_at_s in (("a", 3.0), ("b", 1.0), ("c", 3.0), ("new", None), ("newer", None)):
        audience.update(name, dry_at_s)
    assert len(audience) == 5
    assert audience.streams_due_before("a", until_s=2.0) == (1, 0)
    assert audience.streams_due_before("a", until_s=4.0) == (2, 0), "not itself"
    waits_with = "a stream without audio waits with the others that have none"
    assert audience.streams_due_before("new", until_s=2.0) == (1, 1), waits_with
    audience.update("b", 5.0)
    audience.leave("c")
    audience.leave("c")
    assert audience.streams_due_before("new", until_s=4.0) == (1, 1)
    assert len(audience) == 4
    for name in ("a", "b", "new", "newer"):
        audience.leave(name)
    assert (len(audience), audience.streams_due_before("a", until_s=9.0)) == (0, (0, 0))
