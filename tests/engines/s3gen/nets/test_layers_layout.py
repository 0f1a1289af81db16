"""The layout of FrameConv's weights: the same results, and no copy of a weight in a call."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from engines.s3gen.nets.flow import load_flow
from engines.s3gen.nets.layers import FrameConv, Projections, join_projections, lay_out_taps
from tests.engines.s3gen import small_nets


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


class Products(TorchFunctionMode):
    """Counts matrix products of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func is F.linear
        return func(*args, **(kwargs or {}))


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


def test_queries_keys_and_values_are_one_product_where_they_are_joined() -> None:
    """With the same results, and without a second copy of their weights."""
    flow = load_flow(small_nets.checkpoint().s3gen_path, small_nets.checkpoint().spec)
    inputs = small_nets.flow_inputs(small_nets.flow_batch([9, 12], [20, 5]))
    with torch.inference_mode():
        with Products() as before:
            expected = flow(*inputs)
        join_projections(flow)
        with Products() as after:
            made = flow(*inputs)
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-5)
    attentions = [module for module in flow.modules() if isinstance(module, Projections)]
    assert len(attentions) > 2
    assert before.count - after.count >= 2 * len(attentions)
    for attention in attentions:
        assert attention.joined is not None
        joined = attention.joined[0].untyped_storage().data_ptr()
        assert {linear.weight.untyped_storage().data_ptr() for linear in attention.linears()} == {joined}
