"""The GPU check: it goes on after a step that fails, crashes or hangs, and says so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu.results import FILE, Recorder, read, table


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each step's process does: a status, or an exception."""
    outcomes: dict[str, Any] = {}

    def run(command: list[str], timeout: float, **_: Any) -> Any:
        step, folder = command[command.index("--step") + 1], Path(command[command.index("--out") + 1])
        outcome = outcomes.get(step, 0)
        if outcome == "hangs":
            raise subprocess.TimeoutExpired(command, timeout)
        recorder = Recorder(folder, step)
        if outcome == "finds a fault":
            recorder.check("parity", False, "off by 3")
        else:
            recorder.measured("speed", 1.5, "ms", planned=1.0)
        return subprocess.CompletedProcess(command, outcome if isinstance(outcome, int) else 0)

    monkeypatch.setattr(gpu.subprocess, "run", run)
    return outcomes


def test_every_step_runs_whatever_the_others_do(
    steps: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert {result.step for result in read(tmp_path)} == set(gpu.STEPS)
    steps |= {"driver": -11, "t3": "hangs", "s3gen": "finds a fault"}
    assert gpu.main(["--out", str(tmp_path)]) == 1
    failed = {result.step: result.note for result in read(tmp_path) if result.status == "FAILED"}
    assert failed.keys() == {"driver", "t3", "s3gen"}
    assert "-11" in failed["driver"]
    assert "longer than" in failed["t3"]
    assert {result.step for result in read(tmp_path)} == set(gpu.STEPS)
    assert "3 failed" in capsys.readouterr().out


def test_steps_without_time_are_named(steps: dict[str, Any], tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path), "--budget", "5"]) == 1
    assert [result.note for result in read(tmp_path)] == ["the budget is spent"] * len(gpu.STEPS)


def test_a_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    Recorder(tmp_path, "facts").measured("cores", 2, "")
    with (tmp_path / FILE).open("a") as file:
        file.write(json.dumps({"step": "t3"})[:9])
    results = list(read(tmp_path))
    assert [result.name for result in results] == ["cores"]
    assert "cores" in table(results)


def test_an_attempt_that_raises_is_a_failed_check(tmp_path: Path) -> None:
    def raises() -> str:
        raise RuntimeError("CUDA out of memory")

    Recorder(tmp_path, "t3").attempt("prefill", raises)
    (result,) = read(tmp_path)
    assert (result.status, result.note) == ("FAILED", "RuntimeError: CUDA out of memory")


def test_what_is_not_installed_or_not_there_is_absent(tmp_path: Path) -> None:
    """The steps that need a GPU or one of its libraries, in this process."""
    from bench.gpu import steps as real

    for step in ("driver", "vllm", "tensorrt"):
        real.run(step, Recorder(tmp_path, step), "cpu", "random:tiny", tmp_path)
    assert [result.status for result in read(tmp_path)] == ["absent"] * 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_a_failed_check(tmp_path: Path) -> None:
    from bench.gpu import steps as real

    real.run("t3", Recorder(tmp_path, "t3"), "cuda", "random:tiny", tmp_path)
    assert [(result.name, result.status) for result in read(tmp_path)] == [("gpu", "FAILED")]
