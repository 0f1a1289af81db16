"""The grid of sizes: nearly all windows of a busy server replay a graph, and padding to it changes nothing."""

from __future__ import annotations

import random

import pytest

from engines.s3gen.export.graphs import ENCODER, VOCODER
from engines.s3gen.gpu.buckets import graph_sizes, on_grid
from engines.s3gen.streaming.schedule import SCHEDULES
from engines.s3gen.streaming.windows import WindowPlanner

_VOCODER_CONTEXT_FRAMES = 34


@pytest.mark.parametrize("name", ["lowest_latency", "balanced"])
def test_at_least_95_percent_of_the_calls_replay_a_graph(name: str) -> None:
    """20 voices with prompts of 125 to 250 tokens, 400 segments, up to four windows of a kind in a call."""
    rng = random.Random(0)
    captured = {graph: {(s["batch"], s[graph.time]) for s in graph_sizes(graph)} for graph in (ENCODER, VOCODER)}
    prompts = [rng.randint(125, 250) for _ in range(20)]
    replayed = calls = 0
    for _ in range(400):
        planner, available = WindowPlanner(SCHEDULES[name]), rng.randint(30, 250)
        prompt = rng.choice(prompts)
        while (window := planner.next(available, ended=True)) is not None:
            rows = rng.randint(1, 4)
            frames = 2 * (window.lookahead_stop - window.start) + _VOCODER_CONTEXT_FRAMES
            replayed += on_grid(ENCODER, rows, prompt + window.tokens) in captured[ENCODER]
            replayed += on_grid(VOCODER, rows, frames) in captured[VOCODER]
            calls += 2
    assert calls > 2000
    assert replayed / calls >= 0.95


def test_a_call_is_never_smaller_than_its_batch_and_little_larger() -> None:
    for graph in (ENCODER, VOCODER):
        for rows in range(1, 17):
            for length in range(1, 1300, 7):
                grid_rows, grid_length = on_grid(graph, rows, length)
                assert rows <= grid_rows <= max(4, rows)
                assert length <= grid_length < length + 16
                assert on_grid(graph, grid_rows, grid_length) == (grid_rows, grid_length)
