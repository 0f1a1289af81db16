"""These tests run in `make test-packages` alone: they build the distributions and install them from the index."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packages.clean_environment import build_wheel


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked_for = any("packages" in argument for argument in config.args)
    return True if collection_path.name.startswith("test_") and not asked_for else None


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("packages")


@pytest.fixture(scope="session")
def client(folder: Path) -> Path:
    return build_wheel("protos", folder)


@pytest.fixture(scope="session")
def server(folder: Path) -> Path:
    return build_wheel(".", folder)
