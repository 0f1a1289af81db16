"""A stream as the contract describes it, whatever carries it: the order of its messages, its time limits, its end.

Speaks the contract's messages on both sides. A surface brings the client's requests and a way to send; knows no RPC.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, Protocol

from engines.api import Engine
from engines.errors import InvalidInput, invalid_value
from mynah.client.wire import event_to_wire
from mynah.v1 import speech_pb2
from service.access.admission import Admission
from service.errors import DeadlineExceeded, FailedPrecondition
from service.handlers import messages
from service.handlers.failures import log
from service.stream.policy import StreamPolicy
from service.stream.session import Session
from service.stream.settings import StreamSettings
from service.voices.store import VoiceSource

Request = speech_pb2.StreamSpeechRequest
Requests = AsyncIterator[Request]


class Send(Protocol):
    """Tell the client one event, named and shaped as in the contract's answers: `send(audio=AudioChunk(...))`.

    Returns when the connection has taken it. Raises ClientGone, or TookTooLong from `within_stall_timeout`.
    """

    def __call__(self, **event: Any) -> Awaitable[None]: ...


class SpeechHandler:
    """What every surface of speaking does. Each call takes a slot for as long as it lasts and raises all refusals."""

    def __init__(self, engine: Engine, voices: VoiceSource, admission: Admission, policy: StreamPolicy) -> None:
        self._engine = engine
        self._voices = voices
        self._admission = admission
        self._policy = policy

    async def stream(self, stream_id: str, requests: Requests, send: Send) -> None:
        """A conversation from its `open` to its end; `requests` ends where the client has no more to say."""
        listener = _Listener(requests, self._policy.idle_timeout_s)
        wanted = await listener.opening()
        with self._admission.stream():
            settings = await messages.stream_settings(wanted, self._voices)
            async with Session(self._engine, settings, self._policy, stream_id) as session:
                await self._open(send, stream_id, settings)
                listening = [listener.listen(session), listener.watch_idle(session)]
                await self._speak(send, session, *listening)
        _log_end(stream_id, session)

    async def synthesize(self, stream_id: str, request: speech_pb2.SynthesizeRequest, send: Send) -> None:
        """One whole text."""
        self._check_text(request.text)
        with self._admission.stream():
            settings = await messages.stream_settings(request.settings, self._voices)
            async with Session(self._engine, settings, self._policy, stream_id) as session:
                await self._open(send, stream_id, settings)
                session.write(request.text)
                session.end()
                await self._speak(send, session)
            if not session.delivered_samples:
                raise _nothing_to_speak(request.text)
        _log_end(stream_id, session)

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise _nothing_to_speak(text)
        most = self._policy.max_pending_text_chars
        if len(text) > most:
            raise invalid_value("text", f"{len(text)} chars", f"at most {most} chars", "TEXT_TOO_LONG")

    async def _open(self, send: Send, stream_id: str, settings: StreamSettings) -> None:
        await send(opened=messages.opened(stream_id, settings, self._engine.info, self._policy))

    async def _speak(self, send: Send, session: Session, *listening: Coroutine[Any, Any, None]) -> None:
        """Tell the client everything until the session ends; whatever fails first ends the rest."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(work) for work in (*listening, self._admission.wait_for_shutdown())]
            while (event := await session.next_event()) is not None:
                await send(**event_to_wire(event))
            for task in beside:
                task.cancel()


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

    def _idle(self) -> DeadlineExceeded:
        allowed = f"{self._idle_timeout_s:g} s"
        return DeadlineExceeded("STREAM_IDLE", f"neither text nor speech for {allowed}", allowed=allowed)


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
        raise invalid_value("message", "nothing", "open, text, flush or cancel", "MESSAGE_INVALID")
    return str(kind)


def _out_of_order(reason: str, got: str, allowed: str) -> FailedPrecondition:
    return FailedPrecondition(
        reason, f"got {got} here; allowed: {allowed}", field="message", value=got, allowed=allowed
    )


def _nothing_to_speak(text: str) -> InvalidInput:
    return invalid_value("text", f"{len(text)} chars", "text with something to speak in it", "TEXT_EMPTY")


def new_stream_id() -> str:
    """A name that no other stream has."""
    return secrets.token_hex(8)


def _log_end(stream_id: str, session: Session) -> None:
    rate = session.settings.audio.sample_rate_hz
    log.info("stream %s: ended after %.2f s of audio", stream_id, session.delivered_samples / rate)
