"""PackedLinear in the place of a torch net's Linear and FrameConv layers, whose work is one matrix product each."""

from __future__ import annotations

from torch import Tensor, nn

from engines.packed_linear import PackedLinear
from engines.s3gen.nets.layers import FrameConv, stack_frames


class _PackedLinear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # no parameter of the module: copying and casting would break oneDNN's opaque tensor
        self._linear = PackedLinear(weight.contiguous(), bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._linear(x)


class _PackedFrameConv(_PackedLinear):
    def __init__(self, conv: FrameConv) -> None:
        super().__init__(conv.weight.transpose(1, 2).flatten(1), conv.bias)
        self._taps, self._lookahead = conv.kernel_size[0], conv.lookahead

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(stack_frames(x, self._taps, self._lookahead))


def pack(net: nn.Module) -> None:
    """Replace every Linear and FrameConv inside `net` by a packed one, and copy the rest of its weights.

    Afterwards nothing of `net` refers to the file that its weights were mapped from.
    """
    for name, child in list(net.named_children()):
        if isinstance(child, FrameConv):
            setattr(net, name, _PackedFrameConv(child))
        elif isinstance(child, nn.Linear):
            setattr(net, name, _PackedLinear(child.weight, child.bias))
        else:
            pack(child)
    for name, parameter in net.named_parameters(recurse=False):
        setattr(net, name, nn.Parameter(parameter.detach().clone(), requires_grad=False))
