"""Tests that start vLLM run in `make test-vllm` only, the others in `make test` too.

An engine changes its process (threads, logging, the environment), so that it shares one with nothing else.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

# vLLM's CPU attention imports a package that has no wheel for this torch; cpu_attention replaces it in tests
sys.path.insert(0, str(Path(__file__).parent / "cpu_attention"))

_START_VLLM = (
    "test_engine.py", "test_backend.py", "test_parity.py", "test_speech.py", "test_t3_parity_check.py", "test_words.py",
    "test_gpu_check.py", "test_lent_net.py", "test_lane_engine.py", "test_lane_backend.py",
)  # fmt: skip


def _asked_for(config: pytest.Config) -> bool:
    return importlib.util.find_spec("vllm") is not None and any("vllm" in argument for argument in config.args)


def pytest_configure(config: pytest.Config) -> None:
    if _asked_for(config):
        torch.set_num_threads(1)  # at these sizes a second thread only waits for the first


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in _START_VLLM and not _asked_for(config) else None
