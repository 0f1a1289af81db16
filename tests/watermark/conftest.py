"""The real watermark; these tests run where `make test-watermark` has put its package."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("perth") is None:
    collect_ignore_glob = ["test_*.py"]
