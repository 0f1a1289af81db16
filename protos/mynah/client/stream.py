"""One stream of speech as its client sees it: text, flush and cancel in, audio and events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

from mynah.client.errors import ServerError, TimedOut, WrongState
from mynah.client.events import AudioChunk, Cancelled, Event, SegmentDone, SegmentStarted, StreamOpened
from mynah.client.failover import Replay
from mynah.client.settings import SpeechSettings
from mynah.client.wire import event_from_wire, opened_from_wire, settings_to_wire, text_to_wire
from mynah.v1 import speech_pb2


class SpeechStream:
    """A conversation with the server; made by `Client.stream`, used as an async context manager.

    Send and read from one task or from two. `async for chunk in stream` gives the audio, `stream.events()` everything;
    a loop over either may be left and taken up again. Leaving the context ends the stream at once; call `end()` and
    read to the end to hear all of it. Every method raises MynahError when the stream has failed.
    """

    def __init__(self, start: Callable[[], Replay], settings: SpeechSettings, connect_s: float) -> None:
        self._start = start
        self._settings = settings
        self._connect_s = connect_s
        self._opened: StreamOpened | None = None
        self._last_flush_id = 0
        self._sent_chars = 0
        self._consumed_chars = 0
        self._unanswered_cancels = 0
        self._ended = False
        self._over = False
        self._progress = asyncio.Event()

    async def __aenter__(self) -> SpeechStream:
        """Open: returns when the server has accepted the settings."""
        self._call = self._start()
        try:
            async with asyncio.timeout(self._connect_s):
                self._opened = await self._open()
        except TimeoutError:
            await self._call.close()
            raise TimedOut(
                f"the server did not open the stream within {self._connect_s} s", reason="OPEN_TIMED_OUT"
            ) from None
        except BaseException:
            await self._call.close()
            raise
        return self

    async def _open(self) -> StreamOpened:
        opening = speech_pb2.OpenStream(settings=settings_to_wire(self._settings))
        await self._call.write(speech_pb2.StreamSpeechRequest(open=opening))
        answer = await self._call.read()
        if answer is None or answer.WhichOneof("event") != "opened":
            raise ServerError("the server did not answer an opened stream with its settings", reason="BAD_ANSWER")
        return opened_from_wire(answer.opened)

    async def __aexit__(self, *_: object) -> None:
        self._set_over()
        await self._call.close()

    @property
    def opened(self) -> StreamOpened:
        """The resolved settings and the limits."""
        if self._opened is None:
            raise WrongState("the stream is not open; use `async with`", reason="STREAM_NOT_OPEN")
        return self._opened

    @property
    def pending_chars(self) -> int:
        """Chars sent of which the server has not yet said that they no longer wait."""
        return self._sent_chars - self._consumed_chars

    @property
    def max_piece_chars(self) -> int:
        """What `room` can be asked for: half of what may wait on the server."""
        return self.opened.limits.max_pending_text_chars // 2

    async def send(self, text: str) -> None:
        """More text, joined to the previous as it is.

        Does not wait for the server's room for text, see `room`; but a server whose audio nobody reads stops
        listening in the end.
        """
        self._must_be_open()
        if text:
            fragment = text_to_wire(text)
            self._sent_chars += len(text)
            await self._write(text=fragment)

    async def room(self, chars: int) -> None:
        """Wait until the server can take that many more chars. Another task must be reading meanwhile.

        At most `max_piece_chars` at once, so that an unfinished sentence never leaves too little room for its own
        end. Raises WrongState for more.
        """
        most = self.opened.limits.max_pending_text_chars
        if chars > self.max_piece_chars:
            message = f"{chars} chars at once; send at most {self.max_piece_chars} at a time"
            raise WrongState(message, reason="TEXT_TOO_LONG", field="chars", value=str(chars))
        while self.pending_chars + chars > most and not self._over:
            self._progress.clear()
            await self._progress.wait()

    async def flush(self) -> int:
        """Have everything sent so far spoken now. Returns the id that the answering `Flushed` will carry."""
        self._must_be_open()
        self._last_flush_id += 1
        flush_id = self._last_flush_id
        await self._write(flush=speech_pb2.Flush(flush_id=flush_id))
        return flush_id

    async def cancel(self) -> None:
        """Drop everything said so far. From here on no older audio is given out, also none that was on its way.

        The stream stays open for new text; `Cancelled` follows among the events.
        """
        self._must_be_open()
        self._unanswered_cancels += 1
        await self._write(cancel=speech_pb2.Cancel())

    async def end(self) -> None:
        """No more text: the rest is spoken, then the audio ends. Idempotent."""
        if not self._ended:
            self._ended = True
            await self._call.done_writing()

    def _must_be_open(self) -> None:
        _ = self.opened
        if self._ended:
            raise WrongState("nothing can be sent after end()", reason="STREAM_ENDED")

    async def _write(self, **message: Any) -> None:
        await self._call.write(speech_pb2.StreamSpeechRequest(**message))

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        async for event in self.events():
            if isinstance(event, AudioChunk):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """Audio and everything else, in the server's order, until the stream ends."""
        while (event := await self._next_event()) is not None:
            yield event

    async def _next_event(self) -> Event | None:
        while True:
            message = await self._read()
            if message is None:
                return None
            event = event_from_wire(message)
            if event is not None and not self._is_stale(event):
                return event

    async def _read(self) -> Any | None:
        try:
            message = await self._call.read()
        except asyncio.CancelledError:
            raise  # only this task was cancelled; the stream lives on
        except BaseException:
            self._set_over()
            raise
        if message is None:
            self._set_over()
        return message

    def _is_stale(self, event: Event) -> bool:
        if isinstance(event, SegmentStarted | SegmentDone | Cancelled):
            self._consumed_chars = event.consumed_text_chars
            self._progress.set()
        if isinstance(event, Cancelled):
            self._unanswered_cancels -= 1
        return isinstance(event, AudioChunk) and self._unanswered_cancels > 0

    def _set_over(self) -> None:
        self._over = True
        self._progress.set()
