"""Language, guidance and exaggeration over HTTP and WebSocket: by their names here, and by those of other servers."""

from __future__ import annotations

from typing import Any

import pytest

from engines.errors import InvalidInput
from engines.fake import MULTILINGUAL, Script
from tests.service.http.clients import HELLO, SPEECH, http_serving, socket

MULTI = Script(abilities=MULTILINGUAL)


@pytest.mark.parametrize("name", ["language_code", "language", "language_id"])
async def test_the_language_has_the_names_of_other_servers(name: str):
    async with http_serving(MULTI) as (at, client):
        answer = await client.post(SPEECH, json=HELLO | {name: "fr-CA", "response_format": "pcm"})
        assert answer.status_code == 200
        assert at.engine.spoken_languages == ["fr"]


async def test_what_a_chatterbox_client_sends_reaches_the_engine():
    fields = {"cfg_weight": 0.3, "exaggeration": 0.7, "min_p": 0.1, "language_id": "de", "language": "de"}
    async with http_serving(MULTI) as (at, client):
        assert (await client.post(SPEECH, json=HELLO | fields)).status_code == 200
        sampling = at.engine.last_sampling
        assert sampling is not None
        assert (sampling.cfg_weight, sampling.exaggeration, sampling.min_p) == (0.3, 0.7, 0.1)
        assert at.engine.loaded_languages == at.engine.spoken_languages == ["de"]


@pytest.mark.parametrize(
    ("script", "fields", "code", "param"),
    [
        (Script(), {"cfg_weight": 0.5}, "CFG_WEIGHT_UNSUPPORTED", "cfg_weight"),
        (Script(), {"exaggeration": 0.5}, "EXAGGERATION_UNSUPPORTED", "exaggeration"),
        (Script(), {"min_p": 0.1}, "MIN_P_UNSUPPORTED", "min_p"),
        (Script(), {"language": "de"}, "LANGUAGE_UNSUPPORTED", "language"),
        (MULTI, {"language_id": "x" * 100_000}, "LANGUAGE_UNSUPPORTED", "language_id"),
        (MULTI, {"language_code": "xx"}, "LANGUAGE_UNSUPPORTED", "language_code"),
        (MULTI, {"language": "xx"}, "LANGUAGE_UNSUPPORTED", "language"),
        (MULTI, {"language": "de", "language_id": "fr"}, "VALUE_INVALID", "language_id"),
        (MULTI, {"cfg_weight": 3}, "CFG_WEIGHT_OUT_OF_RANGE", "cfg_weight"),
        (MULTI, {"exaggeration": 0}, "EXAGGERATION_OUT_OF_RANGE", "exaggeration"),
        (MULTI, {"min_p": -1}, "SAMPLING_OUT_OF_RANGE", "min_p"),
        (MULTI, {"cfg_weight": "strong"}, "VALUE_INVALID", "cfg_weight"),
    ],
)
async def test_refusals_name_the_field_as_it_is_called_here(
    script: Script, fields: dict[str, Any], code: str, param: str
):
    async with http_serving(script) as (at, client):
        answer = await client.post(SPEECH, json=HELLO | fields)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param)
        assert error["message"].startswith(param)
        await at.settled()


async def test_the_document_has_the_fields_of_the_model_with_its_defaults():
    for script, names in ((Script(), set()), (MULTI, {"min_p", "cfg_weight", "exaggeration"})):
        async with http_serving(script) as (at, client):
            document = (await client.get("/openapi.json")).json()
            body = document["paths"][SPEECH]["post"]["requestBody"]["content"]["application/json"]["schema"]
            fields, defaults = body["properties"], at.engine.info.sampling
            assert {"min_p", "cfg_weight", "exaggeration"} & fields.keys() == names
            for name in ("temperature", "top_k", "top_p", *names):
                (schema,) = [each for each in fields[name]["anyOf"] if "default" in each]
                assert schema["default"] == getattr(defaults, name)
            assert "language_code" in fields


async def test_a_websocket_names_them_as_the_contract_does():
    async with http_serving(MULTI) as (at, _), socket(at) as stream:
        settings = {"language_code": "ko", "cfg_weight": 0, "exaggeration": 1.5, "sampling": {"min_p": 0.2}}
        await stream.send(open={"settings": settings})
        await stream.send(text={"content": "안녕하세요."})
        await stream.send(end={})
        opened, *rest = await stream.receive_all()
        shown = opened["opened"]["settings"]
        assert {name: shown[name] for name in ("language_code", "cfg_weight", "exaggeration")} == {
            "language_code": "ko",
            "cfg_weight": 0.0,
            "exaggeration": 1.5,
        }
        assert any("audio" in event for event in rest)
        assert at.engine.spoken_languages == ["ko"]


async def test_an_engine_that_lacks_a_package_refuses_the_stream():
    failure = InvalidInput("language", "language is zh, which needs a net.", "LANGUAGE_PACKAGE_MISSING")
    async with http_serving(Script(abilities=MULTILINGUAL, language_failure=failure)) as (at, client):
        answer = await client.post(SPEECH, json=HELLO | {"language": "es"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, "LANGUAGE_PACKAGE_MISSING", "language")
        await at.settled()
