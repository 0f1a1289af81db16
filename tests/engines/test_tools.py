"""`mynah-engines`: every command does its work at tiny size, and what cannot be done is a sentence and a status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engines import tools
from engines.s3gen.timing import Machine, roofline_ms

TINY = ("--model", "random:tiny", "--threads", "1")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(name: str) -> dict[str, object]:
    result: dict[str, object] = json.loads(Path(f"build/engines/{name}.json").read_text())
    return result


def test_unknown_command_lists_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["deploy"]) == 2
    assert "export | build | prepare | check | profile | bench" in capsys.readouterr().err


def test_check_compares_a_runtime_with_the_fp32_graphs(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["check", *TINY, "--runtime", "torch"]) == 0
    assert "torch fp32: passed" in capsys.readouterr().out
    assert read("check")["passed"] is True


def test_missing_provider_is_a_sentence_and_status_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["check", *TINY, "--providers", "cuda"]) == 1
    assert "no provider cuda" in capsys.readouterr().err


def test_bench_gives_percentiles_shares_and_a_roofline(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["bench", *TINY, "--repeats", "2", "--gflops", "100", "--windows", "hop25"]) == 0
    stages = read("bench")["stages"]
    assert isinstance(stages, dict)
    assert stages["flow-hop25"]["p50_ms"] <= stages["flow-hop25"]["p90_ms"]
    assert stages["flow-hop25"]["roofline_ms"] > 1000
    assert "A10G" in capsys.readouterr().out  # that its targets do not apply here


def test_profile_leaves_a_trace_per_stage() -> None:
    assert tools.main(["profile", *TINY, "--rows", "3", "--windows", "hop12"]) == 0
    traces = read("profile")["traces"]
    assert isinstance(traces, list)
    assert len(traces) == 2
    assert all(Path("build/engines", str(trace)).stat().st_size > 1000 for trace in traces)


def test_roofline_grows_with_rows_and_length_and_shrinks_with_speed() -> None:
    slow, fast = Machine("slow", 100.0), Machine("fast", 1000.0)
    assert roofline_ms("flow-hop25x8", slow) == pytest.approx(8 * roofline_ms("flow-hop25", slow))
    assert roofline_ms("flow-offline10s", slow) > roofline_ms("flow-hop25", slow)
    assert roofline_ms("vocoder-hop12", fast) == pytest.approx(roofline_ms("vocoder-hop12", slow) / 10)


def test_prepare_verifies_weights_and_the_second_time_only_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["prepare", "--model", "random:tiny", "--cache-dir", str(tmp_path), "--engines", "none"]
    assert tools.main(given) == 0
    assert "tiny in" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert before
    assert tools.main(given) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before


def test_prepare_refuses_weights_that_are_not_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["prepare", "--model", "random:tiny", "--cache-dir", str(tmp_path)]) == 0
    (weights,) = tmp_path.rglob("ve.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    assert tools.main(["prepare", "--model", str(weights.parent)]) == 1
    assert "ve.safetensors" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU to build for")
def test_prepare_says_when_there_is_no_gpu_to_build_engines_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert tools.main(["prepare", "--model", "random:tiny", "--engines", "here"]) == 1
    assert "CUDA" in capsys.readouterr().err
