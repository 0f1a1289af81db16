"""The sampler of speech tokens: upstream's logits processing and seeded draws, each row with its own settings.

A row's draw depends on its logits, its history, its seed and how many tokens it has drawn, never on the other rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from engines.config import Sampling
from engines.device import to_device
from engines.kernels.draws import Row, TokenDraws
from engines.kernels.library import T3, best_simd_width
from engines.model_spec import SPEECH_VOCAB, START_SPEECH_TOKEN

_DEFAULTS = Sampling()
# Below this temperature a draw is the likeliest token anyway, and dividing by less would overflow float32.
_LOWEST_TEMPERATURE = 1e-6
NOT_FINITE = -1  # instead of a token, for a row whose logits are not finite


def uniform(seed: int, step: int) -> float:
    """The random number in [0, 1) for draw number `step` of a seed, from Philox 4x64.

    It has 52 bits: its product with any float64 stays below that float64, so a draw never falls beyond the last token.
    """
    block, index = divmod(step, _BLOCK)
    return _uniform_block(seed, block)[index]


_BLOCK = 64  # a generator is made once for so many draws: making one takes longer than all else that a draw costs here


@lru_cache(maxsize=1024)
def _uniform_block(seed: int, block: int) -> tuple[float, ...]:
    raw = np.random.Philox(key=seed, counter=block * _BLOCK).random_raw(4 * _BLOCK)[::4]  # a count gives four numbers
    return tuple(((raw >> 12) * 2.0**-52).tolist())


def settings_row(sampling: Sampling, drawn: int, vocab: int = SPEECH_VOCAB) -> tuple[float, ...]:
    """The numbers of `Rows` for a sequence that has drawn `drawn` of `vocab` tokens."""
    return (
        max(sampling.temperature, _LOWEST_TEMPERATURE) if sampling.temperature else 1.0,
        sampling.top_k or vocab,
        1.0 - sampling.top_p if sampling.top_p < 1.0 else -1.0,
        sampling.repetition_penalty,
        math.log(sampling.min_p) if sampling.min_p else -math.inf,
        sampling.temperature == 0,
        drawn == 0,
        uniform(sampling.seed, drawn),
    )


SETTINGS = len(settings_row(_DEFAULTS, 0))


@dataclass(frozen=True)
class Rows:
    """Settings and histories of a batch on the device; (B, 1) but for the last. Its order is Turbo's and Nano's."""

    temperature: Tensor
    top_k: Tensor
    cut_mass: Tensor  # the unlikeliest tokens whose probabilities sum to at most this are ruled out; -1: none; float64
    penalty: Tensor
    log_min_p: Tensor  # tokens whose score is this far below the greatest are ruled out; -inf: none; float64
    greedy: Tensor
    first: Tensor  # whether nothing was drawn yet
    number: Tensor  # the random number of the draw, float64
    seen: Tensor  # (B, vocabulary), the tokens that are penalised
    keeps_start_mark: ClassVar[bool] = False  # whether the start mark is penalised behind the first draw too

    @classmethod
    def of(cls, settings: Tensor, seen: Tensor, start_mark: Tensor) -> Self:
        """settings (B, SETTINGS) float64, a `settings_row` each; seen (B, vocabulary): the tokens drawn so far."""
        temperature, top_k, cut_mass, penalty, log_min_p, greedy, first, number = (
            values.unsqueeze(-1) for values in settings.T.unbind()
        )
        is_first = first.bool()
        return cls(
            temperature.float(),
            top_k.long(),
            cut_mass,
            penalty.float(),
            log_min_p,
            greedy.bool(),
            is_first,
            number,
            torch.where(is_first, start_mark, seen),
        )

    def process(self, logits: Tensor, max_k: int) -> Tensor:
        """logits (B, vocabulary) -> the processed ones, -inf where a token is ruled out.

        max_k: the largest top-k; 0 if no row has a top-k or top-p
        """
        return self._penalised(self._cut(logits / self.temperature, max_k))

    def _penalised(self, scores: Tensor) -> Tensor:
        penalised = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)
        return torch.where(self.seen, penalised, scores)

    def _cut(self, scores: Tensor, max_k: int) -> Tensor:
        """The scores with what top-k and top-p rule out."""
        return scores.masked_fill(scores < self._threshold(scores, max_k), -torch.inf) if max_k else scores

    def _threshold(self, scores: Tensor, max_k: int) -> Tensor:
        """The lowest score that top-k and top-p keep in each row, (B, 1)."""
        # Descending, and only as many as any row can keep: a full sort costs ten times as much.
        whole = max_k == scores.shape[-1]
        best = scores.sort(descending=True).values if whole else scores.topk(max_k).values
        kth = best.gather(1, self.top_k - 1)
        beyond = torch.arange(max_k, device=best.device) >= self.top_k
        # float64, so that rounding does not move the border of top-p
        shares = best.masked_fill(beyond, -torch.inf).softmax(-1, dtype=torch.float64)
        mass_from_below = shares.flip(-1).cumsum(-1).flip(-1)
        kept = (mass_from_below > self.cut_mass).sum(-1, keepdim=True).clamp_(min=1)
        return torch.maximum(kth, best.gather(1, kept - 1))

    def draw(self, logits: Tensor, max_k: int, *, any_greedy: bool) -> tuple[Tensor, Tensor]:
        """The next token of every row and whether its logits are finite, (B, 1) each."""
        finite = torch.isfinite(logits).all(-1, keepdim=True)
        processed = self.process(torch.where(finite, logits, 0.0), max_k)
        tokens = _by_number(processed, self.number)
        if any_greedy:
            tokens = torch.where(self.greedy, processed.argmax(-1, keepdim=True), tokens)
        return tokens, finite

    def seen_with(self, tokens: Tensor) -> Tensor:
        """The histories with these tokens (B, 1), which have just been drawn."""
        before = self.seen if self.keeps_start_mark else self.seen.logical_and(self.first.logical_not())
        return before.scatter(1, tokens, True)


@dataclass(frozen=True)
class GuidedRows(Rows):
    """Rows in the order of standard and Multilingual: penalty, temperature, min_p, top-k, top-p.

    Guidance comes before, on the hidden states; the start mark is penalised at every step.
    """

    keeps_start_mark: ClassVar[bool] = True

    def process(self, logits: Tensor, max_k: int) -> Tensor:
        """As Rows.process."""
        scores = self._penalised(logits) / self.temperature
        border = scores.amax(-1, keepdim=True) + self.log_min_p
        return self._cut(scores.masked_fill(scores < border, -torch.inf), max_k)


def _by_number(processed: Tensor, numbers: Tensor) -> Tensor:
    """The token of each row whose interval of cumulated probability holds the row's random number, (B, 1)."""
    # float64, so that rounding in the sum over all tokens does not move the intervals
    cumulated = processed.softmax(-1, dtype=torch.float64).cumsum(-1)
    return torch.searchsorted(cumulated, numbers * cumulated[:, -1:], right=True)


def start_mark(device: torch.device, vocab: int = SPEECH_VOCAB) -> Tensor:
    """The history before the first draw, (vocabulary,)."""
    start = to_device([START_SPEECH_TOKEN], torch.int64, device)
    return torch.zeros(vocab, dtype=torch.bool, device=device).index_fill_(0, start, True)


class Sampler:
    """Settings and histories of up to `slots` sequences; one call draws for any subset of them.

    Order, as upstream's for Turbo and Nano: temperature, top-k, top-p, then the repetition penalty on the speech tokens
    drawn so far (on the start mark before the first draw). The penalty may therefore lift a token above others but
    restores none that was ruled out. `rows` may have another order. Temperature 0 takes the likeliest token after the
    same steps at temperature 1. Tokens exactly as likely as the last one that top-k or top-p keeps are kept too.
    Source: upstream `T3.inference_turbo` and `T3.inference` over transformers' logits processors.

    On a CPU a compiled kernel draws where it is built; torch draws the same tokens. On a GPU the host sends one small
    tensor per call and waits once, for the drawn tokens.
    """

    def __init__(
        self,
        slots: int,
        device: torch.device,
        *,
        vocab: int = SPEECH_VOCAB,
        rows: type[Rows] = Rows,
        simd_width: int | None = None,
    ) -> None:
        """`vocab`: ids that are drawn from; `rows`: their order of processing.

        simd_width: of the kernel; None: the best of this CPU; 0: torch draws
        """
        self._device, self._vocab, self._rows_type = device, vocab, rows
        self._settings = [_DEFAULTS] * slots
        self._drawn_tokens = [0] * slots
        self._seen = torch.zeros((slots, vocab), dtype=torch.bool, device=device)  # as `Rows.seen_with` has it
        self._start_mark = start_mark(device, vocab)
        width = best_simd_width() if simd_width is None else simd_width
        self._draws: TokenDraws | None = None
        if device.type == "cpu" and width:
            guided, threads = rows.keeps_start_mark, torch.get_num_threads()
            self._draws = TokenDraws(slots, vocab, START_SPEECH_TOKEN, threads, T3, width, guided=guided)

    def begin(self, slot: int, sampling: Sampling) -> None:
        """Start a new sequence in this slot."""
        self._settings[slot] = sampling
        self._drawn_tokens[slot] = 0

    def process(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, vocabulary), row i of slots[i] -> the processed ones, -inf where a token is ruled out."""
        return self._rows(slots)[1].process(logits, self._max_k(slots))

    def _rows(self, slots: Sequence[int]) -> tuple[Tensor, Rows]:
        drawn, vocab = self._drawn_tokens, self._vocab
        table = [(slot, *settings_row(self._settings[slot], drawn[slot], vocab)) for slot in slots]
        numbers = to_device(table, torch.float64, self._device)
        index = numbers.select(1, 0).long()
        return index, self._rows_type.of(numbers[:, 1:], self._seen.index_select(0, index), self._start_mark)

    def _max_k(self, slots: Sequence[int]) -> int:
        settings = [self._settings[slot] for slot in slots]
        if all(each.top_k == 0 and each.top_p == 1.0 for each in settings):
            return 0
        return min(self._vocab, max(each.top_k or self._vocab for each in settings))

    def probabilities(self, slots: Sequence[int], logits: Tensor) -> Tensor:
        """logits (B, vocabulary) -> the probabilities of each row's next draw, (B, vocabulary)."""
        return self.process(slots, logits).softmax(-1)

    def sample(self, slots: Sequence[int], logits: Tensor) -> list[int]:
        """Draw the next token of every row and add it to the row's history.

        A row whose logits are not finite gets NOT_FINITE; its sequence cannot go on.
        """
        if self._draws is not None:
            return self._compiled(self._draws, slots, logits)
        index, rows = self._rows(slots)
        any_greedy = any(self._settings[slot].temperature == 0 for slot in slots)
        tokens, finite = rows.draw(logits, self._max_k(slots), any_greedy=any_greedy)
        for slot in slots:
            self._drawn_tokens[slot] += 1
        self._seen.index_copy_(0, index, rows.seen_with(tokens))
        return read_back(torch.where(finite, tokens, NOT_FINITE).squeeze(-1))

    def _compiled(self, draws: TokenDraws, slots: Sequence[int], logits: Tensor) -> list[int]:
        """As `sample`, on the kernel."""
        logits = logits.float()
        logits = logits if logits.stride(1) == 1 else logits.contiguous()
        address, stride = logits.data_ptr(), 4 * logits.stride(0)  # bytes
        seen, drawn, vocab = self._seen.data_ptr(), self._drawn_tokens, self._vocab
        rows = [
            Row(address + row * stride, seen + slot * vocab, settings_row(self._settings[slot], drawn[slot], vocab))
            for row, slot in enumerate(slots)
        ]
        for slot in slots:
            drawn[slot] += 1
        return draws.run(rows)


def read_back(tokens: Tensor) -> list[int]:
    """The tokens on the host, which waits until they are drawn."""
    values: list[int] = tokens.tolist()
    return values
