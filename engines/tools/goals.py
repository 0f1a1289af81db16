"""The product's goals on an A10G, beside what the public ports measured there, and where they can be judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """The public ports' figure, p50, and ours."""

    before: float
    goal: float


GOALS = {
    "S3Gen, ms": Goal(450.0, 250.0),
    "T3, ms": Goal(150.0, 80.0),
    "pipeline, ms": Goal(650.0, 380.0),
    "peak memory, GB": Goal(12.0, 10.0),
}
MOST_MEMORY_GB = GOALS["peak memory, GB"].goal


def judged_here(device: str) -> bool:
    """Whether figures of this device ("cpu", "cuda", "cuda:1") are judged: a GPU's are, a CPU's are only shown."""
    return device.startswith("cuda")


def missed(measured: Mapping[str, float], device: str) -> list[str]:
    """The goals that a device does not reach; none on a CPU."""
    return [name for name, goal in GOALS.items() if judged_here(device) and measured[name] > goal.goal]
