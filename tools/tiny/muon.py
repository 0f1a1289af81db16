"""Muon for matrices, Adam for tables, norms and biases.

Muon steps along the nearest matrix with equal singular values to the gradient's running mean: T3 needs three quarters
of Adam's steps with it, and the CFM learns to carry noise away, which Adam takes thousands of steps to find. Knows no
net beyond which of its parameters are matrices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

_MOMENTUM, _BETAS, _EPS = 0.95, (0.9, 0.98), 1e-8
_DECAY = 0.05  # of matrices, times the share of the peak
_TABLE_DECAY = 0.01
MATRIX_RATE = 8.0  # a matrix's learning rate in Adam's
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Newton-Schulz coefficients of https://kellerjordan.github.io/posts/muon


class Muon(torch.optim.Optimizer):
    def __init__(
        self, matrices: Iterable[Tensor], rest: Iterable[Tensor], peak: float, *apart: tuple[float, list[Tensor]]
    ) -> None:
        """apart: what Adam moves at its own share of the peak."""
        parts = [(MATRIX_RATE, list(matrices), True), (1.0, list(rest), False), *((*one, False) for one in apart)]
        groups: list[dict[str, Any]] = [
            {"params": some, "share": share, "matrix": matrix} for share, some, matrix in parts
        ]
        super().__init__(groups, {"lr": peak})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            update = self._turn if group["matrix"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update(parameter, group["lr"], self._state(parameter, group["matrix"]))

    def _state(self, parameter: Tensor, matrix: bool) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state |= {"m": torch.zeros_like(parameter), "count": torch.zeros(())}
            if not matrix:
                state["v"] = torch.zeros_like(parameter)
        state["count"] += 1
        return state

    def _turn(self, parameter: Tensor, rate: float, state: dict[str, Tensor]) -> None:
        assert parameter.grad is not None
        state["m"].mul_(_MOMENTUM).add_(parameter.grad)
        update = (parameter.grad + _MOMENTUM * state["m"]).flatten(1)  # a convolution's taps are columns
        rows, columns = update.shape
        parts = update.chunk(3 if rows == 3 * columns else 1)  # queries, keys and values are three matrices
        made = [orthogonal(part) * max(1.0, part.shape[0] / columns) ** 0.5 for part in parts]
        parameter.mul_(1 - rate * _DECAY / MATRIX_RATE).sub_(rate * torch.cat(made).view_as(parameter))

    def _adam(self, parameter: Tensor, rate: float, state: dict[str, Tensor]) -> None:
        assert parameter.grad is not None
        state["m"].lerp_(parameter.grad, 1 - _BETAS[0])
        state["v"].lerp_(parameter.grad.square(), 1 - _BETAS[1])
        mean, square = (state[name] / (1 - beta ** state["count"]) for name, beta in zip("mv", _BETAS, strict=True))
        parameter.mul_(1 - rate * _TABLE_DECAY).sub_(rate * mean / (square.sqrt() + _EPS))


def orthogonal(x: Tensor) -> Tensor:
    """About the nearest matrix whose singular values are all 1, by five steps of a quintic iteration."""
    tall = x.shape[0] > x.shape[1]
    y = (x.T if tall else x).bfloat16()
    y = y / (y.norm() + 1e-7)
    a, b, c = _QUINTIC
    for _ in range(5):
        gram = y @ y.T
        y = a * y + (b * gram + c * gram @ gram) @ y
    turned: Tensor = (y.T if tall else y).to(x.dtype)
    return turned
