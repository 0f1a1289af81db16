"""Tests of the real watermark; they run where `make test-watermark` has installed its package."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("perth") is None:
    collect_ignore_glob = ["test_*.py"]
