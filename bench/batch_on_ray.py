"""`python -m bench.batch --ray`: lines spoken by engines of a Ray cluster, and by plain loops without Ray.

On the shipped model, a thread for each engine; first with one engine, which leaves Ray's own processes a core as a
cluster's head has one, then with two that share two cores with them. The plain loop is what `mynah batch` runs, on an
engine in its own process: several begin together, each with its share of the lines. On Ray the actors share all lines.
Each side is timed from the moment at which all engines speak to its last line's end, so that neither counts loading; of
a line that was begun before, the share counts that was left of it. One run on Ray goes before and is not counted: it
reads half a gigabyte of Ray from the disk. Expected: Ray takes at most a twentieth of an engine's throughput, and of
two engines' what its driver and its head compute.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.report import publish, table
from mynah.batch.output_dir import MANIFEST, OutputDir
from mynah.batch.ray import Engines, HowToSpeak
from mynah.batch.ray_run import LOCAL, connected, run_on_ray
from mynah.batch.run import Progress, run_batch
from mynah.batch.script import Item, read_script
from mynah.batch.stream_speaker import StreamSpeaker
from service.bulk.engine import Engine

ENGINES = (1, 2)
JOBS, COPIES = 8, 12  # the copies of each engine
GOAL = 0.95
TEXTS = (
    "The old train leaves at seven, and the next one not before noon.", "Bring a warm coat!", "Why not?",
    "They had not seen the letter since the middle of June.", "It costs $5 now.", "Two of them came back the same way.",
    "The window was open, and the room was cold and empty.", "She read it twice, and then she put it away.",
)  # fmt: skip
OPTIONS = {"model": "tiny", "device": "cpu", "voices_dir": "memory", "log_level": "warning"}


def script(engines: int) -> list[Item]:
    copies = range(COPIES * engines)
    lines = [{"text": text, "name": f"{copy}-{number}"} for copy in copies for number, text in enumerate(TEXTS)]
    return read_script([json.dumps(line) for line in lines])


def plain_loop(engines: int, share: int, folder: Path) -> None:
    """The process of one loop of `engines`: loads its engine, says so, and begins when a line comes in."""

    async def speak() -> None:
        engine = Engine(OPTIONS, JOBS, threads=1)
        await engine.open()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        with OutputDir(folder) as output_dir:
            await run_batch(script(engines)[share::engines], output_dir, StreamSpeaker(engine.stream), jobs=JOBS)
        await engine.close()

    asyncio.run(speak())


def in_plain_loops(engines: int, folder: Path) -> float:
    """Returns the seconds of audio per second and engine."""
    command = [sys.executable, "-m", "bench.batch_on_ray", str(engines)]
    folders = [folder / str(share) for share in range(engines)]
    loops = [
        subprocess.Popen([*command, str(share), str(each)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for share, each in enumerate(folders)
    ]
    for loop in loops:
        assert loop.stdout is not None
        assert loop.stdout.readline() == "ready\n"
    for loop in loops:
        assert loop.stdin is not None
        loop.stdin.write("begin\n")
        loop.stdin.flush()
    for loop in loops:
        assert loop.wait() == 0
    return throughput([manifest(each) for each in folders])


def on_ray(engines: int, folder: Path) -> float:
    """Returns the seconds of audio per second and engine."""
    actors, items = Engines(engines, JOBS, options=tuple(OPTIONS.items())), script(engines)
    spoken: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def keep(progress: Progress, row: dict[str, str]) -> None:
        spoken[row["worker"]].append(json.loads(row["record"]))

    with connected(LOCAL):
        progress = run_on_ray(items, str(folder), actors, HowToSpeak(), keep)
    assert (progress.spoken, progress.failed) == (len(items), {})
    assert len(spoken) == engines, "an engine came up when all lines were taken"
    return throughput(list(spoken.values()))


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def throughput(by_engine: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Returns the seconds of audio per second and engine, of each engine's records."""
    lines = [[(ended_at_s(line) - line["wall_s"], ended_at_s(line), line["audio_s"]) for line in e] for e in by_engine]
    began_s = max(min(line_began_s for line_began_s, _, _ in each) for each in lines)
    ended_s = max(line_ended_s for each in lines for _, line_ended_s, _ in each)
    audio_s = sum(
        line_audio_s * max(0.0, line_ended_s - max(began_s, line_began_s)) / (line_ended_s - line_began_s)
        for each in lines
        for line_began_s, line_ended_s, line_audio_s in each
    )
    return float(audio_s / (ended_s - began_s) / len(by_engine))


def ended_at_s(line: dict[str, Any]) -> float:
    return datetime.fromisoformat(line["finished"]).timestamp()


def measure(repeats: int) -> None:
    with TemporaryDirectory() as folder:
        print(f"Ray, not counted: {on_ray(2, Path(folder)):.2f} s of audio per second and engine", file=sys.stderr)
    rows, figures = [], {}
    for engines in ENGINES:
        plain, ray = pairs(engines, repeats)
        share = statistics.median(each / other for each, other in zip(ray, plain, strict=True))
        rows.append((engines, statistics.median(plain), statistics.median(ray), round(share, 3)))
        figures[str(engines)] = {"plain_loop": plain, "ray": ray, "share": round(share, 3)}
    text = table(["engines", "plain loop", "Ray", f"median share of {repeats} pairs"], rows)
    text += f"\nSeconds of audio per second and engine. Goal of one engine: {GOAL}."
    publish("batch_on_ray", text, {"model": "tiny", **figures})


def pairs(engines: int, repeats: int) -> tuple[list[float], list[float]]:
    """Returns the speeds of plain loops and of Ray, which alternate, so that the machine's moods meet both."""
    speeds: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for way, kept in zip((in_plain_loops, on_ray), speeds, strict=True):
            with TemporaryDirectory() as folder:
                kept.append(way(engines, Path(folder)))
            print(
                f"{engines} engines, {way.__name__}: {kept[-1]:.2f} s of audio per second and engine", file=sys.stderr
            )
    return speeds


if __name__ == "__main__":  # a plain loop's process
    plain_loop(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
