"""oneDNN's matrix products for the torch nets on the CPU: weights re-ordered once instead of at every call.

Knows the two layers whose work is one matrix product, Linear and FrameConv; knows no net. Worth a fifth of their
time at a window's row counts where torch hands `linear` to MKL. The operators are the ones that torch's own compiler
emits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from engines.s3gen.nets.layers import FrameConv, stack_frames


class _PackedLinear(nn.Module):
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        # opaque oneDNN tensors: kept out of the module's own parameters, which copying and casting would break
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
        self._bias = None if bias is None else bias.clone()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return y


class _PackedFrameConv(_PackedLinear):
    def __init__(self, conv: FrameConv) -> None:
        super().__init__(conv.weight.transpose(1, 2).flatten(1), conv.bias)
        self._taps, self._lookahead = conv.kernel_size[0], conv.lookahead

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(stack_frames(x, self._taps, self._lookahead))


def packing_available() -> bool:
    """Whether this torch build has what packing calls."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return bool(torch.backends.mkldnn.enabled) and all(hasattr(torch.ops.mkldnn, name) for name in names)


def pack(net: nn.Module) -> None:
    """Replace every Linear and FrameConv inside `net` by its packed twin, and copy what is left of its weights.

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
