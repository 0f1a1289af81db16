"""An engine without a port: it speaks, refuses and takes options as a server does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import mynah
from engines.errors import EngineFailure
from engines.fake import FakeEngine, Script
from mynah.batch.run import Spoken
from mynah.batch.script import Item, read_script
from mynah.batch.stream_speaker import StreamSpeaker
from mynah.client.stream import SpeechStream
from service import engine_loader
from service.bulk import engine as bulk_engine
from service.bulk.engine import Engine, configuration
from tests.service.serving import serving


@asynccontextmanager
async def bulk(patch: pytest.MonkeyPatch, script: Script | None = None) -> AsyncIterator[tuple[Engine, FakeEngine]]:
    fake = FakeEngine(script, max_streams=4)
    patch.setattr(engine_loader, "load_engine", lambda *of: fake)
    patch.setattr(bulk_engine.logs, "configure", lambda *_: None)  # the tests' own stays
    engine = Engine({"voices_dir": "memory"}, jobs=4, threads=1)
    await engine.open()
    yield engine, fake
    assert fake.at_rest
    await engine.close()
    assert fake.closed


def line(text: str, **rest: object) -> Item:
    (item,) = read_script([json.dumps({"text": text, "name": "line", **rest})])
    return item


async def spoken_by_a_server(item: Item, **settings: object) -> Spoken | mynah.MynahError:
    async with serving() as at:
        return await outcome(StreamSpeaker(at.client.stream, **settings), item)  # type: ignore[arg-type]


async def outcome(speaker: StreamSpeaker, item: Item) -> Spoken | mynah.MynahError:
    try:
        return await speaker.speak(item)
    except mynah.MynahError as error:
        return error


@pytest.mark.parametrize(
    "item",
    [
        line("One sentence. And another one, on 3 May!"),
        line("At eight kilohertz.", settings={"sample_rate_hz": 8000, "seed": 3, "speed": 1.5}),
        line("Longer than what may wait on a stream. " * 1000),
    ],
    ids=["text", "settings", "long"],
)
async def test_a_line_has_the_bytes_that_a_server_makes(item: Item, monkeypatch: pytest.MonkeyPatch):
    async with bulk(monkeypatch) as (engine, _):
        here = await outcome(StreamSpeaker(engine.stream, "vtt"), item)
    there = await spoken_by_a_server(item, subtitle_format="vtt")
    assert isinstance(here, Spoken)
    assert isinstance(there, Spoken)
    assert (here.pcm, here.rate_hz, here.subtitles) == (there.pcm, there.rate_hz, there.subtitles)
    assert len(here.pcm) > 5000


@pytest.mark.parametrize(
    "item",
    [
        line("Text.", voice="nobody"),
        line("Text.", voice="Not An Id!"),
        line("Text.", settings={"temperature": 9}),
        line("Text.", settings={"sample_rate_hz": 5}),
        line("<speak>Text.</speak>"),
        line("..."),
    ],
)
async def test_errors_are_those_of_a_server(item: Item, monkeypatch: pytest.MonkeyPatch):
    async with bulk(monkeypatch) as (engine, _):
        here = await outcome(StreamSpeaker(engine.stream), item)
    there = await spoken_by_a_server(item)
    assert isinstance(here, mynah.MynahError)
    assert isinstance(there, mynah.MynahError)
    assert (type(here), str(here), here.__dict__) == (type(there), str(there), there.__dict__)


async def test_an_engine_that_fails_is_an_error_that_may_pass(monkeypatch: pytest.MonkeyPatch):
    failing = Script(failure=EngineFailure("the device is gone"), fail_after_chunks=1, failures=1)
    async with bulk(monkeypatch, failing) as (engine, _):
        failed = await outcome(StreamSpeaker(engine.stream), line("A sentence that fails once."))
        assert isinstance(failed, mynah.ServerError)
        assert (failed.reason, failed.retryable) == ("ENGINE_FAILURE", True)
        again = await outcome(StreamSpeaker(engine.stream), line("A sentence that fails once."))
        assert isinstance(again, Spoken)


async def test_a_stream_that_is_left_frees_all(monkeypatch: pytest.MonkeyPatch):
    async with bulk(monkeypatch, Script(token_s=0.01)) as (engine, fake):
        stream: SpeechStream = engine.stream(text_settings=mynah.TextSettings(), schedule="offline")
        async with stream:
            await stream.send("This is never heard to its end.")
            await stream.flush()
            assert await anext(aiter(stream))
        assert not fake.streams
        speaking = asyncio.create_task(outcome(StreamSpeaker(engine.stream), line("Nor is this.")))
        while not fake.streams:
            fake.progress.clear()
            await fake.progress.wait()
        speaking.cancel()
        await asyncio.wait([speaking])
        assert not fake.streams


async def test_a_line_has_the_same_bytes_alone_and_in_company():
    """On the shipped model, whose windows would share calls on a server."""
    items = [line(text, settings={"seed": 1}) for text in TEXTS]
    engine = Engine({"model": "tiny", "device": "cpu", "voices_dir": "memory"}, jobs=len(items), threads=1)
    await engine.open()
    speaker = StreamSpeaker(engine.stream)
    alone = [(await speaker.speak(item)).pcm for item in items]
    together = await asyncio.gather(*map(speaker.speak, items))
    assert [spoken.pcm for spoken in together] == alone
    await engine.close()


async def test_a_line_chooses_its_model():
    """The shipped model twice, by two names."""
    options = {"model": "one=tiny,two=tiny", "device": "cpu", "voices_dir": "memory"}
    engine = Engine(options, jobs=2, threads=1)
    await engine.open()
    speaker = StreamSpeaker(engine.stream)
    of = {name: line(TEXTS[2], settings={"seed": 1, "model": name}) for name in ("one", "two", "three")}
    assert (await speaker.speak(of["one"])).pcm == (await speaker.speak(of["two"])).pcm
    missing = await outcome(speaker, of["three"])
    assert isinstance(missing, mynah.MynahError)
    assert (missing.reason, "allowed names are one, two" in str(missing)) == ("MODEL_NOT_FOUND", True)
    await engine.close()


def test_two_models_have_two_names():
    with pytest.raises(mynah.InvalidArgument, match="model is given twice as 'tiny'"):
        Engine({"model": "tiny,tiny=random:tiny", "device": "cpu", "voices_dir": "memory"}, jobs=1, threads=1)


TEXTS = (
    "The old train leaves at seven.", "We can meet on 3 May.", "Bring a warm coat!", "It costs $5 now.",
    "She read it twice.", "Two of them came back.",
)  # fmt: skip


# ---- options


def test_options_go_before_variables_and_variables_before_defaults():
    environment = {"MYNAH_MODEL": "nano", "MYNAH_THREADS": "3", "MYNAH_DECODE": "cached", "PATH": "/bin"}
    config = configuration({"model": "turbo"}, jobs=7, threads=2, environment=environment)
    engine = config.engine_configs()[0]
    assert (engine.model, engine.threads, engine.decode, engine.max_streams) == ("turbo", 3, "cached", 7)
    defaults = configuration({}, jobs=1, threads=2, environment={}).engine_configs()[0]
    assert (defaults.threads, defaults.strict_reference) == (2, True), "nothing depends on this machine's speed"
    measured = configuration({"strict_reference": "off"}, jobs=1, threads=2, environment={}).engine_configs()[0]
    assert not measured.strict_reference


def test_lines_share_calls_on_a_gpu_alone():
    def max_batch(**options: str) -> int | None:
        return configuration(options, jobs=1, threads=1, environment={}).engine_configs()[0].max_batch

    assert (max_batch(device="cpu"), max_batch(device="cuda"), max_batch(device="cpu", max_batch="4")) == (1, None, 4)


def test_what_a_pod_of_servers_is_given_is_taken_without_its_ports():
    environment = {"MYNAH_LISTEN": "0.0.0.0:50051", "MYNAH_HTTP_LISTEN": "0.0.0.0:8080", "MYNAH_API_KEYS": "/keys"}
    config = configuration({}, jobs=1, threads=1, environment={**environment, "MYNAH_VOICES_DIR": "/voices"})
    assert (config.on_loopback, config.http_listen, config.api_keys) == (True, None, None)
    assert str(config.voices_dir) == "/voices"


@pytest.mark.parametrize(
    ("options", "message"),
    [({"modle": "x"}, "MYNAH_MODLE is not an option"), ({"decode": "fast"}, "MYNAH_DECODE is 'fast'; it must be")],
)
def test_a_wrong_option_is_named(options: dict[str, str], message: str):
    with pytest.raises(mynah.InvalidArgument, match=message) as raised:
        configuration(options, jobs=1, threads=1, environment={})
    assert raised.value.reason == "OPTION_INVALID"
