"""NVIDIA Riva's speech synthesis, nvidia.riva.tts.RivaSpeechSynthesis, so that its clients plug in unchanged.

Translates Riva's messages to and from the contract's; everything else is done by the same conversations. What Riva
can ask for and this model cannot do is refused by name, never ignored. The stubs are those of nvidia-riva-client.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import grpc.aio
from riva.client.proto import riva_audio_pb2, riva_tts_pb2, riva_tts_pb2_grpc

from engines.api import Engine
from engines.errors import InvalidInput, invalid_value
from mynah.v1 import speech_pb2
from service.access.admission import Admission
from service.errors import DeadlineExceeded, NotFound
from service.grpc.call_writer import CallWriter
from service.grpc.status import grpc_errors
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.voice_catalogue import MAX_PAGE_SIZE
from service.stream.policy import StreamPolicy
from service.voices.ids import DEFAULT_VOICE_ID
from service.voices.store import OneVoice, VoiceSource, VoiceStore

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = riva_tts_pb2.DESCRIPTOR.services_by_name["RivaSpeechSynthesis"].full_name

_FAMILY = "mynah"  # voices are called mynah.ID; the bare id will do
_LANGUAGE = "en-US"
_FORMATS = {
    riva_audio_pb2.ENCODING_UNSPECIFIED: speech_pb2.AUDIO_FORMAT_PCM_S16LE,
    riva_audio_pb2.LINEAR_PCM: speech_pb2.AUDIO_FORMAT_PCM_S16LE,
    riva_audio_pb2.FLAC: speech_pb2.AUDIO_FORMAT_FLAC,
    riva_audio_pb2.MULAW: speech_pb2.AUDIO_FORMAT_MULAW,
    riva_audio_pb2.ALAW: speech_pb2.AUDIO_FORMAT_ALAW,
    riva_audio_pb2.OGGOPUS: speech_pb2.AUDIO_FORMAT_OGG_OPUS,
}
# Riva's free-form settings: ours by their names in the contract, and the consent that a prompt needs
_SAMPLING = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "seed": int,
    "max_speech_token_count": int,
}
_CONSENT = "consent"
_FIELDS = {"voice_id": "voice_name", "settings.sample_rate_hz": "sample_rate_hz", "text.content": "text"}


def add_to(
    server: grpc.aio.Server,
    engine: Engine,
    voices: VoiceStore,
    admission: Admission,
    policy: StreamPolicy,
) -> None:
    """Serve Riva's clients on this server too."""
    riva_tts_pb2_grpc.add_RivaSpeechSynthesisServicer_to_server(RivaService(engine, voices, admission, policy), server)


class RivaService:
    """RivaSpeechSynthesisServicer by its methods."""

    def __init__(self, engine: Engine, voices: VoiceStore, admission: Admission, policy: StreamPolicy) -> None:
        self._engine = engine
        self._voices = voices
        self._admission = admission
        self._policy = policy

    async def Synthesize(self, request: Any, context: Context) -> Any:
        """One text, answered whole."""
        stream_id = new_stream_id()
        audio = bytearray()

        async def collect(**event: Any) -> None:
            if "audio" in event:
                audio.extend(event["audio"].data)

        async with grpc_errors(context, f"stream {stream_id}"):
            with _rivas_names():
                wanted = speech_pb2.SynthesizeRequest(settings=_settings(request), text=request.text)
                speech_handler = await self._conversations(request)
                await speech_handler.synthesize(stream_id, wanted, collect)
        meta = riva_tts_pb2.SynthesizeSpeechResponseMetadata(text=request.text)
        return riva_tts_pb2.SynthesizeSpeechResponse(audio=bytes(audio), meta=meta, id=request.id)

    async def SynthesizeOnline(self, requests: AsyncIterator[Any], context: Context) -> None:
        """Texts as they come, each spoken at once; the first request's settings hold for all."""
        stream_id = new_stream_id()
        async with grpc_errors(context, f"stream {stream_id}"):
            first = await self._first(requests)
            answer = _Answer(CallWriter(context, self._policy.stall_timeout_s), first.id)
            with _rivas_names():
                speech_handler = await self._conversations(first)
                async with aclosing(_as_conversation(first, requests)) as said:
                    await speech_handler.stream(stream_id, said, answer.send)

    async def _first(self, requests: AsyncIterator[Any]) -> Any:
        """Raises TookTooLong, or InvalidInput when the client said nothing."""
        try:
            async with asyncio.timeout(self._policy.idle_timeout_s):
                first = await anext(requests, None)
        except TimeoutError:
            allowed = f"{self._policy.idle_timeout_s:g} s"
            raise DeadlineExceeded("STREAM_IDLE", f"no text for {allowed}", allowed=allowed) from None
        if first is None:
            raise invalid_value("text", "nothing", "at least one request", "TEXT_EMPTY")
        return first

    async def GetRivaSynthesisConfig(self, request: Any, context: Context) -> Any:
        """The model and its voices, in the form that Riva's clients take names from: voice_name.subvoice."""
        async with grpc_errors(context, "riva config"):
            model = self._engine.info.model
            if request.model_name not in ("", model):
                message = f"there is no model {request.model_name!r}; allowed: {model}"
                raise NotFound("MODEL_NOT_FOUND", message, field="model_name", allowed=model)
            found, _ = await self._voices.page("", MAX_PAGE_SIZE)
            parameters = {
                "language_code": _LANGUAGE,
                "voice_name": _FAMILY,
                "subvoices": ",".join(f"{voice.voice_id}:{number}" for number, voice in enumerate(found)),
                "sample_rate": str(self._engine.info.sample_rate_hz),
            }
        config = riva_tts_pb2.RivaSynthesisConfigResponse.Config(model_name=model, parameters=parameters)
        return riva_tts_pb2.RivaSynthesisConfigResponse(model_config=[config])

    async def _conversations(self, request: Any) -> SpeechHandler:
        voices: VoiceSource = self._voices
        if request.HasField("zero_shot_data"):
            voices = await self._prompted(request)
        return SpeechHandler(self._engine, voices, self._admission, self._policy)

    async def _prompted(self, request: Any) -> OneVoice:
        """The voice of a zero-shot prompt, which lives as long as the call."""
        if request.custom_configuration.get(_CONSENT) != "true":
            field = f"custom_configuration[{_CONSENT}]"
            given = request.custom_configuration.get(_CONSENT, "")
            raise invalid_value(field, given, "true: the speaker of the prompt agreed", "CONSENT_REQUIRED")
        prompt = request.zero_shot_data
        if len(prompt.audio_prompt) > self._policy.max_upload_bytes:
            allowed = f"at most {self._policy.max_upload_bytes} bytes"
            found = f"{len(prompt.audio_prompt)} bytes"
            raise invalid_value("zero_shot_data.audio_prompt", found, allowed, "AUDIO_TOO_LARGE")
        with self._admission.upload():
            try:
                return OneVoice(await self._engine.make_voice(_as_file(prompt), name="prompt"))
            except InvalidInput as error:
                raise error.named("zero_shot_data.audio_prompt") from None


class _Answer:
    """The sending side of SynthesizeOnline."""

    def __init__(self, writer: CallWriter, request_id: Any) -> None:
        self._writer, self._request_id = writer, request_id
        self._text = ""  # of the segment that the next chunk belongs to

    async def send(self, **event: Any) -> None:
        if "opened" in event:
            await self._writer.open()
        if "segment_started" in event:
            self._text = event["segment_started"].text
        if "audio" not in event:
            return
        meta = riva_tts_pb2.SynthesizeSpeechResponseMetadata(text=self._text)
        audio = event["audio"].data
        await self._writer.write(riva_tts_pb2.SynthesizeSpeechResponse(audio=audio, meta=meta, id=self._request_id))


async def _as_conversation(
    first: Any, requests: AsyncIterator[Any]
) -> AsyncGenerator[speech_pb2.StreamSpeechRequest, None]:
    """What Riva's client says, in the contract's words: open, then a text and a flush for each request."""
    settings = _settings(first)
    yield speech_pb2.StreamSpeechRequest(open=speech_pb2.OpenStream(settings=settings))
    request, flush_id = first, 0
    while request is not None:
        if _settings(request) != settings:
            raise invalid_value("settings", "other ones", "those of the stream's first request", "SETTINGS_CHANGED")
        flush_id += 1
        yield speech_pb2.StreamSpeechRequest(text=speech_pb2.TextFragment(content=request.text))
        yield speech_pb2.StreamSpeechRequest(flush=speech_pb2.Flush(flush_id=flush_id))
        request = await anext(requests, None)


def _settings(request: Any) -> speech_pb2.SpeechSettings:
    """Raises InvalidInput for what this model cannot do."""
    if request.encoding not in _FORMATS:
        allowed = ", ".join(riva_audio_pb2.AudioEncoding.Name(number) for number in _FORMATS)
        raise invalid_value("encoding", request.encoding, allowed, "AUDIO_FORMAT_UNKNOWN")
    language = request.language_code.replace("_", "-").lower()
    if language.split("-")[0] not in ("", "en"):
        raise invalid_value("language_code", request.language_code, _LANGUAGE, "LANGUAGE_UNSUPPORTED")
    if request.custom_dictionary:
        raise invalid_value("custom_dictionary", request.custom_dictionary, "none", "DICTIONARY_UNSUPPORTED")
    if request.enable_word_time_offsets:
        raise invalid_value("enable_word_time_offsets", True, "false", "WORD_TIMES_UNSUPPORTED")
    settings = speech_pb2.SpeechSettings(
        voice_id=_voice_id(request), audio_format=_FORMATS[request.encoding], sampling=_sampling(request)
    )
    if request.sample_rate_hz:
        settings.sample_rate_hz = request.sample_rate_hz
    return settings


def _voice_id(request: Any) -> str:
    """The id in voice_name, with or without the family's name before it."""
    if request.HasField("zero_shot_data"):
        if request.voice_name:
            raise invalid_value("voice_name", request.voice_name, "none beside zero_shot_data", "VOICE_TWICE")
        return DEFAULT_VOICE_ID
    family, _, subvoice = request.voice_name.partition(".")
    name = subvoice if subvoice and family.lower() == _FAMILY else request.voice_name
    return str(name) or DEFAULT_VOICE_ID


def _sampling(request: Any) -> speech_pb2.Sampling:
    sampling = speech_pb2.Sampling()
    for key, text in request.custom_configuration.items():
        if key == _CONSENT:
            continue
        field = f"custom_configuration[{key}]"
        if key not in _SAMPLING:
            raise invalid_value(field, text, ", ".join([_CONSENT, *_SAMPLING]), "CONFIGURATION_UNKNOWN")
        try:
            setattr(sampling, key, _SAMPLING[key](text))
        except (ValueError, TypeError):
            raise invalid_value(field, text, "a number as the contract has it", "SAMPLING_OUT_OF_RANGE") from None
    return sampling


def _as_file(prompt: Any) -> bytes:
    """Bare samples get the header that says what they are; files are left to the decoder."""
    audio = bytes(prompt.audio_prompt)
    bare = prompt.encoding == riva_audio_pb2.LINEAR_PCM and prompt.sample_rate_hz > 0
    if not bare or audio.startswith(b"RIFF"):
        return audio
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(prompt.sample_rate_hz)
        file.writeframes(audio)
    return target.getvalue()


@contextmanager
def _rivas_names() -> Iterator[None]:
    """Refusals name the fields as Riva's messages have them."""
    try:
        yield
    except InvalidInput as error:
        if error.field in _FIELDS:
            raise error.named(_FIELDS[error.field]) from None
        raise
