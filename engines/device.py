"""Which device an engine runs on and how many CPU threads it may use."""

from __future__ import annotations

import torch

from engines.api import DeviceMemory
from engines.errors import invalid_value


def resolve_device(name: str) -> str:
    """auto | cpu | cuda | cuda:N -> a device that is there. Raises InvalidInput when it is not."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise invalid_value("device", name, "auto, cpu, cuda or cuda:N", "DEVICE_UNKNOWN") from error
    if device.type not in ("cpu", "cuda"):
        raise invalid_value("device", name, "auto, cpu, cuda or cuda:N", "DEVICE_UNKNOWN")
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        raise invalid_value("device", name, f"one of the {count} GPUs of this machine", "DEVICE_MISSING")
    return name


def use_threads(threads: int | None) -> None:
    """Intra-op threads of this process; None leaves torch's choice, one per physical core."""
    if threads is None:
        return
    if threads < 1:
        raise invalid_value("threads", threads, "at least 1", "THREADS_OUT_OF_RANGE")
    torch.set_num_threads(threads)


def cpu_threads() -> int:
    """Intra-op threads that CPU work uses now."""
    return torch.get_num_threads()


def device_memory(device: str) -> DeviceMemory | None:
    """What is taken of a GPU's memory now, by whomever; None for the CPU."""
    if torch.device(device).type != "cuda":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return DeviceMemory(total_bytes - free_bytes, total_bytes)
