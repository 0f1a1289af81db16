"""These tests run in `make test-fleet` alone: they need root, network namespaces and tools of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fleet.manifests import ROOT


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked_for = any("fleet" in argument for argument in config.args)
    installed = (ROOT / "tests/fleet/node_modules/installed").exists()
    return True if collection_path.name.startswith("test_") and not (asked_for and installed) else None
