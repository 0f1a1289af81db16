"""The handler of speech, whatever the transport: the order of a stream's messages, its time limits, its end.

Both sides speak the contract's messages. A surface brings the client's requests and a way to send.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Collection, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from engines.api import Engine
from engines.config import OFFLINE
from engines.errors import InvalidInput
from mynah.client.wire import event_to_wire
from mynah.v1 import speech_pb2
from service.access.admission import Admission
from service.access.turns import Account, Turns
from service.errors import DeadlineExceeded, FailedPrecondition
from service.handlers import messages
from service.handlers.stream_log import Origin, logged_stream
from service.models import Models
from service.stream.policy import StreamPolicy
from service.stream.session import Session
from service.stream.settings import StreamSettings
from service.voices.store import VoiceSource

_PART_CHARS = 1000  # the segmenter needs a few milliseconds for these
_TEXT_S, _CONTROL_S = 0.0001, 0.001  # what a text's part, and a flush or a cancel, causes in other tasks

Request = speech_pb2.StreamSpeechRequest
Requests = AsyncIterator[Request]


class Send(Protocol):
    """Sends one event to the client, named and shaped as in the contract's answers: `send(audio=AudioChunk(...))`.

    Returns when the connection has taken it. Raises ClientGone, or DeadlineExceeded from `within_stall_timeout`.
    """

    def __call__(self, **event: Any) -> Awaitable[None]: ...


class SpeechHandler:
    """Speaks for every surface. Each call holds a stream slot while it lasts, and raises every refusal."""

    def __init__(self, models: Models, voices: VoiceSource, admission: Admission, policy: StreamPolicy) -> None:
        self._models = models
        self._voices = voices
        self._admission = admission
        self._policy = policy

    async def stream(self, stream_id: str, requests: Requests, send: Send, origin: Origin) -> None:
        """A stream from its `open` to its end. `requests` ends when the client has half-closed."""
        reader = _RequestReader(requests, self._policy.idle_timeout_s, self._admission.turns)
        message = await reader.opening()
        with self._admission.stream(offline=message.schedule == OFFLINE):
            engine = self._models.named(message.model)
            settings = await self._settings(message, engine)
            async with self._session(engine, stream_id, settings, origin) as session:
                await self._send_opened(send, stream_id, settings, engine)
                await self._send_events(send, session, reader.apply_all(session), reader.watch_idle(session))

    async def synthesize(
        self, stream_id: str, request: speech_pb2.SynthesizeRequest, send: Send, origin: Origin
    ) -> None:
        """One whole text."""
        self._check_text(request.text)
        with self._admission.stream(offline=request.settings.schedule == OFFLINE):
            engine = self._models.named(request.settings.model)
            settings = await self._settings(request.settings, engine)
            async with self._session(engine, stream_id, settings, origin) as session:
                await self._send_opened(send, stream_id, settings, engine)
                with _named_text():
                    await _write(session, request.text, self._admission.turns, Account())
                    session.end()
                await self._send_events(send, session)
                if not session.delivered_samples:
                    raise _nothing_to_speak(request.text, session.skip_reasons)

    @asynccontextmanager
    async def _session(
        self, engine: Engine, stream_id: str, settings: StreamSettings, origin: Origin
    ) -> AsyncIterator[Session]:
        """An open session, whose begin and end the log has."""
        key = self._admission.authenticator.caller().name
        async with Session(engine, settings, self._policy, stream_id) as session:
            with logged_stream(stream_id, key, origin, session):
                yield session

    async def _settings(self, message: speech_pb2.SpeechSettings, engine: Engine) -> StreamSettings:
        """The stream's settings; those of a stream with a seed have the schedule that the load now asks for."""
        settings = await messages.stream_settings(message, self._voices, engine, self._policy)
        if engine.info.languages:
            await _load(engine, settings.language)
        sampling = settings.sampling
        if not sampling.repeatable or sampling.schedule:
            return settings
        schedule = engine.schedule_now(settings.voice, engine.info.limits.max_streams)
        return replace(settings, sampling=replace(sampling, schedule=schedule))

    def _check_text(self, text: str) -> None:
        if not text.strip():
            raise _nothing_to_speak(text)
        max_chars = self._policy.max_pending_text_chars
        if len(text) > max_chars:
            length, allowed = f"{len(text)} chars", f"at most {max_chars} chars"
            message = f"text has {length}; it may have {allowed}."
            raise InvalidInput("text", message, "TEXT_TOO_LONG", value=length, allowed=allowed)

    async def _send_opened(self, send: Send, stream_id: str, settings: StreamSettings, engine: Engine) -> None:
        await send(opened=messages.opened(stream_id, settings, engine.info, self._policy))

    async def _send_events(self, send: Send, session: Session, *reading: Coroutine[Any, Any, None]) -> None:
        """Send every event until the session ends. The first failure, here or in `reading`, ends the others."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in (*reading, self._admission.wait_for_shutdown())]
            while (event := await session.next_event()) is not None:
                await send(**event_to_wire(event))
            for task in tasks:
                task.cancel()


class _RequestReader:
    """The receiving side of a stream: the order of its messages, and its idle timeout."""

    def __init__(self, requests: Requests, idle_timeout_s: float, turns: Turns) -> None:
        self._requests = requests
        self._turns, self._account = turns, Account()
        self._idle_timeout_s = idle_timeout_s
        self._received = asyncio.Event()

    async def opening(self) -> speech_pb2.SpeechSettings:
        """The first message's settings. Raises FailedPrecondition, DeadlineExceeded, InvalidInput."""
        try:
            async with asyncio.timeout(self._idle_timeout_s):
                first = await anext(self._requests, None)
        except TimeoutError:
            raise self._idle() from None
        kind = "nothing" if first is None else _kind(first)
        if first is None or kind != "open":
            message = f"The first message must be open, not {kind}."
            raise _out_of_order("STREAM_NOT_OPEN", message, kind, "open first")
        return first.open.settings

    async def apply_all(self, session: Session) -> None:
        """Apply the client's requests to the session until the client half-closes."""
        async for request in self._requests:
            await self._apply(request, session)
            self._received.set()
        session.end()
        self._received.set()

    async def _apply(self, request: Request, session: Session) -> None:
        kind = _kind(request)
        if kind == "text":
            await _write(session, request.text.content, self._turns, self._account)
            return
        await self._turns.wait(self._account)
        with self._turns.spending(self._account, _CONTROL_S):
            match kind:
                case "flush":
                    session.flush(request.flush.flush_id)
                case "set_speed":
                    session.set_speed(request.set_speed.speed)
                case "open":
                    allowed = "text, flush, cancel or set_speed"
                    message = f"The stream is open already: send {allowed}."
                    raise _out_of_order("STREAM_ALREADY_OPEN", message, "open", allowed)
        if kind == "cancel":
            await session.cancel()

    async def watch_idle(self, session: Session) -> None:
        """Raises DeadlineExceeded once neither the client nor the session has done anything for the idle timeout."""
        while True:
            was_idle = session.idle  # and stays so until a request arrives
            self._received.clear()
            try:
                async with asyncio.timeout(self._idle_timeout_s):
                    await self._received.wait()
            except TimeoutError:
                if was_idle:
                    raise self._idle() from None

    def _idle(self) -> DeadlineExceeded:
        allowed = f"{self._idle_timeout_s:g} s"
        message = f"The stream has had neither text nor speech for {allowed}."
        return DeadlineExceeded("STREAM_IDLE", message, allowed=allowed)


async def _load(engine: Engine, language: str) -> None:
    try:
        await engine.load_language(language)
    except InvalidInput as error:
        raise error.named("settings.language_code") from None


async def _write(session: Session, text: str, turns: Turns, account: Account) -> None:
    """Writes a text in parts, each in a turn of its own. Raises as `Session.write` for the whole, before any part."""
    session.check_room(text)
    for start in range(0, len(text), _PART_CHARS):
        await turns.wait(account)
        with turns.spending(account, _TEXT_S):
            session.write(text[start : start + _PART_CHARS])


def _kind(request: Request) -> str:
    kind = request.WhichOneof("message")
    if kind is None:
        allowed = "open, text, flush, cancel or set_speed"
        text = f"message is empty: it must hold {allowed}."
        raise InvalidInput("message", text, "MESSAGE_INVALID", value="nothing", allowed=allowed)
    return str(kind)


def _out_of_order(reason: str, message: str, kind: str, allowed: str) -> FailedPrecondition:
    return FailedPrecondition(reason, message, field="message", value=kind, allowed=allowed)


@contextmanager
def _named_text() -> Iterator[None]:
    """Inside, errors name the field of SynthesizeRequest."""
    try:
        yield
    except InvalidInput as error:
        raise error.named("text") from None


def _nothing_to_speak(text: str, skip_reasons: Collection[str] = ()) -> InvalidInput:
    message = "text holds nothing to speak: send at least one word."
    if "script_unsupported" in skip_reasons:
        message = "text holds nothing that this model speaks: send at least one word in a script of its languages."
    return InvalidInput("text", message, "TEXT_EMPTY", value=f"{len(text)} chars", allowed="at least one word")


def new_stream_id() -> str:
    """A random id for a stream."""
    return secrets.token_hex(8)
