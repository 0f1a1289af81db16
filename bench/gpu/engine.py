"""The whole engine: time to the first chunk, real-time factor and underruns of simultaneous streams."""

from __future__ import annotations

import asyncio
import time

import numpy as np

import engines
from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.api import AudioChunk, Engine, Segment
from engines.config import EngineConfig, Sampling
from engines.device import device_memory
from engines.errors import EngineBusy
from engines.model_spec import MODELS, SAMPLE_RATE_HZ
from engines.pipeline import Pipeline
from engines.planning.plan import Planner, engine_memory
from engines.tools.engine_times import first_chunk_seconds, t3_seconds
from engines.tools.goals import GOALS, judged_here, missed
from engines.tools.s3gen_times import WINDOWS, Timed, measure, window_calls
from engines.tools.torch_profiler import peak_host_mb

_TEXT = "The quick brown fox jumps over the lazy dog, and the dog does not mind at all."


def run(record: Recorder, machine: Machine) -> None:
    """Speak with as many streams as the product's goals name."""
    streams = (1, 8, 32) if machine.on_gpu else (1, 2)
    config = EngineConfig(
        model=machine.model,
        device=machine.device,
        max_streams=streams[-1],
        cache_dir=machine.cache_dir,
        strict_reference=True,  # a rehearsal would measure what this CPU can do
    )
    began_s = time.perf_counter()
    engine = engines.load(config)
    record.measured("load", time.perf_counter() - began_s, "s", note=f"T3 {engine.info.t3_runtime}")
    record.check(
        f"S3Gen on {engine.info.s3gen_runtime}", not engine.info.refused_runtimes, str(engine.info.refused_runtimes)
    )
    asyncio.run(_speak_all(record, machine, engine, streams))


async def _speak_all(record: Recorder, machine: Machine, engine: Engine, counts: tuple[int, ...]) -> None:
    try:
        await engine.warm_up()
        for streams in counts:
            await _speak_together(engine, streams, machine, 100)  # not counted
            began_s = time.perf_counter()
            spoken = await _speak_together(engine, streams, machine, 0)
            took_s = time.perf_counter() - began_s
            if len(spoken) < streams:
                note = "the others were refused because the engine is busy"
                record.measured(f"streams accepted of {streams}", len(spoken), "", note=note)
            first_s, audio_s, underruns = (np.array(column) for column in zip(*spoken, strict=True))
            p50, p95 = np.percentile(1000 * first_s, (50, 95))
            times = machine.planned(engine.info.t3_runtime, engine.info.s3gen_runtime)
            record.measured(
                f"first chunk, {streams} streams",
                float(p50),
                "ms",
                planned=None if times is None else Planner(times).first_audio(streams).median_ms,
                note=f"p95 {p95:.0f}",
                p95_ms=float(p95),
            )
            record.measured(f"real-time factor, {streams} streams", took_s / float(audio_s.mean()), "")
            record.measured(f"underruns, {streams} streams", float(underruns.sum()), "")
            record.check(f"audio of {streams} streams", bool((audio_s > 0).all()))
        await _judge(record, machine, engine)
        if (memory := device_memory(machine.device)) is not None:
            planned_gb = engine_memory(MODELS[engine.info.model], counts[-1], t3=engine.info.t3_runtime).total / 1e9
            record.measured("memory of the GPU in use", memory.used_bytes / 1e9, "GB", planned=planned_gb)
    finally:
        await engine.close()


async def _judge(record: Recorder, machine: Machine, engine: Engine) -> None:
    """The product's goals for an A10G: S3Gen, T3 and the whole pipeline with one stream, and memory."""
    assert isinstance(engine, Pipeline)
    calls = window_calls(engine.stages.s3gen.runtime, WINDOWS["hop12"]).values()
    repeats = machine.repeats(10, 2)
    memory = device_memory(machine.device)
    measured_here = {
        "S3Gen, ms": sum(measure(call, repeats).p50_ms for call in calls),
        "T3, ms": Timed.of((await t3_seconds(engine, repeats))[0]).p50_ms,
        "pipeline, ms": Timed.of(await first_chunk_seconds(engine, repeats)).p50_ms,
        "peak memory, GB": (peak_host_mb() / 1000 if memory is None else memory.used_bytes / 1e9),
    }
    over = missed(measured_here, machine.device)
    for name, goal in GOALS.items():
        unit = name.rpartition(" ")[2]
        record.measured(f"goal: {name}", measured_here[name], unit, note=f"{goal.before:g} -> {goal.goal:g}")
        if judged_here(machine.device):
            record.check(f"goal reached: {name}", name not in over, f"at most {goal.goal:g} {unit}")


async def _speak_together(
    engine: Engine, streams: int, machine: Machine, first_seed: int
) -> list[tuple[float, float, int]]:
    """The figures of each stream that was accepted."""
    tasks = (_speak(engine, first_seed + seed, machine) for seed in range(streams))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    if failures := [r for r in results if isinstance(r, BaseException) and not isinstance(r, EngineBusy)]:
        raise failures[0]
    return [result for result in results if not isinstance(result, BaseException)]


async def _speak(engine: Engine, seed: int, machine: Machine) -> tuple[float, float, int]:
    """Seconds to the first chunk, seconds of audio, and how often a listener would have had nothing to play."""
    assert engine.default_voice is not None
    sampling = Sampling(seed=seed, max_speech_tokens=machine.repeats(250, 40))
    stream = await engine.open(engine.default_voice, sampling)
    began_s, first_s, audio_s, underruns = time.perf_counter(), 0.0, 0.0, 0
    try:
        async for event in stream.speak(Segment(0, _TEXT)):
            if not isinstance(event, AudioChunk):
                continue
            now_s = time.perf_counter() - began_s
            first_s = first_s or now_s
            underruns += audio_s > 0 and now_s > first_s + audio_s
            audio_s += len(event.samples) / SAMPLE_RATE_HZ
    finally:
        await stream.close()
    return first_s, audio_s, int(underruns)
