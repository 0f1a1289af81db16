"""The choice between settings by their measured times: the most faithful one that speaks in real time.

Pure functions and values. A setting's times are seconds of computing per second of one stream's audio. T3 and S3Gen
share the cores, so their times add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

MAX_LOAD = 0.8  # seconds of work per second of audio; the rest is for bursts, encoding and transport
_WORTH_CHANGING = 0.9  # less than a tenth is within the error of measuring
TIME_LIMIT_S = 10.0  # of all measurements together


@dataclass(frozen=True)
class Setting:
    """How S3Gen decodes, "reference" or "cached", and T3's precision, "auto" or "int8"."""

    decode: str
    t3_dtype: str

    @property
    def words(self) -> str:
        """The setting for people."""
        decode = "cached decoding" if self.decode == "cached" else "recomputed windows"
        return f"{decode}, T3 in 8 bits" if self.t3_dtype == "int8" else decode


@dataclass(frozen=True)
class Trial:
    """A setting's times. None: not measured, because the time for it was over."""

    setting: Setting
    t3_s: float | None
    s3gen_s: float | None

    @property
    def load(self) -> float:
        """Seconds of computing per second of audio; infinite if a part was not measured."""
        return math.inf if self.t3_s is None or self.s3gen_s is None else self.t3_s + self.s3gen_s

    @property
    def streams(self) -> int:
        """How many streams the cores carry in real time, without what streams save by sharing calls."""
        return 0 if math.isinf(self.load) else math.floor(MAX_LOAD / max(self.load, 1e-6))

    def __str__(self) -> str:
        if self.t3_s is None or self.s3gen_s is None:
            return f"{self.setting.words}: not measured"
        return f"{self.setting.words}: {self.load:.2f} (T3 {self.t3_s:.2f}, S3Gen {self.s3gen_s:.2f})"


@dataclass(frozen=True)
class Choice:
    """The setting to run with, and the sentence that says why, with the figures of all trials."""

    setting: Setting
    reason: str
    load: float | None = None  # of one stream; None if it was not measured
    keeps_real_time: bool = True


class Timings(Protocol):
    """Measures both stages, each on the idle machine, in seconds per second of audio."""

    def t3_s(self, t3_dtype: str) -> float: ...

    def s3gen_s(self, decode: str) -> float: ...

    def expected_reference_s(self) -> float:
        """About how long `s3gen_s("reference")` will take, known once "cached" was measured."""
        ...


def try_settings(settings: Sequence[Setting], timings: Timings, clock: Callable[[], float]) -> tuple[Trial, ...]:
    """Measure settings, given from the most to the least faithful, as far as the choice needs them.

    Cached decoding is measured before recomputed windows: it is short, and tells how long these will take. It and T3
    as it is loaded are always measured; what does not fit into the time limit after that is not. A setting with T3 in
    8 bits is measured only if no other one speaks in real time, because its weights must be made first.
    """
    until_s = clock() + TIME_LIMIT_S
    decodes = dict.fromkeys(setting.decode for setting in settings)
    s3gen: dict[str, float] = {}
    if "cached" in decodes:
        s3gen["cached"] = timings.s3gen_s("cached")
    trials: list[Trial] = []
    t3: dict[str, float] = {}
    for setting in settings:
        if setting.t3_dtype != settings[0].t3_dtype and any(trial.load <= MAX_LOAD for trial in trials):
            break
        if setting.t3_dtype not in t3 and (not t3 or clock() < until_s):
            t3[setting.t3_dtype] = timings.t3_s(setting.t3_dtype)
        if setting.decode not in s3gen and clock() + _expected_s(timings, s3gen) < until_s:
            s3gen[setting.decode] = timings.s3gen_s(setting.decode)
        trials.append(Trial(setting, t3.get(setting.t3_dtype), s3gen.get(setting.decode)))
    return tuple(trials)


def _expected_s(timings: Timings, measured: dict[str, float]) -> float:
    return timings.expected_reference_s() if "cached" in measured else 0.0


def choose(trials: Sequence[Trial], streams: int) -> Choice:
    """Choose for `streams` streams, of trials given from the most to the least faithful.

    First the most faithful setting that speaks in real time for one stream. Then, if it does not carry all streams,
    the one that carries more, as long as T3's weights stay what they are: 8 bits change which tokens are drawn, and are
    taken only where nothing else speaks in real time. If nothing does, the fastest.
    """
    figures = "; ".join(map(str, trials))
    fitting = [trial for trial in trials if trial.load <= MAX_LOAD]
    if not fitting:
        fastest = min(reversed(trials), key=lambda trial: trial.load)
        if math.isinf(trials[-1].load):
            fastest = trials[-1]  # not measured, but none needs less
        reason = (
            f"{fastest.setting.words}: the fastest setting; on this machine none was found to speak in real time, so "
            f"streams may run dry (seconds of computing per second of audio, {MAX_LOAD:g} at most: {figures})"
        )
        load = None if math.isinf(fastest.load) else fastest.load
        return Choice(fastest.setting, reason, load, keeps_real_time=False)
    chosen, why = fitting[0], "the most faithful setting that speaks in real time here"
    if chosen.streams < streams:
        same_weights = [trial for trial in fitting if trial.setting.t3_dtype == chosen.setting.t3_dtype]
        most = max(same_weights, key=lambda trial: trial.streams)
        if most.streams > chosen.streams and most.load <= _WORTH_CHANGING * chosen.load:
            why = f"one stream would be in real time with {chosen.setting.words} too, but more streams are with this"
            chosen = most
    bound = f"seconds of computing per second of audio, {MAX_LOAD:g} at most"
    reason = f"{chosen.setting.words}: {why} ({bound}: {figures})"
    return Choice(chosen.setting, reason, chosen.load)
