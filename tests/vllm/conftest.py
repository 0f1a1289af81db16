"""Tests that start vLLM run in the environment of `make test-vllm`, the others anywhere."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

# vLLM's CPU attention imports a package that has no wheel for this torch; cpu_attention replaces it in tests
sys.path.insert(0, str(Path(__file__).parent / "cpu_attention"))

if importlib.util.find_spec("vllm") is None:
    collect_ignore = ["test_engine.py", "test_backend.py", "test_parity.py", "test_speech.py"]
else:
    torch.set_num_threads(1)  # at these sizes a second thread only waits for the first
