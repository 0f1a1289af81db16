"""The server's voices: make, look up, list, forget."""

from __future__ import annotations

import asyncio
import builtins
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mynah.client.events import Voice
from mynah.client.settings import Timeouts
from mynah.client.transport import half_close, rpc_errors, send
from mynah.client.wire import voice_from_wire
from mynah.v1 import voices_pb2, voices_pb2_grpc

if TYPE_CHECKING:
    import grpc.aio

_PIECE_BYTES = 64 * 1024


class Voices:
    """`Client.voices`. Every method raises MynahError."""

    def __init__(self, channel: grpc.aio.Channel, timeouts: Timeouts) -> None:
        self._stub = voices_pb2_grpc.VoicesStub(channel)  # type: ignore[no-untyped-call]
        self._timeouts = timeouts

    async def create(self, name: str, audio: bytes | Path, *, consent: bool, voice_id: str | None = None) -> Voice:
        """Make a voice from an audio file or its bytes. `consent`: the speaker agreed to this.

        Also raises OSError when the file cannot be read.
        """
        data = await asyncio.to_thread(audio.read_bytes) if isinstance(audio, Path) else audio
        metadata = voices_pb2.NewVoice(name=name, consent=consent, voice_id=voice_id)
        async with rpc_errors():
            call = self._stub.CreateVoice(timeout=self._timeouts.create_voice_s)
            try:
                await _upload(call, metadata, data)
                answer = await call
            finally:
                call.cancel()
        return voice_from_wire(answer.voice)

    async def get(self, voice_id: str) -> Voice:
        """Raises NotFound."""
        async with rpc_errors():
            request = voices_pb2.GetVoiceRequest(voice_id=voice_id)
            answer = await self._stub.GetVoice(request, timeout=self._timeouts.call_s)
        return voice_from_wire(answer.voice)

    async def list(self, *, page_size: int = 0) -> builtins.list[Voice]:
        """All voices, ordered by id, fetched page by page; 0 leaves the page's size to the server."""
        found: builtins.list[Voice] = []
        token = ""
        while True:
            request = voices_pb2.ListVoicesRequest(page_size=page_size, page_token=token)
            async with rpc_errors():
                page = await self._stub.ListVoices(request, timeout=self._timeouts.call_s)
            found.extend(voice_from_wire(voice) for voice in page.voices)
            token = page.next_page_token
            if not token:
                return found

    async def delete(self, voice_id: str) -> None:
        """Forget a voice; streams that speak with it go on. Raises NotFound."""
        async with rpc_errors():
            request = voices_pb2.DeleteVoiceRequest(voice_id=voice_id)
            await self._stub.DeleteVoice(request, timeout=self._timeouts.call_s)


async def _upload(call: Any, metadata: voices_pb2.NewVoice, audio: bytes) -> None:
    """Send everything, or as much as the server wants to hear before it answers."""
    going_on = await send(call, voices_pb2.CreateVoiceRequest(metadata=metadata))
    for start in range(0, len(audio), _PIECE_BYTES):
        if not going_on:
            return
        piece = audio[start : start + _PIECE_BYTES]
        going_on = await send(call, voices_pb2.CreateVoiceRequest(audio_chunk=piece))
    await half_close(call)
