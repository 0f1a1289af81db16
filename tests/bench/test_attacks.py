"""The gap of a healthy stream under attack is measured, with the attackers in a process of their own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import mynah
from bench.attacks import Healthy, measure
from bench.scripted_server import Load, scripted_server


async def test_the_gap_at_rest_and_under_an_attack_is_measured():
    costs = await measure(["flushes"], seconds=0.5)
    assert list(costs) == ["at rest", "flushes"]
    assert all(cost.gap_s > 0 and cost.longest_s > 0 for cost in costs.values())


async def test_the_healthy_stream_speaks_on(tmp_path: Path):
    """Beyond the sentences that it begins with: 15 chunks each."""
    load, streams = Load(token_s=0.001), ("--max-streams", "4")
    async with scripted_server(load, tmp_path / "log", *streams) as server, mynah.Client(server.address) as client:
        healthy = Healthy()
        speaking = asyncio.create_task(healthy.run(client, asyncio.Event()))
        while healthy.chunks < 60:  # noqa: ASYNC110 - what the server sends
            await asyncio.sleep(0.01)
        speaking.cancel()
