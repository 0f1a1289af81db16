"""The sampler of speech tokens: upstream's logits processing and seeded draws, each row with its own settings.

A row's draw depends on its logits, its history, its seed and how many tokens it has drawn, never on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engines.config import Sampling
from engines.device import to_device
from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN

_DEFAULTS = Sampling()
# Below this temperature a draw is the likeliest token anyway, and dividing by less would overflow float32.
_LOWEST_TEMPERATURE = 1e-6
NOT_FINITE = -1  # instead of a token, for a row whose logits are not finite


def uniform(seed: int, step: int) -> float:
    """The random number in [0, 1) for draw number `step` of a seed, from Philox 4x64.

    It has 52 bits: its product with any float64 stays below that float64, so a draw never falls beyond the last token.
    """
    raw = int(np.random.Philox(key=seed, counter=step).random_raw())
    return (raw >> 12) * 2.0**-52


@dataclass(frozen=True)
class _Rows:
    """Settings and histories of a batch on the device; (B, 1) but for the first and the last."""

    slots: Tensor  # (B,)
    temperature: Tensor
    top_k: Tensor
    cut_mass: Tensor  # the unlikeliest tokens whose probabilities sum to at most this are ruled out; -1: none
    penalty: Tensor
    greedy: Tensor
    first: Tensor  # whether nothing was drawn yet
    number: Tensor  # the random number of the draw, float64
    seen: Tensor  # (B, 6563), the tokens that are penalised


class Sampler:
    """Settings and histories of up to `slots` sequences; one call draws for any subset of them.

    Order, as upstream: temperature, top-k, top-p, then the repetition penalty on the speech tokens drawn so far (on
    the start mark before the first draw). The penalty may therefore lift a token above others but restores none that
    was ruled out. Temperature 0 takes the likeliest token after the same steps at temperature 1.
    Tokens exactly as likely as the last one that top-k or top-p keeps are kept too.
    Source: upstream `T3.inference_turbo` over transformers' logits processors.

    On a GPU the host sends one small tensor per call and waits once, for the drawn tokens.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._device = device
        self._settings = [_DEFAULTS] * slots
        self._drawn_tokens = [0] * slots
        self._seen = torch.zeros((slots, SPEECH_VOCAB), dtype=torch.bool, device=device)  # drawn; not the start mark
        start = to_device([START_SPEECH_TOKEN], torch.int64, device)
        self._start_mark = torch.zeros(SPEECH_VOCAB, dtype=torch.bool, device=device).index_fill_(0, start, True)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Start a new sequence in this slot."""
        self._settings[slot] = sampling
        self._drawn_tokens[slot] = 0

    def process(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, 6563), row i of slots[i] -> the processed ones, -inf where a token is ruled out."""
        return self._process(self._rows(slots), slots, logits)

    def _rows(self, slots: Sequence[int]) -> _Rows:
        table = [(slot, *self._numbers(slot)) for slot in slots]
        slot, *settings = to_device(table, torch.float64, self._device).T.unbind()
        temperature, top_k, cut_mass, penalty, greedy, first, number = (values.unsqueeze(-1) for values in settings)
        rows, is_first = slot.long(), first.bool()
        return _Rows(
            rows,
            temperature.float(),
            top_k.long(),
            cut_mass.float(),
            penalty.float(),
            greedy.bool(),
            is_first,
            number,
            torch.where(is_first, self._start_mark, self._seen.index_select(0, rows)),
        )

    def _numbers(self, slot: int) -> tuple[float, ...]:
        """A row's settings in the order of `_Rows`."""
        sampling, drawn = self._settings[slot], self._drawn_tokens[slot]
        return (
            max(sampling.temperature, _LOWEST_TEMPERATURE) if sampling.temperature else 1.0,
            sampling.top_k or SPEECH_VOCAB,
            1.0 - sampling.top_p if sampling.top_p < 1.0 else -1.0,
            sampling.repetition_penalty,
            sampling.temperature == 0,
            drawn == 0,
            uniform(sampling.seed, drawn),
        )

    def _process(self, rows: _Rows, slots: Sequence[int], logits: Tensor) -> Tensor:
        scores = logits / rows.temperature
        scores = scores.masked_fill(scores < self._threshold(rows, slots, scores), -torch.inf)
        penalised = torch.where(scores < 0, scores * rows.penalty, scores / rows.penalty)
        return torch.where(rows.seen, penalised, scores)

    def _threshold(self, rows: _Rows, slots: Sequence[int], scores: Tensor) -> Tensor:
        """The lowest score that top-k and top-p keep in each row, (B, 1)."""
        max_k = max(self._settings[slot].top_k or SPEECH_VOCAB for slot in slots)
        # Descending, and only as many as any row can keep: a full sort costs ten times as much.
        best = scores.topk(max_k).values
        kth = best.gather(1, rows.top_k - 1)
        shares = best.masked_fill(best < kth, -torch.inf).softmax(-1)
        mass_from_below = shares.flip(-1).cumsum(-1).flip(-1)
        kept = (mass_from_below > rows.cut_mass).sum(-1, keepdim=True).clamp_(min=1)
        return torch.maximum(kth, best.gather(1, kept - 1))

    def probabilities(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, 6563) -> the probabilities of each row's next draw, (B, 6563)."""
        return self.process(slots, logits).softmax(-1)

    def sample(self, slots: Sequence[int], logits: Tensor) -> list[int]:
        """Draw the next token of every row and add it to the row's history.

        A row whose logits are not finite gets NOT_FINITE; its sequence cannot go on.
        """
        rows = self._rows(slots)
        finite = torch.isfinite(logits).all(-1, keepdim=True)
        processed = self._process(rows, slots, torch.where(finite, logits, 0.0))
        tokens = self._draw(processed, rows.number)
        if any(self._settings[slot].temperature == 0 for slot in slots):
            tokens = torch.where(rows.greedy, processed.argmax(-1, keepdim=True), tokens)
        self._remember(rows, slots, tokens)
        return read_back(torch.where(finite, tokens, NOT_FINITE).squeeze(-1))

    def _draw(self, processed: Tensor, numbers: Tensor) -> Tensor:
        """The token of each row whose interval of cumulated probability holds the row's random number, (B, 1)."""
        # float64, so that rounding in the sum over 6563 tokens does not move the intervals
        cumulated = processed.softmax(-1, dtype=torch.float64).cumsum(-1)
        return torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)

    def _remember(self, rows: _Rows, slots: Sequence[int], tokens: Tensor) -> None:
        for slot in slots:
            self._drawn_tokens[slot] += 1
        before = rows.seen.logical_and(rows.first.logical_not())  # the start mark is penalised for the first draw only
        self._seen.index_copy_(0, rows.slots, before.scatter(1, tokens, True))


def read_back(tokens: Tensor) -> list[int]:
    """The tokens on the host, which waits until they are drawn."""
    values: list[int] = tokens.tolist()
    return values
