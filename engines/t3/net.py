"""The interface between T3's decoder and the nets that it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from engines.config import Sampling
from engines.t3.family import Family
from engines.voice import Voice

if TYPE_CHECKING:
    from engines.t3.passes import Pass


class Slot(Protocol):
    """The KV cache of one sequence. `length` counts the positions that the net has read."""

    length: int

    def clear(self) -> None:
        """Forget the sequence. The memory may be kept for the next one."""
        ...

    def reserve(self, positions: int) -> None:
        """Make room for `positions` in all; what is already written stays."""
        ...

    def copy_out(self, positions: int) -> Tensor:
        """A copy of the first `positions`, for `load`."""
        ...

    def load(self, prefix: Tensor) -> None:
        """Start from a prefix that another sequence has written."""
        ...


class QueryTap(Protocol):
    """Takes the queries of a span's rows from the layers that it wants."""

    constrains: bool  # whether `take` may return something

    def take(self, layer: int, queries: Tensor, positions: int) -> Tensor | None:
        """`queries` (rows, heads, head dim) of one layer, which must be copied to be kept; they see `positions`.

        Returns what is added to the scores, (1, heads, rows, positions); None: nothing. Of several rows always None.
        """
        ...


SlotT = TypeVar("SlotT", bound=Slot)


@dataclass(frozen=True)
class Span(Generic[SlotT]):
    """Consecutive rows of one sequence in a forward pass: positions [start, start + rows) of its slot."""

    slot: SlotT
    start: int
    rows: int
    tap: QueryTap | None = None


class Net(Protocol):
    """T3's weights on one runtime. One thread at a time, except `check_prompt`."""

    name: str  # of a backend on this net: "torch", "onnx", "onnx-published"
    family: Family
    device: torch.device  # of hidden states and logits
    max_positions: int  # that a sequence can have

    def check_prompt(self, voice: Voice, text_tokens: Sequence[int], max_positions: int) -> None:
        """Raises InvalidInput if the voice is of other weights, or the text is empty or needs more positions."""
        ...

    def prefix_positions(self, voice: Voice) -> int:
        """Positions at the start of a prompt that depend on the voice alone."""
        ...

    def text_start(self, voice: Voice) -> int:
        """The position of the text's first token."""
        ...

    def new_slot(self, max_positions: int) -> Slot:
        """An empty slot for `forward`."""
        ...

    def new_pass(self, slots: int, max_positions: int) -> Pass:
        """What runs a decoder's steps, for up to `slots` sequences of `max_positions` each."""
        ...

    def embed_prompt(
        self, voice: Voice, text_tokens: Sequence[int], context: Sequence[int] = (), *, sampling: Sampling | None = None
    ) -> Tensor:
        """All rows of a prompt, the voice's first, (positions, ..., width).

        context: that of a T3Request; empty for a family whose engine has no continuity
        sampling: for a family whose prompt depends on it; None: the family's defaults
        """
        ...

    def embed_speech(self, tokens: Sequence[int], places: Sequence[int] | None = None) -> Tensor:
        """n speech tokens, marks included -> (n, ..., width).

        places: how many tokens had been drawn with each, for a family whose rows depend on it; None: 1, 2, 3, ...
        """
        ...

    def forward(self, embeddings: Tensor, spans: Sequence[Span[Any]]) -> Tensor:
        """embeddings (R, ..., width), the rows of all spans one after the other -> hidden states, one row for each.

        Every span's slot must have room and hold [0, span.start) already.
        """
        ...

    def speech_logits(self, hidden: Tensor) -> Tensor:
        """Rows of `forward`'s result -> (n, vocabulary)."""
        ...
