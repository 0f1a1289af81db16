"""Finished speech that a browser may still ask for as a file: bounded, the oldest goes first."""

from __future__ import annotations

import secrets
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

Pcm = npt.NDArray[np.int16]  # (n,) mono


class Takes:
    """Takes by names that nobody can guess. `max_bytes` bounds all of them together."""

    def __init__(self, max_bytes: int = 128 * 2**20) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, tuple[int, bytes]] = OrderedDict()
        self._bytes = 0

    def keep(self, rate_hz: int, pcm: bytes) -> str:
        """The name under which the speech can be had from now on."""
        name = secrets.token_urlsafe(16)
        self._kept[name] = (rate_hz, pcm)
        self._bytes += len(pcm)
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._kept.popitem(last=False)
            self._bytes -= len(dropped)
        return name

    def get(self, name: str) -> tuple[int, Pcm] | None:
        """Rate and samples; None when it is not kept, or not any more."""
        if name not in self._kept:
            return None
        rate_hz, pcm = self._kept[name]
        return rate_hz, np.frombuffer(pcm, "<i2")
