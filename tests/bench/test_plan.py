"""The recorded plan is what the engine and the nets say today."""

from __future__ import annotations

import pytest

from bench import plan
from bench.measured import load
from engines.model_spec import MODELS
from engines.planning.gpus import GPUS, PRICES_DATE
from engines.planning.plan import engine_memory

RECORDED = load()["plan"].figures


@pytest.mark.parametrize("key", sorted(RECORDED["memory_mb"]))
def test_the_recorded_memory_is_the_engines_own_sum(key: str) -> None:
    model, streams = key.split()
    memory = engine_memory(MODELS[model], int(streams))
    recorded = RECORDED["memory_mb"][key]
    assert recorded == plan._memory(model, int(streams))
    assert recorded["total"] == round(memory.total / 1e6)
    assert recorded["work"] == round(memory.work / 1e6)


@pytest.mark.parametrize("model", ["turbo", "nano"])
def test_the_recorded_operations_are_the_nets(model: str) -> None:
    assert RECORDED["gflop_per_audio_s"]["t3"][model] == plan._t3_gflop(model)
    assert RECORDED["kv_cache_mb_per_stream"][model] == plan._kv_mb(model)


def test_a_recorded_plan_is_what_is_planned_today() -> None:
    """Of all GPUs' the first: what changes it changes the others too."""
    assert RECORDED["plans"]["turbo"]["a10g"] == plan.plan_figures("turbo", "a10g")


def test_the_recorded_plans_are_those_of_the_table_of_gpus() -> None:
    assert RECORDED["prices_date"] == PRICES_DATE
    for plans in RECORDED["plans"].values():
        assert {key: made["usd_per_hour"] for key, made in plans.items()} == {
            key: gpu.usd_per_hour for key, gpu in GPUS.items()
        }
