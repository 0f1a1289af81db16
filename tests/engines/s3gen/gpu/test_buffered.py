"""The nets behind the double buffer say what they say without it, whatever a batch is cut into."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engines.s3gen.export.graphs import ENCODER
from engines.s3gen.gpu import buckets as buckets_module
from engines.s3gen.gpu.buckets import buckets, max_rows
from engines.s3gen.gpu.buffered import BufferedRuntime
from engines.s3gen.gpu.double_buffer import Bytes, Launch
from engines.s3gen.gpu.torch_graphed import TorchGraphedRuntime, torch_kernels
from engines.s3gen.parity_check import GPU_COMPOSITIONS, GPU_ROUNDS, validate
from engines.s3gen.runtimes.torch import TorchRuntime
from tests.engines.s3gen.gpu.test_double_buffer import has_gpu
from tests.engines.s3gen.onnx_setting import checkpoint, flow_batch, vocoder_batch


class HostDevice:
    """Memory of the host in place of a GPU's; what is put on a stream happens at once."""

    def __init__(self) -> None:
        self._memory: list[Bytes] = []

    def stream(self) -> int:
        return 0

    def event(self) -> int:
        return 0

    def record(self, event: int, stream: int) -> None: ...

    def wait(self, stream: int, event: int) -> None: ...

    def synchronize(self, event: int) -> None: ...

    def pinned(self, size_bytes: int) -> Bytes:
        self._memory.append(np.full(size_bytes, 255, np.uint8))
        return self._memory[-1]

    def allocate(self, size_bytes: int) -> int:
        return self.pinned(size_bytes).ctypes.data

    def copy_in(self, address: int, source: Bytes, stream: int) -> None:
        ctypes.memmove(address, source.ctypes.data, source.nbytes)

    def copy_out(self, target: Bytes, address: int, stream: int) -> None:
        ctypes.memmove(target.ctypes.data, address, target.nbytes)

    def clear(self, address: int, size_bytes: int, stream: int) -> None:
        ctypes.memset(address, 0, size_bytes)

    def copy_on(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        ctypes.memmove(target, source, size_bytes)

    def capture(self, stream: int, work: Callable[[], None]) -> Any:
        raise AssertionError("torch captures its own graphs")

    def launch(self, graph: Any, stream: int) -> None:
        raise AssertionError("torch launches its own graphs")


class RecordedWork:
    """torch's graphs on the CPU: the work itself, done again. The capture of some sizes fails."""

    def __init__(self) -> None:
        self.captures = self.launches = 0
        self.failing = set[int]()

    def capture(self, stream: Any, work: Callable[[], None]) -> Launch:
        self.captures += 1
        if self.captures in self.failing:
            raise RuntimeError("CUDA out of memory")

        def launch() -> None:
            self.launches += 1
            with torch.inference_mode():
                work()

        return launch


@pytest.fixture(scope="module")
def buffered() -> BufferedRuntime:
    kernels = torch_kernels(checkpoint(), torch.device("cpu"), torch.float32, compute=0)
    return BufferedRuntime("torch_graphs", HostDevice(), kernels)


@pytest.fixture(scope="module")
def plain() -> TorchRuntime:
    return TorchRuntime(checkpoint())


def test_it_passes_the_gate(buffered: BufferedRuntime, plain: TorchRuntime) -> None:
    report = validate(buffered, plain, precision="fp32")
    assert report.passed, str(report)


def test_batches_in_flight_keep_their_own_results(buffered: BufferedRuntime, plain: TorchRuntime) -> None:
    flows = [flow_batch([20 + n, 9], seed=n) for n in range(4)]
    vocoders = [vocoder_batch([30 - n], seed=n) for n in range(4)]
    pending = [(buffered.submit_flow(f), buffered.submit_vocoder(v)) for f, v in zip(flows, vocoders, strict=True)]
    for (mel, sound), flow, vocoder in zip(pending, flows, vocoders, strict=True):
        np.testing.assert_allclose(mel(), plain.flow(flow), atol=1e-4)
        np.testing.assert_allclose(sound().waveform, plain.vocoder(vocoder).waveform, atol=1e-4)


def test_replayed_sizes_and_those_whose_capture_failed_give_the_same(
    plain: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed capture leaves nothing behind that would be replayed."""
    monkeypatch.setattr(buckets_module, "_GRAPH_LENGTHS", {"tokens": [16], "frames": [32]})
    graphs = RecordedWork()
    graphs.failing = {1, 4}  # four rows of flow and of vocoder: the largest sizes come first
    kernels = torch_kernels(checkpoint(), torch.device("cpu"), torch.float32, compute=0, graphs=graphs)
    runtime = BufferedRuntime("torch_graphs", HostDevice(), kernels)
    runtime.prepare()
    assert (graphs.captures, runtime.graphs) == (6, 4)
    for _ in range(2):
        for lengths in ([9], [16, 3], [5, 9, 12], [30]):
            batch = flow_batch(lengths)
            np.testing.assert_allclose(runtime.flow(batch), plain.flow(batch), atol=1e-4)
    assert graphs.launches == 4
    assert runtime.replayed_ratio == 0.5


class Dispatches(TorchDispatchMode):
    """Counts torch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(work: Callable[[], object]) -> int:
    with Dispatches() as counted:
        work()
    return counted.count


def test_full_rows_that_no_graph_replays_are_computed_without_masks(
    plain: TorchRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At their own length, with fewer operations than padded rows; what is replayed stays on the grid."""
    monkeypatch.setattr(buckets_module, "_GRAPH_LENGTHS", {"tokens": [16], "frames": [32]})
    kernels = torch_kernels(checkpoint(), torch.device("cpu"), torch.float32, compute=0, graphs=RecordedWork())
    runtime = BufferedRuntime("torch_graphs", HostDevice(), kernels)
    runtime.prepare()
    for full, ragged in (([37], [37, 20]), ([33, 33], [33, 5])):
        flow, vocoder = flow_batch(full), vocoder_batch(full)
        np.testing.assert_allclose(runtime.flow(flow), plain.flow(flow), atol=1e-4)
        np.testing.assert_allclose(runtime.vocoder(vocoder).waveform, plain.vocoder(vocoder).waveform, atol=1e-4)
        for whole, padded in (
            (lambda flow=flow: runtime.flow(flow), lambda rows=ragged: runtime.flow(flow_batch(rows))),
            (lambda v=vocoder: runtime.vocoder(v), lambda rows=ragged: runtime.vocoder(vocoder_batch(rows))),
        ):
            assert operations(whole) < 0.97 * operations(padded)
    assert runtime.replayed_ratio == 0
    runtime.flow(flow_batch([15]))
    assert runtime.replayed_ratio > 0


def test_more_rows_than_a_bucket_holds_are_cut(buffered: BufferedRuntime, plain: TorchRuntime) -> None:
    lengths = [515, 7, 5]
    assert max_rows(buckets(ENCODER), max(lengths)) < len(lengths)
    batch = flow_batch(lengths)
    np.testing.assert_allclose(buffered.flow(batch), plain.flow(batch), atol=1e-4)


def test_parts_are_the_whole(buffered: BufferedRuntime) -> None:
    batch = flow_batch([24])
    parts = buffered.parts(batch)
    assert list(parts) == ["encoder", "cfm"]
    parts["encoder"]()
    np.testing.assert_array_equal(parts["cfm"]()["mel"], buffered.flow(batch))  # type: ignore[index]


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_captured_graphs_pass_the_gate_on_this_gpu(plain: TorchRuntime, precision: str) -> None:
    dtype = torch.float16 if precision == "fp16" else torch.float32
    runtime = TorchGraphedRuntime(checkpoint(), dtype=dtype)
    runtime.prepare()
    assert runtime.graphs > 50
    report = validate(runtime, plain, precision=precision, compositions=GPU_COMPOSITIONS, rounds=GPU_ROUNDS)
    assert report.passed, str(report)
    assert runtime.replayed_ratio > 0.3
