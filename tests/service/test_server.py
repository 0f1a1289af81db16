"""A server from start to stop: health, reflection, warm-up, draining, addresses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import mynah
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script
from mynah.client.settings import AUDIO_FORMATS
from service.audio.formats import AudioFormat
from service.config import ConfigError, ServerConfig
from service.server import Server
from service.stream.policy import StreamPolicy
from tests.service.serving import Serving, serving

Health = health_pb2.HealthCheckResponse
NAMES = ["", "mynah.v1.Speech", "mynah.v1.Voices"]


async def health(at: Serving) -> set[int]:
    """The health of the server and of each service."""
    stub = health_pb2_grpc.HealthStub(at.channel)
    answers = [await stub.Check(health_pb2.HealthCheckRequest(service=name)) for name in NAMES]
    return {answer.status for answer in answers}


async def test_health_says_serving_only_after_the_warm_up():
    async with serving(warm=False) as at:
        assert await health(at) == {Health.NOT_SERVING}
        assert not await at.client.health()
        assert await at.client.health("liveness")
        await at.server.warm_up()
        assert await health(at) == {Health.SERVING}
        assert await at.client.health()
        with pytest.raises(mynah.NotFound):
            await at.client.health("nobody")


async def test_health_follows_the_engine():
    async with serving() as at:
        await following(at, False, Health.NOT_SERVING)
        await following(at, True, Health.SERVING)


async def test_recovered_engine_does_not_open_a_server_that_is_not_warm():
    async with serving(warm=False) as at:
        at.engine.health.set(False)
        at.engine.health.set(True)
        await asyncio.sleep(0)
        assert await health(at) == {Health.NOT_SERVING}


async def following(at: Serving, healthy: bool, expected: int) -> None:
    """The engine's health changes on another thread, and a watcher is notified."""
    stub = health_pb2_grpc.HealthStub(at.channel)
    watching = stub.Watch(health_pb2.HealthCheckRequest())
    await watching.read()
    await asyncio.to_thread(at.engine.health.set, healthy)
    async with asyncio.timeout(5):
        assert (await watching.read()).status == expected
    watching.cancel()


async def test_before_the_warm_up_streams_are_refused_as_retryable():
    async with serving(warm=False) as at:
        assert (await at.client.info()).model == "fake"
        with pytest.raises(mynah.Unavailable) as raised:
            async with at.client.stream():
                pass
        assert (raised.value.reason, raised.value.retryable) == ("NOT_READY", True)
        with pytest.raises(mynah.Unavailable):
            await at.client.voices.create("Anna", b"a" * 5000, consent=True)
        await at.server.warm_up()
        await at.check_serves()


async def test_a_warm_up_that_fails_never_serves():
    async with serving(Script(warm_up_failure=EngineFailure("no kernel")), warm=False) as at:
        with pytest.raises(EngineFailure):
            await at.server.warm_up()
        assert await health(at) == {Health.NOT_SERVING}


async def test_draining_finishes_open_streams_and_refuses_new_ones():
    async with serving(Script(token_s=0.002)) as at, at.client.stream() as stream:
        await stream.send("This is going to be finished.")
        stopping = asyncio.create_task(at.server.stop(10))
        watch = health_pb2_grpc.HealthStub(at.channel).Watch(health_pb2.HealthCheckRequest())
        async for answer in watch:
            if answer.status == Health.NOT_SERVING:
                break
        with pytest.raises(mynah.Unavailable) as raised:
            async with at.client.stream():
                pass
        assert (raised.value.reason, raised.value.retryable) == ("DRAINING", True)
        assert not await at.client.health()
        assert await at.client.health("liveness")
        await stream.end()
        assert sum([chunk.samples async for chunk in stream]) == 29 * 960
        await stopping


async def test_after_the_grace_period_open_streams_end_with_an_error():
    async with serving() as at, at.client.stream() as stream:
        stopping = asyncio.create_task(at.server.stop(0.05))
        with pytest.raises(mynah.Unavailable) as raised:
            async for _ in stream:
                pass
        assert raised.value.reason == "DRAINING"
        await stopping
        assert at.engine.closed
        assert at.at_rest


async def test_an_idle_server_stops_at_once():
    async with serving() as at:
        await at.check_serves()
        async with asyncio.timeout(2):
            await at.server.stop(60)


async def test_reflection_lists_the_services():
    async with serving() as at:
        stub = reflection_pb2_grpc.ServerReflectionStub(at.channel)
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        answer = await call.read()
        listed = {service.name for service in answer.list_services_response.service}
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="mynah.v1.Speech"))
        described = await call.read()
        call.cancel()
    assert listed >= {"mynah.v1.Speech", "mynah.v1.Voices", "grpc.health.v1.Health"}
    assert described.file_descriptor_response.file_descriptor_proto


async def test_info_counts_open_streams():
    async with serving(max_streams=3) as at:
        assert (await at.client.info()).open_streams == 0
        async with at.client.stream(), at.client.stream():
            info = await at.client.info()
    assert (info.open_streams, info.limits.max_open_streams) == (2, 3)
    assert info.sample_rates_hz == (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
    assert info.audio_formats == AUDIO_FORMATS == tuple(each.value for each in AudioFormat)
    assert info.random_weights


async def test_info_says_how_the_engine_runs_and_why():
    async with serving() as at:
        info = await at.client.info()
        assert (info.decode, info.setting_reason, info.load) == ("", "", None)
        at.engine.info = replace(at.engine.info, decode="cached", setting_reason="It is fast.", load=0.5)
        info = await at.client.info()
    assert (info.decode, info.setting_reason, info.load) == ("cached", "It is fast.", 0.5)


@pytest.mark.parametrize("listen", ["no.such.host.invalid:0", "192.0.2.1:1"])
async def test_an_unavailable_address_is_named(listen: str):
    server = Server(FakeEngine(), ServerConfig(listen=listen, insecure=True))
    with pytest.raises(ConfigError, match=listen):
        await server.start()
    await server.stop(0)


async def test_a_port_that_is_taken_is_an_error():
    async with serving() as at:
        second = Server(FakeEngine(), ServerConfig(listen=at.address))
        with pytest.raises(ConfigError, match=at.address):
            await second.start()
        await second.stop(0)
        await at.check_serves()


async def test_the_folder_of_dictionaries_is_read_at_the_start_and_again_when_it_changes(tmp_path: Path):
    (tmp_path / "all.dict").write_text("nginx = engine ex")
    async with serving(dictionary_dir=tmp_path) as at:

        async def spoken() -> list[str]:
            async with at.client.stream() as stream:
                await stream.send("Run nginx.")
                await stream.end()
                return [event.spoken_text async for event in stream.events() if isinstance(event, mynah.SegmentStarted)]

        assert await spoken() == ["Run engine ex."]
        (tmp_path / "default").mkdir()
        (tmp_path / "default" / "words.dict").write_text("nginx = N G I N X")
        assert await spoken() == ["Run N G I N X."]
    (tmp_path / "all.dict").write_text("nginx")
    with pytest.raises(ConfigError, match=r"all\.dict, line 1"):
        Server(FakeEngine(), ServerConfig(policy=StreamPolicy(dictionary_dir=tmp_path)))


async def test_a_stream_says_how_many_respellings_hold(tmp_path: Path):
    (tmp_path / "all.dict").write_text("nginx = engine ex\nkube = koob")
    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "words.dict").write_text("nginx = N G I N X")
    own = mynah.TextSettings(dictionary=(mynah.DictionaryEntry("a", "b"),))
    async with serving(dictionary_dir=tmp_path) as at:
        for text, count in ((mynah.TextSettings(), 3), (own, 4)):
            async with at.client.stream(text_settings=text) as stream:
                assert stream.opened.dictionary_entries == count
    async with serving() as at, at.client.stream() as stream:
        assert stream.opened.dictionary_entries == 0


async def test_a_server_says_what_it_reads():
    async with serving() as at:
        info = await at.client.info()
    assert info.normalized_languages == ("en",)
    assert {"speak", "break", "sub", "say-as", "phoneme", "mark"} <= set(info.ssml_elements)
