"""A CUDA device through cuda-python: streams, events, pinned memory, copies and graphs.

Call `probe` first: without a driver other libraries crash the process instead of raising.
"""

from __future__ import annotations

import ctypes
import importlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engines.errors import EngineError

Bytes = npt.NDArray[np.uint8]
_NO_DRIVER = "install NVIDIA's driver, or pick a runtime that needs none (--s3gen onnx or torch)"


class CudaUnavailable(EngineError):
    """There is no usable GPU; the message says whether cuda-python, the driver or the device is missing."""

    reason: str = "CUDA_UNAVAILABLE"


class CudaError(EngineError):
    """A call of the CUDA runtime failed; the message names the call and CUDA's error, `status` is its number."""

    reason: str = "CUDA_ERROR"

    def __init__(self, call: str, name: str, status: int) -> None:
        super().__init__(f"{call}: {name}")
        self.status = status


@dataclass(frozen=True)
class Gpu:
    """One device: its index, compute capability and memory."""

    index: int
    name: str
    architecture: str  # sm86
    memory_bytes: int


def probe(index: int = 0, runtime: Any = None) -> Gpu:
    """The GPU `index`. Raises CudaUnavailable if driver or device is missing; never crashes.

    runtime: the module of CUDA's runtime; None: cuda-python's
    """
    runtime = runtime or _cuda_python()
    try:
        status, count = runtime.cudaGetDeviceCount()
    except Exception as error:  # cuda-python finds the driver's library only now, and raises errors of its own
        raise CudaUnavailable(f"the CUDA driver cannot be loaded ({error}): {_NO_DRIVER}") from error
    if int(status) != 0:
        raise CudaUnavailable(f"the CUDA driver says {status.name}: {_NO_DRIVER}")
    if not 0 <= index < count:
        raise CudaUnavailable(f"there is no GPU {index}: this machine has {count}")
    properties = _check("cudaGetDeviceProperties", runtime.cudaGetDeviceProperties(index))
    architecture = f"sm{properties.major}{properties.minor}"
    return Gpu(index, properties.name.decode(), architecture, int(properties.totalGlobalMem))


def _cuda_python() -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise CudaUnavailable(f"cuda-python is not installed ({error}): pip install 'cuda-python>=12.9'") from error


def _check(call: str, result: tuple[Any, ...]) -> Any:
    """The values of a cuda-python call behind its status. Raises CudaError."""
    status, *values = result
    if int(status) != 0:
        raise CudaError(call, status.name, int(status))
    return values[0] if len(values) == 1 else tuple(values)


class CudaDevice:
    """The double_buffer.Device of one GPU. Handles are cuda-python's; addresses are ints. For one thread at a time; it
    need not be the one that made this object."""

    def __init__(self, index: int = 0, runtime: Any = None) -> None:
        """As `probe`."""
        self.gpu = probe(index, runtime)
        self._runtime = runtime or _cuda_python()
        self._threads = threading.local()  # CUDA's current device is one per thread, and 0 at first

    def _call(self, name: str, *arguments: Any) -> Any:
        if not getattr(self._threads, "bound", False):
            _check("cudaSetDevice", self._runtime.cudaSetDevice(self.gpu.index))
            self._threads.bound = True
        return _check(name, getattr(self._runtime, name)(*arguments))

    def stream(self) -> Any:
        """A stream that does not wait for the legacy default one, of the lowest priority: T3's steps go first."""
        lowest, _ = self._call("cudaDeviceGetStreamPriorityRange")
        return self._call("cudaStreamCreateWithPriority", self._runtime.cudaStreamNonBlocking, lowest)

    def event(self) -> Any:
        """An event for which the host waits asleep: cores are few beside a GPU."""
        flags = self._runtime.cudaEventDisableTiming | self._runtime.cudaEventBlockingSync
        return self._call("cudaEventCreateWithFlags", flags)

    def record(self, event: Any, stream: Any) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: Any, event: Any) -> None:
        """Later work on `stream` starts after the event's last record. The host does not wait."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, event: Any) -> None:
        """The host waits."""
        self._call("cudaEventSynchronize", event)

    def allocate(self, size_bytes: int) -> int:
        return int(self._call("cudaMalloc", size_bytes))

    def pinned(self, size_bytes: int) -> Bytes:
        """Page-locked host memory; lives as long as the process."""
        address = int(self._call("cudaMallocHost", size_bytes))
        return np.ctypeslib.as_array((ctypes.c_uint8 * size_bytes).from_address(address))

    def copy_in(self, address: int, source: Bytes, stream: Any) -> None:
        """Host to device; `source` is pinned and must not change before an event recorded after this has passed."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, source.ctypes.data, source.nbytes, kind, stream)

    def copy_out(self, target: Bytes, address: int, stream: Any) -> None:
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", target.ctypes.data, address, target.nbytes, kind, stream)

    def copy_on(self, target: int, source: int, size_bytes: int, stream: Any) -> None:
        """From one address on the device to another."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
        self._call("cudaMemcpyAsync", target, source, size_bytes, kind, stream)

    def clear(self, address: int, size_bytes: int, stream: Any) -> None:
        """Write zeros."""
        self._call("cudaMemsetAsync", address, 0, size_bytes, stream)

    def capture(self, stream: Any, work: Callable[[], None]) -> Any:
        """Capture the work that `work` enqueues on `stream` as a graph, which `launch` repeats in one call.

        What `work` raises is raised, also if the capture has become invalid by it.
        """
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)
        try:
            work()
        except BaseException:
            self._runtime.cudaStreamEndCapture(stream)  # a capture left open would poison the stream
            self._runtime.cudaGetLastError()  # torch checks it after its next launch on this thread
            raise
        try:
            graph = self._call("cudaStreamEndCapture", stream)
        except CudaError:
            self._runtime.cudaGetLastError()
            raise
        executable = self._call("cudaGraphInstantiate", graph, 0)
        self._call("cudaGraphDestroy", graph)
        return executable

    def launch(self, graph: Any, stream: Any) -> None:
        self._call("cudaGraphLaunch", graph, stream)
