"""How a batch on Ray is cut into blocks, and how many of them an engine is given at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LINES_OF_BLOCK = 16  # at most: Ray Data has no more rows of a block under way in an async stage
_BLOCKS_OF_ENGINE = 4  # at least, where there are enough lines, so that engines end together


@dataclass(frozen=True)
class Blocks:
    """`count`: of the whole batch, whose lines are spread evenly. `at_once`: that an engine is given at most."""

    count: int
    at_once: int


def blocks_of(lines: int, engines: int, jobs: int) -> Blocks:
    """Returns the blocks of a batch of `lines` lines for engines that each speak `jobs` at once.

    An engine has what keeps it busy and one block more, and never more than its share: engines come up one after the
    other, and the last one has to find lines left. All arguments are at least 1.
    """
    count = math.ceil(lines / max(1, min(_LINES_OF_BLOCK, lines // (_BLOCKS_OF_ENGINE * engines))))
    least = lines // count  # lines that a block has
    return Blocks(count, min(math.ceil(jobs / least) + 1, max(1, count // engines)))
