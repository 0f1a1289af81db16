"""The gRPC surface of voices: translates between calls and the store, and bounds uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc.aio

from engines.api import Engine
from engines.errors import InvalidInput
from mynah.v1 import voices_pb2, voices_pb2_grpc
from service import messages
from service.admission import Admission
from service.config import ServerConfig
from service.errors import OutOfOrder, TookTooLong
from service.status import refusals
from service.voice_store import StoredVoice, VoiceStore, check_id

Parts = AsyncIterator[voices_pb2.CreateVoiceRequest]
Context = grpc.aio.ServicerContext[Any, Any]

MAX_NAME_CHARS = 80
MAX_PAGE_SIZE = 1000
DEFAULT_PAGE_SIZE = 50


class VoicesService(voices_pb2_grpc.VoicesServicer):
    """mynah.v1.Voices."""

    def __init__(self, engine: Engine, voices: VoiceStore, admission: Admission, config: ServerConfig) -> None:
        self._engine = engine
        self._voices = voices
        self._admission = admission
        self._config = config

    async def CreateVoice(self, parts: Parts, context: Context) -> voices_pb2.CreateVoiceResponse:
        async with refusals(context, "create voice"):
            with self._admission.upload():
                upload = _Upload(parts, self._config)
                new = await upload.metadata()
                voice_id = new.voice_id if new.HasField("voice_id") else None
                await self._voices.must_have_room(voice_id)
                stored = await self._make(new.name.strip(), await upload.audio(), voice_id)
        return voices_pb2.CreateVoiceResponse(voice=messages.voice(stored))

    async def _make(self, name: str, audio: bytes, voice_id: str | None) -> StoredVoice:
        voice = await self._engine.make_voice(audio, name=name)
        noted = replace(voice, metadata={**voice.metadata, "consent": "given by the uploader"})
        return await self._voices.add(noted, voice_id)

    async def GetVoice(self, request: voices_pb2.GetVoiceRequest, context: Context) -> voices_pb2.GetVoiceResponse:
        async with refusals(context, "get voice"):
            voice = messages.voice(await self._voices.get(request.voice_id))
        return voices_pb2.GetVoiceResponse(voice=voice)

    async def ListVoices(
        self, request: voices_pb2.ListVoicesRequest, context: Context
    ) -> voices_pb2.ListVoicesResponse:
        async with refusals(context, "list voices"):
            size = _page_size(request.page_size)
            found, more = await self._voices.page(_page_start(request.page_token), size)
        token = found[-1].voice_id if more else ""
        return voices_pb2.ListVoicesResponse(voices=map(messages.voice, found), next_page_token=token)

    async def DeleteVoice(
        self, request: voices_pb2.DeleteVoiceRequest, context: Context
    ) -> voices_pb2.DeleteVoiceResponse:
        async with refusals(context, "delete voice"):
            await self._voices.remove(request.voice_id)
        return voices_pb2.DeleteVoiceResponse()


class _Upload:
    """The parts of one upload, in order and within bounds."""

    def __init__(self, parts: Parts, config: ServerConfig) -> None:
        self._parts = parts
        self._max_bytes = config.max_upload_bytes
        self._stall_timeout_s = config.stall_timeout_s

    async def metadata(self) -> voices_pb2.NewVoice:
        """The first part. Raises OutOfOrder, InvalidInput, TookTooLong."""
        first = await self._next()
        if first is None or _kind(first) != "metadata":
            raise _out_of_order("audio before metadata" if first else "nothing", "metadata first")
        _check_new(first.metadata)
        return first.metadata

    async def audio(self) -> bytes:
        """All other parts together. Raises OutOfOrder, InvalidInput, TookTooLong."""
        audio = bytearray()
        while (part := await self._next()) is not None:
            if _kind(part) != "audio_chunk":
                raise _out_of_order("metadata again", "audio after metadata")
            audio += part.audio_chunk
            if len(audio) > self._max_bytes:
                allowed = f"at most {self._max_bytes} bytes"
                raise InvalidInput("audio", "a longer upload", allowed, "AUDIO_TOO_LARGE")
        if not audio:
            raise InvalidInput("audio", "0 bytes", "an audio file", "AUDIO_EMPTY")
        return bytes(audio)

    async def _next(self) -> voices_pb2.CreateVoiceRequest | None:
        try:
            async with asyncio.timeout(self._stall_timeout_s):
                return await anext(self._parts, None)
        except TimeoutError:
            allowed = f"{self._stall_timeout_s:g} s"
            raise TookTooLong("UPLOAD_STALLED", f"nothing came for {allowed}", allowed=allowed) from None


def _kind(part: voices_pb2.CreateVoiceRequest) -> str:
    kind = part.WhichOneof("part")
    if kind is None:
        raise InvalidInput("part", "nothing", "metadata or audio_chunk", "MESSAGE_INVALID")
    return str(kind)


def _check_new(new: voices_pb2.NewVoice) -> None:
    name = new.name.strip()
    if not 1 <= len(name) <= MAX_NAME_CHARS or not name.isprintable():
        allowed = f"1 to {MAX_NAME_CHARS} printable chars, not blank"
        raise InvalidInput("metadata.name", new.name, allowed, "VOICE_NAME_INVALID")
    if not new.consent:
        raise InvalidInput("metadata.consent", new.consent, "true: the speaker agreed", "CONSENT_REQUIRED")
    if new.HasField("voice_id"):
        check_id(new.voice_id)


def _out_of_order(got: str, allowed: str) -> OutOfOrder:
    message = f"got {got}; allowed: {allowed}"
    return OutOfOrder("UPLOAD_OUT_OF_ORDER", message, field="part", value=got, allowed=allowed)


def _page_size(asked: int) -> int:
    if not 0 <= asked <= MAX_PAGE_SIZE:
        raise InvalidInput("page_size", asked, f"[0, {MAX_PAGE_SIZE}]", "PAGE_SIZE_OUT_OF_RANGE")
    return asked or DEFAULT_PAGE_SIZE


def _page_start(token: str) -> str:
    if token:
        try:
            check_id(token)
        except InvalidInput:
            allowed = "empty, or the next_page_token of the page before"
            raise InvalidInput("page_token", token, allowed, "PAGE_TOKEN_INVALID") from None
    return token
