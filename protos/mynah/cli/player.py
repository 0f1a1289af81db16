"""Playback through a player that is installed: it gets the samples as they arrive, on its standard input."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import wave
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from mynah.client.errors import InvalidArgument

# s16le, mono, on standard input
_COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "pw-play": lambda rate_hz: ["--raw", "--format", "s16", "--rate", str(rate_hz), "--channels", "1", "-"],
    "paplay": lambda rate_hz: ["--raw", "--format=s16le", f"--rate={rate_hz}", "--channels=1"],
    "aplay": lambda rate_hz: ["-q", "-t", "raw", "-f", "S16_LE", "-r", str(rate_hz), "-c", "1", "-"],
    "ffplay": lambda rate_hz: [
        "-nodisp", "-autoexit", "-loglevel", "error", "-f", "s16le", "-sample_rate", str(rate_hz), "-i", "-",
    ],
    "play": lambda rate_hz: [
        "-q", "-t", "raw", "-e", "signed", "-b", "16", "-L", "-c", "1", "-r", str(rate_hz), "-",
    ],
}  # fmt: skip
_FILE_PLAYER = "afplay"  # macOS: plays files alone
PLAYERS = ("aplay", "paplay", "pw-play", "ffplay", "play", _FILE_PLAYER)


class Player(Protocol):
    """A running player, used as an async context manager. Leaving it waits for the end, or stops it after an error."""

    async def __aenter__(self) -> Player: ...

    def write(self, data: bytes) -> None: ...

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


def find_player() -> str:
    """Returns the name of the first player that is installed. Raises InvalidArgument."""
    for name in PLAYERS:
        if shutil.which(name):
            return name
    allowed = ", ".join(PLAYERS)
    message = f"--play needs a player, and none of {allowed} is installed; install one, or write a file with -o FILE."
    raise InvalidArgument(message, reason="PLAYER_MISSING", field="play", allowed=allowed)


def make_player(name: str | None, rate_hz: int) -> Player:
    """Returns the player of that name, or for None one that plays nothing."""
    if name is None:
        return SilentPlayer()
    return FilePlayer(name, rate_hz) if name == _FILE_PLAYER else PipePlayer(name, rate_hz)


class SilentPlayer:
    """Plays nothing."""

    async def __aenter__(self) -> SilentPlayer:
        return self

    def write(self, data: bytes) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


class PipePlayer:
    """A player that reads samples on its standard input. Samples that it has not read yet wait in memory."""

    def __init__(self, name: str, rate_hz: int) -> None:
        self._name, self._arguments = name, _COMMANDS[name](rate_hz)

    async def __aenter__(self) -> PipePlayer:
        self._process = await asyncio.create_subprocess_exec(
            self._name, *self._arguments, stdin=PIPE, stdout=DEVNULL, stderr=PIPE
        )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        return self

    def write(self, data: bytes) -> None:
        """Raises BrokenPlayer if the player has ended."""
        if self._process.returncode is not None or self._input.is_closing():
            raise BrokenPlayer(f"{self._name} ended before all of the audio was played")
        self._input.write(data)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, BrokenPlayer):
            with suppress(ProcessLookupError):
                self._process.kill()
        with suppress(BrokenPipeError, ConnectionResetError):
            self._input.close()
        try:
            stderr = (await self._process.communicate())[1]
        except BaseException:
            with suppress(ProcessLookupError):
                self._process.kill()
            raise
        if self._process.returncode and (kind is None or issubclass(kind, BrokenPlayer)):
            raise _failed(self._name, self._process.returncode, stderr)


class FilePlayer:
    """A player of files: it starts when all of the audio is there."""

    def __init__(self, name: str, rate_hz: int) -> None:
        self._name, self._rate_hz = name, rate_hz
        self._audio = bytearray()

    async def __aenter__(self) -> FilePlayer:
        return self

    def write(self, data: bytes) -> None:
        self._audio += data

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None or not self._audio:
            return
        descriptor, path = tempfile.mkstemp(suffix=".wav")
        try:
            with os.fdopen(descriptor, "wb") as file, wave.open(file, "wb") as samples:
                samples.setnchannels(1)
                samples.setsampwidth(2)
                samples.setframerate(self._rate_hz)
                samples.writeframes(self._audio)
            await self._play(path)
        finally:
            os.unlink(path)

    async def _play(self, path: str) -> None:
        process = await asyncio.create_subprocess_exec(self._name, path, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE)
        try:
            stderr = (await process.communicate())[1]
        except BaseException:
            with suppress(ProcessLookupError):
                process.kill()
            raise
        if process.returncode:
            raise _failed(self._name, process.returncode, stderr)


class BrokenPlayer(OSError):
    """The player failed. The message names it and repeats its last line."""


def _failed(name: str, status: int, stderr: bytes) -> BrokenPlayer:
    lines = stderr.decode(errors="replace").strip().splitlines()
    reason = lines[-1] if lines else f"exit status {status}"
    return BrokenPlayer(f"{name} could not play the audio: {reason}")
