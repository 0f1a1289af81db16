"""Word times and the guard on words of the shipped model, over every surface's own socket."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from websockets.asyncio.client import connect

import engines
import mynah
from engines.config import EngineConfig
from service.config import build_config
from service.server import Server
from tests.mynah.cli.test_cli import ended, start_at
from tests.service.grpc.riva_client import RivaClient, riva_client

TEXT = "The old train leaves at seven. Bring a warm coat!"
CUT = "This sentence is long enough to be cut off somewhere in its middle or before"
WORDS = TEXT.replace(".", "").replace("!", "").split()
T = TypeVar("T")


@dataclass
class Served:
    """A server on the shipped model, and the event loop that it runs on."""

    runner: asyncio.Runner
    grpc: str
    http: str

    def run(self, work: Callable[[], Awaitable[T]]) -> T:
        async def started() -> T:
            return await work()

        return self.runner.run(started())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    async def start() -> tuple[Server, str, str | None]:
        server = Server(engine, build_config(listen="127.0.0.1:0", http_listen="127.0.0.1:0"))
        address, http = await server.start(), await server.start_http()
        await server.warm_up()
        return server, address, http

    with asyncio.Runner() as runner:
        engine = engines.load(EngineConfig(model="tiny", threads=1))
        server, address, http = runner.run(start())
        assert http is not None
        yield Served(runner, address, http)
        runner.run(server.stop(0.0))


@pytest.fixture(scope="module")
def riva() -> Iterator[RivaClient]:
    with riva_client() as client:
        yield client


def check(words: list[str], starts_s: list[float], ends_s: list[float]) -> None:
    """Two short sentences: in order, one after the other, each word as long as a word can be."""
    assert words == WORDS
    assert all(0.03 < end - start < 0.9 for start, end in zip(starts_s, ends_s, strict=True))
    assert all(end <= start + 0.001 for end, start in zip(ends_s, starts_s[1:], strict=False))
    assert starts_s[0] < 0.3
    assert 1.5 < ends_s[-1] < 6.0


def test_grpc(served: Served):
    async def speak() -> None:
        async with mynah.Client(served.grpc) as client:
            assert (await client.info()).word_times
            async with client.stream(word_times=True, word_guard=True, sample_rate_hz=16_000) as stream:
                await stream.send(TEXT)
                await stream.end()
                events = [event async for event in stream.events()]
        words = [word for event in events if isinstance(event, mynah.Words) for word in event.words]
        times = [[w.start_samples / 16_000 for w in words], [w.end_samples / 16_000 for w in words]]
        check([word.text for word in words], *times)
        texts = {event.segment_index: event.text for event in events if isinstance(event, mynah.SegmentStarted)}
        for event in events:
            if isinstance(event, mynah.Words):
                for word in event.words:
                    assert texts[event.segment_index][word.start_char : word.end_char] == word.text
        assert [event.word_guard for event in events if isinstance(event, mynah.SegmentDone)] == [None, None]

    served.run(speak)


def test_grpc_after_a_cancel(served: Served):
    async def speak() -> None:
        async with mynah.Client(served.grpc) as client, client.stream(word_times=True) as stream:
            await stream.send(f"{CUT}.")
            await stream.flush()
            async for event in stream.events():
                if isinstance(event, mynah.Words):
                    await stream.cancel()
                    break
            async for event in stream.events():
                if isinstance(event, mynah.Cancelled):
                    break
        assert isinstance(event, mynah.Cancelled)
        said = [word.text for word in event.words]
        assert said == CUT.split()[: len(said)]
        assert said
        assert event.words[-1].end_samples <= event.delivered_samples

    served.run(speak)


def test_web_socket(served: Served):
    async def speak() -> list[dict[str, Any]]:
        async with connect(f"ws://{served.http}/v1/stream?audio=base64", proxy=None) as socket:
            for message in ({"open": {"settings": {"word_times": True}}}, {"text": {"content": TEXT}}, {"end": {}}):
                await socket.send(json.dumps(message))
            return [json.loads(frame) async for frame in socket]

    words = [word for event in served.run(speak) if "words" in event for word in event["words"]["words"]]
    times = [[int(word[f"{which}_samples"]) / 24_000 for word in words] for which in ("start", "end")]
    check([word["text"] for word in words], *times)


def test_http(served: Served):
    async def speak(path: str, **fields: Any) -> str:
        async with httpx.AsyncClient(timeout=120) as client:
            body = {"input": TEXT, "response_format": "pcm", **fields}
            answer = await client.post(f"http://{served.http}{path}", json=body)
            assert answer.status_code == 200, answer.text
            return answer.text

    sse = served.run(lambda: speak("/v1/audio/speech", stream_format="sse", word_times=True))
    events = [json.loads(line.removeprefix("data: ")) for line in sse.split("\n\n") if line]
    words = [word for event in events if event["type"] == "speech.audio.words" for word in event["words"]]
    check([word["word"] for word in words], [word["start"] for word in words], [word["end"] for word in words])
    captioned = served.run(lambda: speak("/dev/captioned_speech", stream=False))
    (whole,) = [json.loads(line) for line in captioned.splitlines()]
    stamps = whole["timestamps"]
    check([each["word"] for each in stamps], [e["start_time"] for e in stamps], [e["end_time"] for e in stamps])
    assert len(base64.b64decode(whole["audio"])) / 48_000 >= stamps[-1]["end_time"]


def test_riva(served: Served, riva: RivaClient):
    answers = served.run(
        lambda: riva(served.grpc, "synthesize_online", TEXT, sample_rate_hz=24_000, enable_word_time_offsets=True)
    )
    words = [word for answer in answers for word in answer.meta.words]
    times = [[word.start_time / 1000 for word in words], [word.end_time / 1000 for word in words]]
    check([word.word for word in words], *times)


def test_the_command_line(served: Served, tmp_path: Path):
    subtitles = tmp_path / "a.srt"

    async def say() -> int:
        arguments = ["say", TEXT, "-o", str(tmp_path / "a.mp3"), "--subtitles", str(subtitles), "--word-guard"]
        return (await ended(await start_at(served.grpc, *arguments))).status

    assert served.run(say) == 0
    lines = subtitles.read_text().splitlines()
    assert [lines[2], lines[6]] == ["The old train leaves at seven.", "Bring a warm coat!"]


@pytest.mark.parametrize("text", ["It costs $1,234.56.", "See docs.example.com/a_b/c/d."])
def test_the_guard_lets_a_last_word_be_spoken_to_its_end(text: str, served: Served):
    async def speak() -> None:
        async with mynah.Client(served.grpc) as client:
            stream = client.stream(word_guard=True, sampling=mynah.Sampling(seed=5))
            async with stream:
                await stream.send(text)
                await stream.end()
                done = [event async for event in stream.events() if isinstance(event, mynah.SegmentDone)]
        assert [each.word_guard for each in done] == [None]
        assert done[0].samples > 3.2 * 24_000

    served.run(speak)
