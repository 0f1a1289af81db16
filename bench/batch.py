"""`make bench-batch`: lines spoken one after the other, all together as `mynah batch` has them, and by the package.

On random:tiny whose T3 never stops, so that all sides make the same numbers of speech tokens for each line. One after
the other, a line is a live stream. Together, they have the offline schedule, the longest first, a few at a time: T3
reads its weights once for all of them, and a window is as large as can be. Expected: 1.5 times the single streams.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from collections.abc import Sequence

import numpy as np
import torch

from bench.engine import TEXT, THREADS, Upstream, endless_checkpoint
from bench.report import publish, table
from engines.api import AudioChunk, Segment
from engines.config import EngineConfig, Sampling
from engines.factory import build_engine
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline

LINES, JOBS = 24, 16
SHORTEST, LONGEST = 25, 200  # speech tokens of a line: one to eight seconds
GOAL = 1.5


def lengths() -> list[int]:
    """The speech tokens of each line."""
    return np.random.default_rng(0).integers(SHORTEST, LONGEST, LINES).tolist()


async def speak(engine: Pipeline, speech_tokens: int, schedule: str) -> float:
    """Speak one line. Returns its seconds of audio."""
    assert engine.default_voice is not None
    sampling = Sampling(seed=1, max_speech_tokens=speech_tokens, repeatable=bool(schedule), schedule=schedule)
    stream = await engine.open(engine.default_voice, sampling)
    events = [event async for event in stream.speak(Segment(0, TEXT))]
    await stream.close()
    return sum(len(event.samples) for event in events if isinstance(event, AudioChunk)) / SAMPLE_RATE_HZ


async def one_by_one(engine: Pipeline, lines: Sequence[int]) -> float:
    """Returns the seconds of audio."""
    return sum([await speak(engine, line, "") for line in lines])


async def together(engine: Pipeline, lines: Sequence[int]) -> float:
    """Returns the seconds of audio."""
    waiting, audio_s = iter(sorted(lines, reverse=True)), []

    async def work() -> None:
        for line in waiting:  # shared by all workers
            audio_s.append(await speak(engine, line, "offline"))

    await asyncio.gather(*(work() for _ in range(JOBS)))
    return sum(audio_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="random:tiny")
    parser.add_argument("--repeats", type=int, help="3 by default, with --ray 5")
    parser.add_argument("--ray", action="store_true", help="engines on Ray beside plain loops instead")
    arguments = parser.parse_args()
    if arguments.ray:
        from bench.batch_on_ray import measure

        measure(arguments.repeats or 5)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    checkpoint = endless_checkpoint(arguments.model)
    config = EngineConfig(model=str(checkpoint.folder), device="cpu", threads=THREADS, max_streams=JOBS)
    engine, upstream, lines = build_engine(config), Upstream(checkpoint), lengths()
    speeds: dict[str, list[float]] = {"one by one": [], "together": [], "package": []}
    with asyncio.Runner() as runner:
        runner.run(engine.warm_up())
        upstream.speak_once(SHORTEST)
        for _ in range(arguments.repeats or 3):  # alternating, so that the machine's moods meet all of them
            for name, way in (("one by one", one_by_one), ("together", together)):
                began_s = time.perf_counter()
                audio_s = runner.run(way(engine, lines))
                speeds[name].append(audio_s / (time.perf_counter() - began_s))
            began_s = time.perf_counter()
            with torch.inference_mode():
                for line in lines:
                    upstream.speak_once(line + 1)
            speeds["package"].append(audio_s / (time.perf_counter() - began_s))
        setting = engine.info.setting_reason
        runner.run(engine.close())
    medians = {name: float(np.median(values)) for name, values in speeds.items()}
    gain, over_package = medians["together"] / medians["one by one"], medians["together"] / medians["package"]
    text = table(["seconds of audio per second", "median"], list(medians.items()))
    text += f"\ntogether over one by one: {gain:.2f} (goal {GOAL}), over the package's loop: {over_package:.2f}"
    text += f"\nours runs with {setting}"
    result = {"model": arguments.model, "threads": THREADS, "speeds": medians, "setting": setting}
    publish("batch", text, {**result, "gain": round(gain, 2), "over_package": round(over_package, 2)})


if __name__ == "__main__":
    main()
