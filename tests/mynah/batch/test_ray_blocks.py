"""How a batch is cut for the engines of a Ray cluster: without Ray, for all sizes."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mynah.batch.ray_blocks import Blocks, blocks_of

ROWS_OF_RAY = 16  # of one block, at once
lines, engines, jobs = st.integers(1, 20_000), st.integers(1, 64), st.integers(1, 512)


@given(lines, engines, jobs)
def test_every_block_has_lines_and_no_more_than_are_spoken_at_once(lines: int, engines: int, jobs: int):
    blocks = blocks_of(lines, engines, jobs)
    assert 1 <= blocks.count <= lines
    assert math.ceil(lines / blocks.count) <= ROWS_OF_RAY
    assert 1 <= blocks.at_once <= blocks.count


@given(lines, engines, jobs)
def test_the_last_engine_finds_lines_left(lines: int, engines: int, jobs: int):
    blocks = blocks_of(lines, engines, jobs)
    if lines >= engines:
        assert (engines - 1) * blocks.at_once < blocks.count


@given(lines, engines, jobs)
def test_an_engine_is_busy_unless_that_takes_more_than_its_share(lines: int, engines: int, jobs: int):
    blocks = blocks_of(lines, engines, jobs)
    least = lines // blocks.count
    full = blocks.at_once < max(1, blocks.count // engines)
    assert not full or (blocks.at_once - 1) * least >= jobs, "and has a block more, for when one ends"
    assert (blocks.at_once - 2) * least < jobs, "but only one"


@given(st.integers(1, 8), st.integers(1, 64))
def test_a_long_batch_keeps_every_engine_busy(engines: int, jobs: int):
    lines = 8 * engines * max(jobs, ROWS_OF_RAY)
    blocks = blocks_of(lines, engines, jobs)
    assert (blocks.at_once - 1) * (lines // blocks.count) >= jobs


def test_two_engines_share_a_short_batch():
    assert blocks_of(64, engines=2, jobs=8) == Blocks(count=8, at_once=2)
