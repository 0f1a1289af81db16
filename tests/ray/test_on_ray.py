"""The shipped model on two engines of a Ray cluster of this machine makes the bytes of `mynah batch`.

A worker is killed in the middle and a run is cut off: nothing is lost and nothing spoken twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

import engines
import mynah
from engines.config import EngineConfig
from mynah.batch.ray import Engines, HowToSpeak
from mynah.batch.ray_run import LOCAL, connected, run_on_ray
from mynah.batch.run import Progress
from mynah.batch.script import Item, read_script
from mynah.batch.store import open_store
from mynah.cli.commands import execute
from mynah.cli.main import parser
from service.config import build_config
from service.server import Server

TEXTS = [
    "The old train leaves at seven.", "Bring a warm coat!", "Nobody had seen the letter since June.",
    "It costs $5 now.", "Two of them came back.", "The door was open, and the room was cold.", "Why not?",
    "She read it twice.", "A small dog slept under the table.", "We can meet on 3 May.", "That is all.", "Good night.",
]  # fmt: skip
LINES = [json.dumps({"text": text, "name": f"line-{number}"}) for number, text in enumerate(TEXTS * 2)]
TINY = (("model", "tiny"), ("device", "cpu"), ("voices_dir", "memory"), ("log_level", "warning"))
TWO = Engines(count=2, jobs=4, options=TINY)
pytestmark = pytest.mark.timeout(1200)  # Ray's processes start slowly on a busy machine


class Cut(BaseException):
    """The driver ends here."""


@pytest.fixture(scope="module")
def script() -> list[Item]:
    return read_script(LINES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What `mynah batch` makes of the script, with a server on the same model."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "script.jsonl").write_text("\n".join(LINES))

    async def run() -> None:
        engine = engines.load(EngineConfig(model="tiny", device="cpu", threads=1, strict_reference=True, max_batch=1))
        server = Server(engine, build_config(listen="127.0.0.1:0", voices_dir="memory"))
        address = await server.start()
        await server.warm_up()
        script, out = str(folder / "script.jsonl"), str(folder / "out")
        await execute(parser().parse_args(["--server", address, "batch", script, "-o", out, "--jobs", "5", "--quiet"]))
        await server.stop(0)

    asyncio.run(run())
    return audio(folder / "out")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, whatever this machine has."""
    with connected(LOCAL, cpus=2):
        yield ray.get_runtime_context().gcs_address


def audio(folder: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in folder.glob("*.wav")}


def listed(folder: Path) -> Counter[str]:
    return Counter(json.loads(line)["name"] for line in (folder / "manifest.jsonl").read_text().splitlines())


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_and_a_run_that_is_cut_off_lose_and_double_nothing(
    script: list[Item], plain: dict[str, bytes], tmp_path: Path
):
    output, how = f"file://{tmp_path}/out", HowToSpeak()  # as a bucket, which has neither locks nor appends
    done: list[dict[str, str]] = []

    def kill_the_first(progress: Progress, row: dict[str, str]) -> None:
        done.append(row)
        if len(done) == 1:
            os.kill(int(row["worker"].rpartition(":")[2]), signal.SIGKILL)
        if len(done) == 16:
            raise Cut

    with pytest.raises(Cut):
        run_on_ray(script, output, TWO, how, kill_the_first)
    victim = done[0]["worker"]
    others = Counter(row["worker"] for row in done if row["worker"] != victim)
    assert others, "another engine has gone on"
    assert not any(row["error"] for row in done)
    assert len({row["name"] for row in done}) == len(done)
    spoken = audio(tmp_path / "out")
    assert all(plain[name] == data for name, data in spoken.items()), "what was there at the cut is whole"

    again: list[str] = []
    progress = run_on_ray(script, output, TWO, how, lambda _, row: again.append(row["name"]))
    assert progress.already >= 16
    assert not set(again) & set(spoken)
    assert (progress.finished, progress.failed) == (len(script), {})
    assert audio(tmp_path / "out") == plain
    assert listed(tmp_path / "out") == Counter(item.name for item in script)
    assert run_on_ray(script, output, TWO, how).already == len(script)


@pytest.mark.usefixtures("cluster")
def test_a_line_that_fails_is_reported_and_an_engine_that_cannot_be_made_ends_the_run(tmp_path: Path):
    output, how = str(tmp_path / "out"), HowToSpeak()
    lines = read_script(['{"text": "Fine.", "name": "fine"}', '{"text": "Not.", "name": "not", "voice": "nowhere"}'])
    wrong = Engines(count=1, jobs=2, options=(*TINY, ("decode", "fast")))
    with pytest.raises(mynah.ServerError, match=r"MYNAH_DECODE is 'fast'; it must be .*Run the same command") as raised:
        run_on_ray(lines, output, wrong, how)
    assert raised.value.reason == "OPTION_INVALID"
    progress = run_on_ray(lines, output, Engines(count=1, jobs=2, options=TINY), how)
    assert (progress.spoken, progress.failed["not"].reason) == (1, "VOICE_NOT_FOUND")
    store = open_store(output)
    assert json.loads(store.read("failed.jsonl"))["name"] == "not"
    assert set(store.sizes()) == {".lock", "failed.jsonl", "fine.wav", "manifest.jsonl"}


def test_the_command_speaks_on_a_cluster(cluster: str, plain: dict[str, bytes], tmp_path: Path):
    (tmp_path / "script.jsonl").write_text("\n".join(LINES[:4]))
    options = [f"--engine={name}={value}" for name, value in TINY]
    command = [sys.executable, "-m", "mynah", "batch", f"file://{tmp_path}/script.jsonl", "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--ray", cluster, "--workers", "1", *options], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr
    line = done.stderr.splitlines()[-1]  # Ray's core may write lines before it
    assert line.startswith("mynah: 4 lines spoken, ")
    assert line.endswith(f"{tmp_path}/out/manifest.jsonl")
    assert audio(tmp_path / "out") == {f"line-{number}": plain[f"line-{number}"] for number in range(4)}
