"""The gap of a healthy stream under attack is measured, with the attackers in a process of their own."""

from __future__ import annotations

from bench.attacks import measure


async def test_the_gap_at_rest_and_under_an_attack_is_measured():
    gaps = await measure(["flushes"], seconds=0.5)
    assert list(gaps) == ["at rest", "flushes"]
    assert all(gap_s > 0 for gap_s in gaps.values())
