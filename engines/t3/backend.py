"""The interface of a T3 backend: text tokens and a Voice in, a stream of speech tokens out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from engines.config import Sampling
from engines.voice import Voice

if TYPE_CHECKING:
    from engines.t3.alignment.tap import AlignmentTap


@dataclass(frozen=True)
class T3Request:
    """One segment to be turned into speech tokens. Positions run over voice prefix, text, start and speech alike.

    `runaway_tokens`: more speech tokens than the text can take, at which the speech is stopped; None: never.
    `made_ahead`: the segment before this one is still playing, so that other requests may go first.
    `context`: the last speech tokens of the segment before, which stand in place of the voice's last prompt tokens; not
    on vLLM or the published graphs.
    `tap`: receives the queries of each speech token's row; only for backends with `taps_queries`.
    """

    text_tokens: tuple[int, ...]
    voice: Voice
    sampling: Sampling
    made_ahead: bool = False
    runaway_tokens: int | None = None
    context: tuple[int, ...] = ()
    tap: AlignmentTap | None = field(default=None, compare=False)


class T3Generation(Protocol):
    """One running request; owned by one asyncio task."""

    async def next_speech_tokens(self) -> list[int]:
        """The speech tokens (0..6560) made since the last call, at least one; [] once the segment is complete.

        Marks (ids >= 6561) never appear; the closing three silence tokens do. Raises EngineFailure if the backend
        failed under this request. Returns no tokens after `cancel`.
        """
        ...

    def set_target(self, speech_tokens: int) -> None:
        """Pause at this many speech tokens in all; a few more may be made. Without a call all of them are made.

        On cores that T3 shares with S3Gen, tokens made long before they are played delay those that are due.
        """
        ...

    @property
    def hit_token_limit(self) -> bool:
        """Whether the segment ended at `max_speech_tokens` instead of at T3's own stop."""
        ...

    @property
    def hit_runaway_limit(self) -> bool:
        """Whether the segment ended at `runaway_tokens`."""
        ...

    async def cancel(self) -> None:
        """Stop within one decode step and free slot and cache before returning. Idempotent, also after the end."""

    def promote(self) -> None:
        """The listener waits for this segment now: give it the priority of a current one. Idempotent."""


class T3Backend(Protocol):
    """All running requests of an engine, decoded together."""

    name: str  # in EngineInfo and metrics: "torch", "vllm"

    def start(self, request: T3Request) -> T3Generation:
        """Queue a request from a running event loop; returns at once. It joins between two decode steps."""
        ...

    async def close(self) -> None:
        """Fail what still runs with EngineFailure, stop the step loop, free the memory."""
