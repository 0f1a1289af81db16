"""The voices of a server: create, get, list, delete."""

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

_CHUNK_BYTES = 64 * 1024


class Voices:
    """The voices of a server, as `Client.voices`. Every method raises MynahError if it fails.

    ```python
    async with mynah.Client("127.0.0.1:50051") as client:
        voice = await client.voices.create("Anna", Path("anna.wav"), consent=True)
        async for chunk in client.synthesize("Hello there.", voice=voice.voice_id):
            play(chunk.data)
        await client.voices.delete(voice.voice_id)
    ```
    """

    def __init__(self, channel: grpc.aio.Channel, timeouts: Timeouts) -> None:
        self._stub = voices_pb2_grpc.VoicesStub(channel)  # type: ignore[no-untyped-call]
        self._timeouts = timeouts

    async def create(
        self,
        name: str,
        audio: bytes | Path,
        *,
        consent: bool,
        voice_id: str | None = None,
        normalize_loudness: bool = True,
        keep_recording: bool = False,
        model: str | None = None,
    ) -> Voice:
        """Create a voice from an audio file or its bytes. `consent` must be True: the speaker agreed to this.

        The recording is brought to -27 LUFS first unless `normalize_loudness` is False. The result says which part of
        the recording is used, what is wrong with it, and how near the voice comes. With `keep_recording` the server
        keeps the recording, too, and makes the voice again from it for another model. `model` is the one that the voice
        is made for; None: the server's first.

        Raises OSError if the file cannot be read.
        """
        data = await asyncio.to_thread(audio.read_bytes) if isinstance(audio, Path) else audio
        metadata = voices_pb2.NewVoice(
            name=name,
            consent=consent,
            voice_id=voice_id,
            normalize_loudness=normalize_loudness,
            keep_recording=keep_recording,
            model=model or "",
        )
        async with rpc_errors():
            call = self._stub.CreateVoice(timeout=self._timeouts.create_voice_s)
            try:
                await _upload(call, metadata, data)
                answer = await call
            finally:
                call.cancel()
        return voice_from_wire(answer.voice)

    async def get(self, voice_id: str) -> Voice:
        """Returns one voice. Raises NotFound."""
        async with rpc_errors():
            request = voices_pb2.GetVoiceRequest(voice_id=voice_id)
            answer = await self._stub.GetVoice(request, timeout=self._timeouts.call_s)
        return voice_from_wire(answer.voice)

    async def list(self, *, page_size: int = 0) -> builtins.list[Voice]:
        """Returns all voices, ordered by id. They are fetched in pages of `page_size`; 0 means the server's default."""
        voices: builtins.list[Voice] = []
        token = ""
        while True:
            request = voices_pb2.ListVoicesRequest(page_size=page_size, page_token=token)
            async with rpc_errors():
                page = await self._stub.ListVoices(request, timeout=self._timeouts.call_s)
            voices.extend(voice_from_wire(voice) for voice in page.voices)
            token = page.next_page_token
            if not token:
                return voices

    async def delete(self, voice_id: str) -> None:
        """Delete a voice. Streams that already use it continue. Raises NotFound."""
        async with rpc_errors():
            request = voices_pb2.DeleteVoiceRequest(voice_id=voice_id)
            await self._stub.DeleteVoice(request, timeout=self._timeouts.call_s)


async def _upload(call: Any, metadata: voices_pb2.NewVoice, audio: bytes) -> None:
    """Send metadata and audio, or as much as the server reads before it answers."""
    writable = await send(call, voices_pb2.CreateVoiceRequest(metadata=metadata))
    for start in range(0, len(audio), _CHUNK_BYTES):
        if not writable:
            return
        chunk = audio[start : start + _CHUNK_BYTES]
        writable = await send(call, voices_pb2.CreateVoiceRequest(audio_chunk=chunk))
    await half_close(call)
