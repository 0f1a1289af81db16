"""The sampler of speech tokens: upstream's logits processing and seeded draws, each row with its own settings.

A row's draw depends on its logits, its history, its seed and how many tokens it has drawn, never on the other rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engines.config import Sampling
from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN

_DEFAULTS = Sampling()
# Below this temperature a draw is the likeliest token anyway, and dividing by less would overflow float32.
_LOWEST_TEMPERATURE = 1e-6


def uniform(seed: int, step: int) -> float:
    """The random number in [0, 1) for draw number `step` of a seed, from Philox 4x64.

    It has 52 bits: its product with any float64 stays below that float64, so a draw never falls beyond the last token.
    """
    raw = int(np.random.Philox(key=seed, counter=step).random_raw())
    return (raw >> 12) * 2.0**-52


class Sampler:
    """Settings and histories of up to `slots` sequences; one call draws for any subset of them.

    Order, as upstream: temperature, top-k, top-p, then the repetition penalty on the speech tokens drawn so far (on
    the start mark before the first draw). The penalty may therefore lift a token above others but restores none that
    was ruled out. Temperature 0 takes the likeliest token after the same steps at temperature 1.
    Tokens exactly as likely as the last one that top-k or top-p keeps are kept too.
    Source: upstream `T3.inference_turbo` over transformers' logits processors.
    """

    def __init__(self, slots: int, device: torch.device) -> None:
        self._device = device
        self._settings = [_DEFAULTS] * slots
        self._drawn_tokens = [0] * slots
        # per slot, (slots, 1), so that a batch of any slots is one gather
        self._temperature = torch.ones((slots, 1), device=device)
        self._top_k = torch.ones((slots, 1), dtype=torch.int64, device=device)
        self._cut_mass = torch.zeros((slots, 1), device=device)
        self._penalty = torch.ones((slots, 1), device=device)
        self._seen = torch.zeros((slots, SPEECH_VOCAB), dtype=torch.bool, device=device)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Start a new sequence in this slot."""
        self._settings[slot] = sampling
        self._drawn_tokens[slot] = 0
        self._temperature[slot] = max(sampling.temperature, _LOWEST_TEMPERATURE) if sampling.temperature else 1.0
        self._top_k[slot] = sampling.top_k or SPEECH_VOCAB
        # The unlikeliest tokens whose probabilities sum to at most this are ruled out; -1 switches that off.
        self._cut_mass[slot] = 1.0 - sampling.top_p if sampling.top_p < 1.0 else -1.0
        self._penalty[slot] = sampling.repetition_penalty
        self._seen[slot] = False
        self._seen[slot, START_SPEECH_TOKEN] = True

    def process(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, 6563), row i of slots[i] -> the processed ones, -inf where a token is ruled out."""
        rows = torch.tensor(slots, device=self._device)
        scores = logits / self._temperature[rows]
        scores = scores.masked_fill(scores < self._threshold(slots, rows, scores), -torch.inf)
        penalty = self._penalty[rows]
        penalised = torch.where(scores < 0, scores * penalty, scores / penalty)
        return torch.where(self._seen[rows], penalised, scores)

    def _threshold(self, slots: Sequence[int], rows: Tensor, scores: Tensor) -> Tensor:
        """The lowest score that top-k and top-p keep in each row, (B, 1)."""
        max_k = max(self._settings[slot].top_k or SPEECH_VOCAB for slot in slots)
        # Descending, and only as many as any row can keep: a full sort costs ten times as much.
        best = scores.topk(max_k).values
        kth = best.gather(1, self._top_k[rows] - 1)
        shares = best.masked_fill(best < kth, -torch.inf).softmax(-1)
        mass_from_below = shares.flip(-1).cumsum(-1).flip(-1)
        kept = (mass_from_below > self._cut_mass[rows]).sum(-1, keepdim=True).clamp_(min=1)
        return torch.maximum(kth, best.gather(1, kept - 1))

    def probabilities(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, 6563) -> the probabilities of each row's next draw, (B, 6563)."""
        return self.process(slots, logits).softmax(-1)

    def sample(self, slots: Sequence[int], logits: Tensor) -> list[int]:
        """Draw the next token of every row and add it to the row's history. All logits must be finite."""
        processed = self.process(slots, logits)
        tokens = self._draw(slots, processed)
        if any(self._settings[slot].temperature == 0 for slot in slots):
            greedy = torch.tensor([self._settings[slot].temperature == 0 for slot in slots], device=self._device)
            tokens = torch.where(greedy, processed.argmax(-1), tokens)
        self._remember(slots, tokens)
        drawn: list[int] = tokens.tolist()
        return drawn

    def _draw(self, slots: Sequence[int], processed: Tensor) -> Tensor:
        """The token of each row whose interval of cumulated probability holds the row's random number, (B,)."""
        # float64, so that rounding in the sum over 6563 tokens does not move the intervals
        cumulated = processed.softmax(-1, dtype=torch.float64).cumsum(-1)
        numbers = [uniform(self._settings[slot].seed, self._drawn_tokens[slot]) for slot in slots]
        targets = torch.tensor(numbers, dtype=torch.float64, device=self._device).unsqueeze(-1) * cumulated[:, -1:]
        return torch.searchsorted(cumulated, targets, right=True).squeeze(-1)

    def _remember(self, slots: Sequence[int], tokens: Tensor) -> None:
        for slot in slots:
            if self._drawn_tokens[slot] == 0:
                self._seen[slot, START_SPEECH_TOKEN] = False  # penalised for the first draw only
            self._drawn_tokens[slot] += 1
        self._seen[torch.tensor(slots, device=self._device), tokens] = True
