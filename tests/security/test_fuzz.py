"""A short run of each fuzzer. `make fuzz` runs them for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    "target", ["http", "websocket", "multipart", "body", "grpc_messages", "frames", "text", "spoken_text"]
)
def test_a_short_run_finds_nothing(target: str, tmp_path: Path):
    bounds = ["-runs=500", "-max_total_time=20", "-max_len=2000", "-rss_limit_mb=0"]
    command = [sys.executable, "-m", "tests.security.fuzz", target, *bounds, f"-artifact_prefix={tmp_path}/"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done " in done.stderr


def test_a_run_ends_after_its_cpu_time(tmp_path: Path):
    command = [sys.executable, "-m", "tests.security.fuzz", "text", "-max_cpu_time=0.1", "-rss_limit_mb=0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "protos")])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "CPU seconds" in done.stderr
