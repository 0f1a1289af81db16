"""The WebSocket `/v1/stream`: the contract's StreamSpeech for browsers and clients without gRPC."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NoReturn
from urllib.parse import parse_qs

from starlette.types import Message, Receive, Scope, Send

from engines.errors import InvalidInput
from mynah.v1 import speech_pb2
from service.access.turns import Account, Turns
from service.errors import ClientGone, FailedPrecondition
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.stream_log import Origin
from service.handlers.timeouts import within_stall_timeout
from service.http.error_responses import UNPACED, error_response
from service.http.frames import AudioEncoding, End, event_frames, parse_binary, parse_text

SUBPROTOCOL = "mynah.v1"
_ERROR_CLOSE_CODE = 4000  # plus the HTTP status
_NORMAL_CLOSE_CODE = 1000


class StreamEndpoint:
    """The ASGI application of `/v1/stream`. Errors are sent as `{"error": ...}`, then as close code 4000 + status."""

    def __init__(self, speech_handler: SpeechHandler, stall_timeout_s: float, turns: Turns) -> None:
        self._speech_handler = speech_handler
        self._stall_timeout_s = stall_timeout_s
        self._turns = turns

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream_id = new_stream_id()
        await receive()  # websocket.connect
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope["subprotocols"] else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": _headers(stream_id)})
        socket = _Socket(receive, send, self._stall_timeout_s, self._turns)
        try:
            await self._stream(scope, stream_id, socket, _audio_encoding(scope))
            await socket.close(_NORMAL_CLOSE_CODE)
        except Exception as error:
            response = error_response(error, f"stream {stream_id}")
            if response is not None:
                await socket.reject(response.error, _ERROR_CLOSE_CODE + response.status_code, response.reason)

    async def _stream(self, scope: Scope, stream_id: str, socket: _Socket, audio: AudioEncoding) -> None:
        async def send(**event: Any) -> None:
            await socket.send(event_frames(event, audio))

        origin = Origin.of_address("websocket", scope["client"])
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(socket.raise_after_end())
            await self._speech_handler.stream(stream_id, socket.requests(), send, origin)
            watching.cancel()


def _headers(stream_id: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-request-id", stream_id.encode())]


def _audio_encoding(scope: Scope) -> AudioEncoding:
    """Returns the query's choice. Raises InvalidInput."""
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    values = query.pop("audio", [AudioEncoding.BINARY.value])
    known = [each.value for each in AudioEncoding]
    allowed = " or ".join(known)
    if query:
        message = "The query has an unknown parameter; the only one is audio."
        raise InvalidInput("query", message, "FIELD_UNKNOWN", value=", ".join(query), allowed="audio")
    if len(values) != 1 or values[0] not in known:
        message = f"audio must be given once, as {allowed}."
        raise InvalidInput("audio", message, "VALUE_INVALID", value=", ".join(values), allowed=allowed)
    return AudioEncoding(values[0])


class _Socket:
    """A WebSocket connection with one reader at a time and a time limit for sends."""

    def __init__(self, receive: Receive, send: Send, stall_timeout_s: float, turns: Turns) -> None:
        self._receive, self._send, self._stall_timeout_s = receive, send, stall_timeout_s
        self._turns, self._account = turns, Account()
        self._ended = asyncio.Event()

    async def requests(self) -> AsyncIterator[speech_pb2.StreamSpeechRequest]:
        """The client's requests up to its `end`. Raises InvalidInput, ClientGone."""
        while True:
            frame = await self._next()
            text = frame.get("text")
            await self._turns.wait(self._account)
            with self._turns.spending(self._account):
                request = parse_text(text) if text is not None else parse_binary(frame["bytes"])
            if isinstance(request, End):
                break
            yield request
        self._ended.set()

    async def raise_after_end(self) -> NoReturn:
        """After the client's `end`: raises ClientGone if it disconnects, FailedPrecondition if it sends more."""
        await self._ended.wait()
        await self._next()
        message = "A message arrived after end, which must be the last one; open a new stream for more text."
        raise FailedPrecondition("STREAM_ENDED", message, field="message", value="a message", allowed="none after end")

    async def _next(self) -> Message:
        frame = await self._receive()
        if frame["type"] == "websocket.disconnect":
            raise ClientGone
        return frame

    async def send(self, frames: Sequence[str | bytes]) -> None:
        """Sends an event, or nothing of it. Raises DeadlineExceeded if the client does not read, ClientGone."""
        first, *rest = map(_message, frames)
        try:
            await within_stall_timeout(self._send(first), self._stall_timeout_s)
            for message in rest:
                await self._send(message | {UNPACED: True})
        except OSError as error:  # disconnected; the disconnect message follows
            raise ClientGone from error

    async def reject(self, error: dict[str, Any], code: int, reason: str) -> None:
        """Sends the error and closes. Does not wait for a client that does not read."""
        try:
            await self._send(_message(json.dumps({"error": error})) | {UNPACED: True})
        except OSError:  # disconnected
            return
        await self.close(code, reason)

    async def close(self, code: int, reason: str = "") -> None:
        try:
            await self._send({"type": "websocket.close", "code": code, "reason": reason, UNPACED: True})
        except OSError:  # disconnected
            return


def _message(frame: str | bytes) -> dict[str, Any]:
    """The ASGI message of a frame."""
    return {"type": "websocket.send", "text" if isinstance(frame, str) else "bytes": frame}
