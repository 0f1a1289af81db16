"""`POST /v1/audio/speech`: speaks one text; the response streams audio or server-sent events."""

from __future__ import annotations

import base64
import json
from typing import Any

from starlette.types import Receive, Scope, Send

from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from mynah.v1 import speech_pb2
from service.audio.containers import with_known_length
from service.audio.formats import AudioFormat
from service.errors import RequestError
from service.handlers.failures import log_failure, root_cause
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.stream_log import Origin
from service.http import speech_request
from service.http.captioned import CaptionedResponse
from service.http.error_responses import error_response
from service.http.requests import Body, read_json_object, while_connected
from service.http.response_writer import MAX_WHOLE_BYTES, ResponseWriter, SpeechResponse
from service.http.speech_request import SpeechRequest
from service.models import Models
from service.stream.policy import StreamPolicy
from service.voices.ids import DEFAULT_VOICE_ID


class SpeechEndpoint:
    """The ASGI application of `POST /v1/audio/speech`."""

    def __init__(
        self, models: Models, speech_handler: SpeechHandler, policy: StreamPolicy, *, captioned: bool = False
    ) -> None:
        """`captioned`: for `POST /dev/captioned_speech`, Kokoro's form of audio with word times."""
        self._captioned = captioned
        self._models = models
        self._speech_handler = speech_handler
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(scope, receive, self._policy.max_json_bytes, self._policy.stall_timeout_s)
        parse = speech_request.parse_captioned if self._captioned else speech_request.parse
        speech = parse(await read_json_object(scope, body), self._models.names)
        stream_id, origin = new_stream_id(), Origin.of_address("http", scope["client"])
        writer = ResponseWriter(send, self._policy.stall_timeout_s, stream_id)
        response = CaptionedResponse(writer, speech) if self._captioned else _response(speech, writer)

        async def send_event(**event: Any) -> None:
            if "opened" in event:
                writer.headers |= _opened_headers(speech, event["opened"])
            await response.send(**event)

        try:
            speaking = self._speech_handler.synthesize(stream_id, speech.request, send_event, origin)
            await while_connected(receive, speaking)
            await response.end()
        except Exception as error:
            renamed = _with_http_field(root_cause(error), speech)
            if not writer.started:
                raise renamed from error
            await response.fail(renamed, stream_id)


def _response(speech: SpeechRequest, writer: ResponseWriter) -> SpeechResponse:
    if speech.server_sent_events:
        return _EventResponse(writer)
    media_type = speech_request.MEDIA_TYPES[speech.audio_format]
    if speech.whole:
        return _WholeResponse(writer, media_type, wav=speech.audio_format is AudioFormat.WAV)
    return _AudioResponse(writer, media_type)


def _opened_headers(speech: SpeechRequest, opened: speech_pb2.StreamOpened) -> dict[str, str]:
    """Say which voice speaks, which of OpenAI's names it stands for, what repeats the bytes beside a seed, and how many
    respellings hold."""
    asked, voice_id = speech.request.settings.voice_id, opened.settings.voice_id
    replaced = asked in speech_request.VOICE_ALIASES and voice_id == DEFAULT_VOICE_ID
    headers = {speech_request.VOICE_HEADER: voice_id}
    if opened.schedule:
        headers[speech_request.SCHEDULE_HEADER] = opened.schedule
    if opened.dictionary_entry_count:
        headers[speech_request.DICTIONARY_HEADER] = str(opened.dictionary_entry_count)
    return headers | ({speech_request.REPLACED_VOICE_HEADER: asked} if replaced else {})


def _with_http_field(error: Exception, speech: SpeechRequest) -> Exception:
    """Returns the error with its field named as in the request's body."""
    if isinstance(error, InvalidInput):
        return error.named(speech.field_of(error.field))
    if isinstance(error, RequestError):
        error.field = speech.field_of(error.field)
    return error


class _AudioResponse:
    """The audio only. After a failure the chunked body has no end, so that clients see that it is incomplete."""

    def __init__(self, writer: ResponseWriter, media_type: str) -> None:
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

    def __init__(self, writer: ResponseWriter, media_type: str, *, wav: bool) -> None:
        self._writer, self._media_type, self._wav = writer, media_type, wav
        self._audio = bytearray()

    async def send(self, **event: Any) -> None:
        if "audio" not in event:
            return
        self._audio += event["audio"].data
        if len(self._audio) > MAX_WHOLE_BYTES:
            allowed = "true or absent for a text whose audio is this long"
            message = f"stream is false and the audio is longer than {MAX_WHOLE_BYTES} bytes; it must be {allowed}."
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

    def __init__(self, writer: ResponseWriter) -> None:
        self._writer = writer
        self._text_tokens = self._speech_tokens = 0
        self._rate_hz = SAMPLE_RATE_HZ

    async def send(self, **event: Any) -> None:
        if "opened" in event:
            self._rate_hz = event["opened"].settings.sample_rate_hz
        if "segment_started" in event:
            self._text_tokens += event["segment_started"].text_token_count
        if "segment_done" in event:
            self._speech_tokens += event["segment_done"].speech_token_count
        if "mark_reached" in event:
            mark = event["mark_reached"]
            await self._event({"type": "speech.mark", "name": mark.name, "offset_samples": mark.offset_samples})
        if "words" in event:
            await self._event({"type": "speech.audio.words", "words": self._words(event["words"])})
        if "audio" in event:
            audio = base64.b64encode(event["audio"].data).decode()
            await self._event({"type": "speech.audio.delta", "audio": audio})

    def _words(self, words: speech_pb2.Words) -> list[dict[str, Any]]:
        """Times in seconds, and the place of the word in its segment's text."""
        return [
            {
                "word": word.text,
                "start": round(word.start_samples / self._rate_hz, 4),
                "end": round(word.end_samples / self._rate_hz, 4),
                "spoken": word.spoken_text,
                "segment_index": words.segment_index,
                "start_char": word.start_char_index,
                "end_char": word.end_char_index,
            }
            for word in words.words
        ]

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
            await self._writer.write_error(_encoded({"type": "error", "error": response.error}))

    async def _event(self, event: dict[str, Any], *, last: bool = False) -> None:
        await self._writer.write(self._TYPE, _encoded(event), last=last)


def _encoded(event: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps(event)}\n\n".encode()
