"""The sampler that replaces vLLM's: upstream's order of operations and draws keyed by (seed, step).

T3's Sampler does the mathematics, so that both backends draw the same tokens. vLLM's own sampler penalises prompt ids
and applies the penalty first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from engines.config import Sampling
from engines.device import to_device, wait_until_done
from engines.model_spec import START_SPEECH_TOKEN
from engines.t3.family import GPT2, Family
from engines.t3.sampler import NOT_FINITE, Sampler

SETTINGS_KEY = "mynah_sampling"  # in SamplingParams.extra_args
# Marks a row whose logits are not finite. No family draws it, and it is never read: its request fails at once.
NOT_FINITE_TOKEN = 2**31 - 1


class ResumableSampler(Sampler):
    """A Sampler whose sequences may be preempted and resumed in another slot."""

    def resume(self, slot: int, sampling: Sampling, drawn: Sequence[int]) -> None:
        """Continue a sequence that has drawn these tokens in this slot."""
        self.begin(slot, sampling)
        if drawn:
            self._drawn_tokens[slot] = len(drawn)
            start = {START_SPEECH_TOKEN} if self._rows_type.keeps_start_mark else set()
            history = to_device(sorted(start.union(drawn)), torch.int64, self._device)
            self._seen.select(0, slot).zero_().index_fill_(0, history, True)


class DrawnIds(Protocol):
    """The ids by which drawn tokens are read again."""

    def drawn(self, token: int, step: int) -> int:
        """The id of a token that was drawn in this step, from 0."""
        ...

    def token(self, drawn: int) -> int:
        """The token of such an id."""
        ...


@dataclass(frozen=True)
class Row:
    """A row of a batch for which a token is drawn; `drawn` are the ids of those before it."""

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
    ids: DrawnIds
    taken: dict[str, int] = field(default_factory=dict)

    def assign(self, rows: Sequence[Row], sampler: ResumableSampler) -> list[int]:
        """The slots of these rows. Other requests lose their slots and are resumed from their history later."""
        present = {row.request_id for row in rows}
        self.taken = {key: slot for key, slot in self.taken.items() if key in present}
        free = sorted(set(range(self.slots)) - set(self.taken.values()), reverse=True)
        for row in rows:
            if row.request_id not in self.taken:
                self.taken[row.request_id] = free.pop()
                drawn = [self.ids.token(each) for each in row.drawn]
                sampler.resume(self.taken[row.request_id], row.sampling, drawn)
        return [self.taken[row.request_id] for row in rows]


class BatchSampler:
    """What the model computes -> an id for each row of a batch, NOT_FINITE_TOKEN if its logits are not finite."""

    def __init__(
        self,
        batch: Batch,
        slots: int,
        device: torch.device,
        *,
        ids: DrawnIds,
        rules: Family = GPT2,
        guided: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """`guided`: makes logits of what the model computes for rows and of their guidance's weights, (rows, 1)."""
        self.batch, self.device, self.ids = batch, device, ids
        self._guided = guided
        self._slots = _BatchSlots(slots, ids)
        self._sampler = ResumableSampler(slots, device, vocab=rules.speech_vocab, rows=rules.rows)

    def tokens(self, computed: Tensor) -> list[int]:
        """computed: (rows, vocabulary) float32, or what `guided` takes. Rows that are not due get an arbitrary id.

        The host waits in every step, also where nothing is drawn: vLLM overwrites the pinned memory of its inputs in
        the next one, and counts on its own sampler's wait.
        """
        tokens = [NOT_FINITE_TOKEN] * self.batch.size
        rows = self.batch.due()
        if not rows:
            wait_until_done(self.device)
            return tokens
        slots = self._slots.assign(rows, self._sampler)
        drawn = self._sampler.sample(slots, self.logits(computed, rows))
        for row, token in zip(rows, drawn, strict=True):
            if token != NOT_FINITE:
                tokens[row.index] = self.ids.drawn(token, len(row.drawn))
        return tokens

    def probabilities(self, computed: Tensor) -> Tensor:
        """The probabilities of the next draw of each due row, (due, vocabulary)."""
        rows = self.batch.due()
        return self._sampler.probabilities(self._slots.assign(rows, self._sampler), self.logits(computed, rows))

    def logits(self, computed: Tensor, rows: Sequence[Row]) -> Tensor:
        """The logits of these rows, (rows, vocabulary) float32."""
        if len(rows) != computed.shape[0]:
            computed = computed.index_select(0, to_device([row.index for row in rows], torch.int64, computed.device))
        if self._guided is None:
            return computed
        weights = to_device([row.sampling.cfg_weight for row in rows], torch.float32, computed.device)
        return self._guided(computed, weights.unsqueeze(1))
