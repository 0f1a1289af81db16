"""The translation between protobuf messages and the client's values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any, cast, get_args

from google.protobuf.message import Message

from mynah.client import events
from mynah.client.errors import InvalidArgument, quoted
from mynah.client.settings import (
    AUDIO_FORMATS,
    AudioFormat,
    DictionaryEntry,
    Emoji,
    FirstSegment,
    Markup,
    Sampling,
    Schedule,
    SpeechSettings,
    TextSettings,
    UnspeakableText,
)
from mynah.v1 import speech_pb2, voices_pb2

_FORMATS: dict[AudioFormat, speech_pb2.AudioFormat] = {
    name: getattr(speech_pb2, f"AUDIO_FORMAT_{name.upper()}") for name in AUDIO_FORMATS
}
_MARKUPS = {name: getattr(speech_pb2, f"MARKUP_{name.upper()}") for name in get_args(Markup)}
_EMOJI = {name: getattr(speech_pb2, f"EMOJI_{name.upper()}") for name in get_args(Emoji)}
_UNSPEAKABLE = {name: getattr(speech_pb2, f"UNSPEAKABLE_TEXT_{name.upper()}") for name in get_args(UnspeakableText)}
_FIRST_SEGMENTS = {name: getattr(speech_pb2, f"FIRST_SEGMENT_{name.upper()}") for name in get_args(FirstSegment)}
_END_REASONS = {name: getattr(speech_pb2, f"END_REASON_{name.upper()}") for name in get_args(events.EndReason)}
_SKIP_REASONS = {name: getattr(speech_pb2, f"SKIP_REASON_{name.upper()}") for name in get_args(events.SkipReason)}
_WORD_FAULTS = {name: getattr(speech_pb2, f"WORD_FAULT_{name.upper()}") for name in get_args(events.WordFault)}
_WORD_GUARD_ACTIONS = {
    name: getattr(speech_pb2, f"WORD_GUARD_ACTION_{name.upper()}") for name in get_args(events.WordGuardAction)
}
_FORMAT_NAMES = {number: name for name, number in _FORMATS.items()}


def settings_to_wire(settings: SpeechSettings) -> speech_pb2.SpeechSettings:
    """Returns the message; a field whose value is None is absent, so that the server's default applies.

    Raises InvalidArgument for an unknown format or a value that protobuf cannot encode. The server checks the ranges.
    """
    message = speech_pb2.SpeechSettings()
    _set(message, "voice_id", settings.voice, "voice")
    _set(message, "sample_rate_hz", settings.sample_rate_hz)
    if settings.audio_format is not None:
        message.audio_format = _format_number(settings.audio_format)
    sampling = settings.sampling
    for name in ("temperature", "top_k", "top_p", "repetition_penalty", "min_p", "seed"):
        _set(message.sampling, name, getattr(sampling, name))
    _set(message.sampling, "max_speech_token_count", sampling.max_speech_tokens, "max_speech_tokens")
    _set(message, "speed", settings.speed)
    if settings.first_segment is not None:
        number = _number(_FIRST_SEGMENTS, "first_segment", settings.first_segment, "FIRST_SEGMENT_UNKNOWN")
        message.first_segment = number
    _set(message, "word_times", settings.word_times)
    _set(message, "word_guard", settings.word_guard)
    _set(message, "continuity", settings.continuity)
    if settings.text != TextSettings():
        message.text.CopyFrom(_text_settings_to_wire(settings.text))
    _set(message, "schedule", settings.schedule)
    _set(message, "language_code", settings.language, "language")
    _set(message, "cfg_weight", settings.cfg_weight)
    _set(message, "exaggeration", settings.exaggeration)
    _set(message, "model", settings.model)
    return message


def _text_settings_to_wire(text: TextSettings) -> speech_pb2.TextSettings:
    message = speech_pb2.TextSettings()
    _set(message, "drop_thinking", text.drop_thinking)
    if text.markup is not None:
        message.markup = _number(_MARKUPS, "markup", text.markup, "MARKUP_UNKNOWN")
    if text.unspeakable_text is not None:
        number = _number(_UNSPEAKABLE, "unspeakable_text", text.unspeakable_text, "UNSPEAKABLE_TEXT_UNKNOWN")
        message.unspeakable_text = number
    _set(message, "normalize", text.normalize)
    _set(message, "paragraph_pause_s", text.paragraph_pause_s)
    if text.emoji is not None:
        message.emoji = _number(_EMOJI, "emoji", text.emoji, "EMOJI_UNKNOWN")
    for entry in text.dictionary:
        added = message.dictionary.add()
        _set(added, "word", entry.word)
        _set(added, "respelling", entry.respelling)
        added.case_sensitive = entry.case_sensitive
    return message


def _number(numbers: dict[Any, Any], field: str, name: str, reason: str) -> Any:
    if name not in numbers:
        allowed = ", ".join(numbers)
        message = f"{field} is {quoted(name)}; it must be one of {allowed}."
        raise InvalidArgument(message, reason=reason, field=field, value=quoted(name), allowed=allowed)
    return numbers[name]


def _format_number(name: AudioFormat) -> speech_pb2.AudioFormat:
    number: speech_pb2.AudioFormat = _number(_FORMATS, "audio_format", name, "AUDIO_FORMAT_UNKNOWN")
    return number


def _set(message: Message, name: str, value: object, argument: str = "") -> None:
    """`argument`: what the client calls the field, if that is another name."""
    if value is None:
        return
    try:
        setattr(message, name, value)
    except (ValueError, TypeError, OverflowError) as error:
        field = argument or name
        problem = f"{field} is {quoted(value)}, which cannot be sent: {error}."
        raise InvalidArgument(problem, reason="VALUE_UNSENDABLE", field=field, value=quoted(value)) from None


def text_to_wire(text: str) -> speech_pb2.TextFragment:
    """Raises InvalidArgument for text with lone surrogates, which is not Unicode."""
    fragment = speech_pb2.TextFragment()
    _set(fragment, "content", text)
    return fragment


def speed_to_wire(speed: float) -> speech_pb2.SetSpeed:
    """Raises InvalidArgument if `speed` is not a number."""
    message = speech_pb2.SetSpeed()
    _set(message, "speed", speed)
    return message


def opened_from_wire(opened: speech_pb2.StreamOpened) -> events.StreamOpened:
    settings = opened.settings
    sampling = _sampling_from_wire(settings.sampling)
    audio_format = _FORMAT_NAMES[settings.audio_format]
    text = _text_settings_from_wire(settings.text)
    speed = settings.speed if settings.HasField("speed") else None  # of a server older than the field
    first_segment = {number: name for name, number in _FIRST_SEGMENTS.items()}.get(settings.first_segment)
    schedule = cast(Schedule | None, opened.schedule or None)
    resolved = SpeechSettings(
        settings.voice_id,
        audio_format,
        settings.sample_rate_hz,
        sampling,
        text,
        speed,
        first_segment,
        schedule,
        word_times=settings.word_times,
        word_guard=settings.word_guard,
        continuity=settings.continuity,
        language=_optional(settings, "language_code"),
        cfg_weight=_optional(settings, "cfg_weight"),
        exaggeration=_optional(settings, "exaggeration"),
        model=opened.model,
    )
    limits = limits_from_wire(opened.limits)
    return events.StreamOpened(
        opened.stream_id,
        resolved,
        limits,
        opened.model,
        opened.notice,
        tuple(opened.tags),
        schedule,
        opened.dictionary_entry_count,
    )


def _sampling_from_wire(sampling: speech_pb2.Sampling) -> Sampling:
    """Returns the server's choice; None for what the model does not have and for what an older server does not say."""
    return Sampling(
        temperature=_optional(sampling, "temperature"),
        top_k=_optional(sampling, "top_k"),
        top_p=_optional(sampling, "top_p"),
        repetition_penalty=_optional(sampling, "repetition_penalty"),
        seed=_optional(sampling, "seed"),
        max_speech_tokens=_optional(sampling, "max_speech_token_count"),
        min_p=_optional(sampling, "min_p"),
    )


def _optional(message: Message, name: str) -> Any:
    """The value of an optional field; None if it is absent."""
    return getattr(message, name) if message.HasField(name) else None


def _text_settings_from_wire(text: speech_pb2.TextSettings) -> TextSettings:
    """Returns the server's choice; None for what an older server does not say."""
    markup = {number: name for name, number in _MARKUPS.items()}.get(text.markup)
    unspeakable_text = {number: name for name, number in _UNSPEAKABLE.items()}.get(text.unspeakable_text)
    return TextSettings(
        markup,
        unspeakable_text,
        text.drop_thinking,
        normalize=text.normalize if text.HasField("normalize") else None,
        emoji={number: name for name, number in _EMOJI.items()}.get(text.emoji),
        paragraph_pause_s=text.paragraph_pause_s if text.HasField("paragraph_pause_s") else None,
        dictionary=tuple(
            DictionaryEntry(entry.word, entry.respelling, entry.case_sensitive) for entry in text.dictionary
        ),
    )


def limits_from_wire(limits: speech_pb2.Limits) -> events.Limits:
    return events.Limits(
        max_pending_text_chars=limits.max_pending_text_char_count,
        max_segment_text_chars=limits.max_segment_text_char_count,
        max_segment_speech_tokens=limits.max_segment_speech_token_count,
        max_pending_flushes=limits.max_pending_flush_count,
        max_open_streams=limits.max_open_stream_count,
        max_upload_bytes=limits.max_upload_byte_count,
        idle_timeout_s=limits.idle_timeout_s,
        stall_timeout_s=limits.stall_timeout_s,
        max_segment_text_tokens=limits.max_segment_text_token_count,
        split_segment_text_chars=limits.split_segment_text_char_count,
    )


def event_from_wire(
    message: speech_pb2.StreamSpeechResponse | speech_pb2.SynthesizeResponse,
) -> events.Event | None:
    """Returns the event in a message, or None for an event of a newer server."""
    kind = message.WhichOneof("event")
    if kind == "audio":
        return _audio(message.audio)
    if kind == "words":
        return events.Words(message.words.segment_index, _words(message.words.words))
    if kind == "segment_started":
        return _started(message.segment_started)
    if kind == "segment_done":
        return _done(message.segment_done)
    if kind == "mark_reached":
        return events.MarkReached(message.mark_reached.name, message.mark_reached.offset_samples)
    if isinstance(message, speech_pb2.StreamSpeechResponse) and kind == "flushed":
        return events.Flushed(message.flushed.flush_id, message.flushed.offset_samples)
    if isinstance(message, speech_pb2.StreamSpeechResponse) and kind == "cancelled":
        return _cancelled(message.cancelled)
    return None


def _audio(chunk: speech_pb2.AudioChunk) -> events.AudioChunk:
    return events.AudioChunk(
        sequence_number=chunk.sequence_number,
        segment_index=chunk.segment_index,
        offset_samples=chunk.offset_samples,
        samples=chunk.sample_count,
        data=chunk.data,
        window=_window(chunk.window) if chunk.HasField("window") else None,
    )


def _words(words: Iterable[speech_pb2.WordTime]) -> tuple[events.WordTime, ...]:
    return tuple(
        events.WordTime(
            text=word.text,
            start_char=word.start_char_index,
            end_char=word.end_char_index,
            start_samples=word.start_samples,
            end_samples=word.end_samples,
            spoken_text=word.spoken_text,
        )
        for word in words
    )


def _word_guard(guard: speech_pb2.WordGuard) -> events.WordGuard:
    return events.WordGuard(
        fault=_name(_WORD_FAULTS, guard.fault),
        action=_name(_WORD_GUARD_ACTIONS, guard.action),
        retries=guard.retry_count,
        spoken_chars=guard.spoken_char_count,
    )


def _window(window: speech_pb2.WindowFigures) -> events.WindowFigures:
    return events.WindowFigures(
        window_index=window.window_index,
        new_speech_tokens=window.new_speech_token_count,
        made_speech_tokens=window.made_speech_token_count,
        queue_s=window.queue_s,
        decode_s=window.decode_s,
    )


def _started(started: speech_pb2.SegmentStarted) -> events.SegmentStarted:
    return events.SegmentStarted(
        segment_index=started.segment_index,
        offset_samples=started.offset_samples,
        text=started.text,
        text_tokens=started.text_token_count,
        consumed_text_chars=started.consumed_text_char_count,
        spoken_text=started.spoken_text,
        spoken_spans=tuple(
            events.SpokenSpan(
                span.spoken_start_index, span.spoken_end_index, span.written_start_index, span.written_end_index
            )
            for span in started.spoken_spans
        ),
        pause_s=started.pause_s,
        speed=started.speed or 1.0,  # 0: of a server older than the field
    )


def _done(done: speech_pb2.SegmentDone) -> events.SegmentDone:
    return events.SegmentDone(
        segment_index=done.segment_index,
        offset_samples=done.offset_samples,
        samples=done.sample_count,
        skipped=done.skipped,
        hit_token_limit=done.hit_token_limit,
        speech_tokens=done.speech_token_count,
        windows=done.window_count,
        ttfa_s=done.ttfa_s,
        t3_s=done.t3_s,
        s3gen_s=done.s3gen_s,
        max_gap_s=done.max_gap_s,
        min_buffer_s=done.min_buffer_s if done.HasField("min_buffer_s") else None,
        underruns=done.underrun_count,
        underrun_s=done.underrun_s,
        consumed_text_chars=done.consumed_text_char_count,
        end_reason=_name(_END_REASONS, done.end_reason),
        skip_reason=_name(_SKIP_REASONS, done.skip_reason),
        pause=done.pause,
        word_guard=_word_guard(done.word_guard) if done.HasField("word_guard") else None,
    )


def _name(numbers: dict[Any, Any], number: int) -> Any:
    """Returns a value's name, or "unspecified" for one of a newer server."""
    return next((name for name, known in numbers.items() if known == number), "unspecified")


def _cancelled(cancelled: speech_pb2.Cancelled) -> events.Cancelled:
    return events.Cancelled(
        made_samples=cancelled.made_sample_count,
        delivered_samples=cancelled.delivered_sample_count,
        segment_index=cancelled.segment_index if cancelled.HasField("segment_index") else None,
        dropped_flush_ids=tuple(cancelled.dropped_flush_ids),
        consumed_text_chars=cancelled.consumed_text_char_count,
        words=_words(cancelled.words),
    )


def event_to_wire(event: events.Event) -> dict[str, Message]:
    """The field of a response's `event` and its message, as keyword arguments of the response's class."""
    match event:
        case events.AudioChunk():
            return {"audio": _audio_to_wire(event)}
        case events.Words():
            return {"words": speech_pb2.Words(segment_index=event.segment_index, words=_words_to_wire(event.words))}
        case events.SegmentStarted():
            return {"segment_started": _started_to_wire(event)}
        case events.SegmentDone():
            return {"segment_done": _done_to_wire(event)}
        case events.MarkReached():
            return {"mark_reached": speech_pb2.MarkReached(name=event.name, offset_samples=event.offset_samples)}
        case events.Flushed():
            return {"flushed": speech_pb2.Flushed(flush_id=event.flush_id, offset_samples=event.offset_samples)}
        case events.Cancelled():
            return {"cancelled": _cancelled_to_wire(event)}


def _audio_to_wire(chunk: events.AudioChunk) -> speech_pb2.AudioChunk:
    return speech_pb2.AudioChunk(
        sequence_number=chunk.sequence_number,
        segment_index=chunk.segment_index,
        offset_samples=chunk.offset_samples,
        sample_count=chunk.samples,
        data=chunk.data,
        window=None if chunk.window is None else _window_to_wire(chunk.window),
    )


def _window_to_wire(window: events.WindowFigures) -> speech_pb2.WindowFigures:
    return speech_pb2.WindowFigures(
        window_index=window.window_index,
        new_speech_token_count=window.new_speech_tokens,
        made_speech_token_count=window.made_speech_tokens,
        queue_s=window.queue_s,
        decode_s=window.decode_s,
    )


def _words_to_wire(words: Iterable[events.WordTime]) -> list[speech_pb2.WordTime]:
    return [
        speech_pb2.WordTime(
            text=word.text,
            start_char_index=word.start_char,
            end_char_index=word.end_char,
            start_samples=word.start_samples,
            end_samples=word.end_samples,
            spoken_text=word.spoken_text,
        )
        for word in words
    ]


def _word_guard_to_wire(guard: events.WordGuard) -> speech_pb2.WordGuard:
    return speech_pb2.WordGuard(
        fault=_WORD_FAULTS[guard.fault],
        action=_WORD_GUARD_ACTIONS[guard.action],
        retry_count=guard.retries,
        spoken_char_count=guard.spoken_chars,
    )


def _started_to_wire(started: events.SegmentStarted) -> speech_pb2.SegmentStarted:
    return speech_pb2.SegmentStarted(
        segment_index=started.segment_index,
        offset_samples=started.offset_samples,
        text=started.text,
        text_token_count=started.text_tokens,
        consumed_text_char_count=started.consumed_text_chars,
        spoken_text=started.spoken_text,
        spoken_spans=[
            speech_pb2.SpokenSpan(
                spoken_start_index=span.spoken_start,
                spoken_end_index=span.spoken_end,
                written_start_index=span.written_start,
                written_end_index=span.written_end,
            )
            for span in started.spoken_spans
        ],
        pause_s=started.pause_s,
        speed=started.speed,
    )


def _done_to_wire(done: events.SegmentDone) -> speech_pb2.SegmentDone:
    return speech_pb2.SegmentDone(
        segment_index=done.segment_index,
        offset_samples=done.offset_samples,
        sample_count=done.samples,
        skipped=done.skipped,
        hit_token_limit=done.hit_token_limit,
        speech_token_count=done.speech_tokens,
        window_count=done.windows,
        ttfa_s=done.ttfa_s,
        t3_s=done.t3_s,
        s3gen_s=done.s3gen_s,
        max_gap_s=done.max_gap_s,
        min_buffer_s=done.min_buffer_s,
        underrun_count=done.underruns,
        underrun_s=done.underrun_s,
        consumed_text_char_count=done.consumed_text_chars,
        end_reason=_END_REASONS[done.end_reason],
        skip_reason=_SKIP_REASONS[done.skip_reason],
        pause=done.pause,
        word_guard=None if done.word_guard is None else _word_guard_to_wire(done.word_guard),
    )


def _cancelled_to_wire(cancelled: events.Cancelled) -> speech_pb2.Cancelled:
    return speech_pb2.Cancelled(
        made_sample_count=cancelled.made_samples,
        delivered_sample_count=cancelled.delivered_samples,
        segment_index=cancelled.segment_index,
        dropped_flush_ids=cancelled.dropped_flush_ids,
        consumed_text_char_count=cancelled.consumed_text_chars,
        words=_words_to_wire(cancelled.words),
    )


def info_from_wire(info: speech_pb2.GetServerInfoResponse) -> events.ServerInfo:
    return events.ServerInfo(
        version=info.version,
        model=info.model,
        device=info.device,
        t3_runtime=info.t3_runtime,
        s3gen_runtime=info.s3gen_runtime,
        random_weights=info.random_weights,
        notice=info.notice,
        native_sample_rate_hz=info.native_sample_rate_hz,
        sample_rates_hz=tuple(info.sample_rates_hz),
        audio_formats=tuple(_FORMAT_NAMES[number] for number in info.audio_formats if number in _FORMAT_NAMES),
        limits=limits_from_wire(info.limits),
        open_streams=info.open_stream_count,
        tags=tuple(info.tags),
        decode=info.decode,
        setting_reason=info.setting_reason,
        load=info.load if info.HasField("load") else None,
        normalized_languages=tuple(info.normalized_languages),
        ssml_elements=tuple(info.ssml_elements),
        word_times=info.word_times,
        word_times_notice=info.word_times_notice,
        continuity=info.continuity,
        languages=tuple(info.language_codes),
        cfg_weight_default=_optional(info, "cfg_weight_default"),
        exaggeration_default=_optional(info, "exaggeration_default"),
        min_p_default=_optional(info, "min_p_default"),
        sampling_defaults=_sampling_from_wire(info.sampling_defaults),
        models=tuple(map(_model_from_wire, info.models)),
        missing_languages={each.language_code: each.missing for each in info.missing_languages},
    )


def _model_from_wire(model: speech_pb2.ModelInfo) -> events.ModelInfo:
    return events.ModelInfo(
        name=model.name,
        t3_runtime=model.t3_runtime,
        s3gen_runtime=model.s3gen_runtime,
        decode=model.decode,
        random_weights=model.random_weights,
        notice=model.notice,
        tags=tuple(model.tags),
        word_times=model.word_times,
        word_times_notice=model.word_times_notice,
        languages=tuple(model.language_codes),
        cfg_weight_default=_optional(model, "cfg_weight_default"),
        exaggeration_default=_optional(model, "exaggeration_default"),
        min_p_default=_optional(model, "min_p_default"),
        sampling_defaults=_sampling_from_wire(model.sampling_defaults),
        continuity=model.continuity,
        missing_languages={each.language_code: each.missing for each in model.missing_languages},
        limits=limits_from_wire(model.limits) if model.HasField("limits") else None,
    )


def voice_from_wire(voice: voices_pb2.Voice) -> events.Voice:
    created = voice.create_time.ToDatetime(tzinfo=UTC) if voice.HasField("create_time") else None
    return events.Voice(
        voice.voice_id,
        voice.name,
        created,
        voice.built_in,
        voice.reference_s,
        used_from_s=voice.used_from_s if voice.HasField("used_from_s") else None,
        used_s=voice.used_s if voice.HasField("used_s") else None,
        speech_share=voice.speech_share if voice.HasField("speech_share") else None,
        speech_to_noise_db=voice.speech_to_noise_db if voice.HasField("speech_to_noise_db") else None,
        kept=voice.kept,
        warnings=tuple(events.VoiceWarning(each.reason, each.message) for each in voice.warnings),
        similarity=voice.similarity if voice.HasField("similarity") else None,
        similarity_skipped=voice.similarity_skipped,
        recording_kept=voice.recording_kept,
    )
