"""The WebSocket `/v1/stream`: the contract's StreamSpeech for browsers and for whoever has no gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, NoReturn
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from engines.errors import invalid_value
from mynah.v1 import speech_pb2
from service.errors import ClientGone, FailedPrecondition
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.timeouts import within_stall_timeout
from service.http.error_responses import answer_to
from service.http.frames import AudioAs, End, event_frames, read_binary, read_text

SUBPROTOCOL = "mynah.v1"
_OWN_CODES = 4000  # the close codes that are ours to give: 4000 and an HTTP status
_DONE = 1000


class StreamEndpoint:
    """An ASGI application. A refusal comes as `{"error": ...}`, then as the close code 4000 + HTTP status."""

    def __init__(self, speech_handler: SpeechHandler, stall_timeout_s: float) -> None:
        self._conversations = speech_handler
        self._stall_timeout_s = stall_timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream_id = new_stream_id()
        await receive()  # websocket.connect
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": _headers(stream_id)})
        socket = _Socket(receive, send, self._stall_timeout_s)
        try:
            audio_as = _audio_as(scope)
            await self._converse(stream_id, socket, audio_as)
            await socket.close(_DONE)
        except Exception as error:
            answer = answer_to(error, f"stream {stream_id}")
            if answer is not None:
                await socket.refuse(answer.error, _OWN_CODES + answer.status_code, answer.reason)

    async def _converse(self, stream_id: str, socket: _Socket, audio_as: AudioAs) -> None:
        async def tell(**event: Any) -> None:
            for frame in event_frames(event, audio_as):
                await socket.send(frame)

        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(socket.watch_after_end())
            await self._conversations.stream(stream_id, socket.requests(), tell)
            watching.cancel()


def _headers(stream_id: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-request-id", stream_id.encode())]


def _audio_as(scope: Scope) -> AudioAs:
    """The query's choice. Raises InvalidInput."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    asked = query.pop("audio", [AudioAs.BINARY.value])
    allowed = " | ".join(each.value for each in AudioAs)
    if query:
        raise invalid_value("query", ", ".join(query), f"audio={allowed}", "FIELD_UNKNOWN")
    if len(asked) != 1 or asked[0] not in [each.value for each in AudioAs]:
        raise invalid_value("audio", ", ".join(asked), allowed, "VALUE_INVALID")
    return AudioAs(asked[0])


class _Socket:
    """The connection: one reader at a time, and sends that do not wait for ever."""

    def __init__(self, receive: Receive, send: Send, stall_timeout_s: float) -> None:
        self._receive, self._send, self._stall_timeout_s = receive, send, stall_timeout_s
        self._ended = asyncio.Event()

    async def requests(self) -> AsyncIterator[speech_pb2.StreamSpeechRequest]:
        """What the client says, up to its `end`. Raises InvalidInput, ClientGone."""
        while True:
            frame = await self._next()
            text = frame.get("text")
            request = read_text(text) if text is not None else read_binary(frame["bytes"])
            if isinstance(request, End):
                break
            yield request
        self._ended.set()

    async def watch_after_end(self) -> NoReturn:
        """From the `end` on: raises ClientGone when the client leaves, OutOfOrder when it goes on talking."""
        await self._ended.wait()
        await self._next()
        message = "got a message after end; allowed: none"
        raise FailedPrecondition("STREAM_ENDED", message, field="message", value="a message", allowed="none after end")

    async def _next(self) -> Message:
        frame = await self._receive()
        if frame["type"] == "websocket.disconnect":
            raise ClientGone
        return frame

    async def send(self, frame: str | bytes) -> None:
        """Raises TookTooLong when the client does not read, ClientGone."""
        kind = "text" if isinstance(frame, str) else "bytes"
        try:
            await within_stall_timeout(self._send({"type": "websocket.send", kind: frame}), self._stall_timeout_s)
        except OSError as error:  # it left, and its disconnect is on the way
            raise ClientGone from error

    async def refuse(self, error: dict[str, Any], code: int, reason: str) -> None:
        """Say why, then close. A client that does not read gets the connection's end alone."""
        try:
            async with asyncio.timeout(1.0):
                await self._send({"type": "websocket.send", "text": json.dumps({"error": error})})
                await self.close(code, reason)
        except (OSError, TimeoutError):
            return

    async def close(self, code: int, reason: str = "") -> None:
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})
        except OSError:  # it left
            return
