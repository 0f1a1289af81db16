"""The texts of a stream's segments as T3 gets them, read off the event loop where a language's front end is slow."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from engines.api import Segment
from engines.errors import EngineFailure
from engines.text.languages.workers import LanguageWorkers
from engines.words.text import Word


@dataclass(frozen=True)
class SegmentText:
    """What T3 gets of a segment's text.

    runaway_tokens  the most speech tokens that it can take; None: no bound
    words           those of its written text; None where none are asked for
    """

    text_tokens: tuple[int, ...]
    runaway_tokens: int | None
    words: tuple[Word, ...] | None


class SegmentReader:
    """Reads the segments of one stream, one ahead. Those of quick languages are read where they are asked for."""

    def __init__(
        self, read: Callable[[Segment], SegmentText], slow_languages: Collection[str], workers: LanguageWorkers
    ) -> None:
        """`read` raises InvalidInput. It is called in a language's own thread if that is one of `slow_languages`."""
        self._read, self._slow, self._workers = read, slow_languages, workers
        self._segment: Segment | None = None  # that is being read, or has been
        self._reading: asyncio.Task[SegmentText] | None = None

    def announce(self, segment: Segment, on_read: Callable[[], None]) -> None:
        """Begin to read a segment if its language is slow, and call `on_read` when its text is there."""

        def read(reading: asyncio.Task[SegmentText]) -> None:
            if not reading.cancelled():
                on_read()

        if segment.language in self._slow and not self._is_of(segment):
            self._start(segment).add_done_callback(read)

    def is_ready(self, segment: Segment) -> bool:
        """Whether `take` has a segment's text without a wait."""
        if segment.language not in self._slow:
            return True
        done = self._reading is not None and self._is_of(segment) and self._reading.done()
        return done and self._reading is not None and self._reading.exception() is None

    def take(self, segment: Segment) -> SegmentText:
        """Returns the text of a segment that is ready. Raises InvalidInput."""
        if segment.language not in self._slow:
            return self._read(segment)
        assert self._reading is not None, "the caller asks whether it is ready"
        text = self._reading.result()
        self.drop()
        return text

    async def read(self, segment: Segment) -> SegmentText:
        """Returns a segment's text as soon as it is there.

        Raises InvalidInput, TimeLimitExceeded as LanguageWorkers.read, EngineFailure if it is dropped meanwhile.
        """
        if segment.language not in self._slow:
            return self._read(segment)
        reading = self._reading if self._reading is not None and self._is_of(segment) else self._start(segment)
        try:
            await asyncio.wait([reading])
            if reading.cancelled():
                raise EngineFailure("The stream was closed.")
            return reading.result()
        finally:
            if self._reading is reading:
                self.drop()

    def drop(self) -> None:
        """Read no more of what was begun. A call that runs ends by itself, and its text is dropped."""
        if self._reading is not None:
            self._reading.cancel()
        self._segment = self._reading = None

    def _is_of(self, segment: Segment) -> bool:
        return self._segment == replace(segment, speed=1.0)

    def _start(self, segment: Segment) -> asyncio.Task[SegmentText]:
        self.drop()
        self._segment = replace(segment, speed=1.0)
        work = self._workers.read(segment.language, self._read, segment)
        self._reading = asyncio.create_task(work, name=f"read-segment-{segment.index}")
        self._reading.add_done_callback(_retrieve)
        return self._reading


def _retrieve(reading: asyncio.Task[SegmentText]) -> None:
    """An error is raised by `read`, if anything still waits for the text."""
    if not reading.cancelled():
        reading.exception()
