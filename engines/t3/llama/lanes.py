"""The KV cache of a sequence with guidance: two lanes, with text and without, as twice the heads."""

from __future__ import annotations

import torch
from torch import Tensor

from engines.model_spec import LlamaSpec
from engines.t3.kv_cache import KvSlot, copied


class LaneSlot(KvSlot):
    """A KvSlot of (layers, 2, lanes x heads, capacity, head dim): lane 0 is the first heads, lane 1 the others.

    One attention over all heads serves both lanes. A sequence without guidance has one lane and half the cache.
    """

    def __init__(
        self,
        spec: LlamaSpec,
        max_positions: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        held: torch.dtype | None = None,
    ) -> None:
        super().__init__(spec, max_positions, device, dtype, held)
        self.lanes = 1
        self._heads = spec.heads

    def use_lanes(self, lanes: int) -> None:
        """Begin a sequence with this number of lanes; another one than before frees the memory."""
        assert self.length == 0, "the lanes of a sequence do not change"
        if lanes != self.lanes:
            self.lanes = lanes
            layers, two, _, _, dim = self._kv.shape
            self._kv = self._kv.new_empty((layers, two, lanes * self._heads, 0, dim))

    def copy_out(self, positions: int) -> Tensor:
        """As Slot.copy_out: (layers, 2, heads, positions, head dim), for rows that are the same in all lanes."""
        return copied(self._kv[:, :, : self._heads, :positions])

    def load(self, prefix: Tensor) -> None:
        """As Slot.load, into every lane."""
        positions = prefix.shape[3]
        self.length = 0
        self.reserve(positions)
        layers, two, _, capacity, dim = self._kv.shape
        lanes = self._kv.view(layers, two, self.lanes, self._heads, capacity, dim)
        lanes[:, :, :, :, :positions] = prefix.unsqueeze(2)
        self.length = positions
