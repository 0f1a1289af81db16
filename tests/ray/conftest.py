"""Tests of a batch on Ray; they run where `make test-ray` has installed it."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("ray") is None:
    collect_ignore_glob = ["test_*.py"]
