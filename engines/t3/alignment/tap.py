"""What the chosen heads of one segment look at: queries of its speech tokens against the keys of its text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AlignmentHeads:
    """The heads that look at the text token being spoken, as (layer, head); at least one."""

    heads: tuple[tuple[int, int], ...]

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(sorted({layer for layer, _ in self.heads}))

    @property
    def net_layers(self) -> int:
        """The number of a net's first layers that give these heads' queries."""
        return self.layers[-1] + 1

    def of(self, layer: int) -> list[int]:
        return [head for at, head in self.heads if at == layer]


class KeySlot(Protocol):
    """The cache of one sequence."""

    def keys(self, layer: int, start: int, stop: int) -> Tensor:
        """The keys of positions [start, stop) of one layer, (heads, n, head dim)."""
        ...


class AlignmentTap:
    """Collects one segment's queries on the thread that runs the net; any thread may read the rows that are complete.

    A row costs one small copy for each layer with a chosen head; the attention is computed when it is asked for.
    """

    constrains = False

    def __init__(self, heads: AlignmentHeads, text_tokens: int) -> None:
        self._text_tokens = text_tokens
        self._heads = {layer: heads.of(layer) for layer in heads.layers}
        self._last_layer = heads.layers[-1]
        self._keys: list[Tensor] = []  # of each layer, (heads, text tokens + 1, dim): with the start of speech
        self._queries: dict[int, list[Tensor]] = {layer: [] for layer in self._heads}  # (heads, dim) of each row

    @property
    def begun(self) -> bool:
        return bool(self._keys)

    @property
    def rows(self) -> int:
        """Speech tokens whose queries are complete."""
        return len(self._queries[self._last_layer])

    def begin(self, slot: KeySlot, first_position: int) -> None:
        """Copy the text's keys from a slot that has read the prompt, whose text starts at `first_position`."""
        stop = first_position + self._text_tokens + 1
        # head by head: a list as an index would be copied to a GPU, which then waits
        self._keys = []
        for layer, heads in self._heads.items():
            keys = slot.keys(layer, first_position, stop)
            self._keys.append(torch.stack([keys[head] for head in heads]))

    def take(self, layer: int, queries: Tensor, positions: int) -> Tensor | None:
        """As QueryTap.take: a row for each speech token, in order."""
        heads = self._heads.get(layer)
        if heads is not None:
            self._queries[layer].extend(torch.stack([queries[:, head] for head in heads], 1).unbind())
        return None

    def forget_rows(self) -> None:
        """Free the queries. Rows count from 0 again."""
        self._queries = {layer: [] for layer in self._heads}

    def scores(self, layer: int, queries: Tensor) -> Tensor:
        """The scores of one row of a chosen layer, whose chosen heads have `queries` (heads, dim): (heads, text tokens
        and the start of speech)."""
        keys = self._keys[list(self._heads).index(layer)]
        scores: Tensor = (keys @ queries.unsqueeze(-1)).squeeze(-1)
        return scores / math.sqrt(keys.shape[-1])

    def attention(self, start: int, stop: int) -> F32:
        """Rows [start, stop) of the mean over the heads, (n, text tokens): the share of each text token in the
        attention to the text and to the start of speech behind it."""
        if start == stop:
            return np.zeros((0, self._text_tokens), np.float32)
        total: Tensor | float = 0.0
        with torch.inference_mode():
            for keys, layer in zip(self._keys, self._heads, strict=True):
                queries = torch.stack(self._queries[layer][start:stop], 1)  # (heads, n, dim)
                scores = queries @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
                total = total + scores.softmax(-1).sum(0)
            assert isinstance(total, Tensor)
            mean = total / sum(map(len, self._heads.values()))
            rows: F32 = mean[:, : self._text_tokens].float().cpu().numpy()
        return rows


def attention_of(queries: Tensor, keys: Tensor, first_row: int) -> Tensor:
    """The attention of all heads of one layer, (heads, n, positions): queries (n, heads, dim) of rows from position
    `first_row` on, keys (heads, positions, dim)."""
    scores = queries.transpose(0, 1) @ keys.transpose(1, 2) / keys.shape[-1] ** 0.5
    later = torch.full(scores.shape[1:], float("-inf"), device=scores.device).triu(first_row + 1)
    attention: Tensor = (scores + later).softmax(-1)
    return attention


def text_positions(prefix_positions: int, text_tokens: Sequence[int]) -> slice:
    """Where a prompt's text stands."""
    return slice(prefix_positions, prefix_positions + len(text_tokens))
