"""Causal convolutions over a stream: the last inputs of each, kept from block to block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engines.model_spec import MEL_BANDS, FlowSpec
from engines.s3gen.cache.prompt_cache import Sized

LOOKAHEAD_TAIL_TOKENS = 2  # of the lookahead's second convolution
UP_TAIL_FRAMES = 4
CFM_TAIL_FRAMES = 2

A = TypeVar("A", bound=Sized)


def cfm_widths(spec: FlowSpec) -> list[int]:
    """Input channels of the CFM's causal convolutions in the order in which they are computed."""
    channels = spec.channels
    down, mid, up = [4 * MEL_BANDS, channels, channels], [channels, channels], [2 * channels, channels, channels]
    return [*down, *mid * spec.mid_stages, *up, channels]


def _shapes(spec: FlowSpec) -> tuple[tuple[int, ...], ...]:
    """Those of a state's arrays."""
    return (
        (LOOKAHEAD_TAIL_TOKENS, spec.width),
        (UP_TAIL_FRAMES, spec.width),
        (spec.steps, spec.lanes, CFM_TAIL_FRAMES, sum(cfm_widths(spec))),
    )


@dataclass(frozen=True, eq=False)
class _State(Generic[A]):
    """The last inputs of the causal convolutions, oldest first; zeros before the first block.

    tokens  (2, width): the lookahead's second convolution
    frames  (4, width): the up-layer's
    steps   (Euler steps, lanes, 2, sum of `cfm_widths`): the CFM's, side by side in the order of computing
    """

    tokens: A
    frames: A
    steps: A

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.frames.nbytes + self.steps.nbytes


class ConvState(_State[Tensor]):
    """A row's state on torch."""

    @classmethod
    def zeros(cls, spec: FlowSpec, like: Tensor) -> ConvState:
        """Of the dtype and on the device of `like`."""
        return cls(*(like.new_zeros(shape) for shape in _shapes(spec)))

    @classmethod
    def stacked(cls, states: Sequence[ConvState]) -> ConvState:
        """The states of several rows, (B, ...) each."""
        return cls(
            *(torch.stack(parts) for parts in zip(*((s.tokens, s.frames, s.steps) for s in states), strict=True))
        )

    def put(self, index: int, state: ConvState) -> None:
        """Overwrite one row of stacked states."""
        self.tokens[index].copy_(state.tokens)
        self.frames[index].copy_(state.frames)
        self.steps[index].copy_(state.steps)

    def row(self, index: int) -> ConvState:
        """A copy of one row of stacked states; a view would keep those of the whole batch alive."""
        return ConvState(self.tokens[index].clone(), self.frames[index].clone(), self.steps[index].clone())


class HostConvState(_State[npt.NDArray[np.float32]]):
    """A row's state on the host, for ONNX Runtime."""

    @classmethod
    def zeros(cls, spec: FlowSpec) -> HostConvState:
        return cls(*(np.zeros(shape, np.float32) for shape in _shapes(spec)))


class StreamingConv:
    """Some causal convolutions, computed one after the other over blocks of streams.

    Convolutions are identified by call order, which is the same in every forward pass.
    """

    def __init__(self, state: Tensor, widths: Sequence[int], new: Tensor) -> None:
        """`state` (B, t, sum of `widths`); `new` (B,): the inputs of each row that enter the next state, the first."""
        self._inputs, self.new = state.shape[1], new
        self._before: Iterator[Tensor] = iter(torch.split(state, list(widths), dim=-1))
        self._index = (new[:, None] + torch.arange(self._inputs, device=state.device))[..., None]  # (B, t, 1)
        self._after: list[Tensor] = []

    def step(self, convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The next convolution over x (B, M, C), with its state before x instead of zeros."""
        inputs = torch.cat([next(self._before), x], dim=1)
        self._after.append(inputs.gather(1, self._index.expand(-1, -1, inputs.shape[-1])))
        return convolution(inputs)[:, self._inputs :]

    def take(self) -> tuple[Tensor, Tensor]:
        """The next convolution's state, and where its caller writes the one for the next block; both (B, t, C)."""
        before = next(self._before)
        self._after.append(before.new_empty(before.shape))
        return before, self._after[-1]

    def state(self) -> Tensor:
        """The state for the next block, shaped as the one before."""
        assert next(self._before, None) is None, "a convolution was left out"
        return torch.cat(self._after, dim=-1)
