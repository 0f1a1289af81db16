"""The steps of the check, by name. Where a library or the GPU is missing, a step says what is absent and passes."""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from bench.gpu.results import Recorder
from engines.checkpoints.checkpoint import Checkpoint, open_checkpoint
from engines.planning.gpus import find_gpu
from engines.planning.times import S3GEN, T3, Times

_PACKAGES = (
    "torch", "vllm", "tensorrt-cu12", "tensorrt-rtx-cu12", "cuda-python", "onnxruntime", "onnxruntime-gpu",
)  # fmt: skip
_MOST_TRACE_MB = 16  # what a viewer opens, and a device machine sends back
_HOST_MEMORY = Path("/proc/meminfo")


class Machine:
    """The device and the model that a step works with."""

    def __init__(self, device: str, model: str, folder: Path) -> None:
        self.device, self.model, self.folder = device, model, folder
        self.on_gpu = device.startswith("cuda")
        self.cache_dir = folder / "cache"

    def checkpoint(self) -> Checkpoint:
        return open_checkpoint(self.model, cache_dir=self.cache_dir, device=self.device)

    def planned(self, t3: str, s3gen: str) -> Times | None:
        """What arithmetic says of this model on this GPU; None for a CPU, for GPUs without a data sheet here, and for
        runtimes that no plan counts."""
        if t3 not in T3 or s3gen not in S3GEN:
            return None
        gpu = find_gpu(torch.cuda.get_device_name(self.device)) if self.on_gpu else None
        return None if gpu is None else Times(self.checkpoint().spec, gpu, t3, s3gen)

    def synchronize(self) -> None:
        if self.on_gpu:
            torch.cuda.synchronize()

    @property
    def streams(self) -> int:
        """As many as the product's goals name; on a CPU few."""
        return self.repeats(32, 2)

    def repeats(self, on_gpu: int, on_cpu: int) -> int:
        return on_gpu if self.on_gpu else on_cpu


def run(step: str, record: Recorder, device: str, model: str, folder: Path) -> None:
    """Run one step."""
    machine = Machine(device, model, folder)
    if machine.on_gpu and not torch.cuda.is_available():
        record.check("gpu", False, "torch finds no GPU; rehearse with --device cpu --model random:tiny")
        return
    _STEPS[step](record, machine)


def best_ms(call: Callable[[], object], machine: Machine, repeats: int) -> float:
    """The median of a call in milliseconds, after one that is not counted."""
    times = []
    for turn in range(repeats + 1):
        machine.synchronize()
        began_s = time.perf_counter()
        call()
        machine.synchronize()
        if turn:
            times.append(time.perf_counter() - began_s)
    return 1000 * sorted(times)[len(times) // 2]


def facts(record: Recorder, machine: Machine) -> None:
    """What the machine is: versions, memory, copies, the cost of a launch."""
    for name in _PACKAGES:
        try:
            record.check(name, True, importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            record.absent(name, "not installed")
    record.measured("CPU cores", os.cpu_count() or 0, "", note=f"Python {platform.python_version()}")
    if not machine.on_gpu:
        record.absent("GPU", "a rehearsal on the CPU")
    else:
        properties = torch.cuda.get_device_properties(machine.device)
        architecture = f"sm{properties.major}{properties.minor}, CUDA {torch.version.cuda}"
        record.measured(properties.name, properties.total_memory / 1e9, "GB", note=architecture)
    record_driver(record)
    if _HOST_MEMORY.is_file():
        total_kb = int(_HOST_MEMORY.read_text().split()[1])
        record.measured("memory of the host", total_kb / 1e6, "GB")
    megabytes = machine.repeats(256, 8)
    host = torch.ones(megabytes << 18, pin_memory=machine.on_gpu)
    on_device = host.to(machine.device, copy=True)
    for name, call in (
        ("copy to the device", lambda: on_device.copy_(host, non_blocking=True)),
        ("copy from the device", lambda: host.copy_(on_device, non_blocking=True)),
    ):
        record.measured(name, host.nbytes / best_ms(call, machine, 5) / 1e6, "GB/s")
    small = torch.ones(8, device=machine.device)

    def launches() -> None:
        for _ in range(1000):
            small.add_(1)

    record.measured("launch of an empty kernel", best_ms(launches, machine, 3), "us")
    if machine.on_gpu:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            launches()
        record.measured("the same in a graph", best_ms(graph.replay, machine, 3), "us")


def record_driver(record: Recorder) -> None:
    """The driver's version, clocks and power, as its own tool says them."""
    command = shutil.which("nvidia-smi")
    if command is None:
        record.absent("nvidia-smi", "not installed")
        return
    fields = "driver_version,clocks.max.sm,power.limit,persistence_mode,mig.mode.current"
    query = [command, f"--query-gpu={fields}", "--format=csv,noheader"]
    asked = subprocess.run(query, capture_output=True, text=True, timeout=10)
    record.check("nvidia-smi", asked.returncode == 0, (asked.stdout or asked.stderr).strip()[:200])


def weights(record: Recorder, machine: Machine) -> None:
    """The checkpoint, made if it is a random one."""
    began_s = time.perf_counter()
    checkpoint = machine.checkpoint()
    record.measured(checkpoint.spec.name, time.perf_counter() - began_s, "s", note=str(checkpoint.folder))


@contextmanager
def peak_memory(record: Recorder, name: str, machine: Machine) -> Iterator[None]:
    """Records the most memory that torch held meanwhile."""
    if machine.on_gpu:
        torch.cuda.reset_peak_memory_stats()
    yield
    if machine.on_gpu:
        record.measured(f"{name}: peak memory", torch.cuda.max_memory_allocated() / 1e6, "MB")


def traces(record: Recorder, machine: Machine) -> None:
    """Chrome traces of a window and of steps of T3, packed."""
    from engines.s3gen.runtimes.torch import TorchRuntime
    from engines.tools.engine_times import stage_calls
    from engines.tools.torch_profiler import profiled

    runtime = TorchRuntime(machine.checkpoint(), device=machine.device)
    for name, call in stage_calls(machine.checkpoint(), runtime, machine.device, ["hop12"]):
        if name == "conditioning":
            continue  # it decodes audio, which needs libraries that a bare machine lacks
        if name == "t3-step":
            call = partial(_repeated, call, 5)
        path = machine.folder / f"trace-{name}.json"
        _, peaks = profiled(call, path, 10)
        packed = path.with_suffix(".json.gz")
        packed.write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
        size_mb = packed.stat().st_size / 1e6
        record.measured(name, size_mb, "MB", note=f"{packed.name}, peaks {peaks}")
        record.check(f"{name} fits", size_mb < _MOST_TRACE_MB, f"below {_MOST_TRACE_MB} MB")


def _repeated(call: Callable[[], object], times: int) -> None:
    for _ in range(times):
        call()


def _imported(module: str) -> Callable[[Recorder, Machine], None]:
    def step(record: Recorder, machine: Machine) -> None:
        importlib.import_module(f"bench.gpu.{module}").run(record, machine)

    return step


_STEPS: dict[str, Callable[[Recorder, Machine], None]] = {
    "facts": facts,
    "driver": _imported("driver"),
    "weights": weights,
    "s3gen": lambda record, machine: importlib.import_module("bench.gpu.s3gen").right(record, machine),
    "t3": _imported("t3"),
    "vllm": _imported("vllm"),
    "tensorrt": _imported("tensorrt"),
    "speed": lambda record, machine: importlib.import_module("bench.gpu.s3gen").fast(record, machine),
    "together": _imported("together"),
    "engine": _imported("engine"),
    "traces": traces,
}
