"""What a client has said and the engine has not yet spoken: segments and flush marks, in order, bounded.

Pure bookkeeping with one wake-up; knows nothing of audio, engines' work or RPC.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice

from engines.api import Segment
from engines.errors import invalid_value
from service.errors import ResourceExhausted
from service.stream.segmenter import Segmenter

MAX_FLUSH_ID = 2**63 - 1


@dataclass(frozen=True)
class FlushMark:
    """All text before it is to be spoken first."""

    flush_id: int


Work = Segment | FlushMark


class Backlog:
    """Text in as fragments, work out in order. One reader: it takes `next()`, does the work, says `done()`, in turns.

    Work stays counted until it is done, so that `drop()` knows of everything that was not.
    """

    def __init__(self, segmenter: Segmenter, max_chars: int, max_flushes: int) -> None:
        self._segmenter = segmenter
        self._max_chars, self._max_flushes = max_chars, max_flushes
        self._work: deque[Work] = deque()
        self._received_chars = 0
        self._queued_chars = 0  # in segments nobody has begun to speak
        self._flushes = 0
        self._last_flush_id = 0
        self._segments = 0
        self._ended = False
        self._more = asyncio.Event()

    @property
    def waiting_chars(self) -> int:
        """Chars received that nobody has begun to speak."""
        return self._queued_chars + self._segmenter.pending_chars

    @property
    def consumed_chars(self) -> int:
        """Chars received that no longer wait."""
        return self._received_chars - self.waiting_chars

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do until more is said."""
        return not self._work

    def write(self, text: str) -> None:
        """More text. Raises NoRoom when too much would wait; then nothing of it is taken."""
        if self.waiting_chars + len(text) > self._max_chars:
            message = (
                f"{self.waiting_chars} chars wait to be spoken and {len(text)} more do not fit; "
                f"at most {self._max_chars} may wait"
            )
            allowed = f"at most {self._max_chars} chars waiting"
            raise ResourceExhausted(
                "TEXT_BACKLOG_FULL", message, field="text.content", value=f"{len(text)} chars", allowed=allowed
            )
        self._received_chars += len(text)
        self._queue(self._segmenter.feed(text))

    def flush(self, flush_id: int) -> None:
        """Everything written so far becomes work. Raises InvalidInput for a bad id, NoRoom for too many at once."""
        self._check_flush(flush_id)
        self._last_flush_id = flush_id
        self._queue(self._segmenter.flush())
        self._flushes += 1
        self._work.append(FlushMark(flush_id))
        self._more.set()

    def _check_flush(self, flush_id: int) -> None:
        if not 1 <= flush_id <= MAX_FLUSH_ID:
            raise invalid_value("flush.flush_id", flush_id, f"[1, {MAX_FLUSH_ID}]", "FLUSH_ID_INVALID")
        if flush_id <= self._last_flush_id:
            raise invalid_value("flush.flush_id", flush_id, f"above {self._last_flush_id}", "FLUSH_ID_REUSED")
        if self._flushes >= self._max_flushes:
            message = f"{self._flushes} flushes wait to be answered; at most {self._max_flushes} may"
            allowed = f"at most {self._max_flushes} flushes waiting"
            raise ResourceExhausted("FLUSH_BACKLOG_FULL", message, field="flush", value=self._flushes, allowed=allowed)

    def end(self) -> None:
        """No more text: the rest becomes work."""
        self._queue(self._segmenter.flush())
        self._ended = True
        self._more.set()

    def drop(self) -> list[int]:
        """Forget all text and work; returns the ids of the flushes among it, in order."""
        flush_ids = [work.flush_id for work in self._work if isinstance(work, FlushMark)]
        self._work.clear()
        self._segmenter.flush()
        self._queued_chars = self._flushes = 0
        return flush_ids

    async def next(self) -> Work | None:
        """The oldest work, which counts as begun from here on; None when all is done and no more can come."""
        while not self._work:
            if self._ended:
                return None
            self._more.clear()
            await self._more.wait()
        work = self._work[0]
        if isinstance(work, Segment):
            self._queued_chars -= len(work.text)
        return work

    def done(self) -> None:
        """The work that `next` gave is finished."""
        if isinstance(self._work.popleft(), FlushMark):
            self._flushes -= 1

    def upcoming(self) -> Segment | None:
        """The segment after the work in progress, if it is known by now."""
        return next((work for work in islice(self._work, 1, None) if isinstance(work, Segment)), None)

    def _queue(self, texts: list[str]) -> None:
        for text in texts:
            self._work.append(Segment(self._segments, text))
            self._segments += 1
            self._queued_chars += len(text)
        if texts:
            self._more.set()
