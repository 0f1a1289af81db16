"""`POST /dev/captioned_speech`: audio with word times in the form of Kokoro-FastAPI's clients."""

from __future__ import annotations

import base64
import json
from typing import Any

from engines.errors import InvalidInput
from engines.model_spec import SAMPLE_RATE_HZ
from mynah.v1 import speech_pb2
from service.audio.containers import with_known_length
from service.audio.formats import AudioFormat
from service.http.error_responses import error_response
from service.http.response_writer import MAX_WHOLE_BYTES, ResponseWriter
from service.http.speech_request import MEDIA_TYPES, SpeechRequest

LINES = "application/x-ndjson"


class CaptionedResponse:
    """A JSON object for each chunk, one on a line, or one for all: audio in base64 and the words that end in it.

    `timestamps` are seconds from the start of the speech. An object may have words and no audio. An error is the last
    object of a response that has begun.
    """

    def __init__(self, writer: ResponseWriter, speech: SpeechRequest) -> None:
        self._writer, self._whole = writer, speech.whole
        self._type = "application/json" if speech.whole else LINES
        self._wav = speech.audio_format is AudioFormat.WAV
        self._audio_type = MEDIA_TYPES[speech.audio_format]
        self._timed = speech.request.settings.word_times
        self._rate_hz = SAMPLE_RATE_HZ
        self._audio = bytearray()
        self._words: list[dict[str, Any]] = []

    async def send(self, **event: Any) -> None:
        if "opened" in event:
            self._rate_hz = event["opened"].settings.sample_rate_hz
        if "words" in event:
            self._words += [self._timestamp(word) for word in event["words"].words]
        if "audio" in event:
            self._audio += event["audio"].data
        if "audio" not in event and "words" not in event:
            return
        if not self._whole:
            await self._write(last=False)
        elif len(self._audio) > MAX_WHOLE_BYTES:
            allowed = "true or absent for a text whose audio is this long"
            message = f"stream is false and the audio is longer than {MAX_WHOLE_BYTES} bytes; it must be {allowed}."
            raise InvalidInput("stream", message, "ANSWER_TOO_LONG", value="false", allowed=allowed)

    def _timestamp(self, word: speech_pb2.WordTime) -> dict[str, Any]:
        start_s, end_s = word.start_samples / self._rate_hz, word.end_samples / self._rate_hz
        return {"word": word.text, "start_time": round(start_s, 4), "end_time": round(end_s, 4)}

    async def _write(self, *, last: bool) -> None:
        audio = base64.b64encode(self._audio).decode()
        timestamps = self._words if self._timed else None
        content = {"audio": audio, "audio_format": self._audio_type, "timestamps": timestamps}
        self._audio, self._words = bytearray(), []
        await self._writer.write(self._type, json.dumps(content).encode() + b"\n", last=last)

    async def end(self) -> None:
        if not self._whole:
            await self._writer.write(self._type, b"", last=True)
            return
        if self._wav:
            with_known_length(self._audio)
        await self._write(last=True)

    async def fail(self, error: Exception, stream_id: str) -> None:
        response = error_response(error, f"stream {stream_id}")
        if response is not None:
            await self._writer.write_error(json.dumps({"error": response.error}).encode() + b"\n")
