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
        drawn = [row for row in rows if row.token is not None]
        parts = []
        if drawn:
            tokens = [row.token for row in drawn if row.token is not None]
            embedded = self._net.embed_speech(tokens, [row.drawn for row in drawn])[:, 0]
            source = [index for index, row in enumerate(drawn) for _ in range(row.span.slot.lanes)]
            if len(source) > len(drawn):
                embedded = embedded.index_select(0, to_device(source, torch.int64, self._net.device))
            parts.append(embedded)
        parts += [row.chunk.flatten(0, 1) for row in rows if row.chunk is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _logits(self, hidden: Tensor, rows: Sequence[PassRow]) -> Tensor:
        """Behind the last position of each row that is due, (due, 8194)."""
        with_text, without_text, first = [], [], 0
        for row in rows:
            lanes = row.span.slot.lanes
            first += row.span.rows * lanes
            if row.due:
                with_text.append(first - lanes)
                without_text.append(first - 1)
        numbers = to_device([with_text, without_text], torch.int64, hidden.device)
        conditional = hidden.index_select(0, numbers[0])
        if with_text == without_text:
            return self._net.speech_logits(conditional)
        weights = [[self._weights[row.slot_index]] for row in rows if row.due]
        unconditional = hidden.index_select(0, numbers[1])
        return self._net.guided_logits(conditional, unconditional, to_device(weights, torch.float32, hidden.device))
