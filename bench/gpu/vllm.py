"""T3 on vLLM: its start, its logits against T3's net in float32 on the same device, its steps."""

from __future__ import annotations

import asyncio
import importlib.metadata
import time

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.conditioning.builtin import load_builtin
from engines.config import Sampling
from engines.t3.backend import T3Request
from engines.t3.vllm import backend
from engines.t3.vllm.backend import VllmT3Backend
from engines.voice import Voice

_FIRST_TOKENS = 14


def run(record: Recorder, machine: Machine) -> None:
    """Everything about vLLM, where it is installed for this device."""
    if not backend.installed():
        record.absent("vllm", "not installed")
        return
    if machine.on_gpu == ("+cpu" in importlib.metadata.version("vllm")):
        record.absent("vllm", "the installed vLLM is built for another device")
        return
    if not machine.on_gpu:
        record.absent("vllm", "its CPU build is tested in tests/vllm")
        return

    checkpoint = machine.checkpoint()
    began_s = time.perf_counter()
    t3 = backend.VllmT3Backend(checkpoint, device=machine.device, max_streams=32, work_dir=machine.folder / "vllm")
    record.measured("start", time.perf_counter() - began_s, "s")
    for comparison in t3.parity:  # it would not have started if one had failed
        record.check(f"logits, {comparison.name}", comparison.passed, str(comparison))
    asyncio.run(_time(record, machine, t3, load_builtin(checkpoint.conds_path)))


async def _time(record: Recorder, machine: Machine, t3: VllmT3Backend, voice: Voice) -> None:
    """Milliseconds to the first 14 tokens and of every later one, by streams."""
    times = machine.planned("vllm", "tensorrt")
    try:
        for streams in (1, 1, 8, 32):  # the first pays for first use
            times = await asyncio.gather(*(_tokens(t3, voice, seed) for seed in range(streams)))
            first = sorted(head for head, _ in times)[len(times) // 2]
            later = sorted(step for _, step in times)[len(times) // 2]
            planned_ms = (None, None)
            if times is not None:
                step_ms = times.t3_step_ms(streams)
                planned_ms = (times.t3_prefill_ms(streams) + (_FIRST_TOKENS - 1) * step_ms, step_ms)
            name = f"first {_FIRST_TOKENS} tokens, {streams} streams"
            record.measured(name, 1000 * first, "ms", planned=planned_ms[0])
            record.measured(f"step, {streams} streams", 1000 * later, "ms", planned=planned_ms[1])
    finally:
        await t3.close()


async def _tokens(t3: VllmT3Backend, voice: Voice, seed: int) -> tuple[float, float]:
    began_s, head_s, head, count = time.perf_counter(), 0.0, 0, 0
    generation = t3.start(T3Request(tuple(range(1, 40)), voice, Sampling(seed=seed, max_speech_tokens=150)))
    while tokens := await generation.next_speech_tokens():
        count += len(tokens)
        if not head and count >= _FIRST_TOKENS:
            head_s, head = time.perf_counter() - began_s, count
    return head_s, (time.perf_counter() - began_s - head_s) / max(1, count - head)
