"""Keys and values of a segment whose words are read: pages of one size, behind those of its voice."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engines.model_spec import T3Spec

PAGE_POSITIONS = 32


def page_shape(spec: T3Spec) -> tuple[int, int, int, int, int]:
    """(layers, 2, heads, 32, head dim)"""
    return spec.layers, 2, spec.heads, PAGE_POSITIONS, spec.width // spec.heads


def pages_for(positions: int) -> int:
    """Pages that hold this many positions."""
    return -(-positions // PAGE_POSITIONS)


class PagedSlot:
    """Keys and values of one sequence, for a net's `forward`.

    It may go on from the first positions of another slot, which many share and none writes to. Memory comes page by
    page, so that nothing is copied when a sequence grows. `length` counts the positions that every layer has written.
    """

    lanes = 1  # as LaneSlot.lanes

    def __init__(
        self,
        spec: T3Spec,
        device: torch.device,
        dtype: torch.dtype,
        before: PagedSlot | None = None,
        shared: int = 0,
    ) -> None:
        """`shared`: the positions of `before` that this sequence goes on from."""
        self.before, self.length = before, shared
        self._shape, self._device, self._dtype = page_shape(spec), device, dtype
        self._shared = shared
        self._pages: list[Tensor] = []

    @property
    def page_bytes(self) -> int:
        return math.prod(self._shape) * self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Of its own pages."""
        return len(self._pages) * self.page_bytes

    def missing_bytes(self, positions: int) -> int:
        """What `reserve` would allocate."""
        return max(0, pages_for(positions - self._shared) - len(self._pages)) * self.page_bytes

    def reserve(self, positions: int) -> None:
        """Make room for `positions` in all; what is already written stays."""
        while len(self._pages) < pages_for(positions - self._shared):
            self._pages.append(torch.empty(self._shape, device=self._device, dtype=self._dtype))

    def write(self, layer: int, start: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Put rows (n, 2, heads, dim) at positions [start, start + n) of one layer.

        Returns that layer's keys and values over [0, start + n), each (1, heads, start + n, dim).
        """
        values, done = rows.permute(1, 2, 0, 3), 0
        while done < len(rows):
            page, at = divmod(start - self._shared + done, PAGE_POSITIONS)
            count = min(PAGE_POSITIONS - at, len(rows) - done)
            self._pages[page][layer][:, :, at : at + count] = values[:, :, done : done + count]
            done += count
        both = torch.cat(self._parts(layer, start + len(rows)), 2)
        return both[:1], both[1:]

    def keys(self, layer: int, start: int, stop: int) -> Tensor:
        """As KvSlot.keys."""
        return torch.cat(self._parts(layer, stop), 2)[0, :, start:]

    def _parts(self, layer: int, stop: int) -> list[Tensor]:
        """Positions [0, stop) of a layer, (2, heads, n, dim) each."""
        if self.before is not None and stop <= self._shared:
            return self.before._parts(layer, stop)
        parts = [] if self.before is None else self.before._parts(layer, self._shared)
        whole, rest = divmod(stop - self._shared, PAGE_POSITIONS)
        parts += [page[layer] for page in self._pages[:whole]]
        if rest:
            parts.append(self._pages[whole][layer][:, :, :rest])
        return parts
