"""Affine maps of T3: one weight, multiplied the fastest way its device has.

Knows weights in GPT-2's layout (in, out), as upstream's files hold them; knows nothing of what they mean.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Linear(Protocol):
    """x (rows, in) -> (rows, out) float32; every row's result depends on that row alone, up to rounding."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the result, in the tanh form that GPT-2 calls `gelu_new`."""
        ...

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (rows, out) + the result."""
        ...


class DenseLinear:
    """Plain torch, for any device; keeps the given weight, so that a memory-mapped one is not copied."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self._bias, x, self._weight)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x), approximate="tanh")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)


class PackedLinear:
    """oneDNN on the CPU, its weight re-ordered once, with the activation or the residual in the same call.

    Why: for the rows of a decode step it reads weights near memory bandwidth, where `addmm` and `linear` need 1.5 to
    3 times as long; at a prefill chunk's rows it is 1.6 times as fast. The operators are the ones that torch's own
    compiler emits.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.t())
        self._bias = bias.clone()

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
        return y

    def gelu(self, x: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "tanh")
        return y

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
        return y


def least_rows(device: torch.device) -> int:
    """As few rows as a Linear of this device should be given: fewer take longer.

    oneDNN multiplies a single row by another routine, at two thirds of the speed of four.
    """
    return 4 if device.type == "cpu" and packing_available() else 1


def packing_available() -> bool:
    """Whether this torch build has what PackedLinear calls."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return bool(torch.backends.mkldnn.enabled) and all(hasattr(torch.ops.mkldnn, name) for name in names)


def release_packing_memory() -> None:
    """Return to the system what packing has freed: glibc keeps a third of a packed net's size in holes otherwise."""
    with contextlib.suppress(OSError, AttributeError):  # another C library manages without
        ctypes.CDLL(None).malloc_trim(0)


def make_linear(weight: Tensor, bias: Tensor, device: torch.device) -> Linear:
    """weight (in, out), bias (out,) on the CPU -> the fastest Linear of this device."""
    if device.type == "cpu" and packing_available():
        return PackedLinear(weight, bias)
    return DenseLinear(weight.to(device), bias.to(device))
