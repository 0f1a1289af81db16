"""A linear layer on oneDNN: its weight is re-ordered once instead of at every call.

The operators are the ones that torch's own compiler emits. Where torch hands `linear` to MKL they save a fifth of the
time at the row counts of an S3Gen window. For the few rows of a T3 decode step they read weights near memory bandwidth,
where `addmm` and `linear` take 1.5 to 3 times as long.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PackedLinear:
    """x (..., in) -> (..., out) float32 on the CPU, with the activation or the residual in the same call."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """weight (out, in), bias (out,); both are copied."""
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        self._bias = None if bias is None else bias.clone()

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the result, in the tanh form that GPT-2 calls `gelu_new`."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "tanh")
        return y

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (..., out) + the result."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y


def packing_available() -> bool:
    """Whether this torch build has the operators that PackedLinear calls."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return bool(torch.backends.mkldnn.enabled) and all(hasattr(torch.ops.mkldnn, name) for name in names)
