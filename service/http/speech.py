"""`POST /v1/audio/speech`: one text, answered while it is spoken with chunked audio or with server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from engines.api import Engine
from engines.errors import InvalidInput
from service.errors import RequestError
from service.handlers.failures import log_failure, root_cause
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.timeouts import within_stall_timeout
from service.http import speech_request
from service.http.error_responses import answer_to
from service.http.requests import Body, json_object, while_connected
from service.stream.policy import StreamPolicy

_MOST_BYTES_PER_CHAR = 12  # JSON's longest way to write one: two escapes of six
_OTHER_FIELDS_BYTES = 64 * 1024


class SpeechEndpoint:
    """An ASGI application."""

    def __init__(self, engine: Engine, speech_handler: SpeechHandler, policy: StreamPolicy) -> None:
        self._engine = engine
        self._conversations = speech_handler
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        most_bytes = self._policy.max_pending_text_chars * _MOST_BYTES_PER_CHAR + _OTHER_FIELDS_BYTES
        body = Body(receive, most_bytes, self._policy.stall_timeout_s)
        asked = speech_request.read(await json_object(scope, body), self._engine.info.model)
        stream_id = new_stream_id()
        sender = _Sender(send, self._policy.stall_timeout_s, stream_id)
        answer = _Events(sender) if asked.events else _Audio(sender, speech_request.MEDIA_TYPES[asked.audio_format])
        try:
            speaking = self._conversations.synthesize(stream_id, asked.request, answer.tell)
            await while_connected(receive, speaking)
            await answer.end()
        except Exception as error:
            named = _named(root_cause(error))
            if not sender.started:
                raise named from error
            await answer.fail(named, stream_id)


def _named(error: Exception) -> Exception:
    """The same refusal, its field named as in this surface's body."""
    if isinstance(error, InvalidInput):
        return error.named(speech_request.field_here(error.field))
    if isinstance(error, RequestError):
        error.field = speech_request.field_here(error.field)
    return error


class _Sender:
    """The response: begun with the first thing that is to be told, so that until then a refusal can have a status."""

    def __init__(self, send: Send, stall_timeout_s: float, stream_id: str) -> None:
        self._send, self._stall_timeout_s, self._stream_id = send, stall_timeout_s, stream_id
        self.started = False

    async def write(self, media_type: str, data: bytes, *, last: bool = False) -> None:
        """Raises TookTooLong when the client does not read."""
        if not self.started:
            self.started = True
            headers = {"content-type": media_type, "cache-control": "no-store", "x-request-id": self._stream_id}
            encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await within_stall_timeout(self._send(body), self._stall_timeout_s)


class _Answer(Protocol):
    """How the events of speaking are told over HTTP."""

    async def tell(self, **event: Any) -> None: ...

    async def end(self) -> None: ...

    async def fail(self, error: Exception, stream_id: str) -> None: ...


class _Audio:
    """The audio alone. A failure on the way leaves the body without its end, which no client takes for a whole one."""

    def __init__(self, sender: _Sender, media_type: str) -> None:
        self._sender, self._media_type = sender, media_type

    async def tell(self, **event: Any) -> None:
        if "audio" in event:
            await self._sender.write(self._media_type, event["audio"].data)

    async def end(self) -> None:
        await self._sender.write(self._media_type, b"", last=True)

    async def fail(self, error: Exception, stream_id: str) -> None:
        log_failure(error, f"stream {stream_id}")


class _Events:
    """OpenAI's server-sent events: audio in base64, then how many tokens it took; or an error as the last event."""

    _TYPE = "text/event-stream"

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._text_tokens = self._speech_tokens = 0

    async def tell(self, **event: Any) -> None:
        if "segment_started" in event:
            self._text_tokens += event["segment_started"].text_token_count
        if "segment_done" in event:
            self._speech_tokens += event["segment_done"].speech_token_count
        if "audio" in event:
            audio = base64.b64encode(event["audio"].data).decode()
            await self._event({"type": "speech.audio.delta", "audio": audio})

    async def end(self) -> None:
        usage = {
            "input_tokens": self._text_tokens,
            "output_tokens": self._speech_tokens,
            "total_tokens": self._text_tokens + self._speech_tokens,
        }
        await self._event({"type": "speech.audio.done", "usage": usage}, last=True)

    async def fail(self, error: Exception, stream_id: str) -> None:
        answer = answer_to(error, f"stream {stream_id}")
        if answer is not None:
            await self._event({"type": "error", "error": answer.error}, last=True)

    async def _event(self, event: dict[str, Any], *, last: bool = False) -> None:
        await self._sender.write(self._TYPE, f"data: {json.dumps(event)}\n\n".encode(), last=last)
