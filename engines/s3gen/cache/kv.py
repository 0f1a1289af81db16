"""What cached decoding remembers of tokens it has seen: keys and values wherever the flow attends, and the last inputs
of its causal convolutions.

Knows tensor layouts and how rows with memories of different lengths are laid side by side; knows no net. A net takes
its turns in a fixed order, so layers and convolutions are told apart by counting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engines.model_spec import MEL_BANDS, MEL_FRAMES_PER_TOKEN, FlowSpec
from engines.s3gen.cache.token_run import TokenRun
from engines.s3gen.nets.cfm import EULER_TIMES
from engines.s3gen.nets.layers import key_bias

EULER_STEPS = len(EULER_TIMES) - 1
LOOKAHEAD_TAIL_TOKENS = 2  # of the lookahead's second convolution
UP_TAIL_FRAMES = 4
CFM_TAIL_FRAMES = 2


@dataclass(frozen=True, eq=False)
class KeysValues(TokenRun[Tensor]):
    """A run of n tokens; each row holds a layer's keys, then its values.

    lower  (encoder layers, n, 2 x width)
    upper  (upper layers, 2n, 2 x width)
    steps  (Euler steps, transformer blocks, 2n, 2 x attention width)
    """

    @classmethod
    def empty(cls, spec: FlowSpec, tokens: int, like: Tensor, batch: int | None = None) -> KeysValues:
        """Room for `tokens`, of the dtype and on the device of `like`; with `batch`, for so many rows side by side
        (before the axis of tokens)."""
        rows = () if batch is None else (batch,)
        frames, width = tokens * MEL_FRAMES_PER_TOKEN, 2 * spec.width
        blocks = (spec.mid_stages + 2) * spec.blocks_per_stage
        attention = 2 * spec.cfm_heads * spec.cfm_head_dim
        return cls(
            like.new_empty(spec.encoder_layers, *rows, tokens, width),
            like.new_empty(spec.up_layers, *rows, frames, width),
            like.new_empty(EULER_STEPS, blocks, *rows, frames, attention),
        )

    def put(self, tokens: slice, source: KeysValues) -> None:
        """Overwrite some of the tokens."""
        place = self.cut(tokens)
        place.lower.copy_(source.lower)
        place.upper.copy_(source.upper)
        place.steps.copy_(source.steps)

    def row(self, index: int, tokens: slice) -> KeysValues:
        """Some tokens of one row of many, in memory of their own unless they are all there is."""
        one = KeysValues(self.lower[:, index], self.upper[:, index], self.steps[:, :, index]).cut(tokens)
        return KeysValues(one.lower.contiguous(), one.upper.contiguous(), one.steps.contiguous())


@dataclass(frozen=True)
class Tails:
    """The last inputs of the causal convolutions, oldest first; zeros where nothing came before.

    tokens  (2, width): the lookahead's second convolution
    frames  (4, width): the up-layer's
    steps   (Euler steps, 2, sum of `cfm_widths`): the CFM's, side by side in the order they are computed
    """

    tokens: Tensor
    frames: Tensor
    steps: Tensor

    @classmethod
    def empty(cls, spec: FlowSpec, like: Tensor) -> Tails:
        return cls(
            like.new_zeros(LOOKAHEAD_TAIL_TOKENS, spec.width),
            like.new_zeros(UP_TAIL_FRAMES, spec.width),
            like.new_zeros(EULER_STEPS, CFM_TAIL_FRAMES, sum(cfm_widths(spec))),
        )

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes + self.frames.nbytes + self.steps.nbytes


def cfm_widths(spec: FlowSpec) -> list[int]:
    """Input channels of the CFM's causal convolutions in the order they are computed."""
    channels = spec.channels
    down, mid, up = [4 * MEL_BANDS, channels, channels], [channels, channels], [2 * channels, channels, channels]
    return [*down, *mid * spec.mid_stages, *up, channels]


class Memory(Protocol):
    """What one stack of attention layers looks at: what came before each row's block, and the block's own."""

    @property
    def longest(self) -> int:
        """How many keys come before the block, in the row that remembers most."""
        ...

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """The next layer's keys and values of the block (B, M, w) -> with its memory before them
        (B, heads, longest + M, head width)."""
        ...

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, 1, longest + frames), to be added to attention scores; None when every row is full."""
        ...


class Attended:
    """Fulfils `Memory` for rows whose memories lie apart and differ in length.

    Memories end where the blocks begin, however long they are: then relative positions are the same in every row.
    """

    def __init__(self, history: Sequence[Sequence[Tensor]], block: Tensor) -> None:
        """`history`: for each row the parts of its memory, (layers, t, 2w) each, oldest first; `block`
        (layers, B, M, 2w) is filled in layer by layer."""
        self.lengths = [sum(part.shape[1] for part in parts) for parts in history]
        self.longest = max(self.lengths)
        self._pads = [block.new_zeros(self.longest - length, block.shape[-1]) for length in self.lengths]
        self._history, self._block = history, block
        self._layer = 0

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """As `Memory`. A shorter memory has zeros before it, which `bias` hides."""
        layer, block = self._layer, self._block[self._layer]
        self._layer += 1
        torch.cat([keys, values], -1, out=block)
        parts: list[Tensor] = []
        for pad, history, own in zip(self._pads, self._history, block.unbind(0), strict=True):
            parts += [pad, *(part[layer] for part in history), own]
        both = torch.cat(parts).view(block.shape[0], self.longest + block.shape[1], 2 * heads, -1).transpose(1, 2)
        keys, values = both.chunk(2, dim=1)
        return keys, values

    def take(self, layers: int) -> list[tuple[list[Tensor], Tensor]]:
        """As cfm.Remembered, instead of so many calls of `extend`."""
        taken = slice(self._layer, self._layer + layers)
        self._layer += layers
        return [([part[taken] for part in parts], self._block[taken, row]) for row, parts in enumerate(self._history)]

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """As `Memory`."""
        if block_lengths is None and min(self.lengths) == self.longest:
            return None
        device = self._block.device
        before = key_bias(torch.tensor(self.lengths, device=device), self.longest, dtype)
        full = torch.full((len(self.lengths),), frames, device=device)
        own = key_bias(full if block_lengths is None else block_lengths, frames, dtype)
        assert before is not None
        assert own is not None
        return torch.cat([before.flip(-1), own], dim=-1)


class Trailing:
    """The tails of some causal convolutions, taken and replaced one after the other."""

    def __init__(self, tails: Tensor, widths: Sequence[int], new: Tensor) -> None:
        """`tails` (B, t, sum of `widths`); `new` (B,) inputs per row become part of the past, what follows does not."""
        self._inputs = tails.shape[1]
        self._tails: Iterator[Tensor] = iter(torch.split(tails, list(widths), dim=-1))
        self._index = new[:, None] + torch.arange(self._inputs, device=tails.device)  # (B, t)
        self._rows = torch.arange(tails.shape[0], device=tails.device)[:, None]
        self._left: list[Tensor] = []

    def through(self, convolution: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The next convolution over x (B, M, C), with its tail instead of zeros before it."""
        seen = torch.cat([next(self._tails), x], dim=1)
        self._left.append(seen[self._rows, self._index])
        return convolution(seen)[:, self._inputs :]

    def left(self) -> Tensor:
        """The new tails, shaped as those that were given."""
        assert next(self._tails, None) is None, "a convolution was left out"
        return torch.cat(self._left, dim=-1)
