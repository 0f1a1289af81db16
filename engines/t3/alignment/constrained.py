"""Attention-constrained inference: the heads that follow the text look at no other place of it while T3 generates.

After arXiv 2404.19723: each row, the text positions behind and far ahead of the one being spoken are hidden from the
chosen heads alone. The text's place is read from these heads, and never goes back.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from engines.t3.alignment.tap import AlignmentHeads, AlignmentTap, KeySlot

# text tokens around the one being spoken; several at once are passed over, as quotes and brackets are
_BEHIND, _AHEAD = 1, 5
_DWELL_ROWS = 2  # at a token or behind it, until it counts as reached


class ConstrainedTap(AlignmentTap):
    """An AlignmentTap that also says what its heads may look at. For nets that take a mask from `take`."""

    constrains = True

    def __init__(self, heads: AlignmentHeads, text_tokens: int) -> None:
        super().__init__(heads, text_tokens)
        self.position = 0  # the text token being spoken
        self._first_position = 0
        self._first_layer = heads.layers[0]
        self._recent: deque[int] = deque(maxlen=_DWELL_ROWS)

    def begin(self, slot: KeySlot, first_position: int) -> None:
        super().begin(slot, first_position)
        self._first_position = first_position

    def take(self, layer: int, queries: Tensor, positions: int) -> Tensor | None:
        """As QueryTap.take."""
        super().take(layer, queries, positions)
        heads = self._heads.get(layer)
        if heads is None:
            return None
        if layer == self._first_layer:
            self._advance(self.scores(layer, queries[-1, heads]))
        low, high = self._window()
        hidden = torch.zeros((1, queries.shape[1], 1, positions), dtype=queries.dtype, device=queries.device)
        text = hidden[:, heads, :, self._first_position : self._first_position + self._text_tokens]
        text[..., :low] = text[..., high:] = float("-inf")
        hidden[:, heads, :, self._first_position : self._first_position + self._text_tokens] = text
        return hidden

    def _window(self) -> tuple[int, int]:
        return max(0, self.position - _BEHIND), min(self._text_tokens, self.position + _AHEAD + 1)

    def _advance(self, scores: Tensor) -> None:
        """`scores` (heads, text tokens + 1) of the row that comes."""
        low, high = self._window()
        seen = scores[:, low:high].softmax(-1).mean(0)
        self._recent.append(low + int(seen.argmax()))
        if len(self._recent) == _DWELL_ROWS:
            self.position = max(self.position, min(self._recent))
