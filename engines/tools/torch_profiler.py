"""torch.profiler's table and Chrome trace of one call, and its peak memory."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def profiled(call: Callable[[], object], trace: Path, rows: int) -> tuple[str, dict[str, float]]:
    """Returns a table of the `rows` most expensive operators and the peaks in MB; writes the trace to `trace`.

    The call runs twice. Memory is measured in the first run, since the profiler itself allocates; the first run also
    pays for first-use costs.
    """
    peak = _peak_memory(call)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        call()
    profiler.export_chrome_trace(str(trace))
    return profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=rows), peak


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
