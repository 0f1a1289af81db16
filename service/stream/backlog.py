"""The bounded queue of a stream's segments and flush marks that have not been spoken yet."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice

from engines.api import Segment
from engines.errors import InvalidInput
from service.errors import ResourceExhausted
from service.stream.early_end import EarlyStart
from service.stream.text.items import Mark, Pause
from service.stream.text.reader import Item, TextReader, Utterance

MAX_FLUSH_ID = 2**63 - 1


@dataclass(frozen=True)
class FlushMark:
    """The place of a flush in the work."""

    flush_id: int


@dataclass(frozen=True)
class Silence:
    """A pause, which is a segment of its own. `index` counts like a segment's."""

    index: int
    duration_s: float


Work = Segment | Silence | Mark | FlushMark


class Backlog:
    """Takes text in fragments and gives work in order.

    One reader takes `next()`, does the work, and calls `done()`, in turns. Work counts until it is done, so that
    `drop()` returns every flush that was not answered.
    """

    def __init__(
        self,
        reader: TextReader,
        max_chars: int,
        max_flushes: int,
        early_start: EarlyStart | None = None,
        on_early_work: Callable[[], None] = lambda: None,
        *,
        word_times: bool = False,
        word_guard: bool = False,
        continuity: bool = False,
        language: str = "",
    ) -> None:
        """`early_start` may end a sentence while there is no other work; then `on_early_work` is called.

        `word_times`, `word_guard`, `continuity`, `language`: as of every Segment.
        """
        self._flags = {"word_times": word_times, "word_guard": word_guard, "continuity": continuity}
        self._language = language
        self._early_start, self._on_early_work = early_start, on_early_work
        self._reader = reader
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
        return self._queued_chars + self._reader.pending_chars

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

        Raises InvalidInput for markup that is refused, and for SSML that is not closed when `flush` or `end` is called;
        then the stream must end.
        """
        self.check_room(text)
        self._received_chars += len(text)
        items = self._reader.feed(text)
        self._queue(items)
        if self._early_start is not None:
            self._early_start.update(*self._reader.pending, _now_s(), begun=bool(items))
            self._more.set()

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
        """Turn all text written so far into work. Raises InvalidInput for a bad id or SSML that is not closed,
        ResourceExhausted for too many."""
        self._check_flush(flush_id)
        self._last_flush_id = flush_id
        self._queue_rest(self._reader.flush())
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
        """Take no more text and turn the rest into work. Raises InvalidInput for SSML that is not closed."""
        self._queue_rest(self._reader.end())
        self._ended = True
        self._more.set()

    def drop(self) -> list[int]:
        """Drop all text and work. Returns the ids of the dropped flushes, in order."""
        flush_ids = [work.flush_id for work in self._work if isinstance(work, FlushMark)]
        self._work.clear()
        self._reader.reset()
        self._forget_sentence()
        self._queued_chars = self._flushes = 0
        return flush_ids

    async def next(self) -> Work | None:
        """The oldest work, which counts as begun from now on; None when all is done and no more can come."""
        while not self._work:
            if self._ended:
                return None
            await self._wait_for_more()
        work = self._work[0]
        if isinstance(work, Segment):
            self._queued_chars -= len(work.written)
        return work

    async def _wait_for_more(self) -> None:
        """Wait for text, or until the unfinished sentence had better be spoken as far as it is written."""
        early = None if self._early_start is None else self._early_start.next(_now_s())
        self._more.clear()
        try:
            async with asyncio.timeout_at(None if early is None else early[1]):
                await self._more.wait()
        except TimeoutError:
            if early is not None and self._early_start is not None and not self._more.is_set():
                self._early_start.cut(early[0])
                self._queue(self._reader.cut(early[0]))
                self._on_early_work()

    def done(self) -> None:
        """Remove the work that `next` returned: it is finished."""
        if isinstance(self._work.popleft(), FlushMark):
            self._flushes -= 1

    def upcoming(self) -> Segment | None:
        """The segment after the work in progress, or None if it is not known yet."""
        return next((work for work in islice(self._work, 1, None) if isinstance(work, Segment)), None)

    def _queue_rest(self, items: list[Item]) -> None:
        self._queue(items)
        self._forget_sentence()

    def _forget_sentence(self) -> None:
        if self._early_start is not None:
            self._early_start.update("", 0, _now_s(), begun=True)

    def _queue(self, items: list[Item]) -> None:
        for item in items:
            if isinstance(item, Mark):
                self._work.append(item)
            elif isinstance(item, Pause):
                self._work.append(Silence(self._segments, item.duration_s))
                self._segments += 1
            else:
                segment = _segment(self._segments, item, self._flags, self._language)
                self._work.append(segment)
                self._segments += 1
                self._queued_chars += len(segment.written)
        if items:
            self._more.set()


def _segment(index: int, utterance: Utterance, flags: Mapping[str, bool], language: str) -> Segment:
    reading = utterance.reading
    same = reading.spoken == reading.written and not reading.spans
    return Segment(
        index, reading.spoken, utterance.speed, reading=None if same else reading, language=language, **flags
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _bad_flush_id(flush_id: int, allowed: str, reason: str) -> InvalidInput:
    message = f"flush.flush_id is {flush_id}; it must be {allowed}."
    return InvalidInput("flush.flush_id", message, reason, value=flush_id, allowed=allowed)
