"""The gRPC service for NVIDIA Riva's clients, nvidia.riva.tts.RivaSpeechSynthesis.

Translates Riva's messages to and from the contract's, for the same SpeechHandler. A field that asks for something this
model cannot do is refused by name, never ignored. The stubs are those of nvidia-riva-client.
"""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any, TypeVar

import grpc.aio
from riva.client.proto import riva_audio_pb2, riva_tts_pb2, riva_tts_pb2_grpc

from engines.api import Engine
from engines.conditioning.limits import too_large
from engines.errors import InvalidInput, quoted, shown
from engines.model_spec import SAMPLE_RATE_HZ
from engines.text.dictionary import Entry
from mynah.v1 import speech_pb2
from service.access.admission import Admission
from service.errors import DeadlineExceeded, RequestError
from service.grpc.call_writer import CallWriter
from service.grpc.origin import origin_of
from service.grpc.status import grpc_errors
from service.handlers.messages import FIRST_SEGMENT_NUMBERS, text_settings
from service.handlers.speech_handler import SpeechHandler, new_stream_id
from service.handlers.stream_log import Origin, audit_voice
from service.handlers.voice_catalogue import CONSENT, MAX_PAGE_SIZE
from service.models import Models, model_not_found
from service.stream.early_end import FirstSegment
from service.stream.policy import StreamPolicy
from service.stream.settings import Emoji, Markup, UnspeakableText
from service.voices.ids import DEFAULT_VOICE_ID
from service.voices.lookup import VoiceLookup
from service.voices.store import OneVoice, VoiceSource, VoiceStore
from service.voices.stored_voice import VoiceSummary

Context = grpc.aio.ServicerContext[Any, Any]
SERVICE = riva_tts_pb2.DESCRIPTOR.services_by_name["RivaSpeechSynthesis"].full_name

_SURFACE = "riva"
_FAMILY = "mynah"  # voices are named mynah.ID; the bare id works too
_ENGLISH = "en-US"  # of a model of English alone
_FORMATS = {
    riva_audio_pb2.ENCODING_UNSPECIFIED: speech_pb2.AUDIO_FORMAT_PCM_S16LE,
    riva_audio_pb2.LINEAR_PCM: speech_pb2.AUDIO_FORMAT_PCM_S16LE,
    riva_audio_pb2.FLAC: speech_pb2.AUDIO_FORMAT_FLAC,
    riva_audio_pb2.MULAW: speech_pb2.AUDIO_FORMAT_MULAW,
    riva_audio_pb2.ALAW: speech_pb2.AUDIO_FORMAT_ALAW,
    riva_audio_pb2.OGGOPUS: speech_pb2.AUDIO_FORMAT_OGG_OPUS,
}
T = TypeVar("T")

# Riva's free-form settings: sampling by its names in the contract, the consent that a prompt needs, the speed
_SAMPLING = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "min_p": float,
    "seed": int,
    "max_speech_token_count": int,
}
_CONSENT = "consent"
_SPEED, _FIRST_SEGMENT = "speed", "first_segment"
_MODEL_NAME = "model"  # the model that speaks, by its name in the contract; voices are also named mynah-MODEL.ID
_SCHEDULE = "schedule"  # how the audio is cut, by its name in the contract
# and how text is read, by the names and values of HTTP
_TEXT = ("markup", "unspeakable_text", "drop_thinking", "normalize", "emoji", "paragraph_pause_s")
_SWITCHES = ("word_guard", "continuity")
# the model's own, as the contract names them, and NIM's name for one of them
_NIMS_EXAGGERATION = "exaggeration_factor"
_MODEL = {"cfg_weight": "cfg_weight", "exaggeration": "exaggeration", _NIMS_EXAGGERATION: "exaggeration"}
# beside those of sampling
_KEYS = (_CONSENT, _SPEED, _FIRST_SEGMENT, _SCHEDULE, _MODEL_NAME, *_TEXT, *_SWITCHES, *_MODEL)
_SWITCH = {"false": False, "true": True}
_PROMPT = "zero_shot_data.audio_prompt"
# at least; Opus is too small to matter
_BYTES_PER_SAMPLE = {
    riva_audio_pb2.ENCODING_UNSPECIFIED: 2.0,
    riva_audio_pb2.LINEAR_PCM: 2.0,
    riva_audio_pb2.FLAC: 0.5,
    riva_audio_pb2.MULAW: 1.0,
    riva_audio_pb2.ALAW: 1.0,
}
_MAX_RATE_HZ = 48_000
_QUICK_CHARS_PER_S = 25.0  # English is read at about 15
_FIELDS = {
    "voice_id": "voice_name",
    "settings.model": "custom_configuration[model]",
    "settings.sample_rate_hz": "sample_rate_hz",
    "settings.speed": "custom_configuration[speed]",
    "settings.schedule": "custom_configuration[schedule]",
    "settings.language_code": "language_code",
    "settings.cfg_weight": "custom_configuration[cfg_weight]",
    "settings.exaggeration": "custom_configuration[exaggeration]",
    "settings.word_times": "enable_word_time_offsets",
    "settings.word_guard": "custom_configuration[word_guard]",
    "settings.continuity": "custom_configuration[continuity]",
    "text.content": "text",
    "text.dictionary": "custom_dictionary",
    "text.paragraph_pause_s": "custom_configuration[paragraph_pause_s]",
    "text.emoji": "custom_configuration[emoji]",
}


def add_to(
    server: grpc.aio.Server,
    models: Models,
    voices: VoiceStore,
    admission: Admission,
    policy: StreamPolicy,
) -> None:
    """Add the service to a server."""
    riva_tts_pb2_grpc.add_RivaSpeechSynthesisServicer_to_server(RivaService(models, voices, admission, policy), server)


class RivaService:
    """nvidia.riva.tts.RivaSpeechSynthesis; implements its servicer's methods."""

    def __init__(self, models: Models, voices: VoiceStore, admission: Admission, policy: StreamPolicy) -> None:
        self._models = models
        self._voices = voices
        self._admission = admission
        self._policy = policy

    async def Synthesize(self, request: Any, context: Context) -> Any:
        """One text, answered with all its audio."""
        stream_id = new_stream_id()
        origin = origin_of(context, _SURFACE)
        audio, max_bytes = bytearray(), self._policy.max_unary_answer_bytes
        words, spoken = _WordTimings(), list[str]()

        async def collect(**event: Any) -> None:
            words.add(event)
            if "segment_started" in event and event["segment_started"].text:
                spoken.append(event["segment_started"].spoken_text)
            if "audio" in event:
                audio.extend(event["audio"].data)
                if len(audio) > max_bytes:
                    raise _too_long(request, max_bytes)

        async with grpc_errors(context, f"stream {stream_id}"):
            with _rivas_names(request):
                synthesis = speech_pb2.SynthesizeRequest(settings=_settings(request), text=request.text)
                _check_length(request, max_bytes)
                speech_handler = await self._handler(request, origin)
                await speech_handler.synthesize(stream_id, synthesis, collect, origin)
        meta = riva_tts_pb2.SynthesizeSpeechResponseMetadata(
            text=request.text, processed_text=" ".join(spoken), words=words.take()
        )
        return riva_tts_pb2.SynthesizeSpeechResponse(audio=bytes(audio), meta=meta, id=request.id)

    async def SynthesizeOnline(self, requests: AsyncIterator[Any], context: Context) -> None:
        """Speaks each text when it arrives. The first request's settings hold for all."""
        stream_id, origin = new_stream_id(), origin_of(context, _SURFACE)
        async with grpc_errors(context, f"stream {stream_id}"):
            first = await self._first(requests)
            answer = _Answer(CallWriter(context, self._policy.stall_timeout_s), first.id)
            with _rivas_names(first):
                speech_handler = await self._handler(first, origin)
                async with aclosing(_as_stream(first, requests)) as stream:
                    await speech_handler.stream(stream_id, stream, answer.send, origin)

    async def _first(self, requests: AsyncIterator[Any]) -> Any:
        """The first request. Raises DeadlineExceeded, or InvalidInput if the client sends none."""
        try:
            async with asyncio.timeout(self._policy.idle_timeout_s):
                first = await anext(requests, None)
        except TimeoutError:
            allowed = f"{self._policy.idle_timeout_s:g} s"
            message = f"No text was received for {allowed}."
            raise DeadlineExceeded("STREAM_IDLE", message, allowed=allowed) from None
        if first is None:
            message = "The stream ended without a text: send at least one request."
            raise InvalidInput("text", message, "TEXT_EMPTY", value="nothing", allowed="at least one request")
        return first

    async def GetRivaSynthesisConfig(self, request: Any, context: Context) -> Any:
        """The models and their voices, in the form that Riva's clients build names from: voice_name.subvoice."""
        async with grpc_errors(context, "riva config"):
            names = self._models.names
            if request.model_name and request.model_name not in names:
                raise model_not_found(request.model_name, names, "model_name")
            voices, _ = await self._voices.page("", MAX_PAGE_SIZE)
            configs = [
                self._config_of(engine, voices)
                for engine in self._models.engines
                if request.model_name in ("", engine.info.model)
            ]
        return riva_tts_pb2.RivaSynthesisConfigResponse(model_config=configs)

    def _config_of(self, engine: Engine, voices: Sequence[VoiceSummary]) -> Any:
        spoken = [voice.voice_id for voice in voices if self._voices.speaks(voice, engine)]
        parameters = {
            "language_code": ",".join(engine.info.languages_here) or _ENGLISH,
            "voice_name": _FAMILY if engine is self._models.first else f"{_FAMILY}-{engine.info.model}",
            "subvoices": ",".join(f"{voice_id}:{number}" for number, voice_id in enumerate(spoken)),
            "sample_rate": str(engine.info.sample_rate_hz),
        }
        return riva_tts_pb2.RivaSynthesisConfigResponse.Config(model_name=engine.info.model, parameters=parameters)

    async def _handler(self, request: Any, origin: Origin) -> SpeechHandler:
        voices: VoiceSource = VoiceLookup(self._voices)
        if request.HasField("zero_shot_data"):
            voices = await self._prompted(request, origin)
        return SpeechHandler(self._models, voices, self._admission, self._policy)

    async def _prompted(self, request: Any, origin: Origin) -> OneVoice:
        """The voice of a zero-shot prompt. It exists for this call only."""
        if request.custom_configuration.get(_CONSENT) != "true":
            field = f"custom_configuration[{_CONSENT}]"
            message = f"{field} must be true: a prompt may only be used if its speaker agreed."
            value = request.custom_configuration.get(_CONSENT, "")
            raise InvalidInput(field, message, "CONSENT_REQUIRED", value=value, allowed="true")
        engine = self._models.named(_model_and_voice(request)[0])
        prompt = request.zero_shot_data
        if len(prompt.audio_prompt) > self._policy.max_upload_bytes:
            error = too_large("audio", self._policy.max_upload_bytes, f"{len(prompt.audio_prompt)} bytes")
            raise error.named(_PROMPT)
        with self._admission.upload():
            try:
                voice = await engine.make_voice(_as_file(prompt), name="prompt")
            except InvalidInput as error:
                raise error.named(_PROMPT) from None
        audit_voice("voice made for one call", self._admission.authenticator.caller().name, origin, consent=CONSENT)
        return OneVoice(voice)


class _WordTimings:
    """The words of an answer in Riva's form, whose times are milliseconds."""

    def __init__(self) -> None:
        self._rate_hz = SAMPLE_RATE_HZ
        self._words: list[Any] = []

    def add(self, event: dict[str, Any]) -> None:
        if "opened" in event:
            self._rate_hz = event["opened"].settings.sample_rate_hz
        if "words" in event:
            self._words += [
                riva_tts_pb2.WordTiming(
                    word=word.text, start_time=self._ms(word.start_samples), end_time=self._ms(word.end_samples)
                )
                for word in event["words"].words
            ]

    def _ms(self, samples: int) -> int:
        return round(samples * 1000 / self._rate_hz)

    def take(self) -> list[Any]:
        """The words that were not taken before."""
        words, self._words = self._words, []
        return words


class _Answer:
    """The sending side of SynthesizeOnline. Words come in an answer of their own, without audio, behind their chunk."""

    def __init__(self, writer: CallWriter, request_id: Any) -> None:
        self._writer, self._request_id = writer, request_id
        self._text = self._spoken = ""  # of the segment that the next chunk belongs to
        self._words = _WordTimings()

    async def send(self, **event: Any) -> None:
        if "opened" in event:
            await self._writer.open()
        if "segment_started" in event:
            self._text, self._spoken = event["segment_started"].text, event["segment_started"].spoken_text
        self._words.add(event)
        if "audio" not in event and "words" not in event:
            return
        meta = riva_tts_pb2.SynthesizeSpeechResponseMetadata(
            text=self._text, processed_text=self._spoken, words=self._words.take()
        )
        audio = event["audio"].data if "audio" in event else b""
        await self._writer.write(riva_tts_pb2.SynthesizeSpeechResponse(audio=audio, meta=meta, id=self._request_id))


async def _as_stream(first: Any, requests: AsyncIterator[Any]) -> AsyncGenerator[speech_pb2.StreamSpeechRequest, None]:
    """Riva's requests as the contract's messages: open, then a text and a flush for each request."""
    settings = _settings(first)
    yield speech_pb2.StreamSpeechRequest(open=speech_pb2.OpenStream(settings=settings))
    request, flush_id = first, 0
    while request is not None:
        if _settings(request) != settings:
            message = "settings may not change within a stream: repeat those of its first request."
            raise InvalidInput("settings", message, "SETTINGS_CHANGED", allowed="those of the stream's first request")
        flush_id += 1
        yield speech_pb2.StreamSpeechRequest(text=speech_pb2.TextFragment(content=request.text))
        yield speech_pb2.StreamSpeechRequest(flush=speech_pb2.Flush(flush_id=flush_id))
        request = await anext(requests, None)


def _settings(request: Any) -> speech_pb2.SpeechSettings:
    """The settings of a request. Raises InvalidInput for those that this model does not have."""
    if request.encoding not in _FORMATS:
        allowed = ", ".join(riva_audio_pb2.AudioEncoding.Name(number) for number in _FORMATS)
        message = f"encoding is {request.encoding}; it must be one of {allowed}."
        raise InvalidInput("encoding", message, "AUDIO_FORMAT_UNKNOWN", value=request.encoding, allowed=allowed)
    model, voice_id = _model_and_voice(request)
    settings = speech_pb2.SpeechSettings(
        model=model, voice_id=voice_id, audio_format=_FORMATS[request.encoding], sampling=_sampling(request)
    )
    settings.text.CopyFrom(_text_settings(request))
    if request.language_code:
        settings.language_code = request.language_code
    for key, name in _MODEL.items():
        if key in request.custom_configuration:
            reason = f"{name.upper()}_OUT_OF_RANGE"
            setattr(settings, name, _number(key, float, request.custom_configuration[key], reason))
    if _SPEED in request.custom_configuration:
        settings.speed = _number(_SPEED, float, request.custom_configuration[_SPEED], "SPEED_OUT_OF_RANGE")
    first_segment = _one_of(
        _FIRST_SEGMENT, dict(request.custom_configuration), {each.value: each for each in FirstSegment}
    )
    if first_segment is not None:
        settings.first_segment = FIRST_SEGMENT_NUMBERS[first_segment]
    settings.schedule = request.custom_configuration.get(_SCHEDULE, "")
    settings.word_times = request.enable_word_time_offsets
    for name in _SWITCHES:
        chosen = _one_of(name, dict(request.custom_configuration), _SWITCH)
        if chosen is not None:
            setattr(settings, name, chosen)
    if request.sample_rate_hz:
        settings.sample_rate_hz = request.sample_rate_hz
    return settings


def _model_and_voice(request: Any) -> tuple[str, str]:
    """The model, empty for the first one, and the voice's id or name.

    The model stands in custom_configuration, or before the voice: mynah-MODEL.ID. Raises InvalidInput if they differ.
    """
    chosen, voice_id = request.custom_configuration.get(_MODEL_NAME, ""), _voice_id(request)
    family, _, subvoice = request.voice_name.partition(".")
    prefix, _, named = family.partition("-")
    if not (subvoice and named and prefix.lower() == _FAMILY):
        return chosen, voice_id
    if chosen not in ("", named):
        field = f"custom_configuration[{_MODEL_NAME}]"
        message = f"{field} is {quoted(chosen)}; it must be absent or the model of voice_name, {quoted(named)}."
        raise InvalidInput(field, message, "MODEL_TWICE", value=chosen, allowed=named)
    return named, subvoice


def _voice_id(request: Any) -> str:
    """The id in voice_name, with or without the family's name in front."""
    if request.HasField("zero_shot_data"):
        if request.voice_name:
            message = "voice_name must be empty beside zero_shot_data, which is a voice already."
            raise InvalidInput("voice_name", message, "VOICE_TWICE", value=request.voice_name, allowed="none")
        return DEFAULT_VOICE_ID
    family, _, subvoice = request.voice_name.partition(".")
    name = subvoice if subvoice and family.lower() == _FAMILY else request.voice_name
    return str(name) or DEFAULT_VOICE_ID


def _sampling(request: Any) -> speech_pb2.Sampling:
    sampling = speech_pb2.Sampling()
    for key, text in request.custom_configuration.items():
        if key in _KEYS:
            continue
        field = f"custom_configuration[{shown(key)}]"
        if key not in _SAMPLING:
            allowed = ", ".join([*_KEYS, *_SAMPLING])
            message = f"{field} is unknown; custom_configuration may hold {allowed}."
            raise InvalidInput(field, message, "CONFIGURATION_UNKNOWN", value=text, allowed=allowed)
        value = _number(key, _SAMPLING[key], text, "SAMPLING_OUT_OF_RANGE")
        try:
            setattr(sampling, key, value)
        except ValueError:  # a number out of the field's range
            raise _no_number(key, _SAMPLING[key], text, "SAMPLING_OUT_OF_RANGE") from None
    return sampling


def _number(key: str, kind: type, text: str, reason: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise _no_number(key, kind, text, reason) from None


def _no_number(key: str, kind: type, text: str, reason: str) -> InvalidInput:
    field, allowed = f"custom_configuration[{key}]", "a whole number" if kind is int else "a number"
    return InvalidInput(field, f"{field} is {quoted(text)}; it must be {allowed}.", reason, value=text, allowed=allowed)


def _text_settings(request: Any) -> speech_pb2.TextSettings:
    given = {key: text for key, text in request.custom_configuration.items() if key in _TEXT}
    return text_settings(
        markup=_one_of("markup", given, {each.value: each for each in Markup}),
        unspeakable_text=_one_of("unspeakable_text", given, {each.value: each for each in UnspeakableText}),
        drop_thinking=_one_of("drop_thinking", given, _SWITCH),
        normalize=_one_of("normalize", given, _SWITCH),
        emoji=_one_of("emoji", given, {each.value: each for each in Emoji}),
        paragraph_pause_s=_seconds("paragraph_pause_s", given),
        dictionary=tuple(_entries(request.custom_dictionary)),
    )


def _seconds(key: str, given: dict[str, str]) -> float | None:
    if key not in given:
        return None
    try:
        return float(given[key])
    except ValueError:
        field, allowed = f"custom_configuration[{key}]", "a number of seconds"
        message = f"{field} is {quoted(given[key])}; it must be {allowed}."
        raise InvalidInput(field, message, "PAUSE_TOO_LONG", value=given[key], allowed=allowed) from None


def _entries(custom_dictionary: str) -> Iterator[Entry]:
    """Riva's form: word and pronunciation with two spaces between them, and commas between entries."""
    for part in custom_dictionary.split(",") if custom_dictionary else ():
        word, _, respelling = (each.strip() for each in part.strip().partition("  "))
        if not respelling:
            allowed = "word and respelling with two spaces between them, and commas between entries"
            message = f"custom_dictionary has {quoted(part)}; it must be {allowed}."
            raise InvalidInput("custom_dictionary", message, "DICTIONARY_ENTRY_INVALID", value=part, allowed=allowed)
        yield Entry(word, respelling)


def _one_of(key: str, given: dict[str, str], choices: dict[str, T]) -> T | None:
    """Returns the choice of `key`, or None if none is given."""
    if key not in given:
        return None
    if (value := given[key]) not in choices:
        field, allowed = f"custom_configuration[{key}]", ", ".join(choices)
        message = f"{field} is {quoted(value)}; it must be one of {allowed}."
        raise InvalidInput(field, message, f"{key.upper()}_UNKNOWN", value=value, allowed=allowed)
    return choices[value]


def _as_file(prompt: Any) -> bytes:
    """The prompt as an audio file: bare samples get a WAV header, files stay as they are."""
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


def _check_length(request: Any, max_bytes: int) -> None:
    """Raises InvalidInput if quick speech of the text would already be longer than one answer may be."""
    rate_hz = request.sample_rate_hz or SAMPLE_RATE_HZ
    if rate_hz > _MAX_RATE_HZ:
        return  # the rate is what is wrong, and is refused by its own name
    bytes_per_s = _BYTES_PER_SAMPLE.get(request.encoding, 0.0) * rate_hz
    if len(request.text.strip()) / _QUICK_CHARS_PER_S * bytes_per_s > max_bytes:
        raise _too_long(request, max_bytes)


def _too_long(request: Any, max_bytes: int) -> InvalidInput:
    length = f"{len(request.text)} chars"
    allowed = f"a text whose audio has at most {max_bytes} bytes"
    message = f"text has {length}, too many for one answer, which may have {max_bytes} bytes; use SynthesizeOnline."
    return InvalidInput("text", message, "TEXT_TOO_LONG", value=length, allowed=allowed)


@contextmanager
def _rivas_names(request: Any) -> Iterator[None]:
    """Inside, errors name fields as Riva's messages do, and as this request does where there are several names."""
    names = _FIELDS.copy()
    if _NIMS_EXAGGERATION in request.custom_configuration:
        names["settings.exaggeration"] = f"custom_configuration[{_NIMS_EXAGGERATION}]"
    if _MODEL_NAME not in request.custom_configuration:
        names["settings.model"] = "voice_name"
    try:
        yield
    except InvalidInput as error:
        if (name := _rivas_name(error.field, names)) != error.field:
            raise error.named(name) from None
        raise
    except RequestError as error:
        error.field = _rivas_name(error.field, names)
        raise


def _rivas_name(field: str, names: dict[str, str]) -> str:
    """The name of a field of the contract."""
    name = "sampling.max_speech_token_count" if field == "sampling.max_speech_tokens" else field
    key = name.removeprefix("sampling.")
    return f"custom_configuration[{key}]" if key != name else names.get(name, name)
