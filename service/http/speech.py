"""`POST /v1/audio/speech`: speaks one text; the response streams audio or server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from engines.api import Engine
from engines.errors import InvalidInput
from service.audio.containers import with_known_length
from service.audio.formats import AudioFormat
from service.errors import RequestError
from service.handlers.failures import log_failure, root_cause
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.stream_log import Origin
from service.handlers.timeouts import within_stall_timeout
from service.http import speech_request
from service.http.error_responses import error_response
from service.http.requests import Body, read_json_object, while_connected
from service.http.speech_request import SpeechRequest
from service.stream.policy import StreamPolicy
from service.voices.ids import DEFAULT_VOICE_ID

_MAX_WHOLE_BYTES = 32 * 1024 * 1024  # 11 minutes of 24 kHz WAV


class SpeechEndpoint:
    """The ASGI application of `POST /v1/audio/speech`."""

    def __init__(self, engine: Engine, speech_handler: SpeechHandler, policy: StreamPolicy) -> None:
        self._engine = engine
        self._speech_handler = speech_handler
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, self._policy.max_json_bytes, self._policy.stall_timeout_s)
        speech = speech_request.parse(await read_json_object(scope, body), self._engine.info.model)
        stream_id, origin = new_stream_id(), Origin.of_address("http", scope["client"])
        writer = _ResponseWriter(send, self._policy.stall_timeout_s, stream_id)
        response = _response(speech, writer)

        async def send_event(**event: Any) -> None:
            if "opened" in event:
                writer.headers |= _voice_headers(speech, event["opened"].settings.voice_id)
            await response.send(**event)

        try:
            speaking = self._speech_handler.synthesize(stream_id, speech.request, send_event, origin)
            await while_connected(receive, speaking)
            await response.end()
        except Exception as error:
            renamed = _with_http_field(root_cause(error))
            if not writer.started:
                raise renamed from error
            await response.fail(renamed, stream_id)


def _response(speech: SpeechRequest, writer: _ResponseWriter) -> _SpeechResponse:
    if speech.server_sent_events:
        return _EventResponse(writer)
    media_type = speech_request.MEDIA_TYPES[speech.audio_format]
    if speech.whole:
        return _WholeResponse(writer, media_type, wav=speech.audio_format is AudioFormat.WAV)
    return _AudioResponse(writer, media_type)


def _voice_headers(speech: SpeechRequest, voice_id: str) -> dict[str, str]:
    """Say which voice speaks, and which of OpenAI's names it stands for."""
    asked = speech.request.settings.voice_id
    replaced = asked in speech_request.VOICE_ALIASES and voice_id == DEFAULT_VOICE_ID
    headers = {speech_request.VOICE_HEADER: voice_id}
    return headers | ({speech_request.REPLACED_VOICE_HEADER: asked} if replaced else {})


def _with_http_field(error: Exception) -> Exception:
    """Returns the error with its field named as in the request's body."""
    if isinstance(error, InvalidInput):
        return error.named(speech_request.http_field(error.field))
    if isinstance(error, RequestError):
        error.field = speech_request.http_field(error.field)
    return error


class _ResponseWriter:
    """Writes the response. It starts with the first data, so that an error before that can have a status code."""

    def __init__(self, send: Send, stall_timeout_s: float, stream_id: str) -> None:
        self._send, self._stall_timeout_s, self._stream_id = send, stall_timeout_s, stream_id
        self.started = False
        self.headers: dict[str, str] = {}  # beside those of every response

    async def write(self, media_type: str, data: bytes, *, last: bool = False) -> None:
        """Raises DeadlineExceeded if the client does not read."""
        if not self.started:
            self.started = True
            headers = {"content-type": media_type, "cache-control": "no-store", "x-request-id": self._stream_id}
            headers |= self.headers
            encoded = [(name.encode(), text.encode()) for name, text in headers.items()]
            await self._send({"type": "http.response.start", "status": 200, "headers": encoded})
        body = {"type": "http.response.body", "body": data, "more_body": not last}
        await within_stall_timeout(self._send(body), self._stall_timeout_s)


class _SpeechResponse(Protocol):
    """A response made of the stream's events."""

    async def send(self, **event: Any) -> None: ...

    async def end(self) -> None: ...

    async def fail(self, error: Exception, stream_id: str) -> None: ...


class _AudioResponse:
    """The audio only. After a failure the chunked body has no end, so that clients see that it is incomplete."""

    def __init__(self, writer: _ResponseWriter, media_type: str) -> None:
        self._writer, self._media_type = writer, media_type

    async def send(self, **event: Any) -> None:
        if "audio" in event:
            await self._writer.write(self._media_type, event["audio"].data)

    async def end(self) -> None:
        await self._writer.write(self._media_type, b"", last=True)

    async def fail(self, error: Exception, stream_id: str) -> None:
        log_failure(error, f"stream {stream_id}")


class _WholeResponse:
    """All of the audio at once, with its length in the headers and, in a WAV file, in the file's own header."""

    def __init__(self, writer: _ResponseWriter, media_type: str, *, wav: bool) -> None:
        self._writer, self._media_type, self._wav = writer, media_type, wav
        self._audio = bytearray()

    async def send(self, **event: Any) -> None:
        if "audio" not in event:
            return
        self._audio += event["audio"].data
        if len(self._audio) > _MAX_WHOLE_BYTES:
            allowed = "true or absent for a text whose audio is this long"
            message = f"stream is false and the audio is longer than {_MAX_WHOLE_BYTES} bytes; it must be {allowed}."
            raise InvalidInput("stream", message, "ANSWER_TOO_LONG", value="false", allowed=allowed)

    async def end(self) -> None:
        if self._wav:
            with_known_length(self._audio)
        self._writer.headers["content-length"] = str(len(self._audio))
        await self._writer.write(self._media_type, bytes(self._audio), last=True)

    async def fail(self, error: Exception, stream_id: str) -> None:
        log_failure(error, f"stream {stream_id}")


class _EventResponse:
    """OpenAI's server-sent events: audio in base64, then the token usage; or an error as the last event."""

    _TYPE = "text/event-stream"

    def __init__(self, writer: _ResponseWriter) -> None:
        self._writer = writer
        self._text_tokens = self._speech_tokens = 0

    async def send(self, **event: Any) -> None:
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
        response = error_response(error, f"stream {stream_id}")
        if response is not None:
            await self._event({"type": "error", "error": response.error}, last=True)

    async def _event(self, event: dict[str, Any], *, last: bool = False) -> None:
        await self._writer.write(self._TYPE, f"data: {json.dumps(event)}\n\n".encode(), last=last)
