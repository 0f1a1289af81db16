"""The finished recordings that a browser may still download. Their total size is bounded; the oldest goes first."""

from __future__ import annotations

import asyncio
import io
import secrets
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

Pcm = npt.NDArray[np.int16]  # (n,) mono

MAX_RECORDING_BYTES = 64 * 2**20  # 23 minutes at 24 kHz; the browser itself keeps longer ones
MAX_LIVE_BYTES = 256 * 2**20  # of all recordings that are being made
_MAX_ENCODERS = 2
# extension -> (media type, libsndfile's container and codec)
FORMATS = {
    "wav": ("audio/wav", "WAV", "PCM_16"),
    "flac": ("audio/flac", "FLAC", "PCM_16"),
    "mp3": ("audio/mpeg", "MP3", "MPEG_LAYER_III"),
    "ogg": ("audio/ogg", "OGG", "OPUS"),
}


class Recording(NamedTuple):
    """Mono speech."""

    rate_hz: int
    samples: Pcm

    def encoded(self, extension: str) -> bytes:
        """Returns an audio file of one of FORMATS."""
        import soundfile

        _, container, codec = FORMATS[extension]
        file = io.BytesIO()
        with soundfile.SoundFile(file, "w", self.rate_hz, 1, format=container, subtype=codec) as writer:
            for start in range(0, len(self.samples), self.rate_hz):  # Opus takes long pieces onto the stack
                writer.write(self.samples[start : start + self.rate_hz])
        return file.getvalue()


class Recordings:
    """Recordings by unguessable id. `max_bytes` bounds their total size."""

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._recordings: OrderedDict[str, Recording] = OrderedDict()
        self._bytes = 0
        self._live_bytes = 0

    def grow(self, pcm: bytearray, data: bytes) -> bool:
        """Append to a recording that is being made, or return False if it becomes too long to be kept."""
        fits = len(pcm) + len(data) <= MAX_RECORDING_BYTES and self._live_bytes + len(data) <= MAX_LIVE_BYTES
        if fits:
            pcm += data
            self._live_bytes += len(data)
        return fits

    def release(self, pcm: bytearray) -> None:
        """Forget a recording that was being made."""
        self._live_bytes -= len(pcm)
        pcm.clear()

    def add(self, rate_hz: int, pcm: bytes) -> str:
        """Store PCM s16le and return the id of the recording."""
        recording_id = secrets.token_urlsafe(16)
        self._recordings[recording_id] = Recording(rate_hz, np.frombuffer(pcm, "<i2"))
        self._bytes += len(pcm)
        while self._bytes > self._max_bytes:
            _, oldest = self._recordings.popitem(last=False)
            self._bytes -= oldest.samples.nbytes
        return recording_id

    def get(self, recording_id: str) -> Recording | None:
        """Returns a recording, or None if it does not exist any more."""
        return self._recordings.get(recording_id)


def recording_routes(recordings: Recordings) -> APIRouter:
    """The route of the downloads: /mynah/recordings/ID.EXTENSION."""
    router, encoders = APIRouter(prefix="/mynah/recordings"), asyncio.Semaphore(_MAX_ENCODERS)

    @router.get("/{recording_id}.{extension}")
    async def download(recording_id: str, extension: str) -> Response:
        recording = recordings.get(recording_id)
        if recording is None or extension not in FORMATS:
            message = f"There is no such recording any more. The formats are {', '.join(FORMATS)}."
            return JSONResponse({"message": message}, 404)
        async with encoders:
            data = await asyncio.to_thread(recording.encoded, extension)
        headers = {"cache-control": "no-store", "content-disposition": "attachment"}
        return Response(data, media_type=FORMATS[extension][0], headers=headers)

    return router
