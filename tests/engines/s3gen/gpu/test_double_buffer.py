"""The double buffer is ordered by events alone: on a device that runs streams in any order events allow, every batch
gets its own result, nothing waits that need not, and no buffer is touched while it is in use.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from engines.s3gen.export.graphs import Port
from engines.s3gen.gpu.cuda import CudaDevice, CudaError, CudaUnavailable, probe
from engines.s3gen.gpu.double_buffer import DoubleBuffer, Launch, Sizes
from tests.engines.s3gen.gpu.simulated_cuda import SimulatedCuda
from tests.engines.s3gen.gpu.simulated_tensorrt import tensor


class Doubling:
    """y = 2 x over (batch, frames), by way of inner memory; captured if it may be."""

    inputs = (Port("x", ("batch", "frames")),)
    outputs = (Port("y", ("batch", "frames")),)
    inner = (Port("middle", ("batch", "frames")),)
    unpadded = False

    def __init__(self, device: CudaDevice, cuda: SimulatedCuda, *, capturable: bool = True) -> None:
        self._device, self._cuda, self._capturable = device, cuda, capturable

    def enqueue(self, stream: int, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
        x, middle, y = (
            tensor(addresses[port.name], port, dict(sizes)) for port in (*self.inputs, *self.inner, *self.outputs)
        )
        status = self._cuda.enqueue(stream, partial(np.multiply, x, 4, middle), partial(np.multiply, middle, 0.5, y))
        assert not status

    def capture(self, stream: int, addresses: Mapping[str, int], sizes: Sizes) -> Launch | None:
        if not self._capturable:
            return None
        graph = self._device.capture(stream, lambda: self.enqueue(stream, addresses, sizes))
        return lambda: self._device.launch(graph, stream)


def simulated(seed: int = 0, **options: Any) -> tuple[CudaDevice, SimulatedCuda]:
    cuda = SimulatedCuda(seed, **options)
    return CudaDevice(runtime=cuda), cuda


def doubling(seed: int = 0, *, depth: int = 2, room: Sizes | None = None) -> tuple[DoubleBuffer, SimulatedCuda]:
    device, cuda = simulated(seed)
    room = room or {"batch": 4, "frames": 8}
    return DoubleBuffer(device, Doubling(device, cuda), [room], depth=depth), cuda


def batches(count: int) -> list[tuple[np.ndarray, dict[str, int]]]:
    rng = np.random.default_rng(0)
    sizes = [{"batch": int(rng.integers(1, 4)), "frames": int(rng.integers(1, 3))} for _ in range(count)]
    return [(rng.standard_normal((s["batch"], s["frames"]), np.float32), s) for s in sizes]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_every_batch_gets_its_own_result_in_any_order_of_execution(seed: int, depth: int) -> None:
    buffer, _ = doubling(seed, depth=depth)
    work, order = batches(12), random.Random(seed)
    if seed % 2:
        buffer.prepare([{"batch": 2, "frames": 2}, {"batch": 1, "frames": 1}])
    tickets = [buffer.submit({"x": x}, sizes) for x, sizes in work]
    for index in order.sample(range(12), 12):
        np.testing.assert_array_equal(tickets[index].result()["y"], 2 * work[index][0])


def test_host_waits_once_per_batch_and_never_to_submit_within_depth() -> None:
    buffer, cuda = doubling()
    (x, sizes), *_ = batches(1)
    first, second = buffer.submit({"x": x}, sizes), buffer.submit({"x": x + 1}, sizes)
    assert cuda.host_waits == 0
    first.result(), second.result(), first.result()
    assert cuda.host_waits == 2


def test_only_prepared_sizes_are_launched_as_graphs() -> None:
    buffer, cuda = doubling()
    buffer.prepare([{"batch": 2, "frames": 3}])
    for turn in range(8):
        for frames in (3, 4):
            x = np.full((2, frames), turn, np.float32)
            result = buffer.submit({"x": x}, {"batch": 2, "frames": frames}).result()["y"]
            np.testing.assert_array_equal(result, 2 * x)
    assert (buffer.graphs, buffer.replayed, buffer.eager, cuda.launches) == (1, 8, 8, 8)


def test_a_size_that_cannot_be_captured_runs_eagerly_for_good() -> None:
    buffer, cuda = doubling()
    cuda.refuse_captures = 1
    buffer.prepare([{"batch": 2, "frames": 3}, {"batch": 1, "frames": 3}])
    assert buffer.graphs == 1
    for rows in (2, 1, 2, 2):
        x = np.ones((rows, 3), np.float32)
        np.testing.assert_array_equal(buffer.submit({"x": x}, {"batch": rows, "frames": 3}).result()["y"], 2 * x)
    assert (buffer.replayed, buffer.eager) == (1, 3)


def test_the_cause_of_a_failed_capture_is_what_is_raised() -> None:
    device, _ = simulated()

    def work() -> None:
        device.allocate(8)  # invalidates the capture

    with pytest.raises(CudaError, match="cudaMalloc: cudaErrorStreamCaptureUnsupported"):
        device.capture(device.stream(), work)


def test_a_lost_device_ends_the_preparation() -> None:
    buffer, cuda = doubling()
    cuda.fault()
    with pytest.raises(CudaError, match="IllegalAddress"):
        buffer.prepare([{"batch": 2, "frames": 3}])


def test_a_smaller_batch_is_padded_with_zeros_and_copies_of_its_first_row() -> None:
    buffer, _ = doubling()
    x = np.array([[1, 2], [3, 4]], np.float32)
    padded = buffer.submit({"x": x}, {"batch": 4, "frames": 3}).result()["y"]
    np.testing.assert_array_equal(padded, 2 * np.array([[1, 2, 0], [3, 4, 0], [1, 2, 0], [1, 2, 0]]))


def test_too_large_a_batch_is_refused() -> None:
    device, cuda = simulated()
    room = [{"batch": 2, "frames": 8}, {"batch": 8, "frames": 2}]
    buffer = DoubleBuffer(device, Doubling(device, cuda, capturable=False), room)
    with pytest.raises(ValueError, match=r"a batch of .*'batch': 3.* fits none"):
        buffer.submit({"x": np.ones((3, 4), np.float32)}, {"batch": 3, "frames": 4})
    x = np.ones((8, 2), np.float32)
    np.testing.assert_array_equal(buffer.submit({"x": x}, {"batch": 8, "frames": 2}).result()["y"], 2 * x)


@pytest.mark.parametrize("index", [0, 1])
def test_every_thread_works_on_the_device_of_the_object(index: int) -> None:
    """CUDA's current device is one per thread and 0 at first."""
    cuda = SimulatedCuda(devices=2)
    device = CudaDevice(index, cuda)
    buffer = DoubleBuffer(device, Doubling(device, cuda), [{"batch": 4, "frames": 8}])
    x = np.ones((2, 3), np.float32)
    with ThreadPoolExecutor(1) as worker:
        ticket = worker.submit(buffer.submit, {"x": x}, {"batch": 2, "frames": 3}).result()
        np.testing.assert_array_equal(worker.submit(ticket.result).result()["y"], 2 * x)


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
        def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
            device.copy_on(addresses["y"], addresses["x"], 4 * sizes["batch"] * sizes["frames"], stream)

    buffer = DoubleBuffer(device, Copying(device, SimulatedCuda()), [{"batch": 4, "frames": 8}])
    buffer.prepare([{"batch": 2, "frames": 2}, {"batch": 3, "frames": 1}])
    tickets = [(buffer.submit({"x": x}, sizes), x) for x, sizes in batches(20)]
    for ticket, x in tickets:
        np.testing.assert_array_equal(ticket.result()["y"], x)
    assert buffer.replayed
