"""Fuzzes what reads a client's bytes with atheris: an input is taken or refused, and nothing else may be raised.

`python -m tests.security.fuzz TARGET [libFuzzer's arguments]`; `make fuzz FUZZ_S=60` runs each target for a minute of
CPU time (`-max_cpu_time`), so that a run beside other work is as thorough as one alone.
`tests/service/http/fuzz.py` has the parsers of frames and JSON bodies as pure functions.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["service", "h11", "python_multipart", "websockets", "uvicorn"]):
    import uvicorn
    from riva.client.proto import riva_tts_pb2
    from starlette.requests import Request

    from service.access.hosts import Hosts
    from service.access.turns import Turns
    from service.grpc import riva
    from service.grpc.size_interceptor import _bounded, _Unreadable
    from service.handlers import messages
    from service.http.connection import HttpConnection
    from service.http.requests import Body, read_json_object
    from service.http.rest import _read_form
    from service.http.server import _quiet_uvicorn
    from service.http.speech_request import parse
    from service.stream.policy import StreamPolicy
    from service.stream.segmenter import Segmenter
    from service.stream.settings import Emoji, Markup, TextSettings
    from service.stream.text.reader import TextReader
    from service.stream.text.spoken_limits import SpokenLimits
    from service.telemetry.logs import escaped

from engines.errors import InvalidInput
from engines.fake import FakeEngine, fake_voice
from engines.text.dictionary import Dictionary, Entry
from mynah.v1 import speech_pb2, voices_pb2
from service.errors import ClientGone, RequestError
from service.voices.store import OneVoice
from tests.security.fuzz_corpus import HANDSHAKE, SEEDS, WORDS
from tests.service.http.fuzz import once as frames_and_bodies

REFUSALS = (InvalidInput, RequestError, ClientGone)
_MAX_BYTES = 200_000
_VOICE, _ENGINE = OneVoice(fake_voice("default")), FakeEngine()
_CPU_TIME, _RUNS_PER_LOOK = "-max_cpu_time=", 100
_PASSES_TO_END = 10  # of the event loop, for a request whose connection is lost


class Transport(asyncio.Transport):
    """A transport that takes everything and notes whether it was closed."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.closed = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Slot:
    transport = None

    def set_busy(self, busy: bool) -> None: ...

    def release(self) -> None: ...


class Faults(logging.Handler):
    """Keeps what the connection or the event loop only logs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.ERROR:
            cause = record.exc_info[1] if record.exc_info else None
            self.found.append(cause or AssertionError(record.getMessage()))

    def check(self) -> None:
        """Raises the first fault, if there is one."""
        found, self.found = self.found, []
        if found:
            raise found[0]


_FAULTS = Faults()


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """Accepts a WebSocket and reads everything. Answers a request before or after its body, as its method says."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        return
    if scope["method"] == "POST":
        message = await receive()
        while message["type"] == "http.request" and message.get("more_body", False):
            message = await receive()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@cache
def _config() -> uvicorn.Config:
    config = uvicorn.Config(_app, http=HttpConnection, ws="websockets-sansio", lifespan="off", log_config=None)
    config.load()
    _quiet_uvicorn()
    for name in ("uvicorn.error", "asyncio", "mynah.service"):
        logging.getLogger(name).addHandler(_FAULTS)
    return config


async def _connect(data: bytes) -> None:
    """The bytes as they arrive on a connection of the HTTP port."""
    from uvicorn.server import ServerState

    transport, state = Transport(), ServerState()
    connection = HttpConnection(_config(), state, {}, slot=Slot(), turns=Turns())
    transport.protocol = connection
    connection.connection_made(transport)
    for start in range(0, len(data), 4096):
        part = data[start : start + 4096]
        while part and not transport.closed:
            buffer = transport.protocol.get_buffer(-1)
            size = min(len(part), len(buffer))
            buffer[:size] = part[:size]
            transport.protocol.buffer_updated(size)
            part = part[size:]
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    transport.closed = True
    transport.protocol.connection_lost(None)
    if transport.protocol is not connection:
        connection.connection_lost(None)
    for _ in range(_PASSES_TO_END):
        await asyncio.sleep(0)
    _FAULTS.check()
    assert not state.tasks, "a request goes on without its connection"


async def http(data: bytes) -> None:
    """Heads and bodies."""
    await _connect(data)


async def websocket(data: bytes) -> None:
    """Frames after a handshake."""
    await _connect(HANDSHAKE + data)


def _receive(data: bytes) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    parts = [data[: len(data) // 2], data[len(data) // 2 :]]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    return receive


async def multipart(data: bytes) -> None:
    """A form: the first bytes are the boundary that the header names."""
    boundary, body = data[:8], data[8:]
    header = (b"content-type", b"multipart/form-data; boundary=" + boundary)
    scope = {"type": "http", "method": "POST", "headers": [header], "app": None}  # as AccessMiddleware does
    await _refused(_read_form(Request(scope, Body(scope, _receive(body), _MAX_BYTES, 1.0)), _MAX_BYTES))


async def body(data: bytes) -> None:
    """A JSON body in any encoding, and its fields."""
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    content = await _refused(read_json_object(scope, Body(scope, _receive(data), _MAX_BYTES, 1.0)))
    if content is not None:
        try:
            parse(content, ["fake"])
        except REFUSALS:
            return


_MESSAGES = (
    speech_pb2.StreamSpeechRequest,
    speech_pb2.SynthesizeRequest,
    voices_pb2.CreateVoiceRequest,
    voices_pb2.ListVoicesRequest,
    riva_tts_pb2.SynthesizeSpeechRequest,
)


async def grpc_messages(data: bytes) -> None:
    """Messages of every service, and the settings in them."""
    for kind in _MESSAGES:
        message = _bounded(kind.FromString, _MAX_BYTES)(data)
        if isinstance(message, _Unreadable):
            continue
        if isinstance(message, speech_pb2.SynthesizeRequest):
            await _refused(
                messages.stream_settings(
                    message.settings, OneVoice(fake_voice("default")), FakeEngine(), StreamPolicy()
                )
            )
        if isinstance(message, riva_tts_pb2.SynthesizeSpeechRequest):
            try:
                settings = riva._settings(message)
                riva._as_file(message.zero_shot_data)
            except REFUSALS:
                continue
            await _refused(messages.stream_settings(settings, _VOICE, _ENGINE, StreamPolicy()))


async def text(data: bytes) -> None:
    """Host headers and log lines."""
    line = data.decode("utf-8", "surrogateescape")
    for listen in ("127.0.0.1:80", "0.0.0.0:80"):
        Hosts(listen).allows(line)
    shown = escaped(line)
    assert shown.isascii()
    assert shown.isprintable()


_BOUNDS = (60, 40, len)
_DICTIONARY = Dictionary([Entry("word", "wurd")])


def _items(content: str, markup: Markup, size: int) -> Any:
    """What a stream's text becomes, or the reason of its refusal."""
    chosen = TextSettings(
        markup, normalize=True, emoji=Emoji.NAME, paragraph_pause_s=0.5, dictionary=_DICTIONARY, drop_thinking=True
    )
    reader = TextReader(Segmenter(*_BOUNDS), chosen, SpokenLimits(*_BOUNDS))
    try:
        items = [item for at in range(0, len(content), size) for item in reader.feed(content[at : at + size])]
        return items + reader.flush()
    except InvalidInput as error:
        return error.reason


async def spoken_text(data: bytes) -> None:
    """A stream's text with SSML, Markdown and numbers in it: the same however it is fragmented."""
    content = data[1:2000].decode("utf-8", "ignore")
    markup, size = list(Markup)[data[0] % len(Markup)] if data else Markup.SSML, 1 + len(data) % 7
    whole = _items(content, markup, 10**6)
    assert _items(content, markup, size) == whole
    if not isinstance(whole, str):
        for item in whole:
            reading = getattr(item, "reading", None)
            assert reading is None or len(reading.spoken) <= _BOUNDS[0]


async def frames(data: bytes) -> None:
    frames_and_bodies(data)


async def _refused(work: Coroutine[Any, Any, Any]) -> Any:
    """The result, or None for a typed refusal."""
    try:
        return await work
    except REFUSALS:
        return None


TARGETS = {each.__name__: each for each in (http, websocket, multipart, body, grpc_messages, frames, text, spoken_text)}


def _quoted(word: bytes) -> str:
    """A word as libFuzzer's dictionaries write it."""
    return "".join(f"\\x{byte:02x}" for byte in word)


def _taken_cpu_s(arguments: list[str]) -> float:
    """Takes `-max_cpu_time=SECONDS` out of the arguments; without it there is no limit."""
    found = [each for each in arguments if each.startswith(_CPU_TIME)]
    arguments[:] = [each for each in arguments if each not in found]
    return float(found[-1].removeprefix(_CPU_TIME)) if found else math.inf


def main() -> None:
    name = sys.argv.pop(1)
    target, runner = TARGETS[name], asyncio.Runner()
    corpus = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for number, seed in enumerate(SEEDS[name]):
        runner.run(target(seed))
        (corpus / str(number)).write_bytes(seed)
    words = corpus.with_suffix(".dict")
    words.write_text("".join(f'"{_quoted(word)}"\n' for word in WORDS[name]))
    sys.argv += [str(corpus), f"-dict={words}"]

    runs, began_s, max_cpu_s = 0, time.process_time(), _taken_cpu_s(sys.argv)

    def once(data: bytes) -> None:
        nonlocal runs
        runner.run(target(data))
        runs += 1
        if runs % _RUNS_PER_LOOK == 0 and (cpu_s := time.process_time() - began_s) >= max_cpu_s:
            print(f"Done {runs} runs in {cpu_s:.0f} CPU seconds", file=sys.stderr, flush=True)
            os._exit(0)  # libFuzzer has no other end of its own for it

    atheris.Setup(sys.argv, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
