"""A server process's parts on the shipped model, one for each module, in a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.inputs.surfaces import Shipped, shipped


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def at(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    serving = shipped(tmp_path_factory.mktemp("inputs"))
    yield runner.run(serving.__aenter__())
    runner.run(serving.__aexit__(None, None, None))
