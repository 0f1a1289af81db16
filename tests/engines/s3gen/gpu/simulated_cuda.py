"""A simulated GPU behind the functions of `cuda.bindings.runtime`, with the rules that real ones document.

Work on a stream runs only when the host waits, in a random order that keeps each stream's own order and every event.
So a missing event, an early reuse of a buffer or scratch memory shared by two streams gives wrong numbers here as well.
What CUDA forbids is an error status here; what it leaves undefined fills the result with NaN.

Rules: the current device is one per thread, and a stream belongs to one device. During a capture, calls that would wait
or allocate invalidate it (900), from the capturing thread; so does work on the legacy default stream if the captured
stream or one that a library works on is a blocking one (906), and a synchronisation of the device, from any thread.
After a fault every call returns it.
"""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

LEGACY_STREAM = 0
DISABLE_TIMING, BLOCKING_SYNC, NON_BLOCKING = 2, 1, 1


class Status(IntEnum):
    """Of cudaError_t, what the simulation returns."""

    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInvalidResourceHandle = 400
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901
    cudaErrorStreamCaptureImplicit = 906


class CopyKind(IntEnum):
    """cudaMemcpyKind."""

    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class CaptureMode(IntEnum):
    """cudaStreamCaptureMode."""

    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1


Job = Callable[[], object]


@dataclass
class _Capture:
    thread: int
    jobs: list[Job] = field(default_factory=list)
    broken: Status = Status.cudaSuccess


@dataclass
class _Stream:
    device: int
    blocking: bool
    queue: list[tuple[str, Any]] = field(default_factory=list)
    capture: _Capture | None = None


class SimulatedCuda:
    """The module `cuda.bindings.runtime`; statuses are returned as cuda-python does, in tuples."""

    cudaStreamNonBlocking = NON_BLOCKING
    cudaEventDisableTiming = DISABLE_TIMING
    cudaEventBlockingSync = BLOCKING_SYNC
    cudaMemcpyKind = CopyKind
    cudaStreamCaptureMode = CaptureMode

    def __init__(self, seed: int = 0, devices: int = 1, memory_bytes: int = 24 << 30) -> None:
        self._rng = random.Random(seed)
        self._devices = devices
        self._streams: dict[int, _Stream] = {LEGACY_STREAM: _Stream(0, blocking=True)}
        self._recorded: list[int] = []
        self._passed: list[int] = []
        self._memory: dict[int, np.ndarray] = {}
        self._graphs: dict[int, list[Job]] = {}
        self._current = threading.local()
        self._sticky = Status.cudaSuccess
        self.memory_bytes, self.allocated_bytes = memory_bytes, 0
        self.host_waits = self.launches = self.failed_captures = 0
        self.fail_after: int | None = None  # this many more calls, then an illegal address
        self.refuse_captures = 0  # this many captures fail

    # -- the device

    @property
    def device(self) -> int:
        """The current device of this thread."""
        return getattr(self._current, "device", 0)

    def fault(self, status: Status = Status.cudaErrorIllegalAddress) -> None:
        """Every later call returns this."""
        self._sticky = status

    def _status(self) -> Status:
        if self.fail_after is not None:
            self.fail_after -= 1
            if self.fail_after < 0:
                self.fault()
        return self._sticky

    def _waits(self) -> Status:
        """A call that waits or allocates: forbidden to a thread that captures."""
        for stream in self._streams.values():
            if stream.capture is not None and stream.capture.thread == threading.get_ident():
                stream.capture.broken = Status.cudaErrorStreamCaptureInvalidated
                return Status.cudaErrorStreamCaptureUnsupported
        return self._status()

    def cudaGetDeviceCount(self) -> tuple[Status, int]:
        return self._status(), self._devices

    def cudaGetDeviceProperties(self, index: int) -> tuple[Status, Any]:
        return self._status(), SimpleNamespace(
            major=8, minor=6, name=b"Simulated GPU", totalGlobalMem=self.memory_bytes
        )

    def cudaSetDevice(self, index: int) -> tuple[Status]:
        self._current.device = index
        return (self._status(),)

    def cudaGetLastError(self) -> tuple[Status]:
        return (self._sticky,)

    def cudaDeviceGetStreamPriorityRange(self) -> tuple[Status, int, int]:
        return self._status(), 0, -5

    def cudaDeviceSynchronize(self) -> tuple[Status]:
        for stream in self._streams.values():
            if stream.capture is not None:
                stream.capture.broken = Status.cudaErrorStreamCaptureInvalidated
                return (Status.cudaErrorStreamCaptureUnsupported,)
        self._run_until(lambda: not any(stream.queue for stream in self._streams.values()))
        return (self._status(),)

    # -- memory

    def cudaMalloc(self, size_bytes: int) -> tuple[Status, int]:
        if (status := self._waits()) or self.allocated_bytes + size_bytes > self.memory_bytes:
            return status or Status.cudaErrorMemoryAllocation, 0
        self.allocated_bytes += size_bytes
        return Status.cudaSuccess, self._new(size_bytes)

    def cudaMallocHost(self, size_bytes: int) -> tuple[Status, int]:
        status = self._waits()
        return status, 0 if status else self._new(size_bytes)

    def _new(self, size_bytes: int) -> int:
        memory = np.full(size_bytes, 255, np.uint8)  # NaN as floats
        self._memory[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def cudaMemcpyAsync(self, target: int, source: int, count: int, kind: CopyKind, stream: int) -> tuple[Status]:
        return (self.enqueue(stream, lambda: ctypes.memmove(target, source, count)),)

    def cudaMemsetAsync(self, address: int, value: int, count: int, stream: int) -> tuple[Status]:
        return (self.enqueue(stream, lambda: ctypes.memset(address, value, count)),)

    # -- streams and events

    def cudaStreamCreateWithPriority(self, flags: int, priority: int) -> tuple[Status, int]:
        return self.cudaStreamCreateWithFlags(flags)

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        handle = 1000 + len(self._streams)
        self._streams[handle] = _Stream(self.device, blocking=not flags & NON_BLOCKING)
        return self._status(), handle

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[Status, int]:
        self._recorded.append(0)
        self._passed.append(0)
        return self._status(), len(self._recorded) - 1

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Status]:
        self._recorded[event] += 1
        self._streams[stream].queue.append(("record", (event, self._recorded[event])))
        return (self._status(),)

    def cudaStreamWaitEvent(self, stream: int, event: int, flags: int) -> tuple[Status]:
        self._streams[stream].queue.append(("wait", (event, self._recorded[event])))
        return (self._status(),)

    def cudaEventSynchronize(self, event: int) -> tuple[Status]:
        if status := self._waits():
            return (status,)
        self.host_waits += 1
        self._run_until(lambda: self._passed[event] >= self._recorded[event])
        return (self._status(),)

    def _run_until(self, done: Callable[[], bool]) -> None:
        while not done():
            ready = [stream for stream in self._streams.values() if stream.queue and self._may_run(stream.queue[0])]
            assert ready, "deadlock"
            kind, what = self._rng.choice(ready).queue.pop(0)
            if kind == "record":
                self._passed[what[0]] = what[1]
            elif kind == "work":
                what()

    def _may_run(self, item: tuple[str, Any]) -> bool:
        return item[0] != "wait" or self._passed[item[1][0]] >= item[1][1]

    def enqueue(self, stream: int, *jobs: Job) -> Status:
        """Put jobs on a stream, or into the graph that is captured from it."""
        on = self._streams[int(stream)]
        if status := self._status():
            return status
        if on.device != self.device:
            return Status.cudaErrorInvalidResourceHandle
        if int(stream) == LEGACY_STREAM and (status := self._implicit_synchronisation()):
            return status
        if on.capture is not None:
            on.capture.jobs += jobs
        else:
            on.queue += [("work", job) for job in jobs]
        return Status.cudaSuccess

    def _implicit_synchronisation(self) -> Status:
        """The legacy default stream waits for all blocking streams, which those that are captured cannot bear."""
        for stream in self._streams.values():
            if stream.capture is not None and stream.blocking:
                stream.capture.broken = Status.cudaErrorStreamCaptureInvalidated
                return Status.cudaErrorStreamCaptureImplicit
        return Status.cudaSuccess

    # -- graphs

    def capturing(self, stream: int) -> bool:
        """Whether work on this stream is captured."""
        return self._streams[int(stream)].capture is not None

    def break_capture(self, stream: int) -> None:
        """Invalidate the capture of a stream, if there is one."""
        capture = self._streams[int(stream)].capture
        if capture is not None:
            capture.broken = Status.cudaErrorStreamCaptureInvalidated

    def cudaStreamBeginCapture(self, stream: int, mode: CaptureMode) -> tuple[Status]:
        on = self._streams[stream]
        assert on.capture is None
        on.capture = _Capture(threading.get_ident())
        if self.refuse_captures:
            self.refuse_captures -= 1
            on.capture.broken = Status.cudaErrorStreamCaptureInvalidated
        return (self._status(),)

    def cudaStreamEndCapture(self, stream: int) -> tuple[Status, int]:
        capture, self._streams[stream].capture = self._streams[stream].capture, None
        assert capture is not None
        if capture.broken:
            self.failed_captures += 1
            return capture.broken, 0
        self._graphs[len(self._graphs) + 1] = capture.jobs
        return self._status(), len(self._graphs)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Status, int]:
        return self._waits(), graph

    def cudaGraphDestroy(self, graph: int) -> tuple[Status]:
        return (self._status(),)

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple[Status]:
        self.launches += 1
        return (self.enqueue(stream, *self._graphs[graph]),)
