"""The layout of FrameConv's weights: the same results, and no copy of a weight in a call."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engines.s3gen.nets.layers import FrameConv, lay_out_taps


class Copies(TorchDispatchMode):
    """Counts copies of tensors as large as a weight."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.values, self.count = values, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("clone", "contiguous", "_unsafe_view", "copy_"):
            self.count += isinstance(result, torch.Tensor) and result.numel() == self.values
        return result


def test_weights_in_the_order_of_the_product_are_not_copied() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(FrameConv(6, 5, 3), FrameConv(5, 5, 4, lookahead=3), FrameConv(5, 2, 1))
    x = torch.randn(2, 9, 6)
    values = net[0].weight.numel()
    with torch.no_grad():
        expected = net(x)
        with Copies(values) as before:
            net(x)
        lay_out_taps(net)
        with Copies(values) as after:
            made = net(x)
        half = net.half()  # a change of type keeps the order
        with Copies(values) as converted:
            half(x.half())
    torch.testing.assert_close(made, expected)
    assert before.count > 0 == after.count == converted.count
    assert net[0].weight.shape == (5, 6, 3)
