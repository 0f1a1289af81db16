"""The driver layer: copies, graphs and the double buffer on real streams, and which neighbours a capture survives."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from bench.gpu.results import Recorder
from bench.gpu.steps import Machine
from engines.s3gen.export.graphs import Port
from engines.s3gen.gpu.cuda import CudaDevice
from engines.s3gen.gpu.double_buffer import Device, DoubleBuffer, Launch, Sizes

_BATCHES = 40


def run(record: Recorder, machine: Machine) -> None:
    """The double buffer on real streams, and which neighbours a capture survives."""
    if importlib.util.find_spec("cuda") is None or not machine.on_gpu:
        record.absent("driver layer", "no GPU" if not machine.on_gpu else "cuda-python is not installed")
        return
    device = CudaDevice()
    size = 1 << 20
    source, target = device.allocate(size), device.allocate(size)
    host = device.pinned(size)

    def copies() -> str:
        stream, event = device.stream(), device.event()
        host[:] = 7
        device.copy_in(source, host, stream)
        graph = device.capture(stream, lambda: device.copy_on(target, source, size, stream))
        device.launch(graph, stream)
        host[:] = 0
        device.copy_out(host, target, stream)
        device.record(event, stream)
        device.synchronize(event)
        assert (host == 7).all(), "wrong bytes"
        return "copies and a captured graph"

    record.attempt("copies, events, graphs", copies)
    record.attempt("double buffer, eager and replayed", lambda: double_buffer(device))
    neighbours: dict[str, Callable[[], object]] = {
        "work on the default stream": lambda: torch.ones(8, device="cuda").add_(1),
        "an allocation": lambda: torch.empty(1 << 24, device="cuda"),
        "a synchronisation of the device": torch.cuda.synchronize,
    }
    for name, neighbour in neighbours.items():
        record.attempt(f"capture beside {name}", lambda neighbour=neighbour: _capture_beside(device, neighbour))


def _capture_beside(device: CudaDevice, neighbour: Callable[[], object]) -> str:
    stream = device.stream()
    errors: list[BaseException] = []

    def other() -> None:
        try:
            neighbour()
        except Exception as error:
            errors.append(error)

    def work() -> None:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    try:
        device.capture(stream, work)
    except Exception as error:
        return f"the capture fails: {error}; the neighbour: {errors}"
    return f"the capture holds; the neighbour: {errors or 'fine'}"


class _Copying:
    """y = x over (batch, frames), by way of inner memory."""

    inputs = (Port("x", ("batch", "frames")),)
    outputs = (Port("y", ("batch", "frames")),)
    inner = (Port("middle", ("batch", "frames")),)
    unpadded = False

    def __init__(self, device: Device) -> None:
        self._device = device

    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
        size_bytes = 4 * sizes["batch"] * sizes["frames"]
        self._device.copy_on(addresses["middle"], addresses["x"], size_bytes, stream)
        self._device.copy_on(addresses["y"], addresses["middle"], size_bytes, stream)

    def capture(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> Launch | None:
        graph = self._device.capture(stream, lambda: self.enqueue(stream, addresses, sizes))
        return lambda: self._device.launch(graph, stream)


def double_buffer(device: Device) -> str:
    """Batches of sizes with and without a graph, two in flight: each gets its own numbers back."""
    buffer = DoubleBuffer(device, _Copying(device), [{"batch": 8, "frames": 4096}])
    buffer.prepare([{"batch": 8, "frames": 4096}, {"batch": 2, "frames": 1024}])
    rng = np.random.default_rng(0)
    pending = []
    for turn in range(_BATCHES):
        rows, frames = ((8, 4096), (3, 999), (2, 1024))[turn % 3]
        x = rng.standard_normal((rows, frames), np.float32)
        pending.append((buffer.submit({"x": x}, {"batch": rows, "frames": frames}), x))
    for ticket, x in pending:
        assert np.array_equal(ticket.result()["y"], x), "a batch got other numbers"
    assert buffer.graphs == 2, "a size was not captured"
    return f"{buffer.replayed} batches replayed, {buffer.eager} eager"
