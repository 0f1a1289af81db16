"""A step's pass through T3: rows of sequences in, the next speech tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.config import Sampling
from engines.t3.net import Net, Slot, Span
from engines.t3.sampler import Sampler


@dataclass(frozen=True)
class PassRow:
    """What one sequence reads in a step.

    span        the positions
    slot_index  the slot
    token       the last drawn token, which is read; None in a prompt
    chunk       the embeddings (span.rows, ..., width) of a part of the prompt; None while tokens are drawn
    drawn       how many tokens were drawn, `token` included
    due         whether the next token is drawn behind it
    """

    span: Span[Any]
    slot_index: int
    token: int | None = None
    chunk: Tensor | None = None
    due: bool = True
    drawn: int = 0


class Pass(Protocol):
    """Runs steps. Owns the slots and the sampler's state of their sequences."""

    def new_slot(self, index: int) -> Slot:
        """The slot of this index, made when it is first used."""
        ...

    def begin(self, slot_index: int, sampling: Sampling) -> None:
        """Start a new sequence in this slot."""
        ...

    def run(self, rows: Sequence[PassRow]) -> list[int]:
        """Read the rows and draw a token for each that is due, or NOT_FINITE. At most one of them is a chunk, the last.

        The slots' lengths do not change.
        """
        ...


class EagerPass:
    """A Pass on any Net: all rows in one call of it, then one of the sampler."""

    def __init__(self, net: Net, slots: int, max_positions: int) -> None:
        self._net, self._max_positions = net, max_positions
        self._sampler = Sampler(slots, net.device, vocab=net.family.speech_vocab, rows=net.family.rows)

    def new_slot(self, index: int) -> Slot:
        """As Pass.new_slot."""
        return self._net.new_slot(self._max_positions)

    def begin(self, slot_index: int, sampling: Sampling) -> None:
        """As Pass.begin."""
        self._sampler.begin(slot_index, sampling)

    def run(self, rows: Sequence[PassRow]) -> list[int]:
        """As Pass.run."""
        hidden = self._net.forward(self._embeddings(rows), [row.span for row in rows])
        due = [row.slot_index for row in rows if row.due]  # all, or all but the last
        if not due:
            return []
        # all spans but the last have one row; slices, because an index would be copied to the device
        before_last = len(rows) - 1
        last = hidden if len(hidden) == len(rows) else torch.cat([hidden[:before_last], hidden[-1:]])
        return self._sampler.sample(due, self._net.speech_logits(last[: len(due)]))

    def _embeddings(self, rows: Sequence[PassRow]) -> Tensor:
        """The rows one after the other, (R, width)."""
        tokens = [row.token for row in rows if row.token is not None]
        places = [row.drawn for row in rows if row.token is not None]
        parts = [self._net.embed_speech(tokens, places)] if tokens else []
        parts += [row.chunk for row in rows if row.chunk is not None]
        return parts[0] if len(parts) == 1 else torch.cat(parts)
