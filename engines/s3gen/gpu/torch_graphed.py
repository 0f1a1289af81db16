"""S3Gen's torch nets as kernels of the double buffer: streams, events and buffers as for TensorRT, without engines.

torch captures the CUDA graphs itself, because only its allocator can keep what a capture allocates.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from engines.checkpoints.checkpoint import Checkpoint
from engines.device import captured, use_exact_float32
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu.buffered import BufferedRuntime, Kernels
from engines.s3gen.gpu.cuda import CudaDevice
from engines.s3gen.gpu.double_buffer import Launch, Sizes
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.layers import join_projections, lay_out_taps
from engines.s3gen.nets.vocoder_weights import load_vocoder


class TorchGraphedRuntime(BufferedRuntime):
    """The torch nets on a GPU, double-buffered. Raises CudaUnavailable without one, CheckpointError."""

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, device_index: int = 0, depth: int = 2
    ) -> None:
        device = CudaDevice(device_index)
        use_exact_float32()
        target = torch.device("cuda", device_index)
        kernels = torch_kernels(checkpoint, target, dtype, device.stream(), TorchGraphs(target))
        super().__init__("torch_graphs", device, kernels, depth=depth)


def torch_kernels(
    checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype, compute: Any, graphs: Graphs | None = None
) -> Kernels:
    """The nets on a device, to run on the stream `compute`. Raises CheckpointError."""
    flow = load_flow(checkpoint.s3gen_path, checkpoint.spec).to(device, dtype)
    lay_out_taps(flow)
    join_projections(flow)
    vocoder = load_vocoder(checkpoint.s3gen_path, checkpoint.spec).to(device)
    vocoder.to_filter_dtype(dtype)
    return Kernels(
        flow=TorchKernel(FlowNet(flow.encoder, flow.solver), FLOW_INPUTS, CFM.outputs, device, graphs),
        vocoder=TorchKernel(vocoder, VOCODER.inputs, VOCODER.outputs, device, graphs),
        encoder=TorchKernel(flow.encoder, ENCODER.inputs, ENCODER.outputs, device),
        cfm=TorchKernel(flow.solver, CFM.inputs, CFM.outputs, device),
        compute=compute,
    )


_LENGTHS = (ENCODER.lengths, CFM.lengths, VOCODER.lengths)
FLOW_INPUTS = (*ENCODER.inputs, *(port for port in CFM.inputs if port.name not in {p.name for p in ENCODER.outputs}))


class FlowNet(nn.Module):
    """Encoder and CFM as one net over the ports of `FLOW_INPUTS`."""

    def __init__(self, encoder: nn.Module, solver: nn.Module) -> None:
        super().__init__()
        self.encoder, self.solver = encoder, solver

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor | None,
        x_vector: Tensor,
        noise: Tensor,
        prompt_mel: Tensor,
        lengths: Tensor | None,
    ) -> Tensor:
        """Lengths of None: all rows are full."""
        mu, speaker = self.encoder(tokens, token_lengths, x_vector)
        mel: Tensor = self.solver(noise, mu, speaker, prompt_mel, lengths)
        return mel


class Graphs(Protocol):
    """Capture of torch's work on a stream."""

    def capture(self, stream: Any, work: Callable[[], None]) -> Launch:
        """Capture what `work` enqueues on `stream`, in which it has just run. Returns the launch of the graph."""
        ...


class TorchGraphs:
    """torch's CUDA graphs in one pool of memory.

    They run one after the other and leave nothing in the pool that is read later, so that one graph may use what
    another has freed. With a pool each, dozens of sizes would not fit a GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, stream: Any, work: Callable[[], None]) -> Launch:
        """As Graphs.capture. It stops the whole device for a moment."""
        on = external_stream(stream, self._device)
        on.synchronize()
        with torch.cuda.device(self._device):
            replay = captured(work, self._pool, on)

        def launch() -> None:
            with torch.cuda.stream(on):
                replay()

        return launch


def external_stream(stream: Any, device: torch.device) -> torch.cuda.Stream:
    """A stream of cuda-python as one of torch."""
    return torch.cuda.ExternalStream(int(stream), device=device)  # type: ignore[no-untyped-call]


class TorchKernel:
    """A double_buffer.Kernel. `net` takes the inputs in their order and returns the outputs in theirs.

    Without lengths a net masks nothing: an eighth of its launches.
    """

    inner: tuple[Port, ...] = ()
    unpadded = True

    def __init__(
        self,
        net: nn.Module,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        device: torch.device,
        graphs: Graphs | None = None,
    ) -> None:
        """graphs: None for a kernel that is not captured."""
        self._net, self._device, self._graphs = net, device, graphs
        self.inputs, self.outputs = inputs, outputs

    @torch.inference_mode()
    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes, *, full: bool = False) -> None:
        """As double_buffer.Kernel."""
        with self._on(stream):
            self._run(addresses, sizes, without=_LENGTHS if full else ())

    @torch.inference_mode()
    def capture(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> Launch | None:
        """As double_buffer.Kernel."""
        if self._graphs is None:
            return None
        self.enqueue(stream, addresses, sizes)  # the first call of a size may allocate and tune
        return self._graphs.capture(stream, lambda: self._run(addresses, sizes))

    def _on(self, stream: Any) -> contextlib.AbstractContextManager[object]:
        if self._device.type != "cuda":
            return contextlib.nullcontext()
        return torch.cuda.stream(external_stream(stream, self._device))

    def _run(self, addresses: Mapping[str, int], sizes: Sizes, without: Sequence[str] = ()) -> None:
        inputs = [
            None if p.name in without else tensor_at(addresses[p.name], p, sizes, self._device) for p in self.inputs
        ]
        result = self._net(*inputs)
        results = result if isinstance(result, tuple) else (result,)
        for port, value in zip(self.outputs, results, strict=True):
            tensor_at(addresses[port.name], port, sizes, self._device).copy_(value)


def tensor_at(address: int, port: Port, sizes: Sizes, device: torch.device) -> Tensor:
    """The memory at `address` as a port's tensor, without a copy."""
    shape, dtype = port.shape(sizes), np.dtype(port.dtype)
    if device.type == "cpu":
        size = int(np.prod(shape)) * dtype.itemsize
        memory = (ctypes.c_uint8 * size).from_address(address)
        return torch.from_numpy(np.ctypeslib.as_array(memory).view(dtype).reshape(shape))
    return torch.as_tensor(_DeviceMemory(address, shape, dtype), device=device)


class _DeviceMemory:
    """Foreign memory with the interface that torch needs to make a tensor of it."""

    def __init__(self, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": dtype.str, "data": (address, False), "version": 2, "strides": None,
        }  # fmt: skip
