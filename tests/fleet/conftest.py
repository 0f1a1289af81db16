"""These tests run where `make test-fleet` has installed what they need, and are no part of `make test`."""

from __future__ import annotations

from tests.fleet.manifests import ROOT

if not (ROOT / "tests/fleet/node_modules/installed").exists():
    collect_ignore_glob = ["test_*.py"]
