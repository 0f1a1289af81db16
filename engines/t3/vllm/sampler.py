"""The sampler that replaces vLLM's: upstream's order of operations and draws keyed by (seed, step).

T3's Sampler does the mathematics, so that both backends draw the same tokens. vLLM's own sampler penalises prompt ids
and applies the penalty first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.config import Sampling
from engines.device import to_device, wait_until_done
from engines.model_spec import SPEECH_VOCAB
from engines.t3.sampler import NOT_FINITE, Sampler

SETTINGS_KEY = "mynah_sampling"  # in SamplingParams.extra_args
# Marks a row whose logits are not finite. It is never drawn and never read: its request fails at once.
NOT_FINITE_TOKEN = SPEECH_VOCAB


class ResumableSampler(Sampler):
    """A Sampler whose sequences may be preempted and resumed in another slot."""

    def resume(self, slot: int, sampling: Sampling, drawn: Sequence[int]) -> None:
        """Continue a sequence that has drawn these tokens in this slot."""
        self.begin(slot, sampling)
        if drawn:
            self._drawn_tokens[slot] = len(drawn)
            history = to_device(sorted(set(drawn)), torch.int64, self._device)
            self._seen.select(0, slot).zero_().index_fill_(0, history, True)


@dataclass(frozen=True)
class Row:
    """A row of a batch for which a token is drawn."""

    index: int
    request_id: str
    sampling: Sampling
    drawn: Sequence[int]


class Batch(Protocol):
    """The batch whose logits are sampled."""

    @property
    def size(self) -> int:
        """The number of rows of logits."""

    def due(self) -> list[Row]:
        """The rows whose prompt is read to its end; vLLM ignores the tokens of the others."""
        ...


class RunnerBatch:
    """Batch over vLLM 0.9.2's GPUModelRunner, between its forward pass and its bookkeeping."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner

    @property
    def size(self) -> int:
        return len(self._runner.input_batch.req_ids)

    def due(self) -> list[Row]:
        rows = []
        for index, request_id in enumerate(self._runner.input_batch.req_ids):
            state = self._runner.requests[request_id]
            if int(self._runner.seq_lens_np[index]) >= state.num_tokens:
                sampling = state.sampling_params.extra_args[SETTINGS_KEY]
                rows.append(Row(index, request_id, sampling, state.output_token_ids))
        return rows


@dataclass
class _BatchSlots:
    """The sampler's slots of the requests in the batch."""

    slots: int
    taken: dict[str, int] = field(default_factory=dict)

    def assign(self, rows: Sequence[Row], sampler: ResumableSampler) -> list[int]:
        """The slots of these rows. Other requests lose their slots and are resumed from their history later."""
        present = {row.request_id for row in rows}
        self.taken = {key: slot for key, slot in self.taken.items() if key in present}
        free = sorted(set(range(self.slots)) - set(self.taken.values()), reverse=True)
        for row in rows:
            if row.request_id not in self.taken:
                self.taken[row.request_id] = free.pop()
                sampler.resume(self.taken[row.request_id], row.sampling, row.drawn)
        return [self.taken[row.request_id] for row in rows]


class BatchSampler:
    """logits of a batch -> one token per row. A row whose logits are not finite gets NOT_FINITE_TOKEN."""

    def __init__(self, batch: Batch, slots: int, device: torch.device) -> None:
        self.batch, self.device = batch, device
        self._slots = _BatchSlots(slots)
        self._sampler = ResumableSampler(slots, device)

    def tokens(self, logits: Tensor) -> list[int]:
        """logits (rows, 6563) float32. Rows that are not due get an arbitrary token.

        The host waits in every step, also where nothing is drawn: vLLM overwrites the pinned memory of its inputs in
        the next one, and counts on its own sampler's wait.
        """
        tokens = [NOT_FINITE_TOKEN] * self.batch.size
        rows = self.batch.due()
        if not rows:
            wait_until_done(self.device)
            return tokens
        slots = self._slots.assign(rows, self._sampler)
        drawn = self._sampler.sample(slots, self._select(logits, rows))
        for row, token in zip(rows, drawn, strict=True):
            if token != NOT_FINITE:
                tokens[row.index] = token
        return tokens

    def probabilities(self, logits: Tensor) -> Tensor:
        """The probabilities of the next draw of each due row, (due, 6563)."""
        rows = self.batch.due()
        return self._sampler.probabilities(self._slots.assign(rows, self._sampler), self._select(logits, rows))

    def _select(self, logits: Tensor, rows: Sequence[Row]) -> Tensor:
        if len(rows) == logits.shape[0]:
            return logits
        return logits.index_select(0, to_device([row.index for row in rows], torch.int64, logits.device))
