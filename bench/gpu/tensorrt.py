"""S3Gen on TensorRT: builds the engines for this GPU, then compares and times them."""

from __future__ import annotations

import time

import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.s3gen.gpu.trt import TensorRT, TensorRTMissing, load_tensorrt

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
        record.attempt(f"{flavour}: all of it", lambda trt=trt: _run(record, machine, trt))


def _run(record: Recorder, machine: Machine, trt: TensorRT) -> str:
    from bench.gpu.s3gen import _compare
    from engines.s3gen.export.export import ExportSettings, export
    from engines.s3gen.gpu.build import BuildSettings, build_engines, engine_folder, engine_graphs
    from engines.s3gen.gpu.cuda import probe
    from engines.s3gen.gpu.tensorrt import TensorRTRuntime, engine_bytes
    from engines.s3gen.runtimes.torch import TorchRuntime

    checkpoint, gpu = machine.checkpoint(), probe()
    graphs = engine_graphs(checkpoint.spec.flow)
    made = export(checkpoint, ExportSettings(graphs, True, "fp16", 2), cache_dir=machine.cache_dir)
    began_s = time.perf_counter()
    build_engines(made, engine_folder(machine.cache_dir), BuildSettings(gpu.architecture, graphs=graphs), trt)
    record.measured(f"{trt.name} {trt.version}: build", time.perf_counter() - began_s, "s")
    free_before, _ = torch.cuda.mem_get_info()
    runtime = TensorRTRuntime(checkpoint, cache_dir=machine.cache_dir, flavour=trt.name)
    name = trt.name
    used = free_before - torch.cuda.mem_get_info()[0]
    engines, sizes = runtime.engine_bytes, {key: f"{size / 1e6:.0f}" for key, size in runtime.scratch_by_engine.items()}
    record.measured(f"{name}: scratch memory", runtime.scratch_bytes / 1e6, "MB", note=f"asked for by engine: {sizes}")
    record.measured(f"{name}: engines", engines / 1e6, "MB")
    # contexts that allocated memory of their own, beside the one block, would show as gigabytes
    fits = used < engines + runtime.scratch_bytes + runtime.buffer_bytes + _OVERHEAD_BYTES
    record.check(f"{name}: memory of contexts", fits, f"{used / 1e6:.0f} MB in use after loading")
    planned = engine_bytes(checkpoint.spec.flow)
    within = engines + runtime.scratch_bytes <= planned
    record.check(f"{name}: within the plan", within, f"{planned / 1e6:.0f} MB are planned")
    runtime.prepare()
    expected = 0 if trt.portable else runtime.sizes_to_capture
    record.check(f"{name}: sizes captured", runtime.graphs == expected, f"{runtime.graphs} of {expected}")
    _compare(record, f"{name} fp16", runtime, TorchRuntime(checkpoint, device=machine.device), "fp16", thorough=True)
    record.measured(f"{name}: calls replayed", 100 * runtime.replayed_ratio, "%")
    return f"{trt.name} {trt.version}"
