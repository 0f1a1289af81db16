"""A step's pass with guidance: each sequence has one lane or two, and its own weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engines.config import Sampling
from engines.device import to_device
from engines.t3.llama.lanes import LaneSlot
from engines.t3.passes import PassRow
from engines.t3.sampler import Sampler

if TYPE_CHECKING:
    from engines.t3.llama.net import LlamaNet


class GuidedPass:
    """A Pass on a LlamaNet: all rows in one call of it, guidance by each row's weight, then one call of the sampler."""

    def __init__(self, net: LlamaNet, slots: int, max_positions: int) -> None:
        self._net, self._max_positions = net, max_positions
        family = net.family
        self._sampler = Sampler(slots, net.device, vocab=family.speech_vocab, rows=family.rows)
        self._slots: dict[int, LaneSlot] = {}
        self._weights = [0.0] * slots

    def new_slot(self, index: int) -> LaneSlot:
        """As Pass.new_slot."""
        self._slots[index] = self._net.new_slot(self._max_positions)
        return self._slots[index]

    def begin(self, slot_index: int, sampling: Sampling) -> None:
        """As Pass.begin."""
        self._slots[slot_index].use_lanes(self._net.lanes(sampling))
        self._weights[slot_index] = sampling.cfg_weight
        self._sampler.begin(slot_index, sampling)

    def run(self, rows: Sequence[PassRow]) -> list[int]:
        """As Pass.run."""
        hidden = self._net.forward(self._embeddings(rows), [row.span for row in rows])
        due = [row for row in rows if row.due]
        if not due:
            return []
        return self._sampler.sample([row.slot_index for row in due], self._logits(hidden, rows))

    def _embeddings(self, rows: Sequence[PassRow]) -> Tensor:
        """The rows of all spans one after the other, the lanes of a position beside each other, (R, width)."""
        lanes = [row for row in rows if row.token is not None for _ in range(row.span.slot.lanes)]
        tokens, places = [row.token for row in lanes if row.token is not None], [row.drawn for row in lanes]
        parts = [self._net.embed_speech(tokens, places)[:, 0]] if lanes else []
        parts += [row.chunk.flatten(0, 1) for row in rows if row.chunk is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, hidden: Tensor, rows: Sequence[PassRow]) -> Tensor:
        """Behind the last position of each row that is due, (due, 8194)."""
        table, first = [], 0  # the last position's row with its text, the one without, and the weight
        for row in rows:
            lanes = row.span.slot.lanes
            first += row.span.rows * lanes
            if row.due:
                table.append((first - lanes, first - 1, self._weights[row.slot_index]))
        numbers = to_device(table, torch.float64, hidden.device)
        with_text = hidden.index_select(0, numbers.select(1, 0).long())
        if all(conditional == unconditional for conditional, unconditional, _ in table):
            return self._net.speech_logits(with_text)
        without_text = hidden.index_select(0, numbers.select(1, 1).long())
        return self._net.guided_logits(with_text, without_text, numbers.select(1, 2).float().unsqueeze(1))
