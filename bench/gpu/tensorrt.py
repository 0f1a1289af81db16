"""S3Gen on TensorRT: builds the engines for this GPU, then compares and times them."""

from __future__ import annotations

import time

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.s3gen.gpu.trt import TensorRTMissing, load_tensorrt


def run(record: Recorder, machine: Machine) -> None:
    """Everything about TensorRT, where it is installed beside a GPU."""
    try:
        trt = load_tensorrt()
    except TensorRTMissing as why:
        record.absent("tensorrt", str(why)[:100])
        return
    if not machine.on_gpu:
        record.absent("tensorrt", "engines run on a GPU only; tests build them without one")
        return
    from bench.gpu.s3gen import _compare
    from engines.s3gen.export.export import ExportSettings, export
    from engines.s3gen.gpu.build import ENGINE_GRAPHS, BuildSettings, build_engines, engine_folder
    from engines.s3gen.gpu.cuda import probe
    from engines.s3gen.gpu.tensorrt import TensorRTRuntime
    from engines.s3gen.runtimes.torch import TorchRuntime

    checkpoint, gpu = machine.checkpoint(), probe()
    made = export(checkpoint, ExportSettings(ENGINE_GRAPHS, True, "fp16", 2), cache_dir=machine.cache_dir)
    began_s = time.perf_counter()
    build_engines(made, engine_folder(machine.cache_dir), BuildSettings(gpu.architecture), trt)
    record.measured(f"{trt.name} {trt.version}: build", time.perf_counter() - began_s, "s")
    runtime = TensorRTRuntime(checkpoint, cache_dir=machine.cache_dir)
    record.measured("scratch memory", runtime.scratch_bytes / 1e6, "MB")
    runtime.prepare()
    record.measured("sizes captured", runtime.graphs, "")
    _compare(record, "tensorrt fp16", runtime, TorchRuntime(checkpoint, device=machine.device), "fp16", thorough=True)
    record.measured("calls replayed", 100 * runtime.replayed_ratio, "%")
