"""These tests run where `make test-fleet` has installed their tools; `make test` does not include them."""

from __future__ import annotations

from tests.fleet.manifests import ROOT

if not (ROOT / "tests/fleet/node_modules/installed").exists():
    collect_ignore_glob = ["test_*.py"]
