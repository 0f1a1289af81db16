"""The GPU check: it goes on after a step that fails, crashes or hangs, and says so."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.gpu import __main__ as gpu
from bench.gpu.results import FILE, Recorder, read, table
from engines.model_spec import TINY
from engines.planning.stages import Window
from engines.s3gen.gpu.cuda import CudaDevice
from tests.engines.s3gen.gpu.simulated_cuda import SimulatedCuda

ROOT = Path(__file__).parents[2]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What each step's process does, a real one: "crashes", "hangs", "raises", "finds a fault"; else it measures."""
    outcomes: dict[str, Any] = {}

    def run(step: str, record: Recorder, device: str, model: str, out: Path) -> None:
        outcome = outcomes.get(step)
        print("said by the step")
        if outcome == "hangs":
            child = subprocess.Popen(["sleep", "1000"])
            record.measured("child", child.pid, "")
            signal.pause()
        if outcome == "crashes":
            os.kill(os.getpid(), signal.SIGKILL)
        if isinstance(outcome, signal.Signals):  # somebody ends the check
            os.kill(os.getppid(), outcome)
            signal.pause()
        if outcome == "loses the folder":
            shutil.rmtree(out)
            os.kill(os.getpid(), signal.SIGKILL)
        if outcome == "raises":
            raise RuntimeError("CUDA error: an illegal memory access")
        if outcome == "finds a fault":
            record.check("parity", False, "off by 3")
        else:
            record.measured("speed", 1.5, "ms", planned=1.0)

    monkeypatch.setattr(gpu.steps, "run", run)
    return outcomes


def test_every_step_runs_whatever_the_others_do(
    steps: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gpu.main(["--out", str(tmp_path)]) == 0
    assert {result.step for result in read(tmp_path)} == set(gpu.STEPS)
    steps |= {"driver": "crashes", "vllm": "raises", "t3": "hangs", "s3gen": "finds a fault"}
    monkeypatch.setitem(gpu.STEPS, "t3", 1e-3)
    monkeypatch.setattr(gpu, "_LEAST_S", 0.1)
    assert gpu.main(["--out", str(tmp_path)]) == 1
    failed = {result.step: result.note for result in read(tmp_path) if result.status == "FAILED"}
    assert failed.keys() == {"driver", "vllm", "t3", "s3gen"}
    assert "-9" in failed["driver"]
    assert "illegal memory access" in failed["vllm"]
    assert "illegal memory access" in (tmp_path / "vllm.log").read_text()
    assert "said by the step" in (tmp_path / "facts.log").read_text()
    assert "longer than" in failed["t3"]
    assert {result.step for result in read(tmp_path)} == set(gpu.STEPS)
    assert "4 failed" in capsys.readouterr().out
    for result in read(tmp_path):
        if result.name == "child":  # the child of a step that hangs ends with it
            status = Path(f"/proc/{result.value:.0f}/status")
            assert not status.exists() or "zombie" in status.read_text()


def test_steps_without_time_are_named(steps: dict[str, Any], tmp_path: Path) -> None:
    assert gpu.main(["--out", str(tmp_path), "--budget", "5"]) == 1
    assert [result.note for result in read(tmp_path)] == ["the budget is spent"] * len(gpu.STEPS)


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_check_ends_its_step_and_shows_what_it_has(
    ends: signal.Signals, steps: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handler = signal.getsignal(ends)
    steps["driver"] = ends
    assert gpu.main(["--out", str(tmp_path)]) == 128 + ends
    assert not multiprocessing.active_children()
    assert [result.step for result in read(tmp_path)] == ["facts"]
    shown = capfd.readouterr()
    assert "1 results, 0 failed" in shown.out
    assert f"interrupted by {ends.name}" in shown.err
    assert signal.getsignal(ends) == handler


def test_a_folder_that_cannot_be_written_is_named(
    steps: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "below"):
        with pytest.raises(SystemExit, match="2"):
            gpu.main(["--out", str(folder)])
        assert f"The folder {folder} cannot be written" in capfd.readouterr().err
    steps["driver"] = "loses the folder"
    assert gpu.main(["--out", str(tmp_path / "results")]) == 1
    assert "cannot be written: No such file or directory. Name one" in capfd.readouterr().err


def test_a_folder_holds_one_check(steps: dict[str, Any], tmp_path: Path) -> None:
    gpu.main(["--out", str(tmp_path)])
    (tmp_path / "trace-vocoder.json.gz").touch()
    (tmp_path / "cache").mkdir()
    gpu.main(["--out", str(tmp_path), "--only", "facts"])
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "facts.log", "gpu.jsonl", "gpu.txt"}
    assert (tmp_path / "gpu.txt").read_text().startswith("facts")


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        *[("--budget", value, "must be a number above 0") for value in ("nan", "inf", "-5", "0", "x")],
        *[("--patience", value, "must be a number above 0") for value in ("nan", "0")],
        *[("--device", value, "it must be cuda, cuda:N or cpu") for value in ("gpu", "cuda:x", "mps", "auto")],
    ],
)
def test_wrong_arguments_end_with_status_2_and_what_is_allowed(
    flag: str, value: str, allowed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        gpu.main(["--out", str(tmp_path), flag, value])
    assert allowed in capsys.readouterr().err


def test_a_machine_without_torch_is_asked_to_install_it() -> None:
    code = "import sys; sys.modules['torch'] = None; import runpy; runpy.run_module('bench.gpu', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The check needs torch, safetensors and tokenizers, and torch is not installed.")


def test_a_line_behind_one_that_was_cut_off_is_kept(tmp_path: Path) -> None:
    """Else a failed check would be lost, and the exit status would be 0."""
    (tmp_path / FILE).write_text('{"step": "t3"')
    Recorder(tmp_path, "t3").check("parity", False)
    Recorder(tmp_path, "vllm").check("parity", True)
    assert [result.step for result in read(tmp_path)] == ["t3", "vllm"]


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


def test_what_is_not_installed_or_not_there_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that need a GPU or one of its libraries, in this process."""
    from bench.gpu import steps as real
    from engines.t3.vllm import backend

    monkeypatch.setattr(backend, "installed", lambda: False)
    for step in ("driver", "vllm", "tensorrt"):
        real.run(step, Recorder(tmp_path, step), "cpu", "random:tiny", tmp_path)
    assert [result.status for result in read(tmp_path)] == ["absent"] * 4


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_machine_without_a_gpu_is_a_failed_check(tmp_path: Path) -> None:
    from bench.gpu import steps as real

    real.run("t3", Recorder(tmp_path, "t3"), "cuda", "random:tiny", tmp_path)
    assert [(result.name, result.status) for result in read(tmp_path)] == [("gpu", "FAILED")]


@pytest.mark.parametrize(("t3", "s3gen"), [("torch", "torch"), ("torch_graphs", "torch_graphs"), ("vllm", "tensorrt")])
def test_a_gpu_of_the_table_has_planned_figures(
    t3: str, s3gen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.gpu.steps import Machine

    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")
    monkeypatch.setattr(Machine, "checkpoint", lambda self: SimpleNamespace(spec=TINY))
    times = Machine("cuda", "tiny", tmp_path).planned(t3, s3gen)
    assert times is not None
    assert times.t3_step_ms(1) < times.t3_step_ms(32)
    assert times.window_ms(Window(263, 40), 1) > 0
    assert Machine("cuda", "tiny", tmp_path).planned("torch-int8", s3gen) is None
    assert Machine("cuda", "tiny", tmp_path).planned(t3, "onnx") is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce GTX 1080")
    assert Machine("cuda", "tiny", tmp_path).planned(t3, s3gen) is None
    assert Machine("cpu", "tiny", tmp_path).planned(t3, s3gen) is None


def test_batches_on_the_driver_get_their_own_numbers_back() -> None:
    """The step's own check, on a simulated device; and on one that does not wait for its copies."""
    from bench.gpu.driver import double_buffer

    assert double_buffer(CudaDevice(runtime=SimulatedCuda(1))).startswith("27 batches replayed")
    careless = CudaDevice(runtime=SimulatedCuda(1))
    careless.wait = lambda stream, event: None  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="other numbers"):
        double_buffer(careless)


def test_a_machine_with_torch_alone_has_what_the_steps_import() -> None:
    """As `make gpu-rehearsal`, which runs them there."""
    bare = Path(__file__).with_name("bare")
    lines = [
        "import importlib",
        "for name in ('av', 'gradio', 'vllm', 'tensorrt', 'riva', 'onnx', 'soxr'):",
        "    assert not importlib.util.find_spec(name)",
        "import engines.factory",
        *(f"import bench.gpu.{path.stem}" for path in sorted((ROOT / "bench/gpu").glob("[a-z]*.py"))),
    ]
    code = "\n".join(["import importlib.util", *lines])
    paths = os.pathsep.join([str(bare), str(ROOT), str(ROOT / "protos")])
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths}, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
