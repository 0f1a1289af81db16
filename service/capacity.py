"""How many streams a device carries at once in real time: found by letting it speak, before anybody listens.

Knows an engine by its protocol. What to try and what follows are pure functions.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

from engines.api import AudioChunk, Engine, Segment, SegmentDone, SpeechStream
from engines.config import Sampling
from engines.errors import EngineBusy
from engines.model_spec import SAMPLE_RATE_HZ

_TEXT = "This is said a few times at once, to find out how many people can be served here."
_SPEECH_TOKENS = 60  # 2.4 s at most: long enough for several windows, short enough to start quickly
_ROOM = 0.8  # of the time that audio lasts may be needed to make it; the rest is for bursts, encoding and transport
_GUESS = 0.75  # of what one stream alone suggests, as the second trial
_MOST_TRIALS = 6
_OVERLOAD_PASSES_S = 1.1  # an engine that was overloaded by the trial before refuses for a second


@dataclass(frozen=True)
class Trial:
    """So many streams that began together took `load` seconds per second of audio that each of them made."""

    streams: int
    load: float
    underruns: int = 0

    @property
    def fits(self) -> bool:
        return self.load <= _ROOM and not self.underruns


@dataclass(frozen=True)
class Capacity:
    """The streams to admit, and from what that follows. At least 1: one listener is better served late than never."""

    streams: int
    trials: tuple[Trial, ...]

    @property
    def described(self) -> str:
        """A sentence for the log."""
        if not self.trials:
            return f"{self.streams} stream at once: there is no built-in voice to measure with; see --max-streams"
        tried = ", ".join(f"{trial.streams}: {trial.load:.2f}" for trial in self.trials)
        return f"{self.streams} streams at once (seconds needed per second of audio, by streams: {tried})"


async def measure(engine: Engine, most: int) -> Capacity:
    """Try more and more streams until they no longer fit, or `most` do; one where there is no built-in voice to try
    with. Raises EngineFailure as `Engine.warm_up`."""
    if engine.default_voice is None:
        return Capacity(1, ())
    trials: list[Trial] = []
    while (streams := next_trial(trials, most)) is not None:
        trials.append(await _try(engine, streams))
    return Capacity(capacity_of(trials), tuple(trials))


def next_trial(trials: Sequence[Trial], most: int) -> int | None:
    """How many streams to try next; None when enough is known.

    First one alone; then most of what that suggests, as streams that share batches need less than the sum; then twice
    as many each time; then between what fitted and what did not, until that is known to a quarter.
    """
    if not trials:
        return 1
    fitting = capacity_of(trials)
    misfit = min((trial.streams for trial in trials if not trial.fits), default=None)
    if fitting >= most or misfit == 1 or len(trials) >= _MOST_TRIALS:
        return None
    if misfit is not None:
        return (fitting + misfit) // 2 if misfit - fitting > max(1, fitting // 4) else None
    if len(trials) == 1:
        suggested = _GUESS * _ROOM / max(trials[0].load, 1e-6)
        return min(most, max(2, math.floor(min(suggested, most))))
    return min(most, 2 * fitting)


def capacity_of(trials: Sequence[Trial]) -> int:
    """The most streams that were seen to fit."""
    return max((trial.streams for trial in trials if trial.fits), default=1)


async def _try(engine: Engine, count: int) -> Trial:
    streams: list[SpeechStream] = []
    try:
        for seed in range(count):
            streams.append(await _open(engine, seed))
        clock = asyncio.get_running_loop().time
        began_s = clock()
        spoken = await asyncio.gather(*map(_speak, streams))
        load = (clock() - began_s) * count / max(sum(made_s for made_s, _ in spoken), 1e-3)
        return Trial(count, load, sum(underruns for _, underruns in spoken))
    except EngineBusy:
        return Trial(count, math.inf)  # it says itself that so many are too many
    finally:
        for stream in streams:
            await stream.close()


async def _open(engine: Engine, seed: int) -> SpeechStream:
    voice = engine.default_voice
    assert voice is not None
    sampling = Sampling(seed=seed, max_speech_tokens=_SPEECH_TOKENS, repeatable=False)  # as who names no seed
    try:
        return await engine.open(voice, sampling)
    except EngineBusy:
        await asyncio.sleep(_OVERLOAD_PASSES_S)
        return await engine.open(voice, sampling)


async def _speak(stream: SpeechStream) -> tuple[float, int]:
    """Seconds of audio, and how often a listener who plays it at once would have run dry."""
    samples = underruns = 0
    async for event in stream.speak(Segment(0, _TEXT)):
        if isinstance(event, AudioChunk):
            samples += len(event.samples)
        elif isinstance(event, SegmentDone):
            underruns = event.stats.underruns
    return samples / SAMPLE_RATE_HZ, underruns
