"""T3's norms: the compiled kernel on a CPU, which needs no thread to be woken for a few rows, else torch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from engines.kernels.library import best_simd_width
from engines.kernels.norm import Norm

NormLayer = Callable[[Tensor], Tensor]  # (R, width) -> (R, width)


def make_norm(weight: Tensor, bias: Tensor | None, epsilon: float) -> NormLayer:
    """Layer norm with weight and bias (width,), or without a bias the norm by the root of the mean square."""
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and best_simd_width(len(weight)) is not None:
        return CompiledNorm(weight, bias, epsilon)
    return _TorchNorm(weight, bias, epsilon)


class _TorchNorm:
    def __init__(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> None:
        self._weight, self._bias, self._epsilon = weight, bias, epsilon

    def __call__(self, x: Tensor) -> Tensor:
        if self._bias is None:
            return F.rms_norm(x, self._weight.shape, self._weight, self._epsilon)
        return F.layer_norm(x, self._weight.shape, self._weight, self._bias, self._epsilon)


class CompiledNorm:
    """A NormLayer on the compiled kernel."""

    def __init__(self, weight: Tensor, bias: Tensor | None, epsilon: float) -> None:
        self.norm = Norm(weight.detach().numpy(), None if bias is None else bias.detach().numpy(), epsilon)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.contiguous()
        out = x.new_empty(x.shape)
        self.norm.run(x.data_ptr(), x.numel() // x.shape[-1], out.data_ptr())
        return out
