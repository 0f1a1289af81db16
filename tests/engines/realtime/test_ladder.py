"""The choice between settings, with timings and a clock that a test sets."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.realtime.ladder import MAX_LOAD, TIME_LIMIT_S, Setting, Trial, choose, try_settings

RECOMPUTED, CACHED, SMALL = Setting("reference", "auto"), Setting("cached", "auto"), Setting("cached", "int8")
ALL = (RECOMPUTED, CACHED, SMALL)


@dataclass
class Machine:
    """Timings by part, and a clock that each measurement advances by `takes_s`."""

    t3: dict[str, float]
    s3gen: dict[str, float]
    takes_s: float = 0.1
    reference_takes_s: float = 0.1
    measured: list[str] = field(default_factory=list)
    now_s: float = 0.0

    def clock(self) -> float:
        return self.now_s

    def t3_s(self, t3_dtype: str) -> float:
        return self._took(f"t3 {t3_dtype}", self.t3[t3_dtype], self.takes_s)

    def s3gen_s(self, decode: str, steps: str) -> float:
        what = decode if steps == "auto" else f"{decode} {steps}"
        return self._took(what, self.s3gen[what], self._takes_s(decode))

    def expected_s(self, decode: str, steps: str) -> float:
        assert "cached" in self.measured or "cached 2" in self.measured
        return self._takes_s(decode) * (10 if steps == "10" else 1)

    def _takes_s(self, decode: str) -> float:
        return self.reference_takes_s if decode == "reference" else self.takes_s

    def _took(self, what: str, result: float, taken_s: float) -> float:
        self.measured.append(what)
        self.now_s += taken_s
        return result


def chosen(machine: Machine, streams: int = 1) -> Setting:
    return choose(try_settings(ALL, machine, machine.clock), streams).setting


def machine(t3: float, int8: float, recomputed: float, cached: float, **times: float) -> Machine:
    return Machine({"auto": t3, "int8": int8}, {"reference": recomputed, "cached": cached}, **times)


@pytest.mark.parametrize(
    ("times", "setting"),
    [
        (machine(0.1, 0.05, 0.3, 0.1), RECOMPUTED),
        (machine(0.5, 0.3, 0.9, 0.25), CACHED),
        (machine(0.6, 0.3, 0.9, 0.4), SMALL),
        (machine(2.0, 1.0, 5.0, 1.0), SMALL),
    ],
    ids=["a fast machine", "a laptop", "a slow laptop", "none is in real time"],
)
def test_one_stream_gets_the_most_faithful_setting_in_real_time(times: Machine, setting: Setting) -> None:
    assert chosen(times) == setting


STEPS = (
    Setting("reference", "auto", "10"),
    Setting("cached", "auto", "10"),
    Setting("reference", "auto", "2"),
    Setting("cached", "auto", "2"),
    Setting("cached", "int8", "2"),
)


def with_steps(times_s: tuple[float, float, float, float], **others: float) -> Machine:
    """Of S3Gen, in the order of STEPS."""
    names = ("reference 10", "cached 10", "reference 2", "cached 2")
    return Machine({"auto": 0.1, "int8": 0.05}, dict(zip(names, times_s, strict=True)), **others)


@pytest.mark.parametrize(
    ("times_s", "setting"),
    [
        ((0.5, 0.3, 0.1, 0.05), 0),
        ((3.0, 0.6, 0.4, 0.1), 1),
        ((6.0, 2.0, 0.6, 0.2), 2),
        ((20.0, 8.0, 1.5, 0.5), 3),
        ((40.0, 16.0, 3.0, 0.73), 4),
    ],
)
def test_ten_steps_are_given_up_only_where_they_are_not_in_real_time(
    times_s: tuple[float, float, float, float], setting: int
) -> None:
    tried = with_steps(times_s)
    choice = choose(try_settings(STEPS, tried, tried.clock), 1)
    assert choice.setting == STEPS[setting]
    assert f"{choice.setting.s3gen_steps} steps" in choice.reason
    # the few steps of cached decoding tell how long the others take, and nothing else is measured without need
    assert tried.measured[0] == "cached 2"
    assert ("reference 2" in tried.measured) == (setting > 1)


def test_many_streams_do_not_change_how_they_sound() -> None:
    tried = with_steps((0.5, 0.3, 0.1, 0.05))
    assert choose(try_settings(STEPS, tried, tried.clock), 16).setting == STEPS[1]
    trials = [Trial(setting, 0.1, s) for setting, s in zip(STEPS, (0.5, 0.3, 0.1, 0.05, 0.01), strict=True)]
    assert choose(trials, 16).setting == STEPS[1], "even if all were measured"


def test_ten_steps_that_would_take_all_the_time_are_not_measured() -> None:
    slow = with_steps((9.0, 9.0, 0.5, 0.2), takes_s=0.15 * TIME_LIMIT_S, reference_takes_s=0.15 * TIME_LIMIT_S)
    choice = choose(try_settings(STEPS, slow, slow.clock), 1)
    assert not {"cached 10", "reference 10"} & set(slow.measured)
    assert choice.setting == STEPS[2]
    assert slow.now_s <= TIME_LIMIT_S


def test_several_streams_get_cached_decoding_where_it_carries_more_but_not_8_bits() -> None:
    assert chosen(machine(0.05, 0.01, 0.3, 0.1), streams=16) == CACHED
    assert chosen(machine(0.05, 0.01, 0.3, 0.1), streams=2) == RECOMPUTED, "which carries them"
    assert chosen(machine(0.2, 0.01, 0.15, 0.14), streams=16) == RECOMPUTED, "cached decoding carries no more"
    assert chosen(machine(0.3, 0.01, 0.11, 0.1), streams=16) == RECOMPUTED, "2 against 1, but by an error of measuring"


def test_8_bits_are_measured_only_if_nothing_else_speaks_in_real_time() -> None:
    fast, slow = machine(0.5, 0.3, 0.9, 0.25), machine(0.6, 0.3, 0.9, 0.4)
    chosen(fast)
    chosen(slow)
    assert "t3 int8" not in fast.measured
    assert "t3 int8" in slow.measured


def test_what_does_not_fit_into_the_time_limit_is_not_measured_and_said() -> None:
    slow = machine(0.5, 0.3, 0.2, 0.25, takes_s=0.4 * TIME_LIMIT_S, reference_takes_s=0.5 * TIME_LIMIT_S)
    choice = choose(try_settings(ALL, slow, slow.clock), 1)
    assert "reference" not in slow.measured
    assert slow.now_s <= TIME_LIMIT_S
    assert choice.setting == CACHED
    assert "recomputed windows: not measured" in choice.reason


def test_nothing_is_chosen_silently() -> None:
    choice = choose(try_settings(ALL, hopeless := machine(2.0, 1.0, 5.0, 1.0), hopeless.clock), 1)
    assert not choice.keeps_real_time
    assert choice.load == 2.0
    assert "none was found to speak in real time" in choice.reason
    assert "recomputed windows: 7.00 (T3 2.00, S3Gen 5.00)" in choice.reason
    assert "cached decoding, T3 in 8 bits: 2.00 (T3 1.00, S3Gen 1.00)" in choice.reason


@given(
    st.lists(st.tuples(st.floats(0.001, 5), st.floats(0.001, 5)) | st.none(), min_size=3, max_size=3),
    st.integers(1, 64),
)
def test_a_setting_that_the_machine_cannot_carry_is_never_taken_for_one_that_it_can(
    times: list[tuple[float, float] | None], streams: int
) -> None:
    trials = [Trial(setting, *(each or (None, None))) for setting, each in zip(ALL, times, strict=True)]
    choice = choose(trials, streams)
    taken = next(trial for trial in trials if trial.setting == choice.setting)
    assert choice.keeps_real_time == any(trial.load <= MAX_LOAD for trial in trials) == (taken.load <= MAX_LOAD)
    assert choice.load == (None if math.isinf(taken.load) else taken.load)
    assert all(trial.setting.words in choice.reason for trial in trials)


def test_something_is_known_even_if_the_first_measurement_takes_all_the_time() -> None:
    busy = machine(0.1, 0.05, 0.3, 0.2, takes_s=2 * TIME_LIMIT_S)
    choice = choose(try_settings(ALL, busy, busy.clock), 1)
    assert busy.measured == ["cached", "t3 auto"]
    assert (choice.setting, choice.keeps_real_time) == (CACHED, True)
