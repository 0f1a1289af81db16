"""The gRPC service for voices, and its bounds on uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from engines.conditioning.limits import HEAD_BYTES, check_head, too_large
from engines.errors import InvalidInput
from mynah.v1 import voices_pb2, voices_pb2_grpc
from service.access.admission import Admission
from service.errors import DeadlineExceeded, FailedPrecondition
from service.grpc.origin import origin_of
from service.grpc.status import grpc_errors
from service.handlers.voice_catalogue import VoiceCatalogue
from service.stream.policy import StreamPolicy

_MIN_BYTES_PER_S = 1000  # of an upload, once the stall timeout is over
Parts = AsyncIterator[voices_pb2.CreateVoiceRequest]
Context = grpc.aio.ServicerContext[Any, Any]


class VoicesService(voices_pb2_grpc.VoicesServicer):
    """mynah.v1.Voices."""

    def __init__(self, catalogue: VoiceCatalogue, admission: Admission, policy: StreamPolicy) -> None:
        self._catalogue = catalogue
        self._admission = admission
        self._policy = policy

    async def CreateVoice(self, parts: Parts, context: Context) -> voices_pb2.CreateVoiceResponse:
        async with grpc_errors(context, "create voice"):
            with self._admission.upload():
                upload = _Upload(parts, self._policy)
                new = await upload.metadata()
                await self._catalogue.check(new)
                voice = await self._catalogue.create(new, await upload.audio(), origin_of(context))
        return voices_pb2.CreateVoiceResponse(voice=voice)

    async def GetVoice(self, request: voices_pb2.GetVoiceRequest, context: Context) -> voices_pb2.GetVoiceResponse:
        async with grpc_errors(context, "get voice"):
            voice = await self._catalogue.get(request.voice_id)
        return voices_pb2.GetVoiceResponse(voice=voice)

    async def ListVoices(
        self, request: voices_pb2.ListVoicesRequest, context: Context
    ) -> voices_pb2.ListVoicesResponse:
        async with grpc_errors(context, "list voices"):
            page = await self._catalogue.list(request)
        return page  # noqa: RET504 - an error may end the block before

    async def DeleteVoice(
        self, request: voices_pb2.DeleteVoiceRequest, context: Context
    ) -> voices_pb2.DeleteVoiceResponse:
        async with grpc_errors(context, "delete voice"):
            await self._catalogue.delete(request.voice_id, origin_of(context))
        return voices_pb2.DeleteVoiceResponse()


class _Upload:
    """The parts of one upload, in order and within bounds."""

    def __init__(self, parts: Parts, policy: StreamPolicy) -> None:
        self._parts = parts
        self._max_bytes = policy.max_upload_bytes
        self._stall_timeout_s = policy.stall_timeout_s
        self._began_s = asyncio.get_running_loop().time()
        self._read_bytes = 0

    async def metadata(self) -> voices_pb2.NewVoice:
        """The first part. Raises FailedPrecondition, InvalidInput, DeadlineExceeded."""
        first = await self._next()
        if first is None or _kind(first) != "metadata":
            message = "The first part of an upload must be metadata."
            raise _out_of_order(message, "audio before metadata" if first else "nothing", "metadata first")
        return first.metadata

    async def audio(self) -> bytes:
        """All other parts, joined. Raises FailedPrecondition, InvalidInput, DeadlineExceeded."""
        audio, checked = bytearray(), False
        while (part := await self._next()) is not None:
            if _kind(part) != "audio_chunk":
                message = "metadata was sent twice: only audio_chunk may follow it."
                raise _out_of_order(message, "metadata again", "audio after metadata")
            audio += part.audio_chunk
            self._read_bytes = len(audio)
            if len(audio) > self._max_bytes:
                raise too_large("audio", self._max_bytes, f"more than {self._max_bytes} bytes")
            if not checked and len(audio) >= HEAD_BYTES:
                check_head(bytes(audio[:HEAD_BYTES]))
                checked = True
        return bytes(audio)

    @property
    def _left_s(self) -> float:
        """The time in which the next part must arrive, so that one byte now and then does not hold an upload's slot."""
        allowed_s = self._stall_timeout_s + self._read_bytes / _MIN_BYTES_PER_S
        return self._began_s + allowed_s - asyncio.get_running_loop().time()

    async def _next(self) -> voices_pb2.CreateVoiceRequest | None:
        try:
            async with asyncio.timeout(min(self._stall_timeout_s, self._left_s)):
                return await anext(self._parts, None)
        except TimeoutError:
            allowed = f"{self._stall_timeout_s:g} s"
            message = f"The upload has stalled: it came too slowly, or not at all for {allowed}."
            raise DeadlineExceeded("UPLOAD_STALLED", message, allowed=allowed) from None


def _kind(part: voices_pb2.CreateVoiceRequest) -> str:
    kind = part.WhichOneof("part")
    if kind is None:
        allowed = "metadata or audio_chunk"
        message = f"part is empty: it must hold {allowed}."
        raise InvalidInput("part", message, "MESSAGE_INVALID", value="nothing", allowed=allowed)
    return str(kind)


def _out_of_order(message: str, received: str, allowed: str) -> FailedPrecondition:
    return FailedPrecondition("UPLOAD_OUT_OF_ORDER", message, field="part", value=received, allowed=allowed)
