"""Tests of `mynah-engines`: every command at tiny size, and failures as a sentence with an exit status."""

from __future__ import annotations

import fcntl
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from engines.tools import cli
from engines.tools.s3gen_times import WINDOWS, Machine, TimedWindow, roofline_ms

TINY = ("--model", "random:tiny", "--threads", "1")


@pytest.fixture(autouse=True)
def in_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads(Path(f"build/engines/{name}.json").read_text())
    return result


def test_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["deploy"]) == 2
    assert "export | build | prepare | check | profile | bench" in capsys.readouterr().err


def test_check_compares_a_runtime_with_the_fp32_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", *TINY, "--runtime", "torch"]) == 0
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


def test_roofline_grows_with_rows_and_length_and_shrinks_with_speed() -> None:
    slow, fast = Machine("slow", 100.0, 10.0), Machine("fast", 1000.0, 10.0)
    one, many, long, short = (WINDOWS[name] for name in ("hop25", "hop25x8", "offline10s", "hop12"))
    assert roofline_ms("cfm", many, slow) == pytest.approx(8 * roofline_ms("cfm", one, slow))
    assert roofline_ms("encoder", long, slow) > roofline_ms("encoder", one, slow)
    assert roofline_ms("vocoder", short, fast) == pytest.approx(roofline_ms("vocoder", short, slow) / 10)


@pytest.mark.parametrize(("tokens", "gflop"), [(275, 252.7), (350, 348.4), (500, 573)])
def test_roofline_matches_the_counted_operations(tokens: int, gflop: float) -> None:
    window = TimedWindow(1, 25, tokens - 250, 50)
    fitted = sum(roofline_ms(stage, window, Machine("unit", 1000.0, 1.0)) for stage in ("encoder", "cfm"))
    assert fitted == pytest.approx(gflop, rel=0.02)


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
