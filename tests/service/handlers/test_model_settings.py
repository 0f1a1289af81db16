"""What a stream asks of its model: the model's own defaults, what it has, and what it lacks."""

from __future__ import annotations

from typing import Any

import pytest

from engines.api import EngineInfo
from engines.errors import InvalidInput
from engines.fake import MULTILINGUAL, Abilities, FakeEngine, Script
from engines.text.languages import NAMES
from mynah.v1 import speech_pb2
from service.handlers.model_settings import add_model_defaults, language_of, sampling_of
from tests.service.serving import opening, refused, serving

TURBO, MULTI = (FakeEngine(Script(abilities=each)).info for each in (Abilities(), MULTILINGUAL))


def settings(**values: Any) -> speech_pb2.SpeechSettings:
    sampling = speech_pb2.Sampling(**values.pop("sampling", {}))
    return speech_pb2.SpeechSettings(sampling=sampling, **values)


@pytest.mark.parametrize("info", [TURBO, MULTI], ids=["turbo", "multilingual"])
def test_what_a_client_leaves_out_is_the_models_own(info: EngineInfo):
    sampling, defaults = sampling_of(settings(), info), info.sampling
    drawn = ("temperature", "top_k", "top_p", "repetition_penalty", "min_p", "cfg_weight", "exaggeration")
    assert [getattr(sampling, name) for name in drawn] == [getattr(defaults, name) for name in drawn]
    assert not sampling.repeatable
    assert language_of(settings(), info) == "en"


def test_what_a_client_chooses_reaches_the_sampling():
    message = settings(cfg_weight=0.0, exaggeration=2.0, sampling={"min_p": 0.1, "seed": 3})
    sampling = sampling_of(message, MULTI)
    assert (sampling.cfg_weight, sampling.exaggeration, sampling.min_p, sampling.seed) == (0.0, 2.0, 0.1, 3)
    assert sampling.repeatable


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"cfg_weight": 0.5}, "settings.cfg_weight"),
        ({"cfg_weight": 0.0}, "settings.cfg_weight"),
        ({"exaggeration": 0.5}, "settings.exaggeration"),
        ({"sampling": {"min_p": 0.0}}, "sampling.min_p"),
    ],
)
def test_a_model_refuses_what_it_has_none_of(values: dict[str, Any], field: str):
    with pytest.raises(InvalidInput, match="leave the field out") as raised:
        sampling_of(settings(**values), TURBO)
    assert (raised.value.field, raised.value.allowed) == (field, "absent")
    assert raised.value.reason == f"{field.rpartition('.')[2].upper()}_UNSUPPORTED"
    sampling_of(settings(**values), MULTI)


@pytest.mark.parametrize(
    ("values", "reason", "field"),
    [
        ({"cfg_weight": 2.01}, "CFG_WEIGHT_OUT_OF_RANGE", "settings.cfg_weight"),
        ({"cfg_weight": -0.1}, "CFG_WEIGHT_OUT_OF_RANGE", "settings.cfg_weight"),
        ({"cfg_weight": float("nan")}, "CFG_WEIGHT_OUT_OF_RANGE", "settings.cfg_weight"),
        ({"exaggeration": 0.2}, "EXAGGERATION_OUT_OF_RANGE", "settings.exaggeration"),
        ({"exaggeration": 2.1}, "EXAGGERATION_OUT_OF_RANGE", "settings.exaggeration"),
        ({"sampling": {"min_p": 1.1}}, "SAMPLING_OUT_OF_RANGE", "sampling.min_p"),
    ],
)
def test_values_out_of_range_are_named(values: dict[str, Any], reason: str, field: str):
    with pytest.raises(InvalidInput, match="must be at least") as raised:
        sampling_of(settings(**values), MULTI)
    assert (raised.value.reason, raised.value.field) == (reason, field)


@pytest.mark.parametrize(
    ("tag", "language"),
    [("en", "en"), ("EN", "en"), ("en-US", "en"), ("en_GB", "en"), ("pt-BR", "pt"), ("nb", "no"), ("zh-Hant-TW", "zh")],
)
def test_a_region_is_ignored(tag: str, language: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("service.handlers.model_settings.check_packages", lambda _: None)
    assert language_of(settings(language_code=tag), MULTI) == language


@pytest.mark.parametrize(("info", "tag", "allowed"), [(TURBO, "de", "en"), (TURBO, "", "en"), (MULTI, "xx", "ar, da")])
def test_other_languages_are_refused_with_those_of_the_model(info: EngineInfo, tag: str, allowed: str):
    with pytest.raises(InvalidInput, match=r"settings\.language_code") as raised:
        language_of(settings(language_code=tag), info)
    assert raised.value.reason == "LANGUAGE_UNSUPPORTED"
    assert raised.value.allowed.startswith(allowed)


def test_a_language_without_its_package_is_refused_by_the_packages_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engines.text.languages.packages.find_spec", lambda _: None)
    with pytest.raises(InvalidInput, match="pykakasi") as raised:
        language_of(settings(language_code="ja"), MULTI)
    assert (raised.value.reason, raised.value.field) == ("LANGUAGE_PACKAGE_MISSING", "settings.language_code")
    assert "ja" not in raised.value.allowed.split(", ")
    assert language_of(settings(language_code="ko"), MULTI) == "ko"


def test_a_model_of_one_other_language_speaks_it_by_default():
    spanish = FakeEngine(Script(abilities=Abilities(languages=("es",)))).info
    assert language_of(settings(), spanish) == "es"


@pytest.mark.parametrize("info", [TURBO, MULTI], ids=["turbo", "multilingual"])
def test_the_servers_description_has_the_defaults_of_what_the_model_has(info: EngineInfo):
    message = speech_pb2.GetServerInfoResponse()
    add_model_defaults(message, info)
    names = ("cfg_weight", "exaggeration", "min_p")
    has = (info.guidance, info.has_exaggeration, info.has_min_p)
    assert tuple(message.HasField(f"{name}_default") for name in names) == has
    assert list(message.language_codes) == (list(NAMES) if info.languages else ["en"])
    assert message.sampling_defaults.top_k == info.sampling.top_k
    assert not message.sampling_defaults.HasField("seed")


async def test_settings_reach_the_engine_and_come_back_with_the_opened_stream():
    async with serving(Script(abilities=MULTILINGUAL)) as at:
        chosen = speech_pb2.SpeechSettings(language_code="de-AT", cfg_weight=0.3, exaggeration=0.7)
        request = speech_pb2.SynthesizeRequest(settings=chosen, text="Guten Tag.")
        events = [event async for event in at.speech.Synthesize(request)]
        opened = events[0].opened.settings
        assert (opened.language_code, opened.cfg_weight, opened.exaggeration) == ("de", 0.3, 0.7)
        assert opened.sampling.min_p == 0.05
        assert at.engine.last_sampling is not None
        assert (at.engine.last_sampling.cfg_weight, at.engine.last_sampling.exaggeration) == (0.3, 0.7)
        assert at.engine.spoken_languages == ["de"]


async def test_a_stream_of_an_english_model_has_its_language_and_none_of_the_rest():
    async with serving() as at:
        request = speech_pb2.SynthesizeRequest(settings=settings(language_code="en-GB"), text="Hello.")
        events = [event async for event in at.speech.Synthesize(request)]
        opened = events[0].opened.settings
        assert opened.language_code == "en"
        assert not opened.HasField("cfg_weight")
        assert not opened.HasField("exaggeration")
        assert not opened.sampling.HasField("min_p")
        assert at.engine.spoken_languages == [""]


async def test_a_refusal_reaches_the_client_with_its_reason():
    async with serving() as at:
        error = await refused(at, opening(cfg_weight=0.5))
        assert (error.reason, error.field, error.retryable) == ("CFG_WEIGHT_UNSUPPORTED", "settings.cfg_weight", False)


async def test_names_of_emoji_are_english():
    async with serving(Script(abilities=MULTILINGUAL), emoji="name") as at:
        error = await refused(
            at, opening(language_code="de", text=speech_pb2.TextSettings(emoji=speech_pb2.EMOJI_NAME))
        )
        assert (error.reason, error.field) == ("EMOJI_UNSUPPORTED", "text.emoji")
        for language, emoji in (("de", "drop"), ("en", "name")):
            async with at.client.stream(language=language) as stream:
                assert stream.opened.settings.text.emoji == emoji
