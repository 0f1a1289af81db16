"""The OpenAPI document, made from the tables that requests are parsed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from engines.api import EngineInfo
from engines.config import EXAGGERATION, MAX_CFG_WEIGHT, STREAM_SCHEDULES
from engines.model_spec import SPEECH_VOCAB
from engines.text.dictionary import MAX_ENTRIES, MAX_RESPELLING_CHARS, MAX_WORD_CHARS
from engines.time_scale import MAX_SPEED, MIN_SPEED
from mynah.v1 import speech_pb2
from service.audio.formats import SAMPLE_RATES_HZ
from service.handlers.model_settings import language_codes
from service.http import captioned as captioned_speech
from service.http import speech_request
from service.http.message_schema import message_schema
from service.stream.early_end import FirstSegment
from service.stream.policy import StreamPolicy
from service.stream.settings import Emoji, Markup, UnspeakableText
from service.stream.text.items import MAX_PAUSE_S

Schema = dict[str, Any]

_VOICE_ID: Schema = {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"}
_STRING: Schema = {"type": "string"}
_RETRY = {
    "Retry-After": {"schema": {"type": "integer"}, "description": "Seconds to wait; present if a retry may succeed."}
}


def document(models: Sequence[EngineInfo], policy: StreamPolicy, version: str, *, keys: bool) -> Schema:
    """The answer to `GET /openapi.json`. `keys` says whether callers need an API key."""
    names, info = [each.model for each in models], _offered(models)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Mynah",
            "version": version,
            "license": {"name": "MIT"},
            "description": "Streaming text to speech, compatible with OpenAI's clients. docs/http.md describes the"
            " WebSocket /v1/stream, which takes text word by word.",
        },
        "paths": _paths(info, policy, names),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}] if keys else [],
    }


def _paths(info: EngineInfo, policy: StreamPolicy, models: Sequence[str]) -> Schema:
    voice = _ref("Voice")
    by_id = [{"name": "voice_id", "in": "path", "required": True, "schema": _STRING}]
    return {
        "/v1/audio/speech": {
            "post": {
                "operationId": "createSpeech",
                "summary": "Speak a text; the response streams audio while it is made.",
                "requestBody": _json_body(_speech_request(info, policy, models)),
                "responses": {"200": _spoken()} | _errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503),
            }
        },
        "/dev/captioned_speech": {
            "post": {
                "operationId": "createCaptionedSpeech",
                "summary": "Speak a text; the response streams audio and the times of its words, as Kokoro-FastAPI's.",
                "requestBody": _json_body(_speech_request(info, policy, models, captioned=True)),
                "responses": {"200": _captioned()} | _errors(400, 401, 403, 404, 408, 413, 415, 429, 500, 503),
            }
        },
        "/v1/audio/models": {
            "get": _get("listAudioModels", "List the models, as Open WebUI asks for them.", _ref("AudioModels"))
        },
        "/v1/audio/voices": {
            "get": _get("listAudioVoices", "List all voices, as Open WebUI asks for them.", _ref("AudioVoices"))
        },
        "/v1/info": {"get": _get("getInfo", "Get the server's models, formats, limits and load.", _ref("ServerInfo"))},
        "/v1/models": {"get": _get("listModels", "List the server's models.", _ref("Models"))},
        "/v1/models/{model}": {
            "get": _get("getModel", "Get a model.", _ref("Model"), 404)
            | {"parameters": [{"name": "model", "in": "path", "required": True, "schema": _STRING}]}
        },
        "/v1/voices": {
            "get": _get("listVoices", "List voices by id, in pages.", _ref("Voices"), 400)
            | {"parameters": _page_parameters()},
            "post": {
                "operationId": "createVoice",
                "summary": "Create a voice from a recording of a speaker who agreed to it.",
                "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _new_voice()}}},
                "responses": {"201": _json("The new voice.", voice)}
                | _errors(400, 401, 403, 404, 408, 409, 413, 415, 429, 500, 503),
            },
        },
        "/v1/voices/{voice_id}": {
            "get": _get("getVoice", "Get a voice.", voice, 400, 404) | {"parameters": by_id},
            "delete": {
                "operationId": "deleteVoice",
                "summary": "Delete a voice; streams that use it continue.",
                "parameters": by_id,
                "responses": {"204": {"description": "Deleted."}} | _errors(400, 401, 403, 404, 409, 500),
            },
        },
        "/healthz": {"get": _public(_get("alive", "Liveness: whether the process responds.", _ref("State")))},
        "/readyz": {"get": _public(_get("ready", "Readiness: whether the server admits streams.", _ref("State"), 503))},
        "/openapi.json": {"get": _public(_get("openapi", "Get this document.", {"type": "object"}))},
    }


def _get(operation: str, summary: str, schema: Schema, *statuses: int) -> Schema:
    responses = {"200": _json("Success.", schema)} | _errors(401, 500, *statuses)
    return {"operationId": operation, "summary": summary, "responses": responses}


def _public(operation: Schema) -> Schema:
    """Returns the operation as one that needs no API key."""
    responses = {
        status: response for status, response in operation["responses"].items() if status not in ("401", "500")
    }
    return operation | {"security": [], "responses": responses}


def _spoken() -> Schema:
    types = sorted(set(speech_request.MEDIA_TYPES.values()))
    content: Schema = {media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in types}
    content["text/event-stream"] = {"schema": _object({"event": _STRING, "data": _STRING}, "data")}  # of each event
    return {
        "description": "Audio in response_format, or server-sent events with stream_format=sse.",
        "content": content,
        "headers": {
            speech_request.VOICE_HEADER: {"schema": _STRING, "description": "The id of the voice that speaks."},
            speech_request.SCHEDULE_HEADER: {
                "schema": {"enum": list(STREAM_SCHEDULES)},
                "description": "With a seed or a schedule in the request: both repeat the bytes. Else absent.",
            },
            speech_request.DICTIONARY_HEADER: {
                "schema": {"type": "integer", "minimum": 1},
                "description": "Respellings that hold, of the request, the voice and the server; absent if none do.",
            },
            speech_request.REPLACED_VOICE_HEADER: {
                "schema": _STRING,
                "description": "OpenAI's name of a voice, for which the default voice speaks; else absent.",
            },
        },
    }


def _captioned() -> Schema:
    timestamp = _object(
        {"word": _STRING, "start_time": {"type": "number"}, "end_time": {"type": "number"}},
        "word",
        "start_time",
        "end_time",
    )
    chunk = _object(
        {
            "audio": {"type": "string", "contentEncoding": "base64"},
            "audio_format": _STRING,
            "timestamps": _or_null({"type": "array", "items": timestamp}),
        },
        "audio",
        "audio_format",
        "timestamps",
    )
    return {
        "description": "An object for each chunk, one on a line; one for all with stream false. Times are seconds.",
        "content": {"application/json": {"schema": chunk}, captioned_speech.LINES: {"schema": _STRING}},
        "headers": _spoken()["headers"],
    }


def _offered(models: Sequence[EngineInfo]) -> EngineInfo:
    """The first model with what only others have, so that each field of a request stands in the document.

    A default is that of the first model that has the field.
    """
    languages = tuple(dict.fromkeys(code for each in models for code in language_codes(each)))
    offered = replace(
        models[0],
        languages=languages if len(languages) > 1 else models[0].languages,
        word_times=any(each.word_times for each in models),
        continuity=any(each.continuity for each in models),
    )
    for field, has in (("cfg_weight", "guidance"), ("exaggeration", "has_exaggeration"), ("min_p", "has_min_p")):
        if (model := next((each for each in models if getattr(each, has)), None)) is not None:
            sampling = replace(offered.sampling, **{field: getattr(model.sampling, field)})
            changes: dict[str, Any] = {has: True}
            offered = replace(offered, sampling=sampling, **changes)
    return offered


def _speech_request(
    info: EngineInfo, policy: StreamPolicy, models: Sequence[str], *, captioned: bool = False
) -> Schema:
    model = {"enum": [*models, *speech_request.MODEL_ALIASES], "description": "Default: the first."}
    text = {"type": "string", "minLength": 1, "maxLength": policy.max_pending_text_chars}
    name = _STRING | {"description": "A voice's id or name."}
    fields: Schema = {
        "model": model,
        "voice": {"oneOf": [name, _object({"id": name}, "id")]},
        "response_format": {"enum": list(speech_request.RESPONSE_FORMATS), "default": "mp3"},
        "stream_format": {"enum": list(speech_request.STREAM_FORMATS), "default": "audio"},
        "stream": {"type": "boolean", "default": True, "description": "false: send the audio once all of it is made."},
        "speed": _range("number", MIN_SPEED, MAX_SPEED, 1.0) | {"description": "The voice's speed, at the same pitch."},
        "instructions": {
            "type": "string",
            "maxLength": 0,
            "description": "The model takes none.",
        },
        "sample_rate_hz": {"enum": list(SAMPLE_RATES_HZ), "description": "Not every format supports every rate."},
        "temperature": _range("number", 0.0, 5.0, info.sampling.temperature),
        "top_k": _range("integer", 0, SPEECH_VOCAB, info.sampling.top_k),
        "top_p": {"type": "number", "exclusiveMinimum": 0.0, "maximum": 1.0, "default": info.sampling.top_p},
        "repetition_penalty": _range("number", 0.1, 10.0, info.sampling.repetition_penalty),
        **_model_fields(info),
        "seed": {"type": "integer", "minimum": 0, "maximum": 2**64 - 1},
        "schedule": {
            "enum": list(STREAM_SCHEDULES),
            "description": "How the audio is cut; by the load where it is absent.",
        },
        "max_speech_token_count": _range("integer", 1, 1000, info.sampling.max_speech_tokens),
        "markup": _choice(
            Markup,
            policy.markup,
            "SSML is refused and HTML removed, both are removed, or both are spoken as text; or SSML is obeyed, and "
            "what cannot be is refused, or ignored.",
        ),
        "unspeakable_text": _choice(
            UnspeakableText, policy.unspeakable_text, "What becomes of sentences in a script that the model lacks."
        ),
        "drop_thinking": {
            "type": "boolean",
            "default": policy.drop_thinking,
            "description": "Drops <think>...</think>.",
        },
        "normalize": {
            "type": "boolean",
            "default": policy.normalize,
            "description": "Speaks numbers, dates, addresses and the like as English words, leaves out Markdown, obeys "
            "[pause:0.5s].",
        },
        "emoji": _choice(Emoji, policy.emoji, "Whether emoji are left out or their names are spoken."),
        "paragraph_pause_s": _range("number", 0.0, MAX_PAUSE_S, policy.paragraph_pause_s),
        "dictionary": {
            "oneOf": [
                {"type": "object", "maxProperties": MAX_ENTRIES, "additionalProperties": _STRING},
                {"type": "array", "maxItems": MAX_ENTRIES, "items": _entry()},
            ],
            "description": "Respellings of words, which need ordinary letters.",
        },
        "word_times": {
            "type": "boolean",
            "default": False,
            "description": "Sends speech.audio.words events; needs stream_format sse"
            + ("." if info.word_times else f". Not on this server: {info.word_times_notice}"),
        },
        "word_guard": {
            "type": "boolean",
            "default": policy.word_guard and info.word_times,
            "description": "Watches that the speech says its text, each word once.",
        },
        "continuity": {
            "type": "boolean",
            "default": False,
            "description": "Has each segment's speech go on from that of the segment before"
            + ("." if info.continuity else "; not on this server."),
        },
    }
    fields["first_segment"] = _choice(
        FirstSegment, FirstSegment.AUTO.value, "Where the first segment may end before its sentence does."
    )
    if captioned:
        del fields["word_times"], fields["stream_format"]
        fields["return_timestamps"] = {"type": "boolean", "default": True, "description": "Sends the times of words."}
    optional = {name: _or_null(schema) for name, schema in fields.items()}
    return _object({"input": text} | optional, "input")


def _model_fields(info: EngineInfo) -> Schema:
    """The fields of what only some models have; those that this one lacks are not in the document."""
    language = _STRING | {
        "examples": list(language_codes(info)),
        "description": f"A language of the model ({', '.join(language_codes(info))}); a region such as -US is ignored.",
    }
    same = language | {"description": "The same as language_code."}
    fields = {"language_code": language} | dict.fromkeys(speech_request.LANGUAGE_ALIASES, same)
    if info.has_min_p:
        fields["min_p"] = _range("number", 0.0, 1.0, info.sampling.min_p)
    if info.guidance:
        about = {"description": "How strongly the text guides the speech; 0 is without guidance."}
        fields["cfg_weight"] = _range("number", 0.0, MAX_CFG_WEIGHT, info.sampling.cfg_weight) | about
    if info.has_exaggeration:
        about = {"description": "How lively the speech is; 0.5 is neutral."}
        fields["exaggeration"] = _range("number", *EXAGGERATION, info.sampling.exaggeration) | about
    return fields


def _entry() -> Schema:
    word = {"type": "string", "minLength": 1, "maxLength": MAX_WORD_CHARS}
    respelling = {"type": "string", "minLength": 1, "maxLength": MAX_RESPELLING_CHARS}
    fields: Schema = {"word": word, "respelling": respelling, "case_sensitive": {"type": "boolean", "default": False}}
    return _object(fields, "word", "respelling")


def _choice(kind: type[Enum], default: str, description: str) -> Schema:
    return {"enum": [each.value for each in kind], "default": default, "description": description}


def _new_voice() -> Schema:
    return _object(
        {
            "name": {"type": "string", "minLength": 1, "maxLength": 80},
            "consent": {"const": "true", "description": "Confirms that the speaker agreed to having this voice made."},
            "voice_id": _VOICE_ID,
            "normalize_loudness": {
                "enum": ["true", "false"],
                "default": "true",
                "description": "Whether the recording is brought to -27 LUFS first, as the model was trained.",
            },
            "keep_recording": {
                "enum": ["true", "false"],
                "default": "false",
                "description": "Whether the recording is kept, so that the voice can be made again for another model.",
            },
            "model": _STRING | {"description": "The model that the voice is made for; default: the first."},
            "audio": {
                "type": "string",
                "format": "binary",
                "description": "One speaker for more than 5 s.",
            },
        },
        "name",
        "consent",
        "audio",
    )


def _page_parameters() -> list[Schema]:
    return [
        {"name": "page_size", "in": "query", "schema": {"type": "integer", "minimum": 0, "maximum": 1000}},
        {"name": "page_token", "in": "query", "schema": _STRING},
    ]


def _schemas() -> Schema:
    error = _object(
        {
            "message": _STRING,
            "type": _STRING,
            "param": {"type": ["string", "null"]},
            "code": {"type": "string", "pattern": "^[A-Z_]+$"},
            "value": _STRING,
            "allowed": _STRING,
            "retry_after_s": {"type": "number"},
        },
        "message", "type", "param", "code",
    )  # fmt: skip
    voice = _object(
        {
            "voice_id": _VOICE_ID,
            "name": _STRING,
            "create_time": {"type": "string", "format": "date-time"},
            "built_in": {"type": "boolean"},
            "reference_s": {"type": "number"},
            "used_from_s": {"type": "number", "description": "Where the used part of the recording begins."},
            "used_s": {"type": "number"},
            "speech_share": {"type": "number", "minimum": 0, "maximum": 1},
            "speech_to_noise_db": {"type": "number", "minimum": 0, "maximum": 60},
            "kept": {"type": "boolean", "description": "Whether the voice is still there after a restart."},
            "warnings": {"type": "array", "items": _object({"reason": _STRING, "message": _STRING}, "reason")},
            "similarity": {
                "type": "number",
                "description": "Cosine of the speaker embeddings of the recording and of speech made with the voice.",
            },
            "similarity_skipped": {"type": "string", "description": "Why there is no similarity; else empty."},
            "recording_kept": {"type": "boolean", "description": "Whether the recording is kept with the voice."},
        },
        "voice_id", "name", "built_in", "reference_s", "kept", "warnings", "similarity_skipped", "recording_kept",
    )  # fmt: skip
    model = _object(
        {"id": _STRING, "object": {"const": "model"}, "created": {"type": "integer"}, "owned_by": _STRING},
        "id", "object", "created", "owned_by",
    )  # fmt: skip
    models = {"object": {"const": "list"}, "data": {"type": "array", "items": _ref("Model")}}
    voices = {"voices": {"type": "array", "items": _ref("Voice")}, "next_page_token": _STRING}
    entry = _object({"id": _STRING, "name": _STRING}, "id", "name")
    return {
        "AudioModels": _object({"models": {"type": "array", "items": entry}}, "models"),
        "AudioVoices": _object({"voices": {"type": "array", "items": entry}}, "voices"),
        "Error": _object({"error": error}, "error"),
        "Model": model,
        "Models": _object(models, *models),
        "Voice": voice,
        "Voices": _object(voices, *voices),
        "ServerInfo": message_schema(speech_pb2.DESCRIPTOR.message_types_by_name["GetServerInfoResponse"]),
        "State": _object({"status": _STRING}, "status"),
    }


def _errors(*statuses: int) -> Schema:
    schema = {"application/json": {"schema": _ref("Error")}}
    return {
        str(status): {"description": "Error; `code` says why.", "content": schema}
        | ({"headers": _RETRY} if status in (429, 503) else {})
        for status in sorted(statuses)
    }


def _json(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _json_body(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _object(properties: Schema, *required: str) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def _range(kind: str, low: float, high: float, default: float) -> Schema:
    return {"type": kind, "minimum": low, "maximum": high, "default": default}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}
