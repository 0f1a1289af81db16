"""The report of `mynah-engines bench`: each stage's time, share and rooflines by window, and the goals for an A10G."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from engines.config import EngineConfig
from engines.device import cpu_threads
from engines.errors import InvalidInput
from engines.factory import build_engine
from engines.model_spec import MODELS
from engines.pipeline import Pipeline
from engines.planning.operations import weight_bytes
from engines.planning.stages import t3_operations
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.runtime import WaveformRuntime
from engines.tools.engine_times import FIRST_HOP_TOKENS, conditioning_seconds, first_chunk_seconds, t3_seconds
from engines.tools.goals import GOALS, judged_here, missed
from engines.tools.s3gen_times import (
    A10G,
    STAGES,
    Machine,
    Timed,
    TimedWindow,
    machine,
    measure,
    overlap_ms,
    roofline_ms,
    window_calls,
)
from engines.tools.t3_times import STEP_POSITIONS
from engines.tools.torch_profiler import device_used_mb, peak_host_mb

_OVERLAPPED_BATCHES = 8


@dataclass(frozen=True)
class Row:
    """One stage of one window. Rooflines are the times of its arithmetic, or for T3 of reading its weights."""

    window: str
    bucket: str
    stage: str
    timed: Timed
    roofline_ms: float
    a10g_ms: float
    share: float


@dataclass(frozen=True)
class Report:
    """All measurements of one engine on one machine."""

    model: str
    t3: str
    s3gen: str
    machine: Machine
    rows: list[Row]
    conditioning: Timed
    first_chunk: Timed
    double_buffering_ms: dict[str, dict[str, float]]  # by window: off, on; empty for runtimes without CUDA streams
    measured: dict[str, float]  # by the names of GOALS
    device: str


def bench(
    config: EngineConfig, windows: Mapping[str, TimedWindow], repeats: int, gflops: float | None
) -> tuple[str, dict[str, object]]:
    """Returns the report as text, and as JSON with the goals that were missed. Raises the errors of `build_engine`."""
    engine = build_engine(config)
    with asyncio.Runner() as runner:
        report = _measure(engine, runner, windows, repeats, machine(config.threads or cpu_threads(), gflops))
        runner.run(engine.close())
    goals = {"targets_a10g": {name: asdict(goal) for name, goal in GOALS.items()}}
    return _text(report), {**asdict(report), **goals, "missed": missed(report.measured, report.device)}


def _measure(
    engine: Pipeline, runner: asyncio.Runner, windows: Mapping[str, TimedWindow], repeats: int, this_machine: Machine
) -> Report:
    few = max(2, repeats // 3)
    rows: list[Row] = []
    for name, window in windows.items():
        rows += _window_rows(engine, runner, name, window, repeats, this_machine)
    conditioning = Timed.of(runner.run(conditioning_seconds(engine, few)))
    first_hop, _ = runner.run(t3_seconds(engine, few))
    first_chunk = Timed.of(runner.run(first_chunk_seconds(engine, few)))
    overlap = _overlap(engine, windows)
    used_mb = device_used_mb()
    measured = {
        "S3Gen, ms": sum(row.timed.p50_ms for row in rows if row.window == rows[0].window and row.stage in STAGES),
        "T3, ms": Timed.of(first_hop).p50_ms,
        "pipeline, ms": first_chunk.p50_ms,
        "peak memory, GB": (peak_host_mb() if used_mb is None else used_mb) / 1000,
    }
    info = engine.info
    return Report(
        info.model,
        info.t3_runtime,
        info.s3gen_runtime,
        this_machine,
        rows,
        conditioning,
        first_chunk,
        overlap,
        measured,
        info.device,
    )


def _window_rows(
    engine: Pipeline, runner: asyncio.Runner, name: str, window: TimedWindow, repeats: int, this_machine: Machine
) -> list[Row]:
    """Rows of S3Gen's three stages, and of T3's speech tokens for the window's audio."""
    runtime = engine.stages.s3gen.runtime
    if isinstance(runtime, WaveformRuntime):
        model = engine.info.model
        message = f"The model {model} cannot be measured by stage: its S3Gen decodes whole segments. Choose another."
        raise InvalidInput("model", message, "MODEL_UNSUPPORTED", value=model)
    spec = MODELS[engine.info.model]
    _, per_token = runner.run(t3_seconds(engine, repeats, streams=window.rows))
    t3 = Timed.of([seconds * window.new for seconds in per_token])
    timed: dict[str, tuple[Timed, str | None]] = {f"T3, {window.new} tokens": (t3, None)}
    calls = window_calls(runtime, window)
    timed |= {stage: (measure(call, repeats), stage) for stage, call in calls.items()}
    total = sum(entry.p50_ms for entry, _ in timed.values())

    def roofline(stage: str | None, at: Machine, bytes_per_value: int) -> float:
        if stage is None:
            read = weight_bytes(t3_operations(spec, 1, STEP_POSITIONS)) * bytes_per_value // 4
            return 1000 * window.new * read / (at.gb_per_s * 1e9)
        return roofline_ms(stage, window, at, spec)

    return [
        Row(
            name,
            window.bucket,
            label,
            entry,
            roofline(stage, this_machine, 4),
            roofline(stage, A10G, 2),
            entry.p50_ms / total,
        )
        for label, (entry, stage) in timed.items()
    ]


def _overlap(engine: Pipeline, windows: Mapping[str, TimedWindow]) -> dict[str, dict[str, float]]:
    """Milliseconds per batch with double buffering off and on, by window; empty for runtimes without CUDA streams."""
    runtime = engine.stages.s3gen.runtime
    if not isinstance(runtime, BufferedRuntime):
        return {}
    return {name: dict(overlap_ms(runtime, window, _OVERLAPPED_BATCHES)) for name, window in windows.items()}


def _text(report: Report) -> str:
    this_machine = report.machine
    head = (
        f"{report.model} (T3 {report.t3}, S3Gen {report.s3gen}) on {this_machine.name}: "
        f"{this_machine.gflops:.0f} GFLOP/s in a matrix product, {this_machine.gb_per_s:.0f} GB/s of memory read"
    )
    once = [
        f"conditioning, once per voice of 10 s: {_p50_p90(report.conditioning)}",
        f"text to first chunk, voice cached: {_p50_p90(report.first_chunk)}",
    ]
    overlap = [
        f"double buffering, {name}: off {ms['off']:.1f} ms a batch, on {ms['on']:.1f} ms, "
        f"{1 - ms['on'] / ms['off']:.0%} less"
        for name, ms in report.double_buffering_ms.items()
    ] or ["double buffering: not measured; only tensorrt and torch_graphs have it"]
    return "\n".join([head, *_table(report.rows), *once, *overlap, *_goals(report)])


def _table(rows: Sequence[Row]) -> list[str]:
    names = ("window", "bucket", "stage", "p50 ms", "p90 ms", "roofline", "on A10G", "share")
    cells = [
        (
            *(row.window, row.bucket, row.stage, f"{row.timed.p50_ms:.1f}", f"{row.timed.p90_ms:.1f}"),
            *(f"{row.roofline_ms:.1f}", f"{row.a10g_ms:.1f}", f"{row.share:.0%}"),
        )
        for row in rows
    ]
    return ["{:11} {:6} {:16} {:>9} {:>9} {:>9} {:>8} {:>6}".format(*line) for line in (names, *cells)]


def _p50_p90(timed: Timed) -> str:
    return f"p50 {timed.p50_ms:.0f} ms, p90 {timed.p90_ms:.0f} ms"


def _goals(report: Report) -> list[str]:
    judged, window = judged_here(report.device), report.rows[0].window
    where = "" if judged else f"; judged on a GPU only, not on {report.machine.name}"
    lines = [f"goals on an A10G (S3Gen: {window}; T3: the first {FIRST_HOP_TOKENS} tokens){where}"]
    over = missed(report.measured, report.device)
    for name, goal in GOALS.items():
        verdict = ("MISSED" if name in over else "met") if judged else "no verdict"
        lines.append(f"  {name:16} {goal.before:g} -> {goal.goal:g}, measured {report.measured[name]:.3g}: {verdict}")
    return lines
