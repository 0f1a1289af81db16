"""Floods of text on the shipped model, over WebSocket and gRPC: each ends and loses nothing, and others still speak."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

import mynah
from mynah.client.errors import MynahError
from tests.inputs.surfaces import MAX_SPEECH_TOKENS, Result, Shipped, call

SENTENCE = "One letter at a time. "


@dataclass(frozen=True)
class Flood:
    """Pieces of text, and how the stream ends: with so many segments spoken, or with an error."""

    pieces: Sequence[str]
    segments: int = 0
    error: str = ""


FLOODS = {
    "a letter at a time": Flood(SENTENCE * 2, 2),
    "100 kB at once": Flood(["word " * 20_000], error="TEXT_BACKLOG_FULL"),
    "a word of 100 kB": Flood(["a" * 100_000], error="TEXT_BACKLOG_FULL"),
    "nothing, a thousand times": Flood([""] * 1000 + ["Hi."], 1),
    "a space, a thousand times": Flood([" "] * 1000 + ["Hi."], 1),
    "ten thousand line feeds": Flood(["\n" * 5000] * 2 + ["Hi."], 1),
    "four thousand emoji": Flood(["🎉" * 4000, " Hi."], 1),
}


async def over_grpc(at: Shipped, pieces: Sequence[str]) -> Result:
    result, sampling = Result(), mynah.Sampling(seed=1, max_speech_tokens=MAX_SPEECH_TOKENS)

    async def send(speech: mynah.SpeechStream) -> None:
        for piece in pieces:
            await speech.send(piece)
        await speech.end()

    try:
        async with at.client.stream(sampling=sampling) as speech:
            sending = asyncio.create_task(send(speech))
            async for event in speech.events():
                result.add(event)
            await sending
    except MynahError as error:
        result.error = error.reason
    return result


async def over_websocket(at: Shipped, messages: Sequence[dict[str, Any] | str]) -> Result:
    """`messages` follow the one that opens the stream, as JSON or as they are."""
    result, sampling = Result(), {"seed": 1, "max_speech_token_count": MAX_SPEECH_TOKENS}
    opening = {"open": {"settings": {"sampling": sampling}}}
    async with connect(f"ws://{at.http}/v1/stream", max_size=None) as socket:

        async def send() -> None:
            with suppress(ConnectionClosedError):
                for message in (opening, *messages, {"end": {}}):
                    await socket.send(message if isinstance(message, str) else json.dumps(message))

        sending = asyncio.create_task(send())
        with suppress(ConnectionClosedError):  # after an error, which came as a frame
            async for frame in socket:
                fields = {} if isinstance(frame, bytes) else json.loads(frame)
                if "segment_started" in fields:
                    result.spoken.append(fields["segment_started"]["text"])
                if "error" in fields:
                    result.error = fields["error"]["code"]
        await sending
    return result


def text(content: str) -> dict[str, Any]:
    return {"text": {"content": content}}


async def assert_speaks(at: Shipped) -> None:
    assert (await call(at, "http", "Hi.", {})).error == ""


@pytest.mark.parametrize("surface", ["grpc", "websocket"])
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_text_ends(runner: asyncio.Runner, at: Shipped, name: str, surface: str) -> None:
    flood = FLOODS[name]
    over = over_grpc(at, flood.pieces) if surface == "grpc" else over_websocket(at, [text(p) for p in flood.pieces])
    result = runner.run(over)
    assert (len(result.spoken), result.error) == (flood.segments, flood.error)
    runner.run(assert_speaks(at))


@pytest.mark.parametrize("surface", ["grpc", "websocket"])
def test_a_word_of_900_letters_is_spoken_to_its_end(runner: asyncio.Runner, at: Shipped, surface: str) -> None:
    pieces = ["a" * 900]
    over = over_grpc(at, pieces) if surface == "grpc" else over_websocket(at, [text(piece) for piece in pieces])
    result = runner.run(over)
    assert ("".join(result.spoken), result.skipped, result.error) == ("a" * 900, [], "")


def test_cancels_again_and_again(runner: asyncio.Runner, at: Shipped) -> None:
    dropped: list[dict[str, Any] | str] = [text("Hello there my friend."), {"cancel": {}}]
    result = runner.run(over_websocket(at, [*dropped * 100, text("Goodbye.")]))
    assert (result.spoken[-1], result.error) == ("Goodbye.", "")
    runner.run(assert_speaks(at))


def test_flushes_again_and_again(runner: asyncio.Runner, at: Shipped) -> None:
    flushes = [{"flush": {"flush_id": number + 1}} for number in range(200)]
    result = runner.run(over_websocket(at, [text("Hi."), *flushes, text("Bye.")]))
    assert (result.spoken, result.error) == (["Hi.", "Bye."], "")


def test_halves_of_an_emoji_in_two_messages(runner: asyncio.Runner, at: Shipped) -> None:
    """A client that cuts JavaScript's strings anywhere sends them; what cannot be a text is refused by name."""
    halves = [r'{"text":{"content":"Hi. \ud83c"}}', r'{"text":{"content":"\udf89 Bye."}}']
    result = runner.run(over_websocket(at, halves))
    assert result.error == "MESSAGE_INVALID"
    runner.run(assert_speaks(at))
