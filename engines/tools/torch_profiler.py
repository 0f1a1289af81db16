"""torch.profiler's table and Chrome trace of one call, and its peak memory."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def profiled(call: Callable[[], object], trace: Path, rows: int, name: str = "call") -> tuple[str, dict[str, float]]:
    """Returns a table of the `rows` most expensive operators and the peaks in MB; writes the trace to `trace`.

    The trace holds the call as a range of this name, and those of `with_range` on all threads: work that torch does not
    know as operators, TensorRT's for one, stands in them as kernels.

    The call runs twice. Memory is measured in the first run, since the profiler itself allocates; the first run also
    pays for first-use costs.
    """
    peak = _peak_memory(call)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    profiling = torch.profiler.profile(activities=activities, profile_memory=True, experimental_config=_all_threads())
    with profiling as profiler, torch.profiler.record_function(name):
        call()
    profiler.export_chrome_trace(str(trace))
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows), peak


def with_range(call: Callable[..., Result], name: str) -> Callable[..., Result]:
    """The call as a named range of a trace."""

    def ranged(*arguments: Any, **options: Any) -> Result:
        with torch.profiler.record_function(name):
            return call(*arguments, **options)

    return ranged


def _all_threads() -> Any:
    """The profiler's setting for work on other threads; None in versions of torch without it."""
    try:
        return torch._C._profiler._ExperimentalConfig(profile_all_threads=True)
    except TypeError:
        return None


def _peak_memory(call: Callable[[], object]) -> dict[str, float]:
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5")  # Linux: the peak starts again from here
    call()
    peak = {"host_mb": peak_host_mb()}
    if on_gpu:
        peak["device_mb"] = torch.cuda.max_memory_allocated() / 1e6
        # with TensorRT's and vLLM's, none of which return memory after a call
        peak["gpu_used_mb"] = device_used_mb() or 0.0
    return peak


def peak_host_mb() -> float:
    """Peak resident memory since its reset, or of the whole process where the system cannot reset it."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def device_used_mb() -> float | None:
    """Memory of the GPU that all processes use now; None without a GPU."""
    if not torch.cuda.is_available():
        return None
    free, total = torch.cuda.mem_get_info()
    return (total - free) / 1e6
