"""S3Gen's torch nets as kernels of the double buffer: streams, events and buffers as for TensorRT, without engines.

torch captures its own CUDA graphs, because only its allocator can keep what a capture allocates. The double buffer
therefore never captures these kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.checkpoints.checkpoint import Checkpoint
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu.buffered import BufferedRuntime, Kernels
from engines.s3gen.gpu.cuda import CudaDevice
from engines.s3gen.gpu.double_buffer import Sizes
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder_weights import load_vocoder

_MAX_GRAPHS = 32
_Key = tuple[tuple[str, int], ...]


class TorchGraphedRuntime(BufferedRuntime):
    """The torch nets on a GPU, double-buffered. Raises CudaUnavailable without one, CheckpointError."""

    def __init__(
        self, checkpoint: Checkpoint, *, dtype: torch.dtype = torch.float32, device_index: int = 0, depth: int = 2
    ) -> None:
        device = CudaDevice(device_index)
        target = torch.device("cuda", device_index)
        super().__init__("torch", device, torch_kernels(checkpoint, target, dtype), depth=depth)


def torch_kernels(checkpoint: Checkpoint, device: torch.device, dtype: torch.dtype) -> Kernels:
    """The nets on a device. Raises CheckpointError."""
    flow = load_flow(checkpoint.s3gen_path, checkpoint.spec).to(device, dtype)
    vocoder = load_vocoder(checkpoint.s3gen_path, checkpoint.spec).to(device)
    vocoder.to_filter_dtype(dtype)
    return Kernels(
        flow=TorchKernel(FlowNet(flow.encoder, flow.solver), FLOW_INPUTS, CFM.outputs, device),
        vocoder=TorchKernel(vocoder, VOCODER.inputs, VOCODER.outputs, device),
        encoder=TorchKernel(flow.encoder, ENCODER.inputs, ENCODER.outputs, device),
        cfm=TorchKernel(flow.solver, CFM.inputs, CFM.outputs, device),
    )


FLOW_INPUTS = (*ENCODER.inputs, *(port for port in CFM.inputs if port.name not in {p.name for p in ENCODER.outputs}))


class FlowNet(nn.Module):
    """Encoder and CFM as one net over the ports of `FLOW_INPUTS`."""

    def __init__(self, encoder: nn.Module, solver: nn.Module) -> None:
        super().__init__()
        self.encoder, self.solver = encoder, solver

    def forward(
        self,
        tokens: Tensor,
        token_lengths: Tensor,
        x_vector: Tensor,
        noise: Tensor,
        prompt_mel: Tensor,
        lengths: Tensor,
    ) -> Tensor:
        mu, speaker = self.encoder(tokens, token_lengths, x_vector)
        mel: Tensor = self.solver(noise, mu, speaker, prompt_mel, lengths)
        return mel


class TorchKernel:
    """A double_buffer.Kernel. `net` takes the inputs in their order and returns the outputs in theirs.

    A size runs eagerly the first time, is captured the second time, and is replayed afterwards.
    """

    capturable = False  # by the double buffer; see above
    inner: tuple[Port, ...] = ()

    def __init__(
        self, net: nn.Module, inputs: tuple[Port, ...], outputs: tuple[Port, ...], device: torch.device
    ) -> None:
        self._net, self._device = net, device
        self.inputs, self.outputs = inputs, outputs
        self._graphs: dict[tuple[_Key, _Key], torch.cuda.CUDAGraph | None] = {}

    @torch.inference_mode()
    def enqueue(self, stream: Any, addresses: Mapping[str, int], sizes: Sizes) -> None:
        if self._device.type != "cuda":
            self._run(addresses, sizes)
            return
        external = torch.cuda.ExternalStream(int(stream), device=self._device)  # type: ignore[no-untyped-call]
        with torch.cuda.stream(external):
            self._run_or_replay(external, addresses, sizes)

    def _run_or_replay(self, stream: torch.cuda.Stream, addresses: Mapping[str, int], sizes: Sizes) -> None:
        key = tuple(sorted(sizes.items())), tuple(sorted(addresses.items()))
        if key not in self._graphs:
            if len(self._graphs) < _MAX_GRAPHS:
                self._graphs[key] = None
            self._run(addresses, sizes)
            return
        graph = self._graphs[key]
        if graph is None:
            graph = self._graphs[key] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                self._run(addresses, sizes)
        graph.replay()

    def _run(self, addresses: Mapping[str, int], sizes: Sizes) -> None:
        result = self._net(*(tensor_at(addresses[p.name], p, sizes, self._device) for p in self.inputs))
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
