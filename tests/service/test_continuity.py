"""The option `continuity` on every surface: the engine's segments have it; an engine without it says so and refuses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import mynah
from engines.api import Segment
from engines.fake import FakeStream, Script
from mynah.client.errors import from_status
from tests.service.grpc.riva_client import RivaClient, RivaError, riva_client
from tests.service.http.clients import HELLO, SPEECH, http_serving, socket
from tests.service.serving import serving

CAPTIONED = "/dev/captioned_speech"
TEXT = "This is the first. This is the second."


@pytest.fixture(scope="module")
def riva() -> Iterator[RivaClient]:
    with riva_client() as client:
        yield client


@pytest.fixture
def segments(monkeypatch: pytest.MonkeyPatch) -> list[Segment]:
    """The segments that the engine is asked to speak."""
    asked: list[Segment] = []
    speak = FakeStream.speak

    def noted(stream: FakeStream, segment: Segment):
        asked.append(segment)
        return speak(stream, segment)

    monkeypatch.setattr(FakeStream, "speak", noted)
    return asked


@pytest.mark.parametrize(("chosen", "used"), [(True, True), (False, False), (None, False)])
async def test_a_stream_s_segments_have_it(segments: list[Segment], chosen: bool | None, used: bool):
    async with serving() as at, at.client.stream(continuity=chosen) as stream:
        assert stream.opened.settings.continuity is used
        await stream.send(TEXT)
        await stream.end()
        assert [event async for event in stream]
    assert [segment.continuity for segment in segments] == [used] * 2


async def test_every_surface_takes_it(segments: list[Segment], riva: RivaClient):
    async with http_serving() as (at, client):
        assert [chunk async for chunk in at.client.synthesize(TEXT, continuity=True)]
        for path in (SPEECH, CAPTIONED):
            body = HELLO | {"input": TEXT, "continuity": True}
            assert (await client.post(path, json=body)).status_code == 200
        async with socket(at) as stream:
            await stream.send(open={"settings": {"continuity": True}})
            await stream.send(text={"content": TEXT})
            await stream.send(end={})
            assert await stream.receive_all()
        custom = {"custom_configuration": {"continuity": "true", "word_guard": "true"}}
        assert await riva(at.address, "synthesize", TEXT, sample_rate_hz=24_000, **custom)
    assert [segment.continuity for segment in segments] == [True] * 10
    assert [segment.word_guard for segment in segments] == [False] * 8 + [True] * 2


@pytest.mark.parametrize("has", [True, False])
async def test_the_servers_description_says_whether_it_has_it(has: bool):
    async with http_serving(Script(continuity=has)) as (at, client):
        assert (await at.client.info()).continuity is has
        assert (await client.get("/v1/info")).json()["continuity"] is has


async def test_an_engine_without_it_refuses(riva: RivaClient):
    async with http_serving(Script(continuity=False)) as (at, client):
        with pytest.raises(mynah.InvalidArgument) as refused:
            async with at.client.stream(continuity=True):
                pass
        assert (refused.value.reason, refused.value.field) == ("CONTINUITY_UNAVAILABLE", "settings.continuity")
        for path in (SPEECH, CAPTIONED):
            error = (await client.post(path, json=HELLO | {"continuity": True})).json()["error"]
            assert (error["param"], error["code"]) == ("continuity", "CONTINUITY_UNAVAILABLE")
        with pytest.raises(RivaError) as status:
            await riva(at.address, "synthesize", TEXT, custom_configuration={"continuity": "true"})
        assert from_status(*status.value.status).field == "custom_configuration[continuity]"
        await at.check_serves()
