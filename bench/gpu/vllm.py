"""T3 on vLLM: its start, its logits against T3's net in float32 on the same device, its steps, a broken engine.

It runs on vLLM's CPU build too, without graphs and with less of everything.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import multiprocessing
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.conditioning.builtin import load_builtin
from engines.config import Sampling
from engines.device import wait_until_done
from engines.errors import EngineFailure
from engines.planning.plan import engine_memory
from engines.t3.backend import T3Request
from engines.t3.vllm import backend
from engines.t3.vllm.backend import VllmT3Backend
from engines.t3.vllm.engine import BLOCK_POSITIONS
from engines.t3.vllm.family import vllm_family
from engines.voice import Voice

_FIRST_TOKENS = 14
_REBUILD_LIMIT_S = 60.0
_FULL_GRAPHS_LIMIT_S = 60.0
_NEW_PROCESS = multiprocessing.get_context("spawn")  # this one has asked for the GPU, so that a fork could not use it


def run(record: Recorder, machine: Machine) -> None:
    """Everything about vLLM, where it is installed for this device."""
    if not backend.installed():
        record.absent("vllm", "not installed")
        return
    if machine.on_gpu == ("+cpu" in importlib.metadata.version("vllm")):
        record.absent("vllm", "the installed vLLM is built for another device")
        return
    healthy = threading.Event()
    t3 = _started(record, machine, "", on_health=lambda now: healthy.set() if now else healthy.clear())
    for comparison in t3.parity:  # it would not have started if one had failed
        record.check(f"logits, {comparison.name}", comparison.passed, str(comparison))
    _check_blocks(record, machine, t3)
    asyncio.run(_measure(record, machine, t3, healthy))
    if machine.on_gpu:  # last, if there is time
        _full_graphs(record, machine)
    else:
        record.absent("full CUDA graphs", "a rehearsal on the CPU")


def _started(record: Recorder, machine: Machine, variant: str, **options: Any) -> VllmT3Backend:
    began_s = time.perf_counter()
    t3 = VllmT3Backend(
        machine.checkpoint(),
        device=machine.device,
        max_streams=machine.streams,
        work_dir=machine.folder / "vllm",
        parity_check=True,
        **options,
    )
    record.measured(f"start{variant}", time.perf_counter() - began_s, "s")
    return t3


def _full_graphs(record: Recorder, machine: Machine) -> None:
    """The step's time with attention in the graph, in a process of its own: vLLM chooses its attention once."""
    other = _NEW_PROCESS.Process(target=_time_full_graphs, args=(record, machine))
    other.start()
    other.join(_FULL_GRAPHS_LIMIT_S)
    if other.is_alive():
        other.kill()
        other.join()
    record.check("full CUDA graphs", other.exitcode == 0, f"it ended with {other.exitcode}")


def _time_full_graphs(record: Recorder, machine: Machine) -> None:
    t3 = _started(record, machine, ", full CUDA graphs", full_cuda_graphs=True)
    voice = load_builtin(machine.checkpoint().conds_path)

    async def timed() -> None:
        for streams in (1, 1, 8, 32):
            _, later = await _first_and_later(t3, voice, streams)
            record.measured(f"step, full CUDA graphs, {streams} streams", 1000 * later, "ms")
        await t3.close()

    asyncio.run(timed())


def _check_blocks(record: Recorder, machine: Machine, t3: VllmT3Backend) -> None:
    """What vLLM found room for, against what the plan of the GPU's memory gave it."""
    engine: Any = t3.decoder.engine
    blocks = engine.kv_blocks
    record.measured("KV cache", blocks, "blocks", note=f"of {BLOCK_POSITIONS} positions")
    if machine.on_gpu:
        spec = machine.checkpoint().spec
        planned = engine_memory(spec, machine.streams).kv_cache
        planned //= BLOCK_POSITIONS * vllm_family(spec.t3, 1).kv_bytes_per_position(2)
        record.check("KV cache as planned", blocks >= 0.98 * planned, f"{planned} blocks are planned")


async def _measure(record: Recorder, machine: Machine, t3: VllmT3Backend, healthy: threading.Event) -> None:
    voice = load_builtin(machine.checkpoint().conds_path)
    try:
        await _time(record, machine, t3, voice)
        await _break_and_rebuild(record, t3, voice, healthy)
    finally:
        await t3.close()


async def _time(record: Recorder, machine: Machine, t3: VllmT3Backend, voice: Voice) -> None:
    """Milliseconds to the first 14 tokens and of every later one, by streams, and the sampler's share of a step."""
    planned = machine.planned("vllm", "tensorrt")
    for streams in (1, 1, 8, 32) if machine.on_gpu else (1, 2):  # the first pays for first use
        first, later = await _first_and_later(t3, voice, streams)
        first_ms, step_ms = None, None
        if planned is not None:
            step_ms = planned.t3_step_ms(streams)
            first_ms = planned.t3_prefill_ms(streams) + (_FIRST_TOKENS - 1) * step_ms
        record.measured(f"first {_FIRST_TOKENS} tokens, {streams} streams", 1000 * first, "ms", planned=first_ms)
        record.measured(f"step, {streams} streams", 1000 * later, "ms", planned=step_ms)
    with _TimedSampler(t3) as sampler:
        began_s = time.perf_counter()
        await _first_and_later(t3, voice, machine.streams)
        share = sampler.seconds / (time.perf_counter() - began_s)
    record.measured("sampler's share of a step", 100 * share, "%", note=f"{sampler.steps} steps")


async def _first_and_later(t3: VllmT3Backend, voice: Voice, streams: int) -> tuple[float, float]:
    """The medians of the seconds to the first tokens and of every later one."""
    times = await asyncio.gather(*(_tokens(t3, voice, seed) for seed in range(streams)))
    return (sorted(head for head, _ in times)[len(times) // 2], sorted(step for _, step in times)[len(times) // 2])


async def _tokens(t3: VllmT3Backend, voice: Voice, seed: int) -> tuple[float, float]:
    began_s, head_s, head, count = time.perf_counter(), 0.0, 0, 0
    generation = t3.start(T3Request(tuple(range(1, 40)), voice, Sampling(seed=seed, max_speech_tokens=150)))
    while tokens := await generation.next_speech_tokens():
        count += len(tokens)
        if not head and count >= _FIRST_TOKENS:
            head_s, head = time.perf_counter() - began_s, count
    return head_s, (time.perf_counter() - began_s - head_s) / max(1, count - head)


@dataclass
class _TimedSampler:
    """The engine's sampler, timed from the moment when the logits are there."""

    t3: VllmT3Backend
    seconds: float = 0.0
    steps: int = 0

    def __enter__(self) -> _TimedSampler:
        sampler = self._sampler
        draw: Callable[[torch.Tensor], list[int]] = sampler.tokens

        def timed(logits: torch.Tensor) -> list[int]:
            wait_until_done(logits.device)
            began_s = time.perf_counter()
            tokens = draw(logits)
            self.seconds += time.perf_counter() - began_s
            self.steps += 1
            return tokens

        sampler.tokens = timed
        return self

    def __exit__(self, *_: object) -> None:
        del self._sampler.tokens  # the class's own is back

    @property
    def _sampler(self) -> Any:
        engine: Any = self.t3.decoder.engine
        return engine.batch_sampler


async def _break_and_rebuild(record: Recorder, t3: VllmT3Backend, voice: Voice, healthy: threading.Event) -> None:
    """An engine that fails under streams is replaced; the next one finds all caches warm."""
    engine: Any = t3.decoder.engine
    running = [t3.start(T3Request(tuple(range(1, 40)), voice, Sampling(seed=seed))) for seed in range(2)]
    for generation in running:
        await generation.next_speech_tokens()

    def fail() -> None:
        raise RuntimeError("broken by the check")

    engine.step, began_s = fail, time.perf_counter()
    del engine
    failed = 0
    for generation in running:
        try:
            while await generation.next_speech_tokens():
                pass
        except EngineFailure:
            failed += 1
    record.check("streams of a broken engine fail", failed == len(running), f"{failed} of {len(running)}")
    await asyncio.to_thread(healthy.wait, _REBUILD_LIMIT_S)
    record.measured("rebuilt under load, warm", time.perf_counter() - began_s, "s")
    _, step_s = await _first_and_later(t3, voice, 1)
    record.check("it speaks again", t3.healthy and step_s > 0)
