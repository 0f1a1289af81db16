"""Tests of `mynah-engines`: every command at tiny size, and failures as a sentence with an exit status."""

from __future__ import annotations

import asyncio
import fcntl
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from engines.factory import build_engine
from engines.model_spec import TINY as TINY_SPEC
from engines.pipeline import Pipeline
from engines.t3.local_backend import LocalT3Backend
from engines.tools import cli, goals, validate
from engines.tools.engine_times import t3_backend_call
from engines.tools.s3gen_times import WINDOWS, Machine, roofline_ms
from engines.tools.torch_profiler import profiled
from engines.tools.validate import FAILED, NAMES, Checklist
from tests.engines.t3 import setting

TINY = ("--model", "random:tiny", "--threads", "1")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads(Path(f"build/engines/{name}.json").read_text())
    return result


def test_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy"]) == 2
    assert "export | build | prepare | check | profile | bench | plan | validate" in capsys.readouterr().err


def test_check_compares_a_runtime_with_the_fp32_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    runbook = (Path(__file__).parents[3] / "docs/operations.md").read_text()
    (command,) = re.findall(r"^mynah-engines (check .+)$", runbook, re.MULTILINE)
    assert cli.main([*command.split(), "--threads", "1"]) == 0
    assert "torch fp32: passed" in capsys.readouterr().out
    assert read("check")["passed"] is True


def test_missing_provider_is_a_sentence_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *TINY, "--providers", "cuda"]) == 1
    assert "no provider cuda" in capsys.readouterr().err


def test_export_writes_s3gens_graphs_and_t3s(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", "--model", "random:tiny", "--graphs", "encoder", "--threads", "1", "--t3", "fp32"]) == 0
    shown = capsys.readouterr().out
    for name in ("encoder", "blocks", "head"):
        assert name in shown
    assert "logit_error" in shown


def test_bench_reports_every_stage_with_share_bucket_and_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *TINY, "--repeats", "2", "--gflops", "100", "--windows", "hop12"]) == 0
    rows = read("bench")["rows"]
    assert isinstance(rows, list)
    assert [row["stage"] for row in rows] == ["T3, 12 tokens", "encoder", "cfm", "vocoder"]
    assert {row["bucket"] for row in rows} == {"one"}
    assert all(row["timed"]["p50_ms"] <= row["timed"]["p90_ms"] for row in rows)
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    measured = read("bench")["measured"]
    assert isinstance(measured, dict)
    assert measured["pipeline, ms"] > 0
    shown = capsys.readouterr().out
    assert "no verdict" in shown, "the A10G's goals do not apply here"
    assert "conditioning" in shown


@pytest.mark.parametrize(("t3_ms", "missed"), [(80.0, []), (80.1, ["T3, ms"])])
def test_goals_are_judged_on_a_gpu_alone(t3_ms: float, missed: list[str]) -> None:
    measured = {"S3Gen, ms": 20.0, "T3, ms": t3_ms, "pipeline, ms": 300.0, "peak memory, GB": 10.0}
    assert goals.missed(measured, "cuda:0") == missed
    assert goals.missed(measured, "cpu") == []


def test_the_checklist_has_a_line_for_each_point(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", *TINY, "--repeats", "1", "--max-streams", "4"]) == 0
    shown = capsys.readouterr().out.splitlines()
    lines = {name: line for name in NAMES for line in shown if line.startswith(name)}
    assert list(lines) == list(NAMES)
    assert {name for name, line in lines.items() if line[len("valid audio") :].split()[0] == "absent"} == {
        "latency",
        "memory",
    }
    assert "judged on a GPU" in lines["latency"]
    assert "differ by at most" in lines["batch"]
    assert "off by 0 " not in lines["quality"], "it was compared with itself"
    assert not any(FAILED in line for line in shown)


def test_a_failed_line_of_the_checklist_leaves_the_others_and_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Silent(Pipeline):
        async def open(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("no stream opens")

    monkeypatch.setattr(validate, "build_engine", lambda config: _as(Silent, build_engine(config)))
    monkeypatch.setattr(Checklist, "_build", lambda self: (None, "not this time"))
    assert cli.main(["validate", *TINY, "--repeats", "1"]) == 1
    lines = {line["name"]: line["status"] for line in read("validate")["lines"]}  # type: ignore[attr-defined]
    assert lines["loads"] == lines["builds"] == lines["quality"] == "passed"
    assert lines["valid audio"] == lines["streaming"] == lines["batch"] == FAILED
    assert "no stream opens" in capsys.readouterr().out


def test_an_engine_that_does_not_load_fails_all_that_need_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--model", "absent/folder"]) == 1
    shown = capsys.readouterr().out
    assert shown.count(FAILED) == len(NAMES)
    assert "does not load" in shown


def _as(kind: type[Pipeline], engine: Pipeline) -> Pipeline:
    engine.__class__ = kind
    return engine


def test_bench_does_not_fall_back_to_another_runtime(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *TINY, "--s3gen", "onnx", "--providers", "cuda"]) == 1
    assert "no provider cuda" in capsys.readouterr().err


def test_profile_leaves_a_trace_and_a_peak_per_stage() -> None:
    assert cli.main(["profile", *TINY, "--rows", "3", "--windows", "hop12"]) == 0
    peaks, traces = read("profile")["peak_memory"], read("profile")["traces"]
    assert isinstance(peaks, dict)
    assert isinstance(traces, list)
    stages = ["encoder-hop12", "cfm-hop12", "vocoder-hop12", "t3-prefill", "t3-step", "conditioning"]
    assert list(peaks) == stages
    assert all(peak["host_mb"] > 50 for peak in peaks.values())
    assert all(Path("build/engines", str(trace)).stat().st_size > 1000 for trace in traces)
    assert {"cfm-hop12", "S3Gen cfm on torch"} <= ranges("cfm-hop12")


def ranges(name: str) -> set[str]:
    """The names of the ranges in a trace."""
    trace = json.loads(Path(f"build/engines/profile-{name}.json").read_text())
    return {event["name"] for event in trace["traceEvents"] if event.get("cat") == "user_annotation"}


def test_profile_names_the_runtimes_that_are_not_here(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rows", "1", "--windows", "hop12", "--runtimes", "torch_graphs", "tensorrt", "onnx"]
    assert cli.main(["profile", *TINY, *arguments]) == 0
    made = read("profile")
    assert isinstance(made["peak_memory"], dict)
    assert list(made["peak_memory"]) == [f"onnx-{stage}-hop12" for stage in ("encoder", "cfm", "vocoder")]
    assert isinstance(made["absent"], dict)
    if not torch.cuda.is_available():
        assert list(made["absent"]) == ["torch_graphs", "tensorrt"]
        assert "tensorrt: absent: " in capsys.readouterr().out
    assert "S3Gen vocoder on onnx" in ranges("onnx-vocoder-hop12")


def test_the_steps_of_a_backends_own_thread_are_ranges_of_a_trace(tmp_path: Path) -> None:
    """As vLLM's: its steps run on another thread than the profiler's."""
    backend = LocalT3Backend(setting.net(), setting.limits())
    decoder = backend._steps._loop._decoder
    with t3_backend_call(backend, decoder, setting.voice(1)) as call:
        profiled(call, tmp_path / "trace.json", 3, "first tokens")
    asyncio.run(backend.close())
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    steps = [e for e in events if e["name"] == "T3 step on torch" and e.get("cat") == "user_annotation"]
    (whole,) = [e for e in events if e["name"] == "first tokens" and e.get("cat") == "user_annotation"]
    assert len(steps) >= 2
    assert {step["tid"] for step in steps} != {whole["tid"]}


def test_roofline_grows_with_rows_and_length_and_shrinks_with_speed() -> None:
    slow, fast = Machine("slow", 100.0, 10.0), Machine("fast", 1000.0, 10.0)
    one, many, long, short = (WINDOWS[name] for name in ("hop25", "hop25x8", "offline10s", "hop12"))
    assert 7 < roofline_ms("cfm", many, slow, TINY_SPEC) / roofline_ms("cfm", one, slow, TINY_SPEC) <= 8
    assert roofline_ms("encoder", long, slow, TINY_SPEC) > roofline_ms("encoder", one, slow, TINY_SPEC)
    assert roofline_ms("vocoder", short, fast, TINY_SPEC) == pytest.approx(
        roofline_ms("vocoder", short, slow, TINY_SPEC) / 10
    )


def test_prepare_verifies_weights_and_changes_nothing_the_second_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["prepare", "--model", "random:tiny", "--cache-dir", str(tmp_path), "--engines", "none"]
    assert cli.main(arguments) == 0
    assert "tiny in" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert before
    assert cli.main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_prepare_takes_the_models_of_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "--model", "tiny, noise=random:tiny", "--cache-dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("verified") == 2


def test_prepare_waits_for_another_process_that_prepares_the_same_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pods on one volume start together: one downloads, the others find everything in place."""
    arguments = ["prepare", "--model", "random:tiny", "--cache-dir", str(tmp_path), "--engines", "none"]
    with ThreadPoolExecutor(1) as other:
        with (tmp_path / "prepare.lock").open("w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            waiting = other.submit(cli.main, arguments)
            while "waiting: another process prepares" not in capsys.readouterr().out:
                assert not waiting.done()
            assert not list(tmp_path.rglob("*.safetensors"))
        assert waiting.result() == 0
    assert list(tmp_path.rglob("*.safetensors"))


def test_prepare_refuses_a_truncated_weights_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "--model", "random:tiny", "--cache-dir", str(tmp_path)]) == 0
    (weights,) = tmp_path.rglob("ve.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    assert cli.main(["prepare", "--model", str(weights.parent)]) == 1
    assert "ve.safetensors" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU to build for")
def test_prepare_reports_a_missing_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["prepare", "--model", "random:tiny", "--engines", "here"]) == 1
    assert "CUDA" in capsys.readouterr().err


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main([command, "--help"])
    assert f"usage: mynah-engines {command}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        *(f"bench --repeats {value}" for value in ("0", "-1", "1.5")),
        *(f"bench --gflops {value}" for value in ("0", "nan", "inf")),
        "validate --repeats 0",
        "profile --rows 0",
        "build --workspace-mb 0",
        "export --threads 0",
        *(f"plan --gpu l4 --streams {value}" for value in ("0", "x")),
        *(f"plan --gpu l4 --usd-per-hour {value}" for value in ("-1", "nan", "inf", "x")),
    ],
)
def test_a_number_that_is_not_allowed_is_named_before_anything_is_loaded(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(wrong.split())
    flag, value = wrong.split()[-2:]
    assert f"argument {flag}: it is {value!r}; it must be a " in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["build --arch 86", "prepare --engines 86"])
def test_an_architecture_that_is_none_is_named_with_what_is_allowed(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(wrong.split())
    assert "architecture is '86'; it must be sm and the compute capability's digits" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "build").touch()
    assert cli.main(["profile", "--model", "random:tiny"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mynah-engines profile: build/engines cannot be read or written: Not a directory.")
    assert said.count("\n") == 1


def test_help_is_printed_and_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr()
    assert "validate" in shown.out
    assert not shown.err
