"""The gRPC service for speech."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc.aio

from mynah.v1 import speech_pb2, speech_pb2_grpc
from service.access.admission import Admission
from service.grpc.call_writer import CallWriter
from service.grpc.origin import origin_of
from service.grpc.status import grpc_errors
from service.handlers import messages
from service.handlers.speech_handler import Requests, Send, SpeechHandler, new_stream_id
from service.models import Models
from service.stream.policy import StreamPolicy

Context = grpc.aio.ServicerContext[Any, Any]
Response = Callable[..., Any]  # StreamSpeechResponse or SynthesizeResponse; the names of their events are equal


class SpeechService(speech_pb2_grpc.SpeechServicer):
    """mynah.v1.Speech."""

    def __init__(
        self, models: Models, speech_handler: SpeechHandler, admission: Admission, policy: StreamPolicy, version: str
    ) -> None:
        self._models = models
        self._speech_handler = speech_handler
        self._admission = admission
        self._policy = policy
        self._version = version

    async def GetServerInfo(
        self, request: speech_pb2.GetServerInfoRequest, context: Context
    ) -> speech_pb2.GetServerInfoResponse:
        open_streams = self._admission.open_streams
        return messages.server_info(self._models.infos, self._policy, self._version, open_streams)

    async def StreamSpeech(self, requests: Requests, context: Context) -> None:
        stream_id = new_stream_id()
        async with grpc_errors(context, f"stream {stream_id}"):
            send = self._sender(context, speech_pb2.StreamSpeechResponse)
            await self._speech_handler.stream(stream_id, requests, send, origin_of(context))

    async def Synthesize(self, request: speech_pb2.SynthesizeRequest, context: Context) -> None:
        stream_id = new_stream_id()
        async with grpc_errors(context, f"stream {stream_id}"):
            send = self._sender(context, speech_pb2.SynthesizeResponse)
            await self._speech_handler.synthesize(stream_id, request, send, origin_of(context))

    def _sender(self, context: Context, response: Response) -> Send:
        writer = CallWriter(context, self._policy.stall_timeout_s)

        async def send(**event: Any) -> None:
            if "opened" in event:
                await writer.open()
            await writer.write(response(**event))

        return send
