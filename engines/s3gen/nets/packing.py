"""Packed layers in the place of a torch net's Linear and FrameConv layers, whose work is one matrix product each.

They run on oneDNN, or on AMX where this CPU has it and a product's terms need be exact to 2^-17 only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.kernels.dense import TileLayer
from engines.kernels.library import S3GEN, fit_amx
from engines.packed_linear import PackedLinear
from engines.s3gen.nets.layers import FrameConv, stack_frames


class TileLinear:
    """x (..., in) -> (..., out) on AMX. Raises ValueError as TileLayer does."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (out, in), bias (out,); both are copied."""
        none = weight.new_zeros(len(weight))
        self._layer = TileLayer(
            weight.T.numpy(), (none if bias is None else bias).numpy(), torch.get_num_threads(), pool=S3GEN
        )

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        y = x.new_empty(*x.shape[:-1], self._layer.outputs)
        rows = x.numel() // x.shape[-1]
        work = x.new_empty(self._layer.work_floats(rows))
        self._layer.run(x.data_ptr(), rows, y.data_ptr(), work.data_ptr())
        return y


class _PackedLinear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None, *, tiles: bool) -> None:
        super().__init__()
        # no parameter of the module: copying and casting would break oneDNN's opaque tensor
        kind = TileLinear if tiles and fit_amx(*weight.shape) else PackedLinear
        self._linear = kind(weight.contiguous(), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x)


class _PackedFrameConv(_PackedLinear):
    def __init__(self, conv: FrameConv, *, tiles: bool) -> None:
        super().__init__(conv.weight.transpose(1, 2).flatten(1), conv.bias, tiles=tiles)
        self._taps, self._lookahead = conv.kernel_size[0], conv.lookahead

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(stack_frames(x, self._taps, self._lookahead))


def pack(net: nn.Module, *, tiles: bool = False) -> None:
    """Replace every Linear and FrameConv inside `net` by a packed one, and copy the rest of its weights.

    Afterwards nothing of `net` refers to the file that its weights were mapped from. `tiles`: on AMX where it fits.
    """
    for name, child in list(net.named_children()):
        if isinstance(child, FrameConv):
            setattr(net, name, _PackedFrameConv(child, tiles=tiles))
        elif isinstance(child, nn.Linear):
            setattr(net, name, _PackedLinear(child.weight, child.bias, tiles=tiles))
        else:
            pack(child, tiles=tiles)
    for name, parameter in net.named_parameters(recurse=False):
        setattr(net, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
