"""`make test` on two workers: the tests of a file share what takes long to make."""

from __future__ import annotations

import os

import pytest


def test_the_tests_of_a_file_run_in_one_worker(request: pytest.FixtureRequest) -> None:
    """pytest-xdist writes a test's group behind its name, unless it does not know this pytest."""
    on_workers = "PYTEST_XDIST_WORKER" in os.environ
    assert request.node.nodeid.endswith("@tests/test_workers.py") == on_workers
