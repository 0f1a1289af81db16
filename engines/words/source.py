"""The interface between word times and what knows T3's attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from engines.t3.backend import T3Request
from engines.words.path import F32


class AttentionSource(Protocol):
    """The attention of one segment's speech to its text."""

    batch_tokens: int  # that a caller should collect before it asks for their rows

    async def rows(self, speech_tokens: Sequence[int]) -> F32:
        """(n, text tokens): the attention of speech tokens behind those returned before, each row a share of 1.

        `speech_tokens` are the segment's so far, without the closing silence. The last one may be missing until T3 has
        read it. Raises EngineFailure.
        """
        ...

    def close(self) -> None:
        """Free what the segment holds. Idempotent."""


class Aligner(Protocol):
    """A source of attention for the segments that ask for it."""

    def start(self, request: T3Request, *, guarded: bool = False) -> tuple[T3Request, AttentionSource]:
        """The request to give to T3 instead, and the source of its attention. `guarded`: its words are watched."""
        ...

    def close(self) -> None:
        """Free threads and memory."""
