"""The capacity of a device: how many streams it carries in real time, measured before the first client is admitted.

What to try next and what follows from the trials are pure functions.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from engines.api import AudioChunk, Engine, EngineInfo, Segment, SegmentDone, SpeechStream
from engines.errors import EngineBusy
from engines.model_spec import SAMPLE_RATE_HZ

_TEXT = "This is said a few times at once, to find out how many people can be served here."
_SPEECH_TOKENS = 60  # 2.4 s at most: long enough for several windows, short enough to start quickly
_MAX_LOAD = 0.8  # seconds of work per second of audio; the rest is for bursts, encoding and transport
_FIRST_GUESS = 0.75  # of what one stream alone suggests, for the second trial
_MAX_TRIALS = 6
_OVERLOAD_PASSES_S = 1.1  # an engine that the previous trial overloaded refuses streams for a second


@dataclass(frozen=True)
class Trial:
    """One measurement: `streams` that began together took `load` seconds per second of their audio."""

    streams: int
    load: float
    underruns: int = 0

    @property
    def fits(self) -> bool:
        return self.load <= _MAX_LOAD and not self.underruns


@dataclass(frozen=True)
class Capacity:
    """The streams to admit, at least 1, and the trials behind that."""

    streams: int
    trials: tuple[Trial, ...]

    @property
    def summary(self) -> str:
        """A sentence for the log."""
        if not self.trials:
            return f"{self.streams} stream at once: there is no built-in voice to measure with; see --max-streams"
        tried = ", ".join(f"{trial.streams}: {trial.load:.2f}" for trial in self.trials)
        streams = "1 stream" if self.streams == 1 else f"{self.streams} streams"
        return f"{streams} at once (seconds needed per second of audio, by streams: {tried})"


async def measure(engines: Sequence[Engine], max_streams: int) -> Capacity:
    """Try more and more streams until they no longer fit, or `max_streams` do: with the streams of each engine alone,
    and with those of all in turn, which share fewer calls. The smallest capacity holds.

    It is 1 if an engine has no built-in voice to try with. Raises EngineFailure as `Engine.warm_up` does.
    """
    mixes = [[engine] for engine in engines] + ([engines] if len(engines) > 1 else [])
    found = [await _measure(mix, max_streams) for mix in mixes]
    return min(found, key=lambda capacity: capacity.streams)


async def _measure(engines: Sequence[Engine], max_streams: int) -> Capacity:
    if any(engine.default_voice is None for engine in engines):
        return Capacity(1, ())
    trials: list[Trial] = []
    while (streams := next_trial(trials, max_streams)) is not None:
        trials.append(await _try(engines, streams))
    return Capacity(capacity_of(trials), tuple(trials))


def overcommitted(info: EngineInfo) -> str:
    """A sentence if more streams are admitted than the load of one suggests; empty otherwise, or if it is not known."""
    admitted = info.limits.max_streams
    if info.load is None or admitted * info.load <= 1:
        return ""
    carried = max(1, math.floor(_MAX_LOAD / info.load))
    about = "1 stream" if carried == 1 else f"{carried} streams"
    return (
        f"--max-streams is {admitted}, but this machine carries about {about} in real time (one takes "
        f"{info.load:.2f} s of computing per second of audio); more will run dry"
    )


def next_trial(trials: Sequence[Trial], max_streams: int) -> int | None:
    """The number of streams to try next, or None if the capacity is known well enough.

    First one stream alone; then three quarters of what that suggests; then twice as many each time; then between the
    largest number that fits and the smallest that does not, until they differ by a quarter at most.
    """
    if not trials:
        return 1
    fitting = capacity_of(trials)
    misfit = min((trial.streams for trial in trials if not trial.fits), default=None)
    if fitting >= max_streams or misfit == 1 or len(trials) >= _MAX_TRIALS:
        return None
    if misfit is not None:
        return (fitting + misfit) // 2 if misfit - fitting > max(1, fitting // 4) else None
    if len(trials) == 1:
        suggested = _FIRST_GUESS * _MAX_LOAD / max(trials[0].load, 1e-6)
        return min(max_streams, max(2, math.floor(min(suggested, max_streams))))
    return min(max_streams, 2 * fitting)


def capacity_of(trials: Sequence[Trial]) -> int:
    """The largest number of streams that fitted in a trial, at least 1."""
    return max((trial.streams for trial in trials if trial.fits), default=1)


async def _try(engines: Sequence[Engine], count: int) -> Trial:
    streams: list[SpeechStream] = []
    try:
        for seed in range(count):
            streams.append(await _open(engines[seed % len(engines)], seed))
        clock = asyncio.get_running_loop().time
        began_s = clock()
        spoken = await asyncio.gather(*map(_speak, streams))
        load = (clock() - began_s) * count / max(sum(audio_s for audio_s, _ in spoken), 1e-3)
        return Trial(count, load, sum(underruns for _, underruns in spoken))
    except EngineBusy:
        return Trial(count, math.inf)  # the engine itself refuses this many
    finally:
        for stream in streams:
            await stream.close()


async def _open(engine: Engine, seed: int) -> SpeechStream:
    voice = engine.default_voice
    assert voice is not None
    # as for a client that sets no seed
    sampling = replace(engine.info.sampling, seed=seed, max_speech_tokens=_SPEECH_TOKENS, repeatable=False)
    try:
        return await engine.open(voice, sampling)
    except EngineBusy:
        await asyncio.sleep(_OVERLOAD_PASSES_S)
        return await engine.open(voice, sampling)


async def _speak(stream: SpeechStream) -> tuple[float, int]:
    """Seconds of audio, and the underruns of a real-time listener."""
    samples = underruns = 0
    async for event in stream.speak(Segment(0, _TEXT)):
        if isinstance(event, AudioChunk):
            samples += len(event.samples)
        elif isinstance(event, SegmentDone):
            underruns = event.stats.underruns
    return samples / SAMPLE_RATE_HZ, underruns
