"""`python -m bench.batch --ray`: lines spoken by two engines of a Ray cluster, and by two plain loops without Ray.

On the shipped model, a thread for each engine. The plain loop is what `mynah batch` runs, on an engine in its own
process: two of them begin together, each with every second line. On Ray two actors share all lines. Each side is timed
from the moment at which both engines speak to its last line's end, so that neither counts loading; of a line that was
begun before, the share counts that was left of it. One run on Ray goes before and is not counted: it reads half a
gigabyte of Ray from the disk. Expected: Ray takes at most a twentieth of the throughput, for the
processes beside the engines and for handing out the lines.
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

ENGINES, JOBS, COPIES = 2, 8, 24
GOAL = 0.95
TEXTS = (
    "The old train leaves at seven, and the next one not before noon.", "Bring a warm coat!", "Why not?",
    "They had not seen the letter since the middle of June.", "It costs $5 now.", "Two of them came back the same way.",
    "The window was open, and the room was cold and empty.", "She read it twice, and then she put it away.",
)  # fmt: skip
OPTIONS = {"model": "tiny", "device": "cpu", "voices_dir": "memory", "log_level": "warning"}


def script() -> list[Item]:
    lines = [{"text": text, "name": f"{copy}-{number}"} for copy in range(COPIES) for number, text in enumerate(TEXTS)]
    return read_script([json.dumps(line) for line in lines])


def plain_loop(share: int, folder: Path) -> None:
    """The process of one loop: loads its engine, says so, and begins when a line comes in."""

    async def speak() -> None:
        engine = Engine(OPTIONS, JOBS, threads=1)
        await engine.open()
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        with OutputDir(folder) as output_dir:
            await run_batch(script()[share::ENGINES], output_dir, StreamSpeaker(engine.stream), jobs=JOBS)
        await engine.close()

    asyncio.run(speak())


def in_plain_loops(folder: Path) -> float:
    """Returns the seconds of audio per second and core."""
    command = [sys.executable, "-m", "bench.batch_on_ray"]
    folders = [folder / str(share) for share in range(ENGINES)]
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


def on_ray(folder: Path) -> float:
    """Returns the seconds of audio per second and core."""
    engines = Engines(ENGINES, JOBS, options=tuple(OPTIONS.items()))
    spoken: dict[str, list[dict[str, Any]]] = defaultdict(list)

    def keep(progress: Progress, row: dict[str, str]) -> None:
        spoken[row["worker"]].append(json.loads(row["record"]))

    with connected(LOCAL):
        progress = run_on_ray(script(), str(folder), engines, HowToSpeak(), keep)
    assert (progress.spoken, progress.failed) == (len(script()), {})
    assert len(spoken) == ENGINES, "an engine came up when all lines were taken"
    return throughput(list(spoken.values()))


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / MANIFEST).read_text().splitlines()]


def throughput(by_engine: Sequence[Sequence[dict[str, Any]]]) -> float:
    """Returns the seconds of audio per second and core, of each engine's records."""
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
    speeds: dict[str, list[float]] = {"plain loop": [], "Ray": []}
    with TemporaryDirectory() as folder:
        print(f"Ray, not counted: {on_ray(Path(folder)):.2f} s of audio per second and core", file=sys.stderr)
    for _ in range(repeats):  # alternating, so that the machine's moods meet both
        for name, way in (("plain loop", in_plain_loops), ("Ray", on_ray)):
            with TemporaryDirectory() as folder:
                speeds[name].append(way(Path(folder)))
                print(f"{name}: {speeds[name][-1]:.2f} s of audio per second and core", file=sys.stderr)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    share = statistics.median(ray / plain for plain, ray in zip(*speeds.values(), strict=True))
    text = table(["seconds of audio per second and core", "median"], list(medians.items()))
    text += f"\nRay over the plain loop, median of {repeats} pairs: {share:.3f} (goal {GOAL})"
    publish("batch_on_ray", text, {"model": "tiny", "engines": ENGINES, "speeds": speeds, "share": round(share, 3)})


if __name__ == "__main__":  # a plain loop's process
    plain_loop(int(sys.argv[1]), Path(sys.argv[2]))
