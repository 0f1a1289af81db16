"""T3's steps while S3Gen decodes: on one shared stream, on streams of their own, and with T3's first."""

from __future__ import annotations

import threading
import time

import numpy as np

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.conditioning.builtin import load_builtin
from engines.config import Sampling
from engines.device import use_exact_float32, use_own_stream
from engines.s3gen.runtimes.torch import TorchRuntime
from engines.t3.backend import T3Request
from engines.t3.decoder import DecoderLimits, T3Decoder
from engines.t3.model import T3Net
from engines.tools.s3gen_times import flow_batch

_STREAMS = 8
# name: priority of T3's stream and of S3Gen's; None: the default stream, which both share
_SETTINGS: dict[str, tuple[int | None, int | None]] = {
    "shared stream": (None, None),
    "own streams": (0, 0),
    "own streams, T3 first": (-1, 0),
}


def run(record: Recorder, machine: Machine) -> None:
    """The median and the slowest percent of T3's steps, alone and beside S3Gen."""
    use_exact_float32()
    checkpoint = machine.checkpoint()
    net = T3Net.load(checkpoint.t3_path, checkpoint.spec, machine.device)
    s3gen = TorchRuntime(checkpoint, device=machine.device)
    voice = load_builtin(checkpoint.conds_path)
    steps = machine.repeats(150, 4)

    def t3_times(priority: int | None) -> list[float]:
        if priority is not None:
            use_own_stream(machine.device, priority)
        decoder = T3Decoder(net, DecoderLimits(_STREAMS))
        for seed in range(_STREAMS):
            decoder.add(T3Request(tuple(range(1, 30)), voice, Sampling(seed=seed, max_speech_tokens=1000)))
        for _ in range(_STREAMS + 2):
            decoder.step()
        times = []
        for _ in range(steps):
            began_s = time.perf_counter()
            decoder.step()
            times.append(1000 * (time.perf_counter() - began_s))
        return times

    def report(name: str, times: list[float]) -> None:
        p50, p99 = np.percentile(times, (50, 99))
        record.measured(
            f"step of {_STREAMS} streams, {name}", float(p50), "ms", p99_ms=float(p99), note=f"p99 {p99:.1f}"
        )

    report("alone", _in_thread(lambda: t3_times(None)))
    for name, (first, second) in _SETTINGS.items() if machine.on_gpu else list(_SETTINGS.items())[:1]:
        stop = threading.Event()

        def decode(stop: threading.Event = stop, priority: int | None = second) -> None:
            if priority is not None:
                use_own_stream(machine.device, priority)
            batch = flow_batch(machine.repeats(8, 1), machine.repeats(328, 40))
            while not stop.is_set():
                s3gen.flow(batch)

        worker = threading.Thread(target=decode)
        worker.start()
        try:
            report(name, _in_thread(lambda priority=first: t3_times(priority)))
        finally:
            stop.set()
            worker.join()


def _in_thread(work: object) -> list[float]:
    """The work on a thread of its own, whose stream is its own."""
    result: list[list[float]] = []
    thread = threading.Thread(target=lambda: result.append(work()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return result[0]
