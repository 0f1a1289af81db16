"""The device of an engine, its memory, and the CPU threads that the engine may use."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.api import DeviceMemory
from engines.errors import InvalidInput, quoted


def resolve_device(name: str) -> str:
    """Returns the device that auto, cpu, cuda or cuda:N names. Raises InvalidInput if it does not exist."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown_device(name) from error
    if device.type not in ("cpu", "cuda"):
        raise _unknown_device(name)
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    if (device.index or 0) >= count:
        allowed = f"one of the {count} GPUs of this machine"
        message = f"device is {name}, but it must be {allowed}."
        if count == 0:
            allowed, message = "cpu", f"device is {name}, but torch finds no GPU on this machine; it must be cpu."
        raise InvalidInput("device", message, "DEVICE_MISSING", value=name, allowed=allowed)
    return name


def _unknown_device(name: str) -> InvalidInput:
    allowed = "auto, cpu, cuda or cuda:N"
    message = f"device is {quoted(name)}; it must be {allowed}."
    return InvalidInput("device", message, "DEVICE_UNKNOWN", value=repr(name), allowed=allowed)


def host_memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """The memory of this machine, or of the container that this process runs in, if that is less."""
    bytes_ = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):
        return min(bytes_, int(limit.read_text()))
    return bytes_


T3_PRIORITY, S3GEN_PRIORITY = -1, 0  # of CUDA streams; the smaller goes first


def use_own_stream(device: str, priority: int) -> None:
    """Give the calling thread a CUDA stream of its own. Without effect on a CPU.

    On the default stream, which threads share, every result of T3 would wait for the window that S3Gen computes. T3's
    kernels are short, so they go first.
    """
    target = torch.device(device)
    if target.type != "cuda":
        return
    # one per thread, and CUDA's own default is the first GPU; torch takes no "cuda" without a number here
    torch.cuda.set_device(target.index or 0)
    torch.cuda.synchronize(target)  # weights were copied on the default stream
    torch.cuda.set_stream(torch.cuda.Stream(target, priority=priority))  # type: ignore[no-untyped-call]


@dataclass(frozen=True)
class DeviceThread:
    """What a thread does that works on a device.

    start     called on the thread before its first work
    working   the context of each piece of work, with a name for it
    failed    called with each exception of the work
    """

    start: Callable[[], None] = lambda: None
    working: Callable[[str], AbstractContextManager[None]] = lambda name: contextlib.nullcontext()
    failed: Callable[[BaseException], None] = lambda error: None


PLAIN_THREAD = DeviceThread()


def use_exact_float32() -> None:
    """Turn TF32 off for torch's convolutions and matrix products.

    cuDNN's convolutions use it by default on GPUs since Ampere. It keeps 10 bits of the mantissa, which moves f0 and
    costs 3e-3 of a frame, thirty times what the parity check allows in float32.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def to_device(values: Sequence[float] | Sequence[Sequence[float]], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Numbers of the host as a tensor on the device. The host does not wait for the copy.

    A copy from pageable memory would wait for everything that is queued before it.
    """
    if device.type != "cuda":
        return torch.tensor(values, dtype=dtype, device=device)
    return torch.tensor(values, dtype=dtype, pin_memory=True).to(device, non_blocking=True)


def staging_memory(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory on the host from which copies to the device run while the host goes on. It starts as zeros."""
    return torch.zeros(*shape, dtype=dtype, pin_memory=device.type == "cuda")


def send(target: Tensor, staged: Tensor) -> None:
    """Copy staging memory to the device. The host does not wait and may not write to it before a later result came."""
    target.copy_(staged, non_blocking=True)


def wait_until_done(device: torch.device) -> None:
    """The host waits for what this thread has put on its stream. Without effect on a CPU."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


Launch = Callable[[], None]


class Graphs(Protocol):
    """Capture of torch's work."""

    def capture(self, work: Callable[[], None]) -> Launch:
        """Capture `work`, which has just run. Returns the launch of the graph on the calling thread's stream."""
        ...


def captured(work: Callable[[], None], pool: Any, stream: torch.cuda.Stream) -> Launch:
    """Capture `work` on `stream`. Returns the launch on the calling thread's stream.

    From torch 2.10 on, kernels of a graph keep the priority of the stream that they were captured on.

    Captures and launches are in inference mode, whatever the caller's mode is. Torch keeps its random generator's state
    for graphs in tensors that the first capture of the process makes, and writes to them in every capture and at every
    launch. Tensors that were made in inference mode can be written to in it alone.
    """
    graph = torch.cuda.CUDAGraph()
    with (
        torch.inference_mode(),
        torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
    ):
        work()

    def launch() -> None:
        with torch.inference_mode():
            graph.replay()

    return launch


class CudaGraphs:
    """CUDA graphs in one pool of memory: they run one after the other on one stream, and what one leaves is read before
    the next runs."""

    def __init__(self, device: torch.device, priority: int) -> None:
        """priority: of the stream that will launch them"""
        self._device = device
        with torch.cuda.device(device):
            self._pool = torch.cuda.graph_pool_handle()
            self._stream = torch.cuda.Stream(device, priority=priority)  # type: ignore[no-untyped-call]

    def capture(self, work: Callable[[], None]) -> Launch:
        """As Graphs.capture. It stops the whole device for a moment."""
        with torch.cuda.device(self._device):  # of this thread; the graph runs on the thread that launches it
            return captured(work, self._pool, self._stream)


def use_threads(threads: int | None) -> None:
    """Set torch's intra-op threads; None keeps its default, one per physical core. Raises InvalidInput below 1."""
    if threads is None:
        return
    if threads < 1:
        message = f"threads is {threads}; it must be at least 1."
        raise InvalidInput("threads", message, "THREADS_OUT_OF_RANGE", value=threads, allowed="at least 1")
    torch.set_num_threads(threads)


def cpu_threads() -> int:
    """The number of intra-op threads in use."""
    return torch.get_num_threads()


def device_memory(device: str) -> DeviceMemory | None:
    """GPU memory in use by all processes; None for the CPU."""
    if torch.device(device).type != "cuda":
        return None
    free_bytes, total_bytes = torch.cuda.mem_get_info(device)
    return DeviceMemory(total_bytes - free_bytes, total_bytes)
