"""`make bench-length`: what a second of audio costs, and the memory of a stream, over two seconds to ten minutes of it.

On the shipped model, one stream of sentences. Expected: both stay flat, because windows and caches are bounded and a
segment's state goes with the segment. CPU time is that of this process on all threads, so that company on the machine
changes it little. The plot goes to docs/cost-by-length.png.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.report import publish, table
from engines.api import AudioChunk, Segment
from engines.config import EngineConfig, Sampling
from engines.factory import build_engine
from engines.model_spec import SAMPLE_RATE_HZ
from engines.pipeline import Pipeline

LENGTHS_S = (2.0, 10.0, 60.0, 600.0)
PLOT = Path("docs/cost-by-length.png")
SENTENCES = (
    "The harbour was quiet that morning, and the boats lay still in the grey light.",
    "Your table for two is booked for eight this evening.",
    "Take the second road on the left, and you will see the station in front of you.",
    "We will call you back as soon as the part has come in.",
)


@dataclass(frozen=True)
class Row:
    """The figures of one length of audio, from the stream's begin."""

    audio_s: float
    cpu_s_per_audio_s: float
    memory_mb: float  # of the process, more than before the stream


def resident_mb() -> float:
    """The process's memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def measure(engine: Pipeline, lengths_s: tuple[float, ...]) -> list[Row]:
    """One stream to the longest length; a row as each length is reached."""
    assert engine.default_voice is not None
    stream = await engine.open(engine.default_voice, Sampling(seed=1, repeatable=False))
    rows: list[Row] = []
    before_mb, began_s, samples, index = resident_mb(), time.process_time(), 0, 0
    try:
        while len(rows) < len(lengths_s):
            async for event in stream.speak(Segment(index, SENTENCES[index % len(SENTENCES)])):
                if not isinstance(event, AudioChunk):
                    continue
                samples += len(event.samples)
                audio_s = samples / SAMPLE_RATE_HZ
                if len(rows) < len(lengths_s) and audio_s >= lengths_s[len(rows)]:
                    spent_s = time.process_time() - began_s
                    rows.append(Row(round(audio_s, 1), spent_s / audio_s, resident_mb() - before_mb))
            index += 1
    finally:
        await stream.close()
    return rows


def plot(rows: list[Row], path: Path) -> None:
    """Cost and memory by length."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    lengths_s = [row.audio_s for row in rows]
    left.plot(lengths_s, [row.cpu_s_per_audio_s for row in rows], "o-")
    left.set(xscale="log", xlabel="audio (s)", ylabel="CPU seconds per second of audio")
    right.plot(lengths_s, [row.memory_mb for row in rows], "o-")
    right.set(xscale="log", xlabel="audio (s)", ylabel="memory since the stream began (MB)")
    for axes in (left, right):
        axes.set_ylim(0, 1.2 * max(axes.dataLim.y1, 0))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--longest-s", type=float, default=LENGTHS_S[-1])
    arguments = parser.parse_args()
    engine = build_engine(EngineConfig(model=arguments.model, device="cpu", max_streams=1))
    lengths_s = tuple(length_s for length_s in LENGTHS_S if length_s <= arguments.longest_s)
    with asyncio.Runner() as runner:
        runner.run(engine.warm_up())
        rows = runner.run(measure(engine, lengths_s))
        setting = engine.info.setting_reason
        runner.run(engine.close())
    if arguments.longest_s == LENGTHS_S[-1]:
        plot(rows, PLOT)
    header = ["audio s", "CPU s per s", "memory MB"]
    text = table(header, [(row.audio_s, row.cpu_s_per_audio_s, row.memory_mb) for row in rows])
    flat = rows[-1].cpu_s_per_audio_s / rows[min(1, len(rows) - 1)].cpu_s_per_audio_s
    text += f"\nthe longest costs {flat:.2f} times what ten seconds cost, per second\nours runs with {setting}"
    figures = {f"{length_s:g} s": asdict(row) for length_s, row in zip(lengths_s, rows, strict=True)}
    publish("length", text, {"model": arguments.model, "rows": figures, "flat": round(flat, 2), "setting": setting})


if __name__ == "__main__":
    main()
