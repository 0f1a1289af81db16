"""Attention over a stream: a block's keys and values behind the cached ones of every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from engines.s3gen.nets.layers import key_bias


class KVView(Protocol):
    """The keys and values that one stack of attention layers sees: each row's cached ones, then the block's own.

    Layers are identified by call order, which is the same in every forward pass.
    """

    @property
    def longest(self) -> int:
        """The largest number of cached keys of any row."""
        ...

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """The next layer's keys and values of the block (B, M, w), with the cached ones before them
        -> (B, heads, longest + M, head width)."""
        ...

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """(B, 1, 1, longest + frames), to be added to attention scores; None if every row is full."""
        ...


class RowsKVView:
    """A KVView of rows whose cached keys and values lie apart and differ in length.

    They end where the blocks begin, whatever their length, so that relative positions are the same in every row.
    """

    def __init__(self, cached: Sequence[Sequence[Tensor]], block: Tensor) -> None:
        """`cached`: for each row its parts (layers, t, 2w), oldest first. `block` (layers, B, M, 2w) is filled in
        layer by layer."""
        self.lengths = [sum(part.shape[1] for part in parts) for parts in cached]
        self.longest = max(self.lengths)
        self._pads = [block.new_zeros(self.longest - length, block.shape[-1]) for length in self.lengths]
        self._cached, self._block = cached, block
        self._layer = 0

    def extend(self, keys: Tensor, values: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """As KVView.extend. A row that has cached less gets zeros before it, which `bias` masks."""
        layer, block = self._layer, self._block[self._layer]
        self._layer += 1
        torch.cat([keys, values], -1, out=block)
        parts: list[Tensor] = []
        for pad, cached, own in zip(self._pads, self._cached, block.unbind(0), strict=True):
            parts += [pad, *(part[layer] for part in cached), own]
        both = torch.cat(parts).view(block.shape[0], self.longest + block.shape[1], 2 * heads, -1).transpose(1, 2)
        keys, values = both.chunk(2, dim=1)
        return keys, values

    def next_layers(self, layers: int) -> list[tuple[list[Tensor], Tensor]]:
        """As cfm.LayersKV, instead of `layers` calls of `extend`."""
        taken = slice(self._layer, self._layer + layers)
        self._layer += layers
        return [([part[taken] for part in parts], self._block[taken, row]) for row, parts in enumerate(self._cached)]

    def bias(self, block_lengths: Tensor | None, frames: int, dtype: torch.dtype) -> Tensor | None:
        """As KVView.bias."""
        if block_lengths is None and min(self.lengths) == self.longest:
            return None
        device = self._block.device
        before = key_bias(torch.tensor(self.lengths, device=device), self.longest, dtype)
        full = torch.full((len(self.lengths),), frames, device=device)
        own = key_bias(full if block_lengths is None else block_lengths, frames, dtype)
        assert before is not None
        assert own is not None
        return torch.cat([before.flip(-1), own], dim=-1)
