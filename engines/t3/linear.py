"""T3's linear layers, each on the fastest implementation for its device.

Weights have GPT-2's layout, (in, out), as in upstream's files.
"""

from __future__ import annotations

import contextlib
import ctypes
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.kernels.dense import ADD, GELU, PLAIN, DenseLayer, WeightFormat
from engines.kernels.library import T3, simd_widths
from engines.packed_linear import PackedLinear, packing_available


class Linear(Protocol):
    """x (rows, in) -> (rows, out); every row's result depends on that row alone, up to rounding."""

    def __call__(self, x: Tensor) -> Tensor: ...

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the result, in the tanh form that GPT-2 calls `gelu_new`."""
        ...

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """residual (rows, out) + the result."""
        ...


class DenseLinear:
    """Plain torch, for any device; refers to the weight, so that a memory-mapped one is not copied."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addmm(self._bias, x, self._weight)

    def gelu(self, x: Tensor) -> Tensor:
        return F.gelu(self(x), approximate="tanh")

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        return residual + self(x)


class CompiledLinear:
    """Mynah's own kernel on the CPU, with the activation or the residual in the same call.

    Why: it reads every weight once, at memory bandwidth, for one row as for many, where oneDNN needs 1.3 to 2.4 times
    as long. In float16 there is half as much to read, in 8 bits about a quarter. It computes in float32, or with 8 bits
    in integers.
    """

    def __init__(self, weight: Tensor, bias: Tensor, *, weights: WeightFormat) -> None:
        self.layer = DenseLayer(weight.numpy(), bias.numpy(), torch.get_num_threads(), weights=weights, pool=T3)

    def __call__(self, x: Tensor) -> Tensor:
        return self._run(x, PLAIN, None)

    def gelu(self, x: Tensor) -> Tensor:
        return self._run(x, GELU, None)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        spare = self.layer.width - self.layer.outputs
        return self._run(x, ADD, (F.pad(residual, (0, spare)) if spare else residual).contiguous())

    def _run(self, x: Tensor, kind: int, residual: Tensor | None) -> Tensor:
        x, rows = x.contiguous(), len(x)
        out, work = x.new_empty(rows, self.layer.width), x.new_empty(self.layer.work_floats(rows))
        residual_ptr = None if residual is None else residual.data_ptr()
        self.layer.run(x.data_ptr(), rows, out.data_ptr(), work.data_ptr(), kind, residual_ptr)
        return out[:, : self.layer.outputs]


def min_rows(device: torch.device) -> int:
    """The smallest number of rows that a Linear of this device multiplies fast.

    oneDNN multiplies a single row by another routine, at two thirds of the speed of four.
    """
    return 4 if device.type == "cpu" and not simd_widths() and packing_available() else 1


def release_packing_memory() -> None:
    """Return memory that packing has freed to the system; glibc keeps a third of a packed net's size otherwise."""
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def make_linear(
    weight: Tensor,
    bias: Tensor,
    device: torch.device,
    *,
    weights: WeightFormat = "float32",
    dtype: torch.dtype = torch.float32,
) -> Linear:
    """weight (in, out), bias (out,) on the CPU -> the fastest Linear of this device, from and to `dtype`.

    weights: other formats than float32 need the compiled kernels
    """
    if dtype != torch.float32:
        return DenseLinear(weight.to(device, dtype), bias.to(device, dtype))
    if device.type == "cpu" and simd_widths():
        return CompiledLinear(weight, bias, weights=weights)
    if device.type == "cpu" and packing_available():
        return PackedLinear(weight.t(), bias)
    return DenseLinear(weight.to(device), bias.to(device))
