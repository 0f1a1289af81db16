"""T3's KV cache: one slot per running sequence, and the prefixes that the requests of a voice share.

Memory is allocated when it is first needed and is bounded by the number of slots, the positions of a slot and the byte
budget of the prefixes.
"""

from __future__ import annotations

import contextlib
import ctypes
import heapq
import mmap
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic

import torch
from torch import Tensor

from engines.model_spec import T3Spec
from engines.t3.net import SlotT

_GROWTH_POSITIONS = 256


def copied(kv: Tensor) -> Tensor:
    """A contiguous copy of keys and values."""
    return _in_large_pages(kv.new_empty(kv.shape)).copy_(kv)


def _in_large_pages(kv: Tensor) -> Tensor:
    """Memory that nothing has been written to, where Linux can in pages of 2 MB: they are read in 0.7 of the time."""
    if kv.device.type == "cpu" and hasattr(mmap, "MADV_HUGEPAGE"):
        begin = -(-kv.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        with contextlib.suppress(AttributeError):  # a C library without madvise
            size = ctypes.c_size_t(max(0, kv.data_ptr() + kv.nbytes - begin))
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(begin), size, mmap.MADV_HUGEPAGE
            )  # a wish: its result tells nothing
    return kv


class KvSlot:
    """Keys and values of one sequence, (layers, 2, heads, capacity, head dim), contiguous per head.

    It starts empty and grows by whole blocks; a slot that is used again keeps its memory. `length` counts the
    positions that every layer has written. Rows are of `dtype`, the memory of `held`, by default the same.
    """

    def __init__(
        self,
        spec: T3Spec,
        max_positions: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        held: torch.dtype | None = None,
    ) -> None:
        self.length, self._dtype = 0, dtype
        self.prefix: Tensor | None = None  # that the sequence started from; others may have started from it too
        self._max_positions = max_positions
        shape = (spec.layers, 2, spec.heads, 0, spec.width // spec.heads)
        self._kv = torch.empty(shape, device=device, dtype=held or dtype)

    @property
    def capacity(self) -> int:
        return self._kv.shape[3]

    @property
    def memory(self) -> Tensor:
        """The whole cache, (layers, 2, heads, capacity, head dim); another tensor once `reserve` has made it larger."""
        return self._kv

    def clear(self) -> None:
        """Forget the sequence and keep the memory."""
        self.length, self.prefix = 0, None

    def reserve(self, positions: int) -> None:
        """Make room for `positions` in all; what is already written stays."""
        if positions <= self.capacity:
            return
        assert positions <= self._max_positions, "the decoder admits no sequence that cannot fit"
        # half as much again, so that a long sequence is copied a few times and not every 256 positions
        enlarged = max(positions, self.capacity + self.capacity // 2)
        rounded = -(-enlarged // _GROWTH_POSITIONS) * _GROWTH_POSITIONS
        layers, two, heads, _, dim = self._kv.shape
        grown = _in_large_pages(self._kv.new_empty((layers, two, heads, min(rounded, self._max_positions), dim)))
        grown[:, :, :, : self.length] = self._kv[:, :, :, : self.length]
        self._kv = grown

    def write(self, layer: int, start: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Put rows (n, 2, heads, dim) at positions [start, start + n) of one layer.

        Returns that layer's keys and values over [0, start + n), each (1, heads, start + n, dim): views where the
        memory is of the rows' dtype.
        """
        self.forget_prefix_from(start)
        stop = start + rows.shape[0]
        kv = self._kv[layer]
        if kv.dtype != rows.dtype:
            most = torch.finfo(kv.dtype).max
            rows = rows.clamp(-most, most)  # as the compiled attention holds them
        kv[:, :, start:stop] = rows.permute(1, 2, 0, 3)
        seen = kv[:, :, :stop].to(self._dtype)
        return seen[:1], seen[1:]

    def keys(self, layer: int, start: int, stop: int) -> Tensor:
        """The keys of positions [start, stop) of one layer, (heads, n, head dim), as the rows were."""
        return self._kv[layer, 0, :, start:stop].to(self._dtype)

    def forget_prefix_from(self, start: int) -> None:
        """Rows are written from `start` on: a prefix that reached beyond it is not that of this sequence any more."""
        if self.prefix is not None and start < self.prefix.shape[3]:
            self.prefix = None

    def copy_out(self, positions: int) -> Tensor:
        """A copy of the first `positions`, for `load`."""
        return copied(self._kv[:, :, :, :positions])

    def load(self, prefix: Tensor) -> None:
        """Start from a prefix that another sequence has written."""
        self.length = 0
        self.reserve(prefix.shape[3])
        self._kv[:, :, :, : prefix.shape[3]] = prefix
        self.length, self.prefix = prefix.shape[3], prefix


class SlotPool(Generic[SlotT]):
    """A pool of up to `slots` slots, made on demand by their index; the lowest free one is taken first."""

    def __init__(self, new_slot: Callable[[int], SlotT], slots: int) -> None:
        self._new_slot = new_slot
        self._free = list(range(slots))  # a heap
        self._slots: dict[int, SlotT] = {}

    @property
    def free(self) -> int:
        return len(self._free)

    def take(self) -> tuple[int, SlotT]:
        """An empty slot and its index; only while `free` is not zero."""
        index = heapq.heappop(self._free)
        if index not in self._slots:
            self._slots[index] = self._new_slot(index)
        return index, self._slots[index]

    def give_back(self, index: int) -> None:
        assert index not in self._free, "a slot is freed once"
        self._slots[index].clear()
        heapq.heappush(self._free, index)


class PrefixCache:
    """An LRU cache of voices' prefixes (keys and values by voice key) within a budget of bytes.

    T3 is causal: a prefix that was computed once is valid for every text that follows it.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        return sum(entry.nbytes for entry in self._entries.values())

    def get(self, key: str) -> Tensor | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def wants(self, key: str) -> bool:
        """Whether `put` would add an entry."""
        return self._budget_bytes > 0 and key not in self._entries

    def put(self, key: str, prefix: Tensor) -> None:
        """Add a prefix and evict the least recently used ones; a prefix larger than the budget is not added."""
        if prefix.nbytes > self._budget_bytes:
            return
        self._entries[key] = prefix
        while self.used_bytes > self._budget_bytes:
            self._entries.popitem(last=False)
