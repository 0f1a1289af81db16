"""S3Gen on TensorRT: the tiny model's engines, then the model's own if they were built before, else its encoder's."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.model_spec import FlowSpec
from engines.s3gen.gpu.trt import TensorRT, TensorRTMissing, load_tensorrt

if TYPE_CHECKING:  # it needs ONNX
    from engines.s3gen.gpu.tensorrt import TensorRTRuntime

_OVERHEAD_BYTES = 500_000_000  # kernels, which are loaded lazily


def run(record: Recorder, machine: Machine) -> None:
    """Everything about TensorRT, where it is installed beside a GPU."""
    for flavour in ("tensorrt", "tensorrt_rtx"):
        try:
            trt = load_tensorrt(flavour)
        except TensorRTMissing as why:
            record.absent(flavour, str(why)[:100])
            continue
        if not machine.on_gpu:
            record.absent(flavour, "engines run on a GPU only; tests build them without one")
            continue
        tiny = Machine(machine.device, "tiny", machine.folder)
        record.attempt(f"{flavour}: tiny, all of it", lambda trt=trt, tiny=tiny: _run(record, tiny, trt, "tiny, "))
        record.attempt(f"{flavour}: all of it", lambda trt=trt: _run(record, machine, trt, ""))


def _run(record: Recorder, machine: Machine, trt: TensorRT, label: str) -> str:
    from engines.errors import EngineError
    from engines.s3gen.export.export import ExportSettings, export
    from engines.s3gen.gpu.build import BuildSettings, build_engines, engine_folder, engine_graphs
    from engines.s3gen.gpu.cuda import probe
    from engines.s3gen.gpu.tensorrt import TensorRTRuntime

    checkpoint, gpu = machine.checkpoint(), probe()
    every = engine_graphs(checkpoint.spec.flow)
    settings, name = BuildSettings(gpu.architecture, gpu=gpu.name, graphs=every), f"{label}{trt.name}"
    made = export(checkpoint, ExportSettings(every, True, "fp16", 2), cache_dir=machine.cache_dir)
    free_before, _ = torch.cuda.mem_get_info()

    def loaded(cache_dir: Path | None) -> TensorRTRuntime | None:
        try:
            return TensorRTRuntime(checkpoint, cache_dir=cache_dir, flavour=trt.name)
        except EngineError:
            return None

    runtime = loaded(machine.cache_dir) or (None if label else loaded(None))  # where `prepare` puts them
    if runtime is None:
        # the tiny model's take seconds; of a large one as much as there is time for
        settings = replace(settings, graphs=every if label else every[:1])
        began_s = time.perf_counter()
        paths = build_engines(made, engine_folder(machine.cache_dir), settings, trt)
        record.measured(f"{name}: build of {', '.join(paths)}", time.perf_counter() - began_s, "s")
        runtime = loaded(machine.cache_dir)
    if runtime is None:
        record.absent(f"{name}: engines", "build them first with mynah-engines prepare --engines here")
        return f"{trt.name} {trt.version}, the encoder alone"
    used = free_before - torch.cuda.mem_get_info()[0]
    _check_memory(record, runtime, name, used, checkpoint.spec.flow, judged=not label)
    _check_results(record, machine, trt, runtime, name)
    return f"{trt.name} {trt.version}"


def _check_memory(
    record: Recorder, runtime: TensorRTRuntime, name: str, used: int, flow: FlowSpec, *, judged: bool
) -> None:
    from engines.s3gen.gpu.tensorrt import engine_bytes

    engines = runtime.engine_bytes
    for key, sizes in runtime.scratch_by_profile.items():
        note = f"by profile: {', '.join(f'{size / 1e6:.0f}' for size in sizes)}"
        record.measured(f"{name}: scratch memory of {key}", max(sizes) / 1e6, "MB", note=note)
    record.measured(f"{name}: engines", engines / 1e6, "MB")
    # contexts that allocated memory of their own, beside the one block, would show as gigabytes
    fits = used < engines + runtime.scratch_bytes + runtime.buffer_bytes + _OVERHEAD_BYTES
    record.check(f"{name}: memory of contexts", fits, f"{used / 1e6:.0f} MB in use after loading")
    if judged:
        planned = engine_bytes(flow)
        within = engines + runtime.scratch_bytes <= planned
        record.check(f"{name}: within the plan", within, f"{planned / 1e6:.0f} MB are planned")


def _check_results(record: Recorder, machine: Machine, trt: TensorRT, runtime: TensorRTRuntime, name: str) -> None:
    from bench.gpu.s3gen import _compare
    from engines.s3gen.runtimes.torch import TorchRuntime

    for kind, lengths in (("the same", (440, 440)), ("changed", (440, 456))):  # longer than every graph
        record.measured(f"{name}: host's part of a call, shapes {kind}", _enqueue_ms(runtime, lengths), "ms")
    runtime.prepare()
    expected = 0 if trt.portable else runtime.sizes_to_capture
    record.check(f"{name}: sizes captured", runtime.graphs == expected, f"{runtime.graphs} of {expected}")
    _compare(record, f"{name} fp16", runtime, TorchRuntime(machine.checkpoint(), device=machine.device), "fp16",
             thorough=True)  # fmt: skip
    record.measured(f"{name}: calls replayed", 100 * runtime.replayed_ratio, "%")


def _enqueue_ms(runtime: TensorRTRuntime, lengths: tuple[int, int]) -> float:
    """The median of the milliseconds until a flow call is submitted, with rows of these lengths in turn."""
    from engines.tools.s3gen_times import flow_batch

    batches, times = [flow_batch(1, length) for length in lengths], []
    for turn in range(12):
        began_s = time.perf_counter()
        wait = runtime.submit_flow(batches[turn % 2])
        times.append(time.perf_counter() - began_s)
        wait()
    return 1000 * sorted(times[2:])[5]
