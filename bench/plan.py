"""`make bench-plan`: the plans of all GPUs, for the tables of docs/capacity.md. Arithmetic; it runs on any machine."""

from __future__ import annotations

import sys
from typing import Any

import torch

from bench import report
from engines.model_spec import NANO, TURBO
from engines.planning.gpus import GPUS, PRICES_DATE
from engines.planning.operations import flops
from engines.planning.plan import Planner, engine_memory
from engines.planning.stages import Window, s3gen_operations, t3_operations
from engines.planning.times import Times
from engines.s3gen.streaming.schedule import SCHEDULES, ScheduleStep

STREAMS = 32
HEADROOM = 0.7  # of the planned streams; the rest is for those that arrive while a server starts
_MEMORY = (("turbo", 32), ("turbo", 96), ("nano", 96))
_MODELS = {spec.name: spec for spec in (TURBO, NANO)}


def figures() -> dict[str, Any]:
    """All that the documents quote."""
    return {
        "streams": STREAMS,
        "prices_date": PRICES_DATE,
        "gflop_per_audio_s": {"t3": {name: _t3_gflop(name) for name in _MODELS}, "s3gen": _s3gen_gflop()},
        "kv_cache_mb_per_stream": {name: _kv_mb(name) for name in _MODELS},
        "memory_mb": {f"{name} {streams}": _memory(name, streams) for name, streams in _MEMORY},
        "plans": {name: {key: plan_figures(name, key) for key in GPUS} for name in _MODELS},
    }


def plan_figures(model: str, key: str) -> dict[str, Any]:
    """What the documents quote of the plan of one model on one GPU."""
    plan = Planner(Times(_MODELS[model], GPUS[key])).plan(STREAMS)
    return {
        "ttfa_ms": {f"of {first.streams}": round(first.median_ms) for first in plan.first_audio},
        "slowest_ms": {f"of {first.streams}": round(first.slowest_ms) for first in plan.first_audio},
        "carried": {f"hops of {load.hop_tokens}": load.carried for load in plan.loads},
        "limited_by": {
            f"hops of {load.hop_tokens}": min(load.limits, key=lambda limit: load.limits[limit]) for load in plan.loads
        },
        "usd_per_hour": plan.usd_per_hour,
        "usd_per_speech_hour": round(min(load.usd_per_speech_hour for load in plan.loads), 3),
        "usd_per_speech_hour_full": round(min(load.usd_per_speech_hour_full for load in plan.loads), 3),
    }


def _t3_gflop(name: str) -> int:
    return round(25 * flops(t3_operations(_MODELS[name], 1, 500)) / 1e9)


def _s3gen_gflop() -> dict[str, int]:
    """By hop: what a window of it computes, for each second of its audio."""
    schedule = SCHEDULES["balanced"]
    result = {}
    for hop in (25, 100):
        window = Window.later(schedule, ScheduleStep(hop))
        flow = [s3gen_operations(TURBO, part, 1, window.tokens, torch.float16) for part in ("encoder", "cfm")]
        vocoder = s3gen_operations(TURBO, "vocoder", 1, window.frames, torch.float16)
        result[f"hops of {hop}"] = round(sum(map(flops, (*flow, vocoder))) / 1e9 * 25 / hop)
    return result


def _kv_mb(name: str) -> int:
    one, two = (engine_memory(_MODELS[name], streams).kv_cache for streams in (32, 33))
    return round((two - one) / 1e6)


def _memory(name: str, streams: int) -> dict[str, int]:
    memory = engine_memory(_MODELS[name], streams)
    parts = ("weights", "kv_cache", "work", "cuda_graphs", "s3gen", "context", "words", "total")
    return {part: round(getattr(memory, part) / 1e6) for part in parts}


def main() -> int:
    """Print and record the plans."""
    found = figures()
    rows = [
        [
            f"{model} {key}",
            *(plan["ttfa_ms"][f"of {n}"] for n in (1, 8, 32)),
            plan["carried"]["hops of 100"],
            plan["usd_per_speech_hour"],
        ]
        for model, plans in found["plans"].items()
        for key, plan in plans.items()
    ]
    header = ["plan", "TTFA of 1, ms", "of 8", "of 32", "streams", "USD per hour of speech"]
    report.publish("plan", report.table(header, rows), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
