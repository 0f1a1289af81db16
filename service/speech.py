"""The gRPC surface of speaking: translates between calls and sessions, and watches a call's time limits."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import grpc.aio

from engines.api import Engine
from engines.errors import InvalidInput
from mynah.v1 import speech_pb2, speech_pb2_grpc
from service import messages
from service.admission import Admission
from service.config import ServerConfig
from service.errors import ClientGone, OutOfOrder, TookTooLong
from service.session import Session, SessionLimits, StreamSettings
from service.status import log, refusals
from service.voice_store import VoiceStore

Request = speech_pb2.StreamSpeechRequest
Requests = AsyncIterator[Request]
Context = grpc.aio.ServicerContext[Any, Any]
Response = Callable[..., Any]  # StreamSpeechResponse or SynthesizeResponse; their events have the same names


class SpeechService(speech_pb2_grpc.SpeechServicer):
    """mynah.v1.Speech."""

    def __init__(
        self, engine: Engine, voices: VoiceStore, admission: Admission, config: ServerConfig, version: str
    ) -> None:
        self._engine = engine
        self._voices = voices
        self._admission = admission
        self._config = config
        self._version = version
        self._session_limits = SessionLimits(
            config.max_pending_text_chars, config.max_pending_flushes, config.send_queue_events
        )

    async def GetServerInfo(
        self, request: speech_pb2.GetServerInfoRequest, context: Context
    ) -> speech_pb2.GetServerInfoResponse:
        open_streams = self._admission.streams.taken
        return messages.server_info(self._engine.info, self._config, self._version, open_streams)

    async def StreamSpeech(self, requests: Requests, context: Context) -> None:
        stream_id = _new_id()
        async with refusals(context, f"stream {stream_id}"):
            listener = _Listener(requests, self._config.idle_timeout_s)
            wanted = await listener.opening()
            call = _Call(context, speech_pb2.StreamSpeechResponse, self._config)
            with self._admission.stream():
                settings = await messages.stream_settings(wanted, self._voices)
                async with Session(self._engine, settings, self._session_limits) as session:
                    await self._open(call, stream_id, settings)
                    listening = [listener.listen(session), listener.watch_idle(session)]
                    await self._speak(call, session, *listening)
            _log_end(stream_id, session)

    async def Synthesize(self, request: speech_pb2.SynthesizeRequest, context: Context) -> None:
        stream_id = _new_id()
        async with refusals(context, f"stream {stream_id}"):
            self._check_text(request.text)
            call = _Call(context, speech_pb2.SynthesizeResponse, self._config)
            with self._admission.stream():
                settings = await messages.stream_settings(request.settings, self._voices)
                async with Session(self._engine, settings, self._session_limits) as session:
                    await self._open(call, stream_id, settings)
                    session.write(request.text)
                    session.end()
                    await self._speak(call, session)
                if not session.delivered_samples:
                    raise _nothing_to_speak(request.text)
            _log_end(stream_id, session)

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise _nothing_to_speak(text)
        most = self._config.max_pending_text_chars
        if len(text) > most:
            raise InvalidInput("text", f"{len(text)} chars", f"at most {most} chars", "TEXT_TOO_LONG")

    async def _open(self, call: _Call, stream_id: str, settings: StreamSettings) -> None:
        opened = messages.opened(stream_id, settings, self._engine.info, self._config)
        await call.send(opened=opened)

    async def _speak(self, call: _Call, session: Session, *listening: Coroutine[Any, Any, None]) -> None:
        """Tell the client everything until the session ends; whatever fails first ends the rest."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work) for work in (*listening, self._admission.told_to_leave())]
            while (event := await session.next_event()) is not None:
                await call.send(**messages.event(event))
            for task in beside:
                task.cancel()


class _Call:
    """The sending side of a call."""

    def __init__(self, context: Context, response: Response, config: ServerConfig) -> None:
        self._context, self._response = context, response
        self._stall_timeout_s = config.stall_timeout_s

    async def send(self, **event: Any) -> None:
        """Raises TookTooLong when the client leaves it unread for too long, ClientGone when it has left."""
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                await self._context.write(self._response(**event))
        except TimeoutError:
            message = f"the client did not read for {self._stall_timeout_s:g} s"
            raise TookTooLong("READER_STALLED", message, allowed=f"{self._stall_timeout_s:g} s") from None
        except grpc.aio.InternalError as error:  # the call is closed already; its cancelling is on the way
            raise ClientGone from error


class _Listener:
    """The receiving side of a stream: the order of its messages, and how long it may be silent."""

    def __init__(self, requests: Requests, idle_timeout_s: float) -> None:
        self._requests = requests
        self._idle_timeout_s = idle_timeout_s
        self._heard = asyncio.Event()

    async def opening(self) -> speech_pb2.SpeechSettings:
        """The first message's settings. Raises OutOfOrder, TookTooLong, InvalidInput."""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                first = await anext(self._requests, None)
        except TimeoutError:
            raise self._idle() from None
        if first is None:
            raise _out_of_order("STREAM_NOT_OPEN", "nothing", "the first message is open")
        if _kind(first) != "open":
            raise _out_of_order("STREAM_NOT_OPEN", _kind(first), "the first message is open")
        return first.open.settings

    async def listen(self, session: Session) -> None:
        """Pass on what the client says, until it half-closes."""
        async for request in self._requests:
            await _apply(request, session)
            self._heard.set()
        session.end()
        self._heard.set()

    async def watch_idle(self, session: Session) -> None:
        """Raises TookTooLong once neither the client nor the session has done anything for the idle time."""
        while True:
            was_idle = session.idle  # and stays so until something is heard
            self._heard.clear()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._heard.wait()
            except TimeoutError:
                if was_idle:
                    raise self._idle() from None

    def _idle(self) -> TookTooLong:
        allowed = f"{self._idle_timeout_s:g} s"
        return TookTooLong("STREAM_IDLE", f"neither text nor speech for {allowed}", allowed=allowed)


async def _apply(request: Request, session: Session) -> None:
    match _kind(request):
        case "text":
            session.write(request.text.content)
        case "flush":
            session.flush(request.flush.flush_id)
        case "cancel":
            await session.cancel()
        case _:
            raise _out_of_order("STREAM_ALREADY_OPEN", "open", "text, flush or cancel")


def _kind(request: Request) -> str:
    kind = request.WhichOneof("message")
    if kind is None:
        raise InvalidInput("message", "nothing", "open, text, flush or cancel", "MESSAGE_INVALID")
    return str(kind)


def _out_of_order(reason: str, got: str, allowed: str) -> OutOfOrder:
    return OutOfOrder(reason, f"got {got} here; allowed: {allowed}", field="message", value=got, allowed=allowed)


def _nothing_to_speak(text: str) -> InvalidInput:
    return InvalidInput("text", f"{len(text)} chars", "text with something to speak in it", "TEXT_EMPTY")


def _new_id() -> str:
    return secrets.token_hex(8)


def _log_end(stream_id: str, session: Session) -> None:
    rate = session.settings.audio.sample_rate_hz
    log.info("stream %s: ended after %.2f s of audio", stream_id, session.delivered_samples / rate)
