"""The finished recordings that a browser may still download. Their total size is bounded; the oldest goes first."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]  # (n,) mono


class Recording(NamedTuple):
    """Mono speech, as Gradio's audio component takes it."""

    rate_hz: int
    samples: Pcm


class Recordings:
    """Recordings by unguessable id. `max_bytes` bounds their total size."""

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._recordings: OrderedDict[str, Recording] = OrderedDict()
        self._bytes = 0

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
