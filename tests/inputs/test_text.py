"""Texts that people really send, on the shipped model: what is spoken, skipped or refused, on each surface."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.inputs.surfaces import Shipped, call, shipped
from tests.inputs.text_cases import Case, rows

ROWS = tuple(rows())


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def at(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    folder: Path = tmp_path_factory.mktemp("inputs")
    serving = shipped(folder)
    yield runner.run(serving.__aenter__())
    runner.run(serving.__aexit__(None, None, None))


def test_the_table_has_at_least_90_rows() -> None:
    assert len(ROWS) >= 90
    assert len({(surface, case.text, str(case.settings)) for surface, case in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("surface", "case"), ROWS, ids=[f"{surface}-{ascii(case.text)[:40]}" for surface, case in ROWS]
)
def test_a_text_has_its_right_value(runner: asyncio.Runner, at: Shipped, surface: str, case: Case) -> None:
    result = runner.run(call(at, surface, case.text, case.settings))
    assert result.error == case.error
    if case.error:
        assert result.audio_bytes == 0
        return
    assert (result.audio_bytes > 0) == bool(case.spoken)
    if result.told_segments:
        assert (tuple(result.spoken), tuple(result.skipped)) == (case.spoken, case.skipped)
