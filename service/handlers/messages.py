"""The contract's messages of settings, limits, server and voices, to and from the service's values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any, TypeVar

from engines.api import Engine, EngineInfo
from engines.errors import InvalidInput
from engines.text.dictionary import Entry
from engines.text.languages import ENGLISH
from engines.time_scale import check_speed
from engines.voice_report import VoiceReport
from mynah.v1 import speech_pb2, voices_pb2
from service.audio.formats import SAMPLE_RATES_HZ, AudioFormat, AudioSettings
from service.handlers.model_settings import add_model_defaults, add_model_settings, language_of, sampling_of
from service.stream.early_end import FirstSegment
from service.stream.policy import StreamPolicy
from service.stream.session import split_chars
from service.stream.settings import Emoji, Markup, StreamSettings, TextSettings, UnspeakableText
from service.stream.text.dictionaries import with_request
from service.stream.text.ssml import ELEMENTS
from service.voices.ids import DEFAULT_VOICE_ID
from service.voices.store import VoiceSource
from service.voices.stored_voice import VoiceSummary

_NORMALIZED_LANGUAGES = ("en",)

_FORMAT_NUMBERS: dict[AudioFormat, speech_pb2.AudioFormat] = {
    each: getattr(speech_pb2, f"AUDIO_FORMAT_{each.name}") for each in AudioFormat
}
MARKUP_NUMBERS: dict[Markup, speech_pb2.Markup] = {each: getattr(speech_pb2, f"MARKUP_{each.name}") for each in Markup}
UNSPEAKABLE_TEXT_NUMBERS: dict[UnspeakableText, speech_pb2.UnspeakableText] = {
    each: getattr(speech_pb2, f"UNSPEAKABLE_TEXT_{each.name}") for each in UnspeakableText
}
EMOJI_NUMBERS: dict[Emoji, speech_pb2.Emoji] = {each: getattr(speech_pb2, f"EMOJI_{each.name}") for each in Emoji}
_EMOJI: dict[int, Emoji] = {number: each for each, number in EMOJI_NUMBERS.items()}
_MARKUPS: dict[int, Markup] = {number: each for each, number in MARKUP_NUMBERS.items()}
_UNSPEAKABLE: dict[int, UnspeakableText] = {number: each for each, number in UNSPEAKABLE_TEXT_NUMBERS.items()}
FIRST_SEGMENT_NUMBERS: dict[FirstSegment, speech_pb2.FirstSegment] = {
    each: getattr(speech_pb2, f"FIRST_SEGMENT_{each.name}") for each in FirstSegment
}
_FIRST_SEGMENTS: dict[int, FirstSegment] = {0: FirstSegment.AUTO} | {
    number: each for each, number in FIRST_SEGMENT_NUMBERS.items()
}
E = TypeVar("E", bound=Enum)
_FORMATS: dict[int, AudioFormat] = {number: name for name, number in _FORMAT_NUMBERS.items()}
_FORMATS[speech_pb2.AUDIO_FORMAT_UNSPECIFIED] = AudioFormat.PCM_S16LE


async def stream_settings(
    message: speech_pb2.SpeechSettings, voices: VoiceSource, engine: Engine, policy: StreamPolicy
) -> StreamSettings:
    """The settings that a client asks of an engine, defaults filled in. Raises InvalidInput, and as `voices.get`."""
    info = engine.info
    audio_format = _audio_format(message.audio_format)
    rate_hz = message.sample_rate_hz if message.HasField("sample_rate_hz") else audio_format.default_rate_hz
    audio = AudioSettings(audio_format, rate_hz)
    sampling, language = sampling_of(message, info), language_of(message, info)
    voice_id = message.voice_id if message.HasField("voice_id") else DEFAULT_VOICE_ID
    text = _text_settings(message.text, policy.text, language)
    for field, reason in (("word_times", "WORD_TIMES_UNAVAILABLE"), ("word_guard", "WORD_GUARD_UNAVAILABLE")):
        if getattr(message, field) and not info.word_times:
            why = f"settings.{field} is true; it must be false or absent here. {info.word_times_notice}"
            raise InvalidInput(f"settings.{field}", why, reason, value="true", allowed="false")
    if message.continuity and not info.continuity:
        why = "settings.continuity is true; it must be false or absent here, where T3 takes no context."
        raise InvalidInput("settings.continuity", why, "CONTINUITY_UNAVAILABLE", value="true", allowed="false")
    guarded = message.word_guard if message.HasField("word_guard") else policy.word_guard and info.word_times
    speed = check_speed(message.speed) if message.HasField("speed") else 1.0
    first_segment = _choice("first_segment", message.first_segment, _FIRST_SEGMENTS, speech_pb2.FirstSegment)
    stored = await voices.get(voice_id, engine)
    text = replace(text, dictionary=with_request(text.dictionary.entries, policy.dictionary(stored.voice_id)))
    return StreamSettings(
        stored.voice_id,
        stored.voice,
        audio,
        sampling,
        text,
        speed,
        first_segment,
        message.word_times,
        guarded,
        message.continuity,
        language,
    )


def _text_settings(message: speech_pb2.TextSettings, defaults: TextSettings, language: str) -> TextSettings:
    if language != ENGLISH:
        if _EMOJI.get(message.emoji) is Emoji.NAME:
            text = f"text.emoji asks for names, which are English, and the language is {language}; it must be dropped."
            raise InvalidInput("text.emoji", text, "EMOJI_UNSUPPORTED", value="EMOJI_NAME", allowed="EMOJI_DROP")
        defaults = replace(defaults, emoji=Emoji.DROP)
    markups, unspeakable = _MARKUPS | {0: defaults.markup}, _UNSPEAKABLE | {0: defaults.unspeakable_text}
    return TextSettings(
        _choice("text.markup", message.markup, markups, speech_pb2.Markup),
        _choice("text.unspeakable_text", message.unspeakable_text, unspeakable, speech_pb2.UnspeakableText),
        message.drop_thinking if message.HasField("drop_thinking") else defaults.drop_thinking,
        message.normalize if message.HasField("normalize") else defaults.normalize,
        _choice("text.emoji", message.emoji, _EMOJI | {0: defaults.emoji}, speech_pb2.Emoji),
        message.paragraph_pause_s if message.HasField("paragraph_pause_s") else defaults.paragraph_pause_s,
        with_request(tuple(Entry(each.word, each.respelling, each.case_sensitive) for each in message.dictionary)),
    )


def _choice(field: str, number: int, choices: dict[int, E], enum: Any) -> E:
    """Returns the value of an enum's number. Raises InvalidInput for a number of a newer client."""
    if number not in choices:
        reason, allowed = f"{field.removeprefix('text.').upper()}_UNKNOWN", ", ".join(enum.keys())
        message = f"settings.{field} is {number}; it must be one of {allowed}."
        raise InvalidInput(f"settings.{field}", message, reason, value=number, allowed=allowed)
    return choices[number]


def text_settings(
    *,
    markup: Markup | None = None,
    unspeakable_text: UnspeakableText | None = None,
    drop_thinking: bool | None = None,
    normalize: bool | None = None,
    emoji: Emoji | None = None,
    paragraph_pause_s: float | None = None,
    dictionary: tuple[Entry, ...] = (),
) -> speech_pb2.TextSettings:
    """The message; the server's default applies to what is None."""
    message = speech_pb2.TextSettings()
    if drop_thinking is not None:
        message.drop_thinking = drop_thinking
    if normalize is not None:
        message.normalize = normalize
    if paragraph_pause_s is not None:
        message.paragraph_pause_s = paragraph_pause_s
    if markup is not None:
        message.markup = MARKUP_NUMBERS[markup]
    if unspeakable_text is not None:
        message.unspeakable_text = UNSPEAKABLE_TEXT_NUMBERS[unspeakable_text]
    if emoji is not None:
        message.emoji = EMOJI_NUMBERS[emoji]
    for entry in dictionary:
        message.dictionary.add(word=entry.word, respelling=entry.respelling, case_sensitive=entry.case_sensitive)
    return message


def format_number(audio_format: AudioFormat) -> speech_pb2.AudioFormat:
    return _FORMAT_NUMBERS[audio_format]


def _audio_format(number: int) -> AudioFormat:
    if number not in _FORMATS:
        allowed = ", ".join(speech_pb2.AudioFormat.keys())
        message = f"settings.audio_format is {number}, which is not an AudioFormat; it must be one of {allowed}."
        raise InvalidInput("settings.audio_format", message, "AUDIO_FORMAT_UNKNOWN", value=number, allowed=allowed)
    return _FORMATS[number]


def limits(info: EngineInfo, policy: StreamPolicy, language: str) -> speech_pb2.Limits:
    """The limits of a stream in this language."""
    return speech_pb2.Limits(
        max_pending_text_char_count=policy.max_pending_text_chars,
        max_segment_text_char_count=info.limits.max_text_chars_per_segment,
        max_segment_text_token_count=info.limits.max_text_tokens_per_segment,
        split_segment_text_char_count=split_chars(info.limits, language),
        max_segment_speech_token_count=info.limits.max_speech_tokens_per_segment,
        max_pending_flush_count=policy.max_pending_flushes,
        max_open_stream_count=info.limits.max_streams,
        max_upload_byte_count=policy.max_upload_bytes,
        idle_timeout_s=policy.idle_timeout_s,
        stall_timeout_s=policy.stall_timeout_s,
    )


def opened(stream_id: str, settings: StreamSettings, info: EngineInfo, policy: StreamPolicy) -> speech_pb2.StreamOpened:
    resolved = speech_pb2.SpeechSettings(
        voice_id=settings.voice_id,
        audio_format=_FORMAT_NUMBERS[settings.audio.audio_format],
        sample_rate_hz=settings.audio.sample_rate_hz,
        text=text_settings(
            markup=settings.text.markup,
            unspeakable_text=settings.text.unspeakable_text,
            drop_thinking=settings.text.drop_thinking,
            normalize=settings.text.normalize,
            emoji=settings.text.emoji,
            paragraph_pause_s=settings.text.paragraph_pause_s,
        ),
        speed=settings.speed,
        first_segment=FIRST_SEGMENT_NUMBERS[settings.used_first_segment],
        schedule=settings.sampling.schedule,
        word_times=settings.word_times,
        word_guard=settings.word_guard,
        continuity=settings.continuity,
        model=info.model,
    )
    add_model_settings(resolved, settings.language, settings.sampling, info)
    return speech_pb2.StreamOpened(
        stream_id=stream_id,
        settings=resolved,
        limits=limits(info, policy, settings.language),
        model=info.model,
        notice=info.notice,
        tags=info.tags,
        schedule=settings.sampling.schedule,
        dictionary_entry_count=settings.text.dictionary.entry_count,
    )


def server_info(
    models: Sequence[EngineInfo], policy: StreamPolicy, version: str, open_streams: int
) -> speech_pb2.GetServerInfoResponse:
    """What the server says of itself and of its models, the first of which stands for all in the older fields."""
    info = models[0]
    message = speech_pb2.GetServerInfoResponse(
        version=version,
        model=info.model,
        device=info.device,
        t3_runtime=info.t3_runtime,
        s3gen_runtime=info.s3gen_runtime,
        random_weights=info.random_weights,
        notice=info.notice,
        native_sample_rate_hz=info.sample_rate_hz,
        sample_rates_hz=SAMPLE_RATES_HZ,
        audio_formats=list(_FORMAT_NUMBERS.values()),
        limits=limits(info, policy, info.default_language),
        open_stream_count=open_streams,
        tags=info.tags,
        decode=info.decode,
        setting_reason=info.setting_reason,
        load=info.load,
        normalized_languages=_NORMALIZED_LANGUAGES,
        ssml_elements=ELEMENTS,
        word_times=info.word_times,
        word_times_notice=info.word_times_notice,
        continuity=info.continuity,
        models=(_model(each, policy) for each in models),
    )
    add_model_defaults(message, info)
    return message


def _model(info: EngineInfo, policy: StreamPolicy) -> speech_pb2.ModelInfo:
    message = speech_pb2.ModelInfo(
        name=info.model,
        t3_runtime=info.t3_runtime,
        s3gen_runtime=info.s3gen_runtime,
        decode=info.decode,
        random_weights=info.random_weights,
        notice=info.notice,
        tags=info.tags,
        word_times=info.word_times,
        word_times_notice=info.word_times_notice,
        continuity=info.continuity,
        limits=limits(info, policy, info.default_language),
    )
    add_model_defaults(message, info)
    return message


def voice(stored: VoiceSummary, kept: bool) -> voices_pb2.Voice:
    """`kept`: whether stored voices are still there after a restart; built-in ones always are."""
    message = voices_pb2.Voice(
        voice_id=stored.voice_id,
        name=stored.name,
        built_in=stored.built_in,
        reference_s=stored.reference_s,
        kept=kept or stored.built_in,
        recording_kept=bool(stored.recording),
    )
    if stored.created is not None:
        message.create_time.FromDatetime(stored.created)
    if stored.report is not None:
        _add_report(message, stored.report)
    return message


def _add_report(message: voices_pb2.Voice, report: VoiceReport) -> None:
    message.used_from_s = report.used_from_s
    message.used_s = report.used_s
    message.speech_share = report.speech_share
    message.speech_to_noise_db = report.speech_to_noise_db
    for warning in report.warnings:
        message.warnings.add(reason=warning.reason, message=warning.message)
    if report.similarity is not None:
        message.similarity = report.similarity
    message.similarity_skipped = report.similarity_skipped
