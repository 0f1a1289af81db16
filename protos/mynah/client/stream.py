"""A stream of speech: text, flush and cancel in; audio and events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

from mynah.client.errors import ServerError, TimedOut, WrongState
from mynah.client.events import AudioChunk, Cancelled, Event, SegmentDone, SegmentStarted, StreamOpened, Words
from mynah.client.settings import SpeechSettings
from mynah.client.wire import event_from_wire, opened_from_wire, settings_to_wire, speed_to_wire, text_to_wire
from mynah.v1 import speech_pb2


class Call(Protocol):
    """What carries a stream's messages: a FailoverCall, or an engine in this process."""

    async def write(self, message: Any) -> None:
        """Send a StreamSpeechRequest. Raises MynahError if the call has failed."""

    async def done_writing(self) -> None:
        """Half-close."""

    async def read(self) -> Any | None:
        """Returns the next StreamSpeechResponse, or None at the end. Raises MynahError if the call has failed."""

    async def close(self) -> None:
        """End the call in any state. Idempotent."""


class SpeechStream:
    """A bidirectional stream, made by `Client.stream` and used as an async context manager.

    Send and read from one task or from two. `async for chunk in stream` yields the audio, `stream.events()` all events;
    either loop may be left and entered again. Leaving the context ends the stream at once: for all of the audio, call
    `end()` and read to the end. Every method raises MynahError if the stream has failed.

    ```python
    async def write(stream: mynah.SpeechStream) -> None:
        for word in ("Hello ", "there. ", "How ", "are ", "you?"):  # as a language model writes them
            await stream.send(word)
        await stream.end()

    async with mynah.Client("127.0.0.1:50051") as client, client.stream() as stream:
        writing = asyncio.create_task(write(stream))
        async for chunk in stream:
            play(chunk.data)
        await writing
    ```
    """

    def __init__(self, start: Callable[[], Call], settings: SpeechSettings, connect_s: float) -> None:
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
        """Open the stream. Returns when the server has accepted the settings."""
        self._call = self._start()
        try:
            async with asyncio.timeout(self._connect_s):
                self._opened = await self._open()
        except TimeoutError:
            await self._call.close()
            raise TimedOut(
                f"The server did not open the stream within {self._connect_s} s. Try again later.",
                reason="OPEN_TIMED_OUT",
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
            raise ServerError("The server did not answer with the settings of the opened stream.", reason="BAD_ANSWER")
        return opened_from_wire(answer.opened)

    async def __aexit__(self, *_: object) -> None:
        self._set_over()
        await self._call.close()

    @property
    def opened(self) -> StreamOpened:
        """The stream's settings with all defaults filled in, and its limits."""
        if self._opened is None:
            raise WrongState(
                "The stream is not open. Use it as `async with client.stream() as stream:`.", reason="STREAM_NOT_OPEN"
            )
        return self._opened

    @property
    def pending_chars(self) -> int:
        """The number of chars that were sent and still wait on the server, as far as it has reported."""
        return self._sent_chars - self._consumed_chars

    @property
    def max_piece_chars(self) -> int:
        """The maximum for one call of `room`: half of the chars that may wait on the server."""
        return self.opened.limits.max_pending_text_chars // 2

    async def send(self, text: str) -> None:
        """Send more text. It is joined to the text before as it is.

        Call `room` first if more text may come than the server keeps waiting. A server whose audio is not read stops
        reading text after a while, and then this waits.
        """
        self._must_be_open()
        if text:
            fragment = text_to_wire(text)
            self._sent_chars += len(text)
            await self._write(text=fragment)

    async def room(self, chars: int) -> None:
        """Wait until the server has room for `chars` more chars. Another task must read meanwhile.

        Raises WrongState if `chars` is above `max_piece_chars`. The limit makes sure that an unfinished sentence always
        leaves room for its end.
        """
        max_pending = self.opened.limits.max_pending_text_chars
        if chars > self.max_piece_chars:
            message = f"{chars} chars are too many for one piece; send at most {self.max_piece_chars} at a time."
            raise WrongState(message, reason="TEXT_TOO_LONG", field="chars", value=str(chars))
        while self.pending_chars + chars > max_pending and not self._over:
            self._progress.clear()
            await self._progress.wait()

    async def send_long(self, text: str) -> None:
        """Send a text of any length: in pieces, each when the server has room. Another task must read meanwhile."""
        for start in range(0, len(text), self.max_piece_chars):
            piece = text[start : start + self.max_piece_chars]
            await self.room(len(piece))
            await self.send(piece)

    async def flush(self) -> int:
        """Speak all text sent so far now. Returns the id of the `Flushed` event that will follow."""
        self._must_be_open()
        self._last_flush_id += 1
        flush_id = self._last_flush_id
        await self._write(flush=speech_pb2.Flush(flush_id=flush_id))
        return flush_id

    async def cancel(self) -> None:
        """Drop all text and audio so far. Older audio that still arrives is not yielded either.

        The stream stays open for new text. A `Cancelled` event follows.
        """
        self._must_be_open()
        self._unanswered_cancels += 1
        await self._write(cancel=speech_pb2.Cancel())

    async def set_speed(self, speed: float) -> None:
        """Speak every segment that has not begun at this speed, 0.5 to 2, also of text sent before.

        `SegmentStarted` has the speed of a segment.
        """
        self._must_be_open()
        await self._write(set_speed=speed_to_wire(speed))

    async def end(self) -> None:
        """Declare the end of the text. The server speaks the rest and ends the stream. Idempotent."""
        if not self._ended:
            self._ended = True
            await self._call.done_writing()

    def _must_be_open(self) -> None:
        _ = self.opened
        if self._ended:
            raise WrongState("Nothing can be sent after end().", reason="STREAM_ENDED")

    async def _write(self, **message: Any) -> None:
        await self._call.write(speech_pb2.StreamSpeechRequest(**message))

    async def __aiter__(self) -> AsyncIterator[AudioChunk]:
        async for event in self.events():
            if isinstance(event, AudioChunk):
                yield event

    async def events(self) -> AsyncIterator[Event]:
        """Yields audio and all other events, in the server's order, until the stream ends."""
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
            raise  # only this task was cancelled, not the stream
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
        return isinstance(event, AudioChunk | Words) and self._unanswered_cancels > 0

    def _set_over(self) -> None:
        self._over = True
        self._progress.set()
