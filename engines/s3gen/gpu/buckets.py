"""Buckets: the sizes of calls that a GPU is prepared for, which are the optimisation profiles of engines."""

from __future__ import annotations

from dataclasses import dataclass

from engines.errors import EngineFailure
from engines.s3gen.export.graphs import VOCODER, Graph


@dataclass(frozen=True)
class Bucket:
    """The sizes of one optimisation profile, as (minimum, usual, maximum).

    `length` is in tokens for the encoder, in mel frames for the others.
    """

    batch: tuple[int, int, int]
    length: tuple[int, int, int]

    def __post_init__(self) -> None:
        for low, usual, high in (self.batch, self.length):
            if not 1 <= low <= usual <= high:
                raise ValueError(f"a bucket's sizes must not decrease: {low}, {usual}, {high}")

    def holds(self, batch: int, length: int) -> bool:
        return self.batch[0] <= batch <= self.batch[2] and self.length[0] <= length <= self.length[2]


# Windows are [prompt <= 250][context <= 50][new 10..200][lookahead 3..7] tokens. Buckets: a lone stream, where latency
# counts; full batches; full batches of the larger hops that schedules take under load; whole segments (offline, and
# flushes of long ones), one at a time because their attention needs the most memory.
_FLOW_TOKENS = {
    "one": ((1, 1, 2), (1, 328, 368)),
    "many": ((2, 8, 16), (1, 328, 368)),
    "large": ((1, 8, 16), (369, 416, 512)),
    "long": ((1, 1, 1), (513, 640, 1312)),
}
_VOCODER_FRAMES = {
    "one": ((1, 1, 2), (2, 74, 144)),
    "many": ((2, 8, 16), (2, 74, 144)),
    "large": ((1, 8, 16), (145, 240, 448)),
    "long": ((1, 1, 1), (449, 640, 2048)),
}
# Lengths are rounded up to a multiple of this, tokens and frames alike, so that a few sizes cover all windows.
GRID = 16
# Sizes that are captured as graphs. Larger batches compute for longer than their launches take, and are not padded.
_GRAPH_ROWS = (1, 2, 4)
_GRAPH_LENGTHS = {"tokens": range(128, 432, GRID), "frames": range(32, 256, GRID)}


BUCKET_NAMES = tuple(_FLOW_TOKENS)
assert tuple(_VOCODER_FRAMES) == BUCKET_NAMES


def buckets(graph: Graph) -> tuple[Bucket, ...]:
    """The optimisation profiles of a graph, in the order in which they are numbered."""
    if graph is VOCODER:
        return tuple(Bucket(*sizes) for sizes in _VOCODER_FRAMES.values())
    factor = 1 if graph.time == "tokens" else 2
    return tuple(
        Bucket(batch, (low * factor, usual * factor, high * factor))
        for batch, (low, usual, high) in _FLOW_TOKENS.values()
    )


def max_rows(profiles: tuple[Bucket, ...], length: int) -> int:
    """How many rows of `length` one call can take. Raises EngineFailure if no bucket is that long."""
    fitting = [bucket.batch[2] for bucket in profiles if bucket.length[0] <= length <= bucket.length[2]]
    if not fitting:
        longest = max(bucket.length[2] for bucket in profiles)
        raise EngineFailure(f"A window of length {length} is longer than the engines were built for ({longest}).")
    return max(fitting)


def choose_profile(profiles: tuple[Bucket, ...], batch: int, length: int) -> int:
    """The smallest profile that holds this call."""
    fitting = [i for i, bucket in enumerate(profiles) if bucket.holds(batch, length)]
    if not fitting:
        raise EngineFailure(f"No engine profile holds {batch} rows of length {length}.")
    return min(fitting, key=lambda i: profiles[i].batch[2] * profiles[i].length[2])


def capacities(graph: Graph) -> tuple[dict[str, int], ...]:
    """The largest call of each bucket, every axis by name: the sizes of buffers."""
    return tuple(graph.sizes(bucket.batch[2], bucket.length[2]) for bucket in buckets(graph))


def on_grid(graph: Graph, rows: int, length: int) -> tuple[int, int]:
    """The rows and the length of the call that computes a batch of this size."""
    length = -(-length // GRID) * GRID
    if rows <= _GRAPH_ROWS[-1] and length in _GRAPH_LENGTHS[graph.time]:
        rows = next(size for size in _GRAPH_ROWS if size >= rows)
    return rows, length


def graph_sizes(graph: Graph) -> list[dict[str, int]]:
    """The sizes of calls that are captured as graphs, every axis by name, largest first.

    The flow is captured as a whole: its sizes are the encoder's.
    """
    lengths = sorted(_GRAPH_LENGTHS[graph.time], reverse=True)
    return [graph.sizes(rows, length) for length in lengths for rows in _GRAPH_ROWS[::-1]]
