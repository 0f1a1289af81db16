"""What decoding is expected to cost, and how many windows should share a call."""

from __future__ import annotations

import pytest

from engines.s3gen.streaming.decode_times import DecodeTimes


def test_nothing_is_expected_while_nothing_is_known() -> None:
    times = DecodeTimes()
    assert times.call_s(100) == times.rows_s(3, 100, 8) == 0.0


def test_expectations_follow_what_calls_take_now() -> None:
    times = DecodeTimes(shared_work=100)
    times.observe(300, 0.4)
    assert times.call_s(300) == pytest.approx(0.4)
    assert times.call_s(900) == pytest.approx(1.0)
    for _ in range(20):
        times.observe(300, 0.8)  # something else needs the cores too
    assert times.call_s(900) == pytest.approx(2.0, rel=0.02)


def test_the_calls_that_count_are_those_beside_which_t3_works() -> None:
    times = DecodeTimes(shared_work=100)
    times.observe(300, 0.4)
    assert times.call_s(300) == pytest.approx(0.4), "the only one so far"
    times.observe(300, 0.8, beside_t3=True)
    assert times.call_s(300) == pytest.approx(0.8)
    for _ in range(20):
        times.observe(300, 0.2)  # the last windows of an utterance, whose tokens are all made
    assert times.call_s(300) == pytest.approx(0.8), "the next stream begins beside T3 again"
    for _ in range(20):
        times.observe(300, 0.6, beside_t3=True)
    assert times.call_s(300) == pytest.approx(0.6, rel=0.01)


def test_rows_are_expected_to_share_calls() -> None:
    times = DecodeTimes(shared_work=100)
    times.observe(100, 0.2)
    assert times.rows_s(6, 100, max_rows=2) == pytest.approx(3 * 0.1 + 6 * 0.1)
    assert times.rows_s(6, 100, max_rows=8) == pytest.approx(1 * 0.1 + 6 * 0.1)
    assert times.rows_s(0, 100, max_rows=8) == 0.0


def test_calibration_splits_a_call_into_what_is_shared_and_what_is_not() -> None:
    times = DecodeTimes()
    times.calibrate(work=50, seconds={1: 0.3, 4: 0.6})
    assert times.shared_work == pytest.approx(2 * 50), "0.2 s shared, 0.1 s a row"
    times.calibrate(work=50, seconds={1: 0.1, 4: 0.4})
    assert times.shared_work == pytest.approx(0)
    times.calibrate(work=50, seconds={1: 0.1, 4: 0.09})  # measured on a device that was not idle
    assert times.shared_work == pytest.approx(99 * 50)


def test_windows_share_a_call_as_long_as_it_pays() -> None:
    assert DecodeTimes(shared_work=0).worthwhile_rows(300, 8) == 1
    assert DecodeTimes(shared_work=300).worthwhile_rows(300, 16) == 7
    assert DecodeTimes(shared_work=300).worthwhile_rows(300, 4) == 4
    assert DecodeTimes(shared_work=300).worthwhile_rows(1200, 16) == 1, "long rows fill the device alone"
