"""What applies before every endpoint: origins, CORS, API keys, TLS, health, errors of paths and methods."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from google.protobuf.json_format import ParseDict
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from mynah.v1 import speech_pb2
from service.access.keys import ApiKey, digest, write_keys
from service.config import ConfigError, ServerConfig
from service.server import Server
from tests.service.http.clients import HELLO, SPEECH, http_serving, socket
from tests.service.serving import REFERENCE, serving

EVIL = {"origin": "https://evil.example"}


async def test_unknown_paths_and_methods():
    async with http_serving() as (_, client):
        nothing = await client.get("/v2/anything")
        assert (nothing.status_code, nothing.json()["error"]["code"]) == (404, "NO_SUCH_PATH")
        wrong = await client.get(SPEECH)
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "METHOD_NOT_ALLOWED")
        assert wrong.headers["allow"] == "POST"


async def test_the_websockets_path_says_what_it_is_to_plain_http():
    async with http_serving() as (_, client):
        answer = await client.get("/v1/stream")
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        error = answer.json()["error"]
        assert (error["code"], "ws://" in error["message"]) == ("UPGRADE_REQUIRED", True)


async def test_a_refused_websocket_is_not_an_error_of_the_log(caplog: pytest.LogCaptureFixture):
    async with http_serving() as (at, _):
        for path in ("/v2/anything", SPEECH):
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://{at.http}{path}", proxy=None)
            assert json.loads(refused.value.response.body)["error"]["code"] == "NO_SUCH_PATH"
    assert not [record for record in caplog.records if record.name == "uvicorn.error"]


async def test_health_follows_the_servers_state():
    async with http_serving(warm=False) as (at, client):
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        warming = await client.get("/readyz")
        assert (warming.status_code, warming.json()["error"]["code"]) == (503, "NOT_READY")
        assert warming.headers["retry-after"] == "1"
        refused = await client.post(SPEECH, json=HELLO)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "NOT_READY")
        await at.server.warm_up()
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        at.server.admission.drain()
        assert (await client.get("/readyz")).json()["error"]["code"] == "DRAINING"
        assert (await client.get("/healthz")).status_code == 200


async def test_models():
    async with http_serving() as (_, client):
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert (model["id"], model["object"]) == ("fake", "model")
        assert (await client.get("/v1/models/fake")).json() == model
        missing = await client.get("/v1/models/other")
        assert (missing.status_code, missing.json()["error"]["code"]) == (404, "MODEL_NOT_FOUND")


async def test_the_servers_info_is_that_of_grpc():
    async with http_serving(max_streams=4) as (at, client):
        answer = (await client.get("/v1/info")).json()
        over_grpc = await at.speech.GetServerInfo(speech_pb2.GetServerInfoRequest())
        assert ParseDict(answer, speech_pb2.GetServerInfoResponse()) == over_grpc
        assert (answer["model"], answer["limits"]["max_open_stream_count"]) == ("fake", 4)
        async with at.client.stream():
            assert (await client.get("/v1/info")).json()["open_stream_count"] == 1


async def test_scripts_of_other_pages_are_rejected():
    async with http_serving() as (at, client):
        for request in (
            client.build_request("POST", SPEECH, json=HELLO, headers=EVIL),
            client.build_request("POST", "/v1/voices", data={"name": "x"}, files={"audio": REFERENCE}, headers=EVIL),
            client.build_request("DELETE", "/v1/voices/default", headers=EVIL),
            client.build_request("POST", SPEECH, json=HELLO, headers={"origin": "null"}),
            client.build_request("POST", SPEECH, json=HELLO, headers={"origin": "http://["}),
        ):
            answer = await client.send(request)
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "ORIGIN_NOT_ALLOWED")
        assert at.engine.opened_streams == 0
        with pytest.raises(InvalidStatus) as raised:
            async with socket(at, origin=EVIL["origin"]):
                pass
        assert raised.value.response.status_code == 403
        answer = await client.get("/v1/models", headers=EVIL)
        assert "access-control-allow-origin" not in answer.headers


async def test_the_servers_own_pages_and_listed_ones_are_allowed():
    app = {"origin": "https://app.example"}
    async with http_serving(cors_origin=(app["origin"],)) as (at, client):
        own = {"origin": f"http://{at.http}"}
        for headers in (own, app, {}):
            assert (await client.post(SPEECH, json=HELLO, headers=headers)).status_code == 200
            async with socket(at, additional_headers=headers) as stream:
                await stream.send(open={})
                assert "opened" in (await stream.receive())
        asked = app | {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        allowed = await client.options(SPEECH, headers=asked)
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, app["origin"])
        refusal = await client.post(SPEECH, json={}, headers=app)
        assert refusal.headers["access-control-allow-origin"] == app["origin"], "so that the page can read it"
        assert (await client.post(SPEECH, json=HELLO, headers=EVIL)).status_code == 403


async def test_api_keys_apply_to_http_too(tmp_path: Path):
    keys = tmp_path / "keys.json"
    write_keys(keys, [ApiKey("anna", digest("sesame"), max_streams=1)])
    async with (
        serving(http=True, api_keys=keys, warm=True) as at,
        httpx.AsyncClient(base_url=f"http://{at.http}") as client,
    ):
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic sesame"}):
            answer = await client.get("/v1/models", headers=headers)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (
                401,
                "API_KEY_INVALID",
                "authentication_error",
            )
            assert answer.headers["www-authenticate"] == "Bearer"
        with_key = {"authorization": "Bearer sesame"}
        assert (await client.post(SPEECH, json=HELLO, headers=with_key)).status_code == 200
        with pytest.raises(InvalidStatus) as raised:
            async with socket(at):
                pass
        assert raised.value.response.status_code == 401
        async with socket(at, subprotocols=["mynah.v1", "bearer.sesame"]) as stream:
            assert stream.connection.subprotocol == "mynah.v1"
            await stream.send(open={})
            assert "opened" in (await stream.receive())
            busy = await client.post(SPEECH, json=HELLO, headers=with_key)
            assert (busy.status_code, busy.json()["error"]["code"]) == (429, "KEY_STREAMS_EXHAUSTED")


async def test_a_port_in_use_is_an_error():
    async with http_serving() as (at, _), serving() as other:
        second = Server(other.engine, ServerConfig(listen="127.0.0.1:0", http_listen=at.http))
        with pytest.raises(ConfigError, match="cannot listen on"):
            await second.start_http()
        await second.stop(0)


@pytest.mark.parametrize("http_listen", ["0.0.0.0:8080", "[::]:0"])
def test_http_without_tls_on_a_public_address_must_be_explicit(http_listen: str):
    with pytest.raises(ConfigError, match="http_listen"):
        ServerConfig(http_listen=http_listen)
    ServerConfig(http_listen=http_listen, insecure=True)
