"""T3's KV cache at fixed addresses: a block of memory for all slots, made once, which captured steps read and write."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.model_spec import T3Spec

_SMALLEST_CAPACITY = 512
_ALIGNMENT = 16  # positions: what attention's kernels ask of a mask's rows


def capacity_for(max_positions: int) -> int:
    """The positions of a slot that holds `max_positions`."""
    return -(-max_positions // _ALIGNMENT) * _ALIGNMENT


def capacity_buckets(capacity: int) -> tuple[int, ...]:
    """How many positions a step may read: 512, doubled up to all of them."""
    sizes = []
    size = _SMALLEST_CAPACITY
    while size < capacity:
        sizes.append(size)
        size *= 2
    return (*sizes, capacity)


def row_buckets(slots: int) -> tuple[int, ...]:
    """How many rows a step may have: 1, doubled up to one for every slot."""
    sizes = []
    size = 1
    while size < slots:
        sizes.append(size)
        size *= 2
    return (*sizes, slots)


class StaticCache:
    """Keys and values of all slots, (layers, 2, slots, heads, capacity + 1, head dim).

    The last position belongs to no sequence: rows that take no part in a step write there. Unwritten positions are
    zero, because attention gives them the weight 0, and 0 times what memory held before may be NaN.
    """

    def __init__(self, spec: T3Spec, slots: int, max_positions: int, dtype: torch.dtype, device: torch.device) -> None:
        self.capacity = capacity_for(max_positions)
        shape = spec.layers, 2, slots, spec.heads, self.capacity + 1, spec.width // spec.heads
        self.kv = torch.zeros(shape, dtype=dtype, device=device)

    @property
    def nowhere(self) -> int:
        """The position that belongs to no sequence."""
        return self.capacity

    def write(self, layer: int, rows: int, at: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """Put new (rows, 2, heads, dim) of the first `rows` slots at their positions `at` (rows,).

        Returns all keys and values of these slots, (rows, heads, capacity + 1, dim) each.
        """
        kv = self.kv[layer][:, :rows]
        values = new.transpose(0, 1).unsqueeze(3)  # (2, rows, heads, 1, dim)
        kv.scatter_(3, at.view(1, rows, 1, 1, 1).expand(values.shape), values)
        return kv[0], kv[1]


class StaticSlot:
    """One slot of a StaticCache, as a Slot of T3's net."""

    def __init__(self, cache: StaticCache, index: int) -> None:
        self.length = 0
        self._used = 0  # positions that may have been written since `clear`
        self._capacity = cache.capacity
        self._kv = cache.kv[:, :, index]  # (layers, 2, heads, capacity + 1, dim)

    def clear(self) -> None:
        """As Slot.clear. What a sequence leaves must be finite for the next one, and it may not be."""
        self._kv[:, :, :, : self._used].zero_()
        self.length = self._used = 0

    def reserve(self, positions: int) -> None:
        """As Slot.reserve: there is room for everything that the decoder admits."""
        assert positions <= self._capacity, "the decoder admits no sequence that cannot fit"
        self._used = max(self._used, positions)

    def write(self, layer: int, start: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """As KvSlot.write."""
        stop = start + rows.shape[0]
        kv = self._kv[layer]
        kv[:, :, start:stop] = rows.permute(1, 2, 0, 3)
        return kv[:1, :, :stop], kv[1:, :, :stop]

    def copy_out(self, positions: int) -> Tensor:
        """As Slot.copy_out."""
        return self._kv[:, :, :, :positions].clone()

    def load(self, prefix: Tensor) -> None:
        """As Slot.load."""
        positions = prefix.shape[3]
        self.reserve(positions)
        self._kv[:, :, :, :positions] = prefix
        self.length = positions
