"""The bounded queue of a stream's segments and flush marks that have not been spoken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from itertools import islice

from engines.api import Segment
from engines.errors import InvalidInput
from service.errors import ResourceExhausted
from service.stream.markup import MarkupFilter
from service.stream.segmenter import Segmenter

MAX_FLUSH_ID = 2**63 - 1


@dataclass(frozen=True)
class FlushMark:
    """The place of a flush in the work."""

    flush_id: int


Work = Segment | FlushMark


class Backlog:
    """Takes text in fragments and gives work in order.

    One reader takes `next()`, does the work, and calls `done()`, in turns. Work counts until it is done, so that
    `drop()` returns every flush that was not answered.
    """

    def __init__(
        self, segmenter: Segmenter, max_chars: int, max_flushes: int, markup: MarkupFilter | None = None
    ) -> None:
        self._segmenter = segmenter
        self._markup = markup or MarkupFilter()
        self._max_chars, self._max_flushes = max_chars, max_flushes
        self._work: deque[Work] = deque()
        self._received_chars = 0
        self._queued_chars = 0  # in segments whose work has not begun
        self._flushes = 0
        self._last_flush_id = 0
        self._segments = 0
        self._ended = False
        self._more = asyncio.Event()

    @property
    def waiting_chars(self) -> int:
        """Chars received whose work has not begun."""
        return self._queued_chars + self._segmenter.pending_chars + self._markup.pending_chars

    @property
    def received_chars(self) -> int:
        """Chars of all texts that were taken."""
        return self._received_chars

    @property
    def consumed_chars(self) -> int:
        """Chars received that no longer wait: spoken, being spoken, or dropped."""
        return self._received_chars - self.waiting_chars

    @property
    def idle(self) -> bool:
        """Whether there is no work until the client sends more."""
        return not self._work

    def write(self, text: str) -> None:
        """Append text. Raises ResourceExhausted if too much would wait; then none of the text is taken.

        Raises InvalidInput for markup that is refused; then the stream must end.
        """
        self.check_room(text)
        self._received_chars += len(text)
        self._queue(self._segmenter.feed(self._markup.feed(text)))

    def check_room(self, text: str) -> None:
        """Raises ResourceExhausted if too much would wait with this text."""
        if self.waiting_chars + len(text) > self._max_chars:
            then = "Send more when some have been spoken."
            if len(text) > self._max_chars:
                then = "Send it in smaller parts, each when earlier ones have been spoken."
            message = (
                f"{self.waiting_chars} chars wait to be spoken and {len(text)} more do not fit: at most "
                f"{self._max_chars} may wait. {then}"
            )
            allowed = f"at most {self._max_chars} chars waiting"
            raise ResourceExhausted(
                "TEXT_BACKLOG_FULL", message, field="text.content", value=f"{len(text)} chars", allowed=allowed
            )

    def flush(self, flush_id: int) -> None:
        """Turn all text written so far into work. Raises InvalidInput for a bad id, ResourceExhausted for too many."""
        self._check_flush(flush_id)
        self._last_flush_id = flush_id
        self._queue_rest()
        self._flushes += 1
        self._work.append(FlushMark(flush_id))
        self._more.set()

    def _check_flush(self, flush_id: int) -> None:
        if not 1 <= flush_id <= MAX_FLUSH_ID:
            raise _bad_flush_id(flush_id, f"from 1 to {MAX_FLUSH_ID}", "FLUSH_ID_INVALID")
        if flush_id <= self._last_flush_id:
            raise _bad_flush_id(flush_id, f"above the last one, {self._last_flush_id}", "FLUSH_ID_REUSED")
        if self._flushes >= self._max_flushes:
            message = f"{self._flushes} flushes wait to be answered, as many as may wait. Flush again after an answer."
            allowed = f"at most {self._max_flushes} flushes waiting"
            raise ResourceExhausted("FLUSH_BACKLOG_FULL", message, field="flush", value=self._flushes, allowed=allowed)

    def end(self) -> None:
        """Take no more text and turn the rest into work."""
        self._queue_rest()
        self._ended = True
        self._more.set()

    def drop(self) -> list[int]:
        """Drop all text and work. Returns the ids of the dropped flushes, in order."""
        flush_ids = [work.flush_id for work in self._work if isinstance(work, FlushMark)]
        self._work.clear()
        self._segmenter.flush()
        self._markup.reset()
        self._queued_chars = self._flushes = 0
        return flush_ids

    async def next(self) -> Work | None:
        """The oldest work, which counts as begun from now on; None when all is done and no more can come."""
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
        """Remove the work that `next` returned: it is finished."""
        if isinstance(self._work.popleft(), FlushMark):
            self._flushes -= 1

    def upcoming(self) -> Segment | None:
        """The segment after the work in progress, or None if it is not known yet."""
        return next((work for work in islice(self._work, 1, None) if isinstance(work, Segment)), None)

    def _queue_rest(self) -> None:
        self._queue(self._segmenter.feed(self._markup.flush()))
        self._queue(self._segmenter.flush())

    def _queue(self, texts: list[str]) -> None:
        for text in texts:
            self._work.append(Segment(self._segments, text))
            self._segments += 1
            self._queued_chars += len(text)
        if texts:
            self._more.set()


def _bad_flush_id(flush_id: int, allowed: str, reason: str) -> InvalidInput:
    message = f"flush.flush_id is {flush_id}; it must be {allowed}."
    return InvalidInput("flush.flush_id", message, reason, value=flush_id, allowed=allowed)
