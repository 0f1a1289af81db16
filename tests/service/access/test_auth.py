"""API keys: authentication, the limits of each key, and key files that change while a server runs."""

from __future__ import annotations

import json
import stat
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import mynah
from engines.fake import Script
from mynah.client.transport import send
from mynah.v1 import speech_pb2
from service.access import auth, keys
from service.access.admission import Admission
from service.access.auth import Authenticator
from service.access.keys import ApiKey, KeyFileError, digest, read_keys, write_keys
from service.config import ConfigError, ServerConfig
from service.errors import ResourceExhausted, Unauthenticated
from service.server import Server
from tests.service.serving import REFERENCE, FakeEngine, error_of, serving


@pytest.fixture(autouse=True)
def no_caller_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call has a context of its own. A test that is no coroutine has the process's, which later tests have too."""
    monkeypatch.setattr(auth, "_CALLER", ContextVar[ApiKey | None]("caller of a test", default=None))


def key_file(folder: Path, **limits: dict[str, int]) -> Path:
    """Each name is its own key."""
    path = folder / "keys.json"
    write_keys(path, [ApiKey(name, digest(name), **members) for name, members in limits.items()])
    return path


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_without_a_key_file_calls_are_anonymous():
    authenticator = Authenticator()
    assert not authenticator.requires_key
    authenticator.authenticate(None)
    with authenticator.stream():
        pass


@pytest.mark.parametrize("sent", [None, "", "anna", "Bearer", "Bearer ", "Basic anna", "Bearer annA", "Bearer bert "])
def test_calls_without_a_known_key_are_rejected(sent: str | None, tmp_path: Path):
    authenticator = Authenticator(key_file(tmp_path, anna={}))
    for authorization in (sent, "Bearer x"):
        with pytest.raises(Unauthenticated) as raised:
            authenticator.authenticate(authorization)
        assert raised.value.reason == "API_KEY_INVALID"
        assert "x" not in str(raised.value).split()
    with pytest.raises(Unauthenticated), authenticator.stream():
        pass  # as a transport that does not authenticate


@pytest.mark.parametrize("sent", ["Bearer anna", "bearer anna", "BEARER  anna "])
def test_calls_with_a_known_key_are_authenticated(sent: str, tmp_path: Path):
    assert Authenticator(key_file(tmp_path, bert={}, anna={})).authenticate(sent).name == "anna"


def test_each_key_has_its_own_streams(tmp_path: Path):
    authenticator = Authenticator(key_file(tmp_path, anna={"max_streams": 1}, bert={"max_streams": 1}))
    authenticator.authenticate("Bearer anna")
    with authenticator.stream():
        with pytest.raises(ResourceExhausted) as raised, authenticator.stream():
            pass
        assert (raised.value.reason, raised.value.retry_after_s) == ("KEY_STREAMS_EXHAUSTED", 1.0)
        authenticator.authenticate("Bearer bert")
        with authenticator.stream():
            pass
    authenticator.authenticate("Bearer anna")
    with authenticator.stream():
        pass


def test_a_rate_limit_holds_for_every_minute_and_says_when_to_retry(tmp_path: Path):
    clock = Clock()
    authenticator = Authenticator(key_file(tmp_path, anna={"starts_per_minute": 2}), clock)
    authenticator.authenticate("Bearer anna")
    authenticator.count_start()
    clock.now_s += 20
    authenticator.count_start()
    for _ in range(3):
        with pytest.raises(ResourceExhausted) as raised:
            authenticator.count_start()
        assert (raised.value.reason, raised.value.retry_after_s) == ("KEY_RATE_EXCEEDED", 40.0)
    clock.now_s += 40
    authenticator.count_start()  # the first one is a minute old
    with pytest.raises(ResourceExhausted) as raised:
        authenticator.count_start()
    assert raised.value.retry_after_s == 20.0


def test_a_stream_that_the_server_rejects_does_not_count_for_the_key(tmp_path: Path):
    authenticator = Authenticator(key_file(tmp_path, anna={"starts_per_minute": 2, "max_streams": 1}))
    authenticator.authenticate("Bearer anna")
    admission = Admission(1, 1, authenticator)
    admission.open()
    with admission.stream():
        for _ in range(5):
            with pytest.raises(ResourceExhausted) as raised, admission.stream():
                pass
            assert raised.value.reason == "STREAMS_EXHAUSTED"
    with admission.upload():
        pass
    with pytest.raises(ResourceExhausted) as raised, admission.stream():
        pass
    assert raised.value.reason == "KEY_RATE_EXCEEDED"
    assert admission.streams.in_use == 0


def test_keys_change_without_a_restart_and_an_invalid_file_changes_nothing(tmp_path: Path):
    path = key_file(tmp_path, anna={})
    authenticator = Authenticator(path)
    authenticator.authenticate("Bearer anna")
    with authenticator.stream():
        key_file(tmp_path, bert={})
        authenticator.authenticate("Bearer bert")
        with pytest.raises(Unauthenticated):
            authenticator.authenticate("Bearer anna")
    for content in (b"", b"{", b'{"keys": [{"name": "x"}]}', b"[]"):
        path.write_bytes(content)
        authenticator.authenticate("Bearer bert")
    path.unlink()
    authenticator.authenticate("Bearer bert")
    key_file(tmp_path)  # a file without keys is valid
    with pytest.raises(Unauthenticated):
        authenticator.authenticate("Bearer bert")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"keys": [{"name": "a b", "sha256": "0" * 64}]}, "name is 'a b'"),
        ({"keys": [{"name": "a", "sha256": "secret"}]}, "sha256 of a"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "max_streams": 0}]}, "max_streams of a is 0"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "starts_per_minute": True}]}, "starts_per_minute of a is True"),
        ({"keys": [{"name": "a", "sha256": "0" * 64, "max_stream": 1}]}, "max_stream"),
        ({"keys": [{"name": n, "sha256": "0" * 64} for n in "ab"]}, "same sha256"),
        ({"keys": [{"name": "a", "sha256": n * 64} for n in "01"]}, "same name"),
        ({"key": []}, "must be"),
    ],
)
def test_an_invalid_key_file_is_explained(content: object, message: str, tmp_path: Path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(content))
    with pytest.raises(KeyFileError, match=message):
        read_keys(path)
    with pytest.raises(ConfigError, match=r"keys\.json"):
        Server(FakeEngine(), ServerConfig(api_keys=path))


def test_the_command_adds_lists_and_removes_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "keys.json"
    keys.main([str(path), "add", "shop", "--max-streams", "2"])
    secret = capsys.readouterr().out.strip()
    assert len(secret) > 40
    assert secret not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Authenticator(path).authenticate(f"Bearer {secret}").max_streams == 2
    keys.main([str(path), "add", "desk", "--starts-per-minute", "9"])
    keys.main([str(path), "list"])
    assert capsys.readouterr().out.splitlines()[1:] == ["shop\t2 streams", "desk\t9 starts/minute"]
    for wrong in (["add", "desk"], ["remove", "nobody"], ["add", "a b"]):
        with pytest.raises(SystemExit) as raised:
            keys.main([str(path), *wrong])
        assert raised.value.code == 1
    keys.main([str(path), "remove", "shop"])
    assert [key.name for key in read_keys(path)] == ["desk"]
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


async def test_grpc_calls_need_a_key_and_probes_do_not(tmp_path: Path):
    async with serving(api_keys=key_file(tmp_path, anna={})) as at:
        for wrong in (None, "bert"):
            async with mynah.Client(at.address, api_key=wrong) as client:
                for call in (client.info, client.voices.list, lambda: say(client)):
                    with pytest.raises(mynah.NotAllowed) as raised:
                        await call()
                    assert (raised.value.reason, raised.value.retryable) == ("API_KEY_INVALID", False)
                with pytest.raises(mynah.NotAllowed):
                    await client.voices.create("Anna", REFERENCE, consent=True)
                with pytest.raises(mynah.NotAllowed):
                    async with client.stream():
                        pass
        health = health_pb2_grpc.HealthStub(at.channel)
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(at.channel).ServerReflectionInfo()
        await send(reflection, reflection_pb2.ServerReflectionRequest(list_services=""))
        assert await reflection.code() is grpc.StatusCode.UNAUTHENTICATED
        async with mynah.Client(at.address, api_key="anna") as client:
            assert await say(client) == 3 * 960
            await client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
            assert [voice.voice_id for voice in await client.voices.list()] == ["anna", "default"]
        await at.settled()


async def say(client: mynah.Client) -> int:
    return sum([chunk.samples async for chunk in client.synthesize("Hi.")])


async def test_two_different_keys_in_one_call_are_rejected(tmp_path: Path):
    async with serving(api_keys=key_file(tmp_path, anna={}, bert={})) as at:
        metadata = (("authorization", "Bearer anna"), ("authorization", "Bearer bert"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await at.speech.GetServerInfo(speech_pb2.GetServerInfoRequest(), metadata=metadata)
        assert error_of(raised.value).reason == "API_KEY_INVALID"
        await at.speech.GetServerInfo(speech_pb2.GetServerInfoRequest(), metadata=metadata[:1] * 2)


async def test_the_streams_of_one_key_do_not_use_up_anothers(tmp_path: Path):
    limits = {"anna": {"max_streams": 1}, "bert": {}}
    async with serving(Script(token_s=0.001), api_keys=key_file(tmp_path, **limits)) as at:
        anna, bert = (mynah.Client(at.address, api_key=name) for name in ("anna", "bert"))
        async with anna, bert, anna.stream() as stream:
            with pytest.raises(mynah.ServerBusy) as raised:
                await say(anna)
            assert (raised.value.reason, raised.value.retryable) == ("KEY_STREAMS_EXHAUSTED", True)
            assert await say(bert) == 3 * 960
            key_file(tmp_path, bert={})  # anna's key is removed
            await stream.send("Hello.")
            await stream.end()
            assert sum([chunk.samples async for chunk in stream]) == 6 * 960
            with pytest.raises(mynah.NotAllowed):
                await say(anna)
