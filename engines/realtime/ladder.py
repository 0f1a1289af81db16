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
    """How an engine runs.

    decode       how S3Gen decodes, "reference" or "cached"
    t3_dtype     T3's precision, "auto" or "int8"
    s3gen_steps  of S3Gen's flow: a number where there is a choice, else "auto"
    """

    decode: str
    t3_dtype: str
    s3gen_steps: str = "auto"

    @property
    def words(self) -> str:
        """The setting for people."""
        words = ["cached decoding" if self.decode == "cached" else "recomputed windows"]
        if self.s3gen_steps != "auto":
            words.append(f"{self.s3gen_steps} steps")
        return ", ".join([*words, "T3 in 8 bits"] if self.t3_dtype == "int8" else words)

    @property
    def s3gen(self) -> tuple[str, str]:
        """What S3Gen's time depends on."""
        return self.decode, self.s3gen_steps

    @property
    def nets(self) -> tuple[str, str]:
        """What decides which nets speak."""
        return self.t3_dtype, self.s3gen_steps


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

    def s3gen_s(self, decode: str, steps: str) -> float: ...

    def expected_s(self, decode: str, steps: str) -> float:
        """About how long `s3gen_s` will take, from what it has measured already; 0 before that."""
        ...


def try_settings(settings: Sequence[Setting], timings: Timings, clock: Callable[[], float]) -> tuple[Trial, ...]:
    """Measure settings, given from the most to the least faithful, as far as the choice needs them.

    Few steps are measured before many, and cached decoding before recomputed windows: it is short, and tells how long
    the others will take. The first of them and T3 as it is loaded are always measured; what does not fit into the time
    limit after that is not. A setting with T3 in 8 bits or with fewer steps is tried only if none before it speaks in
    real time, because its nets are others.
    """
    until_s = clock() + TIME_LIMIT_S
    s3gen: dict[tuple[str, str], float] = {}

    def measure(key: tuple[str, str]) -> None:
        if key not in s3gen and (not s3gen or clock() + timings.expected_s(*key) < until_s):
            s3gen[key] = timings.s3gen_s(*key)

    by_steps = {setting.s3gen_steps: setting.s3gen for setting in settings}  # of each, the last is the fastest
    for key in reversed(by_steps.values()):
        measure(key)
    trials: list[Trial] = []
    t3: dict[str, float] = {}
    for setting in settings:
        changed = bool(trials) and setting.nets != trials[-1].setting.nets
        if changed and any(trial.load <= MAX_LOAD for trial in trials):
            break
        if setting.t3_dtype not in t3 and (not t3 or clock() < until_s):
            t3[setting.t3_dtype] = timings.t3_s(setting.t3_dtype)
        measure(setting.s3gen)
        trials.append(Trial(setting, t3.get(setting.t3_dtype), s3gen.get(setting.s3gen)))
    return tuple(trials)


def choose(trials: Sequence[Trial], streams: int) -> Choice:
    """Choose for `streams` streams, of trials given from the most to the least faithful.

    First the most faithful setting that speaks in real time for one stream. Then, if it does not carry all streams,
    the one that carries more, as long as the nets stay what they are: 8 bits change which tokens are drawn, fewer steps
    how they sound, and both are taken only where nothing else speaks in real time. If nothing does, the fastest.
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
        same_nets = [trial for trial in fitting if trial.setting.nets == chosen.setting.nets]
        most = max(same_nets, key=lambda trial: trial.streams)
        if most.streams > chosen.streams and most.load <= _WORTH_CHANGING * chosen.load:
            why = f"one stream would be in real time with {chosen.setting.words} too, but more streams are with this"
            chosen = most
    bound = f"seconds of computing per second of audio, {MAX_LOAD:g} at most"
    reason = f"{chosen.setting.words}: {why} ({bound}: {figures})"
    return Choice(chosen.setting, reason, chosen.load)
