"""Every net and T3's step on fake CUDA tensors: no tensor is on the wrong device, and nothing waits for the device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engines.model_spec import TINY, X_VECTOR_DIM
from engines.s3gen.export.graphs import CFM, ENCODER, VOCODER, Port
from engines.s3gen.gpu.torch_graphed import FLOW_INPUTS, FlowNet
from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.vocoder_weights import load_vocoder
from tests.engines.s3gen.onnx_setting import checkpoint

CUDA = torch.device("cuda:0")
# operations that make the host wait for the device, or read what it computes
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "_to_copy_to_host")


class Indexing(TorchFunctionMode):
    """x[...] by separate operations: torch without CUDA cannot index a CUDA tensor, not even a fake one."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__:
            return self._index(args[0], args[1] if isinstance(args[1], tuple) else (args[1],))
        if func is Tensor.__invert__:
            return torch.logical_not(args[0])
        return func(*args, **(kwargs or {}))

    def _index(self, x: Tensor, keys: tuple[Any, ...]) -> Tensor:
        given = sum(key is not None and key is not Ellipsis for key in keys)
        axis = 0
        for key in keys:
            if key is Ellipsis:
                axis += x.dim() - axis - (given - axis)
            elif key is None:
                x, axis = x.unsqueeze(axis), axis + 1
            elif isinstance(key, int):
                x = x.select(axis, key)
            elif isinstance(key, Tensor):
                x, axis = x.index_select(axis, key), axis + 1
            else:
                start, stop, step = key.indices(x.shape[axis])
                x, axis = torch.ops.aten.slice(x, axis, start, stop, step), axis + 1
        return x


class NoWaiting(TorchDispatchMode):
    """Raises on an operation that a CUDA graph cannot hold."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in _WAITING, f"{name} waits for the device"
        if func is torch.ops.aten.convolution.default:
            return _convolution(func, args)
        result = func(*args, **kwargs)
        if name == "_to_copy":
            source, target = args[0].device.type, kwargs.get("device")
            assert not (source == "cuda" and target is not None and target.type == "cpu"), "a copy to the host"
            assert not (source == "cpu" and target is not None and target.type == "cuda"), "a copy from pageable memory"
        return result


def _convolution(func: Any, args: Any) -> Tensor:
    """The result's shape; torch without CUDA cannot choose an implementation for a CUDA tensor."""
    assert {arg.device.type for arg in args if isinstance(arg, Tensor)} == {"cuda"}
    made = func(*(arg.to("meta") if isinstance(arg, Tensor) else arg for arg in args))
    return torch.empty(made.shape, dtype=made.dtype, device=CUDA)


@contextmanager
def fake_gpu() -> Iterator[FakeTensorMode]:
    # not inference mode: in it, a dispatch mode sees operations before they are broken down
    with FakeTensorMode() as mode, torch.no_grad(), Indexing():
        yield mode


def on_gpu(net: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """The net with its weights as fake tensors on the GPU."""
    for module in net.modules():
        for name, tensor in list(module._parameters.items()):
            if tensor is not None:
                module._parameters[name] = nn.Parameter(_fake(tensor), requires_grad=False)
        for name, tensor in list(module._buffers.items()):
            if tensor is not None:
                module._buffers[name] = _fake(tensor)
    return net


def _fake(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


def inputs(ports: tuple[Port, ...], sizes: dict[str, int], dtypes: dict[str, torch.dtype]) -> list[Tensor]:
    return [torch.zeros(p.shape(sizes), dtype=dtypes[p.dtype], device=CUDA) for p in ports]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("rows", [1, 3])
def test_a_captured_call_of_s3gen_stays_on_the_gpu_and_waits_for_nothing(dtype: torch.dtype, rows: int) -> None:
    flow = load_flow(checkpoint().s3gen_path, checkpoint().spec).to(dtype)
    vocoder = load_vocoder(checkpoint().s3gen_path, checkpoint().spec)
    vocoder.to_filter_dtype(dtype)
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    with fake_gpu() as mode:
        net = on_gpu(FlowNet(flow.encoder, flow.solver), mode)
        sizes = ENCODER.sizes(rows, 32)
        arguments = inputs(FLOW_INPUTS, sizes, dtypes)
        on_gpu(vocoder, mode)
        vocoder_arguments = inputs(VOCODER.inputs, VOCODER.sizes(rows, 48), dtypes)
        with NoWaiting():
            mel = net(*arguments)
            waveform, f0_hz = vocoder(*vocoder_arguments)
    assert mel.shape == CFM.outputs[0].shape(sizes)
    assert {mel.device, waveform.device, f0_hz.device} == {CUDA}
    assert waveform.shape == (rows, 48 * 480)


def test_a_wait_is_found() -> None:
    with fake_gpu():
        x = torch.zeros(4, device=CUDA)
        with NoWaiting(), pytest.raises(AssertionError, match="to the host"):
            x.cpu()
        with pytest.raises((RuntimeError, AssertionError), match=r"device|wait"):
            x + torch.zeros(4)


def test_dynamo_traces_the_embedding_of_vllms_model_as_one_graph() -> None:
    """A break in it would put the gather outside the CUDA graphs."""
    from engines.t3.vllm.embedding import IdEmbedding
    from engines.t3.vllm.vocab import IdSpace

    space = IdSpace(TINY.t3.text_vocab, 8)
    embedding = IdEmbedding(space, 16)
    nn.init.normal_(embedding.table)
    compiled = torch.compile(embedding, backend="eager", fullgraph=True, dynamic=True)
    for count in (1, 5, 33):
        ids = torch.arange(count) * 397 % space.rows
        torch.testing.assert_close(compiled(ids), embedding(ids))
    assert X_VECTOR_DIM
