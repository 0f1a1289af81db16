"""One take over a WebSocket: text and stop in, PCM and events out. Translates; decides nothing.

The browser says, as JSON: {"type": "open", "voice": ..., "sampling": {...}} first, then {"type": "text", "text": ...}
any number of times, {"type": "end"} when there is no more text, {"type": "stop"} at any time. It hears JSON events;
each "chunk" is followed by one binary message with its samples (16-bit little-endian, mono). The last event is
"done", "stopped" or "error"; then the socket is closed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import replace
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

import mynah
from mynah import AudioChunk, InvalidArgument, MynahError, SegmentDone, SegmentStarted
from ui.takes import Takes
from ui.words import explain

_WAITING_TEXTS = 2000  # words on their way from a browser to the server
_NUMBERS: dict[str, type[int] | type[float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "seed": int,
    "max_speech_tokens": int,
}


async def speak(socket: WebSocket, client: mynah.Client, takes: Takes) -> None:
    """Serve one take to its end. When this returns the server holds nothing of it."""
    await socket.accept()
    try:
        await _Take(socket, client, takes).run()
    except MynahError as error:
        await _tell(socket, "error", **explain(error))
    except WebSocketDisconnect:
        return
    with suppress(RuntimeError, WebSocketDisconnect):  # the browser was faster
        await socket.close()


async def _tell(socket: WebSocket, kind: str, **about: Any) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):  # gone; its reader learns of it
        await socket.send_text(json.dumps({"type": kind, **about}))


class _Take:
    """The stream behind one socket. Three tasks: the browser's words, their way to the server, the server's answers."""

    def __init__(self, socket: WebSocket, client: mynah.Client, takes: Takes) -> None:
        self._socket = socket
        self._client = client
        self._takes = takes
        self._texts: asyncio.Queue[str | None] = asyncio.Queue(_WAITING_TEXTS)
        self._pcm = bytearray()
        self._rate_hz = 0  # known when the stream is open

    async def run(self) -> None:
        opening = await self._receive("open")
        listening = asyncio.create_task(self._listen())
        speaking = asyncio.create_task(self._speak(opening))
        try:
            await asyncio.wait([listening, speaking], return_when=asyncio.FIRST_COMPLETED)
            stopped = listening.done() and not speaking.done()
        finally:
            for task in (listening, speaking):
                task.cancel()
            results = await asyncio.gather(listening, speaking, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        await _tell(self._socket, "stopped" if stopped else "done", take=self._kept())

    def _kept(self) -> str:
        return self._takes.keep(self._rate_hz, bytes(self._pcm)) if self._pcm else ""

    async def _receive(self, *types: str) -> dict[str, Any]:
        try:
            message = json.loads(await self._socket.receive_text())
        except (ValueError, KeyError):
            message = None
        if not isinstance(message, dict) or message.get("type") not in types:
            raise InvalidArgument(f"expected {' or '.join(types)}", reason="MESSAGE_INVALID")
        return message

    async def _listen(self) -> None:
        """The browser's words, until it says stop or leaves."""
        while (message := await self._receive("text", "end", "stop"))["type"] != "stop":
            text = str(message.get("text", "")) if message["type"] == "text" else None
            try:
                self._texts.put_nowait(text)
            except asyncio.QueueFull:
                raise InvalidArgument("too much text at once", reason="TEXT_BACKLOG_FULL") from None

    async def _speak(self, opening: dict[str, Any]) -> None:
        sampling = _sampling(opening.get("sampling") or {})
        if sampling.seed is None:  # named here, so that "again" makes the very same bytes
            sampling = replace(sampling, seed=secrets.randbits(53))
        voice = str(opening["voice"]) if opening.get("voice") else None
        async with self._client.stream(voice=voice, audio_format="pcm_s16le", sampling=sampling) as stream:
            settings = stream.opened.settings
            self._rate_hz = settings.sample_rate_hz or 24_000
            seed = str(settings.sampling.seed)  # beyond 2^53 a browser's numbers would round it
            await _tell(self._socket, "opened", seed=seed, rate_hz=self._rate_hz, voice=settings.voice)
            writing = asyncio.create_task(self._write(stream))
            try:
                async for event in stream.events():
                    await self._forward(event)
                await writing
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _write(self, stream: mynah.SpeechStream) -> None:
        while (text := await self._texts.get()) is not None:
            for start in range(0, len(text), stream.max_piece_chars):
                piece = text[start : start + stream.max_piece_chars]
                await stream.room(len(piece))
                await stream.send(piece)
        await stream.end()

    async def _forward(self, event: mynah.Event) -> None:
        if isinstance(event, AudioChunk):
            self._pcm += event.data
            await _tell(self._socket, "chunk", **_chunk(event))
            with suppress(RuntimeError, WebSocketDisconnect):
                await self._socket.send_bytes(event.data)
        elif isinstance(event, SegmentStarted):
            about = {"segment": event.segment_index, "offset": event.offset_samples, "text": event.text}
            about["consumed"] = event.consumed_text_chars
            await _tell(self._socket, "segment", **about, text_tokens=event.text_tokens)
        elif isinstance(event, SegmentDone):
            await _tell(self._socket, "segment_done", **_segment_done(event))


def _chunk(chunk: AudioChunk) -> dict[str, Any]:
    window = chunk.window
    about: dict[str, Any] = {"segment": chunk.segment_index, "offset": chunk.offset_samples, "samples": chunk.samples}
    if window is not None:
        about["window"] = {
            "index": window.window_index,
            "new_tokens": window.new_speech_tokens,
            "made_tokens": window.made_speech_tokens,
            "queue_s": window.queue_s,
            "decode_s": window.decode_s,
        }
    return about


def _segment_done(done: SegmentDone) -> dict[str, Any]:
    return {
        "segment": done.segment_index,
        "skipped": done.skipped,
        "hit_token_limit": done.hit_token_limit,
        "tokens": done.speech_tokens,
        "windows": done.windows,
        "ttfa_s": done.ttfa_s,
        "t3_s": done.t3_s,
        "s3gen_s": done.s3gen_s,
    }


def _sampling(given: dict[str, Any]) -> mynah.Sampling:
    """Raises InvalidArgument for what is no number; ranges are the server's to check."""
    chosen: dict[str, Any] = {}
    for name, kind in _NUMBERS.items():
        value = given.get(name)
        if value is not None and str(value).strip():
            chosen[name] = _number(name, str(value).strip(), kind)
    return mynah.Sampling(**chosen)


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        allowed = "a whole number" if kind is int else "a number"
        raise InvalidArgument(
            f"{name} = {text!r}", reason="NOT_A_NUMBER", field=f"sampling.{name}", value=repr(text), allowed=allowed
        ) from None
