"""The double buffer is ordered by events alone: on a device that runs streams in any order events allow, every batch
gets its own result, nothing waits that need not, and no buffer is touched while it is in use.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from engines.s3gen.export.graphs import Port
from engines.s3gen.gpu.cuda import CudaDevice, CudaUnavailable, probe
from engines.s3gen.gpu.double_buffer import Bytes, DoubleBuffer, Sizes


class LazyDevice:
    """Streams are queues; what they hold runs only when somebody waits, and then in a random order that keeps each
    queue's own order and every event. A missing event or an early reuse of a buffer therefore gives a wrong result.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._queues: list[list[tuple[str, Any]]] = []
        self._recorded: list[int] = []  # times each event was put on a stream
        self._passed: list[int] = []
        self.memory: dict[int, Bytes] = {}
        self._capturing: list[Callable[[], None]] | None = None
        self.host_waits = self.captures = self.launches = 0

    def stream(self) -> int:
        self._queues.append([])
        return len(self._queues) - 1

    def event(self) -> int:
        self._recorded.append(0)
        self._passed.append(0)
        return len(self._recorded) - 1

    def record(self, event: int, stream: int) -> None:
        self._recorded[event] += 1
        self._queues[stream].append(("record", (event, self._recorded[event])))

    def wait(self, stream: int, event: int) -> None:
        self._queues[stream].append(("wait", (event, self._recorded[event])))

    def synchronize(self, event: int) -> None:
        self.host_waits += 1
        while self._passed[event] < self._recorded[event]:
            ready = [queue for queue in self._queues if queue and self._may_run(queue[0])]
            assert ready, "deadlock"
            self._run(self._rng.choice(ready).pop(0))

    def _may_run(self, item: tuple[str, Any]) -> bool:
        return item[0] != "wait" or self._passed[item[1][0]] >= item[1][1]

    def _run(self, item: tuple[str, Any]) -> None:
        kind, what = item
        if kind == "record":
            self._passed[what[0]] = what[1]
        elif kind == "work":
            what()

    def work(self, stream: int, job: Callable[[], None]) -> None:
        if self._capturing is not None:
            self._capturing.append(job)
        else:
            self._queues[stream].append(("work", job))

    def allocate(self, size_bytes: int) -> int:
        address = len(self.memory) + 1
        self.memory[address] = np.full(size_bytes, 255, np.uint8)
        return address

    def pinned(self, size_bytes: int) -> Bytes:
        return np.full(size_bytes, 255, np.uint8)

    def copy_in(self, address: int, source: Bytes, stream: int) -> None:
        self.work(stream, lambda: self.memory[address][: len(source)].__setitem__(slice(None), source))

    def copy_out(self, target: Bytes, address: int, stream: int) -> None:
        self.work(stream, lambda: target.__setitem__(slice(None), self.memory[address][: len(target)]))

    def capture(self, stream: int, work: Callable[[], None]) -> list[Callable[[], None]]:
        self.captures += 1
        self._capturing = jobs = []
        work()
        self._capturing = None
        return jobs

    def launch(self, graph: list[Callable[[], None]], stream: int) -> None:
        self.launches += 1
        for job in graph:
            self.work(stream, job)


class Doubling:
    """y = 2 x over (batch, frames), by way of inner memory."""

    inputs = (Port("x", ("batch", "frames")),)
    outputs = (Port("y", ("batch", "frames")),)
    inner = (Port("middle", ("batch", "frames")),)
    capturable = True

    def __init__(self, device: LazyDevice) -> None:
        self._device = device

    def enqueue(self, stream: int, addresses: Mapping[str, int], sizes: Sizes) -> None:
        count = sizes["batch"] * sizes["frames"]
        self._device.work(stream, lambda: self._scale(addresses["x"], addresses["middle"], count, 4))
        self._device.work(stream, lambda: self._scale(addresses["middle"], addresses["y"], count, 0.5))

    def _scale(self, source: int, target: int, count: int, factor: float) -> None:
        memory = self._device.memory
        memory[target].view(np.float32)[:count] = factor * memory[source].view(np.float32)[:count]


def batches(count: int) -> list[tuple[np.ndarray, dict[str, int]]]:
    rng = np.random.default_rng(0)
    sizes = [{"batch": int(rng.integers(1, 4)), "frames": int(rng.integers(1, 3))} for _ in range(count)]
    return [(rng.standard_normal((s["batch"], s["frames"]), np.float32), s) for s in sizes]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_every_batch_gets_its_own_result_in_any_order_of_execution(seed: int, depth: int) -> None:
    device = LazyDevice(seed)
    buffer = DoubleBuffer(device, Doubling(device), [{"batch": 4, "frames": 8}], depth=depth)
    work, order = batches(12), random.Random(seed)
    tickets = [buffer.submit({"x": x}, sizes) for x, sizes in work]
    for index in order.sample(range(12), 12):
        np.testing.assert_array_equal(tickets[index].result()["y"], 2 * work[index][0])


def test_host_waits_once_per_batch_and_never_to_submit_within_depth() -> None:
    device = LazyDevice(0)
    buffer = DoubleBuffer(device, Doubling(device), [{"batch": 4, "frames": 8}])
    (x, sizes), *_ = batches(1)
    first, second = buffer.submit({"x": x}, sizes), buffer.submit({"x": x + 1}, sizes)
    assert device.host_waits == 0
    first.result(), second.result(), first.result()
    assert device.host_waits == 2


def test_a_size_that_comes_again_is_launched_as_a_graph() -> None:
    device = LazyDevice(0)
    buffer = DoubleBuffer(device, Doubling(device), [{"batch": 4, "frames": 8}], depth=2)
    x, sizes = np.ones((2, 3), np.float32), {"batch": 2, "frames": 3}
    for turn in range(8):
        np.testing.assert_array_equal(buffer.submit({"x": x * turn}, sizes).result()["y"], 2 * turn * x)
    assert (device.captures, device.launches) == (2, 6)  # one per slot, from its second batch on


def test_too_large_a_batch_is_refused() -> None:
    device = LazyDevice(0)
    buffer = DoubleBuffer(device, Doubling(device), [{"batch": 2, "frames": 8}, {"batch": 8, "frames": 2}])
    with pytest.raises(ValueError, match=r"a batch of .*'batch': 3.* fits none"):
        buffer.submit({"x": np.ones((3, 4), np.float32)}, {"batch": 3, "frames": 4})
    x = np.ones((8, 2), np.float32)
    np.testing.assert_array_equal(buffer.submit({"x": x}, {"batch": 8, "frames": 2}).result()["y"], 2 * x)


def has_gpu() -> bool:
    try:
        probe()
    except CudaUnavailable:
        return False
    return True


@pytest.mark.skipif(has_gpu(), reason="this machine has a GPU")
def test_without_a_driver_the_probe_is_a_clear_error() -> None:
    with pytest.raises(CudaUnavailable, match=r"driver|cuda-python|GPU"):
        CudaDevice()


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
def test_copies_and_captured_graphs_on_a_real_gpu() -> None:
    device = CudaDevice()

    class Copying(Doubling):
        def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
            runtime = __import__("cuda.bindings.runtime", fromlist=["runtime"])
            count = 4 * sizes["batch"] * sizes["frames"]
            kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToDevice
            runtime.cudaMemcpyAsync(addresses["y"], addresses["x"], count, kind, stream)

    buffer = DoubleBuffer(device, Copying(device), [{"batch": 4, "frames": 8}])  # type: ignore[arg-type]
    tickets = [(buffer.submit({"x": x}, sizes), x) for x, sizes in batches(20)]
    for ticket, x in tickets:
        np.testing.assert_array_equal(ticket.result()["y"], x)
