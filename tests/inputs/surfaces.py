"""The shipped model behind every surface, each called as its own clients call it, and one form for what came of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from riva.client.proto import riva_tts_pb2, riva_tts_pb2_grpc
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import engines
import mynah
from engines.config import EngineConfig
from engines.pipeline import Pipeline
from mynah.cli.commands import execute
from mynah.cli.main import parser
from mynah.client.errors import MynahError
from mynah.client.transport import rpc_errors
from mynah.client.wire import event_from_wire, settings_to_wire
from mynah.v1 import speech_pb2, speech_pb2_grpc
from service.config import build_config
from service.server import Server

MAX_SPEECH_TOKENS = 6  # of a segment: enough to see that it is spoken
Settings = dict[str, Any]  # fields of TextSettings, the dictionary as words and respellings; speed, first_segment
OF_STREAM = ("speed", "first_segment")


@dataclass
class Result:
    """What came of one text: its segments where the surface tells them, the audio's bytes, or the error."""

    spoken: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # the spoken forms of these, where there are some; pauses as seconds
    marks: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)  # reasons
    audio_bytes: int = 0
    error: str = ""  # its reason
    told_segments: bool = True

    def add(self, event: mynah.Event | None) -> None:
        if isinstance(event, mynah.SegmentStarted):
            self.spoken += [event.text] if not event.pause_s else []
            self.said.append(f"{event.pause_s:g}" if event.pause_s else event.spoken_text)
        elif isinstance(event, mynah.MarkReached):
            self.marks.append(event.name)
        elif isinstance(event, mynah.SegmentDone) and event.skipped:
            self.skipped.append(event.skip_reason)
        elif isinstance(event, mynah.AudioChunk):
            self.audio_bytes += len(event.data)


@dataclass
class Shipped:
    """A server on the shipped model, and the addresses of its ports."""

    grpc: str
    http: str
    channel: grpc.aio.Channel
    client: mynah.Client
    folder: Path
    engine: Pipeline


@asynccontextmanager
async def shipped(folder: Path) -> AsyncIterator[Shipped]:
    """Serve the shipped model on free ports."""
    engine = engines.load(EngineConfig(model="tiny", device="cpu", max_streams=4, threads=1, strict_reference=True))
    assert isinstance(engine, Pipeline)
    server = Server(engine, build_config(listen="127.0.0.1:0", http_listen="127.0.0.1:0"))
    address, http = await server.start(), await server.start_http()
    await server.warm_up()
    assert http is not None
    try:
        async with mynah.Client(address) as client, grpc.aio.insecure_channel(address) as channel:
            yield Shipped(address, http, channel, client, folder, engine)
    finally:
        await server.stop(0)


def _text_settings(chosen: Settings) -> mynah.TextSettings:
    of_text = {name: value for name, value in chosen.items() if name not in OF_STREAM}
    entries = tuple(mynah.DictionaryEntry(*entry) for entry in chosen.get("dictionary", {}).items())
    return mynah.TextSettings(**of_text | {"dictionary": entries})


def _of_stream(chosen: Settings) -> Settings:
    return {name: value for name, value in chosen.items() if name in OF_STREAM}


async def stream(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """The Python client's stream; the text arrives in pieces of five characters."""
    sampling = mynah.Sampling(seed=1, max_speech_tokens=MAX_SPEECH_TOKENS)
    async with at.client.stream(
        sampling=sampling, text_settings=_text_settings(chosen), **_of_stream(chosen)
    ) as speech:
        for start in range(0, len(text), 5):
            await speech.send(text[start : start + 5])
        await speech.end()
        async for event in speech.events():
            result.add(event)


async def synthesize(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """gRPC's Synthesize with generated stubs."""
    sampling = mynah.Sampling(seed=1, max_speech_tokens=MAX_SPEECH_TOKENS)
    settings = settings_to_wire(
        mynah.SpeechSettings(sampling=sampling, text=_text_settings(chosen), **_of_stream(chosen))
    )
    request = speech_pb2.SynthesizeRequest(settings=settings, text=text)
    async for answer in speech_pb2_grpc.SpeechStub(at.channel).Synthesize(request):
        result.add(event_from_wire(answer))


async def http(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """`POST /v1/audio/speech`."""
    result.told_segments = False
    body = {"model": "tiny", "input": text, "voice": "default", "response_format": "pcm", **chosen}
    body |= {"seed": 1, "max_speech_token_count": MAX_SPEECH_TOKENS}
    async with httpx.AsyncClient(base_url=f"http://{at.http}", timeout=60) as client:
        answer = await client.post("/v1/audio/speech", json=body)
    if answer.status_code == 200:
        result.audio_bytes = len(answer.content)
    else:
        assert answer.status_code == 400
        result.error = answer.json()["error"]["code"]


async def websocket(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """`/v1/stream` with JSON frames."""
    words = {name: f"{name}_{value}".upper() if isinstance(value, str) else value for name, value in chosen.items()}
    if "dictionary" in chosen:
        words["dictionary"] = [{"word": word, "respelling": said} for word, said in chosen["dictionary"].items()]
    of_stream = {name: words.pop(name) for name in OF_STREAM if name in words}
    sampling = {"seed": 1, "max_speech_token_count": MAX_SPEECH_TOKENS}
    async with connect(f"ws://{at.http}/v1/stream") as socket:
        await socket.send(json.dumps({"open": {"settings": {"sampling": sampling, "text": words, **of_stream}}}))
        await socket.send(json.dumps({"text": {"content": text}}))
        await socket.send(json.dumps({"end": {}}))
        with suppress(ConnectionClosedError):  # after an error, which came as a frame
            async for frame in socket:
                if isinstance(frame, bytes):
                    result.audio_bytes += len(frame)
                else:
                    _add_frame(json.loads(frame), result)


def _add_frame(frame: dict[str, Any], result: Result) -> None:
    if "segment_started" in frame:
        started = frame["segment_started"]
        result.spoken += [started["text"]] if not started["pause_s"] else []
        result.said.append(f"{started['pause_s']:g}" if started["pause_s"] else started["spoken_text"])
    if "mark_reached" in frame:
        result.marks.append(frame["mark_reached"]["name"])
    if frame.get("segment_done", {}).get("skipped"):
        result.skipped.append(frame["segment_done"]["skip_reason"].removeprefix("SKIP_REASON_").lower())
    if "error" in frame:
        result.error = frame["error"]["code"]


async def riva(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """Riva's Synthesize."""
    result.told_segments = False
    configuration = {name: str(value).lower() for name, value in chosen.items() if name != "dictionary"}
    configuration["max_speech_token_count"] = str(MAX_SPEECH_TOKENS)
    request = riva_tts_pb2.SynthesizeSpeechRequest(
        text=text,
        language_code="en-US",
        sample_rate_hz=24_000,
        custom_configuration=configuration,
        custom_dictionary=",".join("  ".join(entry) for entry in chosen.get("dictionary", {}).items()),
    )
    answer = await riva_tts_pb2_grpc.RivaSpeechSynthesisStub(at.channel).Synthesize(request)
    result.audio_bytes = len(answer.audio)


async def cli(at: Shipped, text: str, chosen: Settings, result: Result) -> None:
    """`mynah say`."""
    result.told_segments = False
    output = at.folder / "said.pcm"
    flags = [_flag(name, value, at.folder) for name, value in chosen.items()]
    command = ["--server", at.grpc, "say", "--quiet", "--seed=1", "-o", str(output), *flags, "--", text]
    await execute(parser().parse_args(command))
    result.audio_bytes = output.stat().st_size


def _flag(name: str, value: Any, folder: Path) -> str:
    flag = name.replace("_", "-").removesuffix("-s")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    if isinstance(value, dict):
        file = folder / "words.dict"
        file.write_text("\n".join(" = ".join(entry) for entry in value.items()))
        return f"--{flag}={file}"
    return f"--{flag}={value}"


Surface = Callable[[Shipped, str, Settings, Result], Awaitable[None]]
SURFACES: dict[str, Surface] = {
    "stream": stream,
    "synthesize": synthesize,
    "http": http,
    "websocket": websocket,
    "riva": riva,
    "cli": cli,
}


async def call(at: Shipped, surface: str, text: str, chosen: Settings) -> Result:
    """Send a text to a surface; an error's reason is part of the result."""
    result = Result()
    try:
        async with rpc_errors():
            await SURFACES[surface](at, text, chosen, result)
    except MynahError as error:
        result.error = error.reason
    return result
