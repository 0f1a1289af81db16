"""Several models in one server: a stream chooses by name, on every surface, and gets that model's engine and checks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
from riva.client.proto import riva_tts_pb2

import mynah
from engines.errors import EngineError
from engines.fake import MULTILINGUAL, FakeEngine, Script, tone
from engines.voice import Voice
from mynah.cli.info import info_lines
from mynah.client.errors import from_status
from mynah.v1 import speech_pb2
from service.audio.codecs import pcm_s16le
from service.errors import NotFound
from service.models import Models
from tests.service.grpc.riva_client import RivaClient, RivaError, riva_client
from tests.service.http.clients import HELLO, SPEECH, socket
from tests.service.serving import REFERENCE, Serving, converse, opening, refused, serving, text

SAID = "Hello there."
SAMPLES = len(SAID) * 960


@pytest.fixture(scope="module")
def riva() -> Iterator[RivaClient]:
    with riva_client() as client:
        yield client


@asynccontextmanager
async def two_models(**config: Any) -> AsyncIterator[tuple[Serving, FakeEngine, httpx.AsyncClient]]:
    """A server of `fake` and `multi`, which has guidance and languages; yields it, the second engine, and HTTP."""
    second = FakeEngine(Script(abilities=MULTILINGUAL), model="multi")
    async with (
        serving(http=True, others=[second], **config) as at,
        httpx.AsyncClient(base_url=f"http://{at.http}") as client,
    ):
        yield at, second, client
        await at.settled()


async def said(at: Serving, **settings: Any) -> bytes:
    chunks = at.client.synthesize(SAID, sampling=mynah.Sampling(seed=7), **settings)
    return b"".join([chunk.data async for chunk in chunks])


async def test_a_stream_without_a_model_is_the_first_ones_and_one_with_a_name_that_models():
    async with two_models() as (at, second, _):
        for name, engine, speaks in (("", at.engine, "fake"), ("fake", at.engine, "fake"), ("multi", second, "multi")):
            before = engine.opened_streams
            answers = await converse(at, opening(model=name), text(SAID))
            assert (answers[0].opened.model, answers[0].opened.settings.model) == (speaks, speaks)
            assert sum(answer.audio.sample_count for answer in answers) == SAMPLES
            assert engine.opened_streams == before + 1
        assert await said(at) == await said(at, model="fake") != await said(at, model="multi")


async def test_synthesize_chooses_as_a_stream_does():
    async with two_models() as (at, second, _):
        settings = speech_pb2.SpeechSettings(model="multi")
        request = speech_pb2.SynthesizeRequest(settings=settings, text=SAID)
        opened = [event.opened.model async for event in at.speech.Synthesize(request) if event.HasField("opened")]
        assert opened == ["multi"]
        assert second.opened_streams == 1


async def test_an_unknown_model_is_refused_with_the_names_there_are():
    async with two_models() as (at, _, _):
        error = await refused(at, opening(model="turbo"), text(SAID))
        assert isinstance(error, mynah.NotFound)
        assert (error.reason, error.field, error.value) == ("MODEL_NOT_FOUND", "settings.model", "turbo")
        assert error.allowed == "fake, multi"
        assert "turbo" in str(error)


async def test_settings_are_checked_against_the_model_that_speaks():
    async with two_models() as (at, second, _):
        await converse(at, opening(model="multi", cfg_weight=0.3, language_code="fr"), text("Bonjour."))
        assert second.last_sampling is not None
        assert second.last_sampling.cfg_weight == 0.3
        assert (second.spoken_languages, second.loaded_languages) == (["fr"], ["fr"])
        assert (await refused(at, opening(cfg_weight=0.3), text(SAID))).reason == "CFG_WEIGHT_UNSUPPORTED"
        assert (await refused(at, opening(language_code="fr"), text(SAID))).reason == "LANGUAGE_UNSUPPORTED"


async def test_the_server_says_what_each_model_has():
    async with two_models() as (at, _, client):
        info = await at.client.info()
        assert (info.model, info.cfg_weight_default, info.languages) == ("fake", None, ("en",))
        assert [model.name for model in info.models] == ["fake", "multi"]
        first, second = info.models
        assert (first.cfg_weight_default, first.languages, first.tags) == (None, ("en",), info.tags)
        assert (second.cfg_weight_default, second.min_p_default) == (0.5, 0.05)
        assert {"fr", "ja"} < set(second.languages)
        assert second.sampling_defaults.top_k == 0
        over_http = (await client.get("/v1/info")).json()
        assert [model["name"] for model in over_http["models"]] == ["fake", "multi"]
        assert over_http["model"] == "fake"


async def test_the_server_says_which_languages_it_lacks_and_each_models_own_limits():
    abilities = replace(MULTILINGUAL, missing_languages=(("he", "dicta-onnx"), ("ru", "russian-text-stresser")))
    second = FakeEngine(Script(abilities=abilities), model="multi")
    second.info = replace(second.info, limits=replace(second.info.limits, max_text_tokens_per_segment=77))
    async with serving(http=True, others=[second]) as at:
        info = await at.client.info()
        first, multi = info.models
        assert (info.missing_languages, first.missing_languages) == ({}, {})
        assert multi.missing_languages == {"he": "dicta-onnx", "ru": "russian-text-stresser"}
        assert multi.missing_languages.keys() < set(multi.languages)
        assert first.limits == info.limits
        assert multi.limits is not None
        assert (info.limits.max_segment_text_tokens, multi.limits.max_segment_text_tokens) == (1000, 77)
        lines = info_lines(info)
        (not_here,) = (line for line in lines if line.startswith("not here:"))
        assert not_here.endswith("he (lacks dicta-onnx), ru (lacks russian-text-stresser)")
        (spoken,) = (line for line in lines if line.startswith("languages:") and "de" in line)
        assert {"he", "ru"}.isdisjoint(spoken.removeprefix("languages:").replace(",", "").split())
        assert [line.rpartition(" or ")[2].partition(" ")[0] for line in lines if line.startswith("segment:")] == [
            "1000",
            "77",
        ]
        async with httpx.AsyncClient(base_url=f"http://{at.http}") as client:
            shown = (await client.get("/v1/info")).json()["models"][1]
        assert shown["missing_languages"][0] == {"language_code": "he", "missing": "dicta-onnx"}


async def test_all_models_share_the_servers_streams():
    async with serving(max_streams=2, others=[FakeEngine(model="multi", max_streams=2)]) as at:
        assert (await at.client.info()).limits.max_open_streams == 2
        async with at.client.stream(), at.client.stream(model="multi"):
            with pytest.raises(mynah.ServerBusy):
                async with at.client.stream(model="multi"):
                    pass


# ---- HTTP


async def test_openais_field_chooses_and_its_own_names_mean_the_first():
    async with two_models() as (at, second, client):
        listed = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in listed] == ["fake", "multi"]
        assert [m["id"] for m in (await client.get("/v1/audio/models")).json()["models"]] == ["fake", "multi"]
        for name in ("multi", "tts-1"):
            assert (await client.get(f"/v1/models/{name}")).json()["id"] == name
        wanted = HELLO | {"response_format": "pcm", "seed": 7}
        spoken = {name: await client.post(SPEECH, json=wanted | {"model": name}) for name in ("tts-1", "fake", "multi")}
        assert spoken["tts-1"].content == spoken["fake"].content == await said(at)
        assert spoken["multi"].content == await said(at, model="multi")
        absent = {name: value for name, value in wanted.items() if name != "model"}
        assert (await client.post(SPEECH, json=absent)).content == spoken["fake"].content
        assert (await client.post(SPEECH, json=wanted | {"model": "multi", "cfg_weight": 0.2})).status_code == 200
        assert second.last_sampling is not None
        assert second.last_sampling.cfg_weight == 0.2


async def test_an_unknown_model_over_http_names_all():
    async with two_models() as (_, _, client):
        for answer in (
            await client.post(SPEECH, json=HELLO | {"model": "turbo"}),
            await client.get("/v1/models/turbo"),
        ):
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["param"]) == (404, "MODEL_NOT_FOUND", "model")
            assert "fake, multi, tts-1" in error["message"]


async def test_the_document_has_every_model_and_the_fields_of_each():
    async with two_models() as (_, _, client):
        document = (await client.get("/openapi.json")).json()
        body = document["paths"]["/v1/audio/speech"]["post"]["requestBody"]["content"]["application/json"]["schema"]
        fields = {name: schema.get("anyOf", [schema])[0] for name, schema in body["properties"].items()}
        assert fields["model"]["enum"][:2] == ["fake", "multi"]
        assert fields["cfg_weight"]["default"] == 0.5
        assert "exaggeration" in fields


async def test_a_websocket_chooses_by_the_contracts_field():
    async with two_models() as (at, second, _), socket(at) as stream:
        await stream.send(open={"settings": {"model": "multi"}})
        opened = await stream.receive()
        assert opened is not None
        assert opened["opened"]["model"] == "multi"
        await stream.send(end={})
        await stream.receive_all()
        assert second.opened_streams == 1


# ---- voices


async def create(client: httpx.AsyncClient, **fields: str) -> httpx.Response:
    data = {"name": "Anna", "consent": "true", "voice_id": "anna", **fields}
    return await client.post("/v1/voices", data=data, files={"audio": REFERENCE})


async def test_a_voice_whose_recording_is_kept_speaks_with_every_model():
    async with two_models() as (at, second, client):
        assert (await create(client, keep_recording="true")).status_code == 201
        own, others = [await engine.make_voice(REFERENCE, name="Anna") for engine in (at.engine, second)]
        for engine, name, voice in ((at.engine, "fake", own), (second, "multi", others)):
            assert await said(at, voice="anna", model=name) == pcm_of(voice)
            assert engine.opened_streams
        assert own.key != others.key


def pcm_of(voice: Voice) -> bytes:
    return pcm_s16le(tone(SAID, voice, 7, SAMPLES))


async def test_a_voice_without_its_recording_speaks_with_its_own_model_alone():
    async with two_models() as (at, _, client):
        assert (await create(client, model="multi")).status_code == 201
        assert await said(at, voice="anna", model="multi")
        error = await refused(at, opening(voice_id="anna"), text(SAID))
        assert (error.reason, error.value) == ("VOICE_OF_ANOTHER_MODEL", "anna")
        assert "whose voices fake cannot speak" in str(error)
        listed = (await client.get("/v1/voices")).json()["voices"]
        assert [voice["voice_id"] for voice in listed] == ["anna", "default"]
        unknown = (await create(client, voice_id="bert", model="turbo")).json()["error"]
        assert (unknown["code"], unknown["param"]) == ("MODEL_NOT_FOUND", "model")


# ---- Riva


async def test_rivas_clients_find_a_model_and_its_voices_by_name(riva: RivaClient):
    async with two_models() as (at, _, _):
        await at.client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        asked = [riva_tts_pb2.RivaSynthesisConfigRequest(model_name=name) for name in ("", "multi")]
        configs, named = [(await riva(at.address, "GetRivaSynthesisConfig", each)).model_config for each in asked]
        assert [config.model_name for config in configs] == ["fake", "multi"]
        assert [config.parameters["voice_name"] for config in configs] == ["mynah", "mynah-multi"]
        assert [config.parameters["subvoices"] for config in configs] == ["anna:0,default:1", "default:0"]
        assert [config.model_name for config in named] == ["multi"]
        say = {"sample_rate_hz": 24_000, "language_code": "en"}
        expected = await said(at, model="multi")
        for named in (
            {"voice_name": "mynah-multi.default", "custom_configuration": {"seed": "7"}},
            {"custom_configuration": {"seed": "7", "model": "multi"}},
            {"voice_name": "mynah-multi.default", "custom_configuration": {"seed": "7", "model": "multi"}},
        ):
            assert (await riva(at.address, "synthesize", SAID, **say, **named)).audio == expected
        for wrong, reason, field in (
            ({"voice_name": "mynah-turbo.default"}, "MODEL_NOT_FOUND", "voice_name"),
            (
                {"voice_name": "mynah-multi.default", "custom_configuration": {"model": "fake"}},
                "MODEL_TWICE",
                "custom_configuration[model]",
            ),
        ):
            with pytest.raises(RivaError) as raised:
                await riva(at.address, "synthesize", SAID, **say, **wrong)
            error = from_status(*raised.value.status)
            assert (error.reason, error.field) == (reason, field)


# ---- the object


def test_names_lead_to_engines():
    first, second = FakeEngine(model="a"), FakeEngine(model="b", max_streams=3)
    models = Models([first, second])
    assert models.named("") is models.first is first
    assert models.named("b") is second
    assert (models.names, models.max_streams, models.max_offline_streams) == (("a", "b"), 3, None)
    with pytest.raises(NotFound):
        models.named("B")


def test_the_server_is_healthy_while_every_engine_is():
    first, second = FakeEngine(model="a"), FakeEngine(model="b")
    models, seen = Models([first, second]), list[bool]()
    models.health.watch(seen.append)
    first.health.set(False)
    second.health.set(False)
    first.health.set(True)
    assert not models.health.healthy
    second.health.set(True)
    assert models.health.healthy
    assert seen == [False, True]


async def test_a_model_that_cannot_warm_up_ends_the_start():
    failing = FakeEngine(Script(warm_up_failure=EngineError("no")), model="b")
    with pytest.raises(EngineError):
        await Models([FakeEngine(model="a"), failing]).warm_up()
