"""What a stream asks of its model, checked against what the model has: language, guidance, exaggeration, sampling."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from engines.api import EngineInfo
from engines.config import Sampling
from engines.errors import InvalidInput, quoted
from engines.text.languages import ENGLISH, check_packages, primary_code
from mynah.v1 import speech_pb2

_SEED_BITS = 53  # every language's numbers hold it exactly
_DRAWS = ("temperature", "top_k", "top_p", "repetition_penalty", "seed")
_CONTRACT_FIELDS = {  # where the names differ
    "sampling.max_speech_tokens": "sampling.max_speech_token_count",
    "sampling.schedule": "settings.schedule",
    "sampling.cfg_weight": "settings.cfg_weight",
    "sampling.exaggeration": "settings.exaggeration",
}


def language_codes(info: EngineInfo) -> tuple[str, ...]:
    """The languages that a stream may name."""
    return info.languages or (ENGLISH,)


def language_of(message: speech_pb2.SpeechSettings, info: EngineInfo) -> str:
    """The stream's language, one of `language_codes`.

    Raises InvalidInput if the model does not speak the language that is named, or if its package is missing.
    """
    codes = language_codes(info)
    tag = message.language_code if message.HasField("language_code") else info.default_language
    language = primary_code(tag)
    if language not in codes:
        allowed = ", ".join(codes)
        what = f"one of {allowed}" if len(codes) > 1 else allowed
        text = f"settings.language_code is {quoted(tag)}; it must be {what}, which {info.model} speaks."
        raise InvalidInput("settings.language_code", text, "LANGUAGE_UNSUPPORTED", value=tag, allowed=allowed)
    if info.languages:
        try:
            check_packages(language)
        except InvalidInput as error:
            raise error.named("settings.language_code") from None
    return language


def sampling_of(message: speech_pb2.SpeechSettings, info: EngineInfo) -> Sampling:
    """The stream's sampling, with the model's defaults. Raises InvalidInput for a value that is out of range, and for
    settings that the model does not have."""
    given = message.sampling
    _check_has(given.HasField("min_p"), "sampling.min_p", given.min_p, info.has_min_p, info)
    _check_has(message.HasField("cfg_weight"), "settings.cfg_weight", message.cfg_weight, info.guidance, info)
    exaggerates = info.has_exaggeration
    _check_has(message.HasField("exaggeration"), "settings.exaggeration", message.exaggeration, exaggerates, info)
    chosen: dict[str, Any] = {name: getattr(given, name) for name in (*_DRAWS, "min_p") if given.HasField(name)}
    chosen |= {name: getattr(message, name) for name in ("cfg_weight", "exaggeration") if message.HasField(name)}
    # a seed or a schedule asks for repeatable bytes; without them, windows follow the load
    chosen["repeatable"] = "seed" in chosen or bool(message.schedule)
    chosen["schedule"] = message.schedule
    chosen.setdefault("seed", secrets.randbits(_SEED_BITS))
    if given.HasField("max_speech_token_count"):
        chosen["max_speech_tokens"] = given.max_speech_token_count
    try:
        return replace(info.sampling, **chosen)
    except InvalidInput as error:
        raise error.named(_CONTRACT_FIELDS.get(error.field, error.field)) from None


def _check_has(given: bool, field: str, value: float, has: bool, info: EngineInfo) -> None:
    if not given or has:
        return
    name = field.rpartition(".")[2]
    message = f"{field} is {value:g}, but {info.model} has no {name}: leave the field out."
    raise InvalidInput(field, message, f"{name.upper()}_UNSUPPORTED", value=value, allowed="absent")


def sampling_message(sampling: Sampling, info: EngineInfo, *, with_seed: bool = True) -> speech_pb2.Sampling:
    """The message, with what the model has."""
    return speech_pb2.Sampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        seed=sampling.seed if with_seed else None,
        max_speech_token_count=sampling.max_speech_tokens,
        min_p=sampling.min_p if info.has_min_p else None,
    )


def add_model_settings(message: speech_pb2.SpeechSettings, language: str, sampling: Sampling, info: EngineInfo) -> None:
    """Add language, guidance, exaggeration and sampling, as far as the model has them, to the settings of a stream."""
    message.language_code = language
    message.sampling.CopyFrom(sampling_message(sampling, info))
    if info.guidance:
        message.cfg_weight = sampling.cfg_weight
    if info.has_exaggeration:
        message.exaggeration = sampling.exaggeration


def add_model_defaults(message: speech_pb2.GetServerInfoResponse | speech_pb2.ModelInfo, info: EngineInfo) -> None:
    """Add the model's languages and defaults to its description, or to the server's."""
    defaults = info.sampling
    message.language_codes.extend(language_codes(info))
    for code, missing in info.missing_languages:
        message.missing_languages.add(language_code=code, missing=missing)
    message.sampling_defaults.CopyFrom(sampling_message(defaults, info, with_seed=False))
    if info.guidance:
        message.cfg_weight_default = defaults.cfg_weight
    if info.has_exaggeration:
        message.exaggeration_default = defaults.exaggeration
    if info.has_min_p:
        message.min_p_default = defaults.min_p
