"""The WebSocket of one recording: text and stop in, PCM and events out.

The browser sends JSON: first {"type": "open", "voice": ..., "sampling": {...}, "speed": ..., "language": ...,
"respellings": ..., "first_segment": ..., "schedule": ...}, where "sampling" also has what only some models have, then
any number of {"type": "text", "text": ...}, then {"type": "end"}; {"type": "speed", "speed": ...}, which holds for the
sentences that have not begun, and {"type": "stop"} may come at any time.

It receives JSON events. "segment_started", "segment_done", "words" and "chunk" have the fields of the client's
SegmentStarted, SegmentDone, Words and AudioChunk, and each "chunk" is followed by a binary message with its samples
(16-bit little-endian, mono). The last event is "done", "stopped" or "error"; then the socket is closed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any, cast

from starlette.websockets import WebSocket, WebSocketDisconnect

import mynah
from mynah import AudioChunk, Flushed, InvalidArgument, MynahError, SegmentDone, SegmentStarted, Words
from mynah.client.dictionary import parse_dictionary
from mynah.client.errors import quoted
from ui.error_messages import PAGE_FAILURE, error_message
from ui.recordings import Recordings
from ui.slots import Slots

_log = logging.getLogger("mynah.page")

_MAX_QUEUED_TEXTS = 4000  # messages with text, from the browser to the server
_MAX_QUEUED_CHARS = 2_000_000
_OPENING_TIMEOUT_S = 30.0
_NUMBERS: dict[str, type[int] | type[float]] = {
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "repetition_penalty": float,
    "min_p": float,
    "seed": int,
    "max_speech_tokens": int,
}
_MODEL_NUMBERS: dict[str, type[int] | type[float]] = {"cfg_weight": float, "exaggeration": float}
_MODEL_SWITCHES = ("continuity",)


def socket_slots() -> Slots:
    """The sockets that may be open at once, with up to 2 million characters and 64 MiB of audio each."""
    return Slots(per_visitor=32, in_all=256, reason="STREAMS_EXHAUSTED")


async def speak(socket: WebSocket, client: mynah.Client, recordings: Recordings, slots: Slots) -> None:
    """Serve one recording. The server's stream has ended when this returns."""
    await socket.accept()
    try:
        with slots.hold(socket.client.host if socket.client else ""):
            await _Relay(socket, client, recordings).run()
    except MynahError as error:
        await _send_event(socket, "error", **error_message(error))
    except WebSocketDisconnect:
        return
    except Exception as error:
        _log.error("a recording failed: %s", type(error).__name__, exc_info=error)
        await _send_event(socket, "error", **PAGE_FAILURE)
    with suppress(RuntimeError, WebSocketDisconnect):  # the browser may have closed it first
        await socket.close()


async def _send_event(socket: WebSocket, kind: str, **fields: Any) -> None:
    with suppress(RuntimeError, WebSocketDisconnect):  # the task that reads notices the disconnect
        await socket.send_text(json.dumps({"type": kind, **fields}))


class _Relay:
    """Relays between one socket and one stream, with a task for each of: browser to queue, queue to stream, stream to
    browser."""

    def __init__(self, socket: WebSocket, client: mynah.Client, recordings: Recordings) -> None:
        self._socket = socket
        self._client = client
        self._recordings = recordings
        self._texts: asyncio.Queue[str | None] = asyncio.Queue(_MAX_QUEUED_TEXTS)
        self._queued_chars = 0
        self._pcm = bytearray()  # empty again once it is too long to be kept
        self._kept = True
        self._rate_hz = 0  # set when the stream is open
        self._stream: mynah.SpeechStream | None = None
        self._new_speed: float | None = None  # chosen before the stream is open

    async def run(self) -> None:
        opening = await self._opening()
        reading = asyncio.create_task(self._read_browser())
        speaking = asyncio.create_task(self._speak(opening))
        try:
            await asyncio.wait([reading, speaking], return_when=asyncio.FIRST_COMPLETED)
            stopped = reading.done() and not speaking.done()
        finally:
            for task in (reading, speaking):
                task.cancel()
            results = await asyncio.gather(reading, speaking, return_exceptions=True)
            pcm = bytes(self._pcm)
            self._recordings.release(self._pcm)
        for result in results:
            if isinstance(result, Exception):
                raise result
        recording_id = self._recordings.add(self._rate_hz, pcm) if pcm else ""
        await _send_event(self._socket, "stopped" if stopped else "done", recording_id=recording_id)

    async def _opening(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(_OPENING_TIMEOUT_S):
                return await self._receive("open")
        except TimeoutError:
            message = f"No message of type open came within {_OPENING_TIMEOUT_S:.0f} s."
            raise InvalidArgument(message, reason="OPEN_TIMED_OUT") from None

    async def _receive(self, *types: str) -> dict[str, Any]:
        try:
            message = json.loads(await self._socket.receive_text())
        except (ValueError, KeyError, RecursionError):  # no JSON, a binary message, or JSON that is nested too deeply
            message = None
        if not isinstance(message, dict) or message.get("type") not in types:
            raise InvalidArgument(f"Send a message of type {' or '.join(types)}.", reason="MESSAGE_INVALID")
        return message

    async def _read_browser(self) -> None:
        """Queue the browser's text until it sends stop or disconnects."""
        while (message := await self._receive("text", "speed", "end", "stop"))["type"] != "stop":
            if message["type"] == "speed":
                await self._set_speed(_speed(message))
                continue
            text = _string(message, "text") if message["type"] == "text" else None
            self._queued_chars += len(text or "")
            if self._texts.full() or self._queued_chars > _MAX_QUEUED_CHARS:
                raise InvalidArgument("Too much text at once.", reason="TEXT_BACKLOG_FULL")
            self._texts.put_nowait(text)

    async def _speak(self, opening: dict[str, Any]) -> None:
        sampling = _sampling(opening.get("sampling"))
        if sampling.seed is None:  # only a stream that names its seed can be repeated byte for byte
            sampling = replace(sampling, seed=secrets.randbits(53))
        voice, speed = _string(opening, "voice") or None, _speed(opening)
        text = mynah.TextSettings(dictionary=parse_dictionary(_string(opening, "respellings"), "Respellings"))
        model = _string(opening, "model") or None
        info = await self._client.info()
        timed = next((each.word_times for each in info.models if each.name == model), info.word_times)
        opening_stream = self._client.stream(
            voice=voice,
            audio_format="pcm_s16le",
            sampling=sampling,
            text_settings=text,
            speed=speed,
            first_segment=cast(mynah.FirstSegment | None, _string(opening, "first_segment") or None),
            schedule=cast(mynah.Schedule | None, _string(opening, "schedule") or None),
            model=model,
            language=_string(opening, "language") or None,
            **_chosen(opening.get("sampling"), _MODEL_NUMBERS),
            **_switched_on(opening.get("sampling")),
            word_times=timed or None,
        )
        async with opening_stream as stream:
            self._stream = stream
            await self._set_speed(self._new_speed)
            settings = stream.opened.settings
            self._rate_hz = settings.sample_rate_hz or 24_000
            seed = str(settings.sampling.seed)  # JavaScript's numbers are exact up to 2^53 only
            repeats = {"seed": seed, "schedule": stream.opened.schedule or ""}
            names = ("voice", "model", "language", *_MODEL_NUMBERS, *_MODEL_SWITCHES)
            asked = {name: getattr(settings, name) for name in names}
            await _send_event(self._socket, "opened", **repeats, **asked, rate_hz=self._rate_hz)
            writing = asyncio.create_task(self._write(stream))
            try:
                async for event in stream.events():
                    await self._forward(event)
                    if isinstance(event, Flushed):
                        await stream.end()
                await writing
            finally:
                writing.cancel()
                await asyncio.gather(writing, return_exceptions=True)

    async def _set_speed(self, speed: float | None) -> None:
        self._new_speed = speed
        if self._stream is not None and speed is not None:
            with suppress(MynahError):  # all has been spoken, or `_speak` raises it
                await self._stream.set_speed(speed)

    async def _write(self, stream: mynah.SpeechStream) -> None:
        while (text := await self._texts.get()) is not None:
            await stream.send_long(text)
            self._queued_chars -= len(text)
        await stream.flush()  # not `end`, after which the speed can no longer be changed

    def _keep(self, data: bytes) -> None:
        if self._kept and not self._recordings.grow(self._pcm, data):
            self._kept = False
            self._recordings.release(self._pcm)

    async def _forward(self, event: mynah.Event) -> None:
        match event:
            case AudioChunk():
                self._keep(event.data)
                fields = asdict(event)
                data = fields.pop("data")
                await _send_event(self._socket, "chunk", **fields)
                with suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.send_bytes(data)
            case Words():
                await _send_event(self._socket, "words", **asdict(event))
            case SegmentStarted():
                await _send_event(self._socket, "segment_started", **asdict(event))
            case SegmentDone():
                await _send_event(self._socket, "segment_done", **asdict(event))


def _string(message: dict[str, Any], name: str) -> str:
    """Returns a field of a message, "" if it is absent. Raises InvalidArgument if it is no sendable text."""
    value = message.get(name) or ""
    if not isinstance(value, str) or any("\ud800" <= char <= "\udfff" for char in value):
        raise InvalidArgument(f"{name} must be a string of Unicode characters.", reason="MESSAGE_INVALID")
    return value


def _speed(message: dict[str, Any]) -> float | None:
    """Raises InvalidArgument if it is not a number; the server checks the range."""
    value = message.get("speed")
    return None if value is None else float(_number("speed", str(value), float))


def _sampling(values: Any) -> mynah.Sampling:
    """Returns the sampling settings. Raises InvalidArgument if one is not a number; the server checks the ranges."""
    return mynah.Sampling(**_chosen(values, _NUMBERS))


def _chosen(values: Any, kinds: dict[str, type[int] | type[float]]) -> dict[str, Any]:
    """Returns those of `kinds` that have a value. Raises InvalidArgument if one is not a number."""
    values = values or {}
    if not isinstance(values, dict):
        raise InvalidArgument("sampling must be an object.", reason="MESSAGE_INVALID")
    chosen: dict[str, Any] = {}
    for name, kind in kinds.items():
        value = values.get(name)
        if value is not None and str(value).strip():
            chosen[name] = _number(name, str(value).strip(), kind)
    return chosen


def _switched_on(values: Any) -> dict[str, bool]:
    """Returns those of _MODEL_SWITCHES that are on. Raises InvalidArgument if one is not true or false."""
    found = {name: (values or {}).get(name, False) for name in _MODEL_SWITCHES}
    for name, value in found.items():
        if not isinstance(value, bool):
            message = f"sampling.{name} must be true or false."
            raise InvalidArgument(message, reason="MESSAGE_INVALID", field=f"sampling.{name}", allowed="true or false")
    return {name: True for name, value in found.items() if value}


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except (ValueError, OverflowError):
        allowed = "a whole number" if kind is int else "a number"
        field = name if name == "speed" else f"sampling.{name}"
        message = f"{field} is {quoted(text)}; it must be {allowed}."
        raise InvalidArgument(
            message, reason="NOT_A_NUMBER", field=field, value=quoted(text), allowed=allowed
        ) from None
