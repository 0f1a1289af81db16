"""Where `mynah say` writes audio: a WAV file, a file in another format, or standard output."""

from __future__ import annotations

import errno
import os
import stat
import sys
import wave
from pathlib import Path
from typing import Protocol

from mynah.client.errors import InvalidArgument
from mynah.client.events import AudioChunk
from mynah.client.settings import AudioFormat

# For a WAV file the server sends only samples; the header is written here, with the true length.
FORMATS: dict[str, AudioFormat] = {
    ".wav": "pcm_s16le",
    ".mp3": "mp3",
    ".opus": "ogg_opus",
    ".ogg": "ogg_opus",
    ".webm": "webm_opus",
    ".flac": "flac",
    ".aac": "aac",
    ".ulaw": "mulaw",
    ".alaw": "alaw",
    ".pcm": "pcm_s16le",
}
STDOUT = "-"
DEFAULT_NAME = "mynah.wav"


class AudioSink(Protocol):
    """A destination for audio, used as a context manager."""

    def __enter__(self) -> AudioSink: ...

    def write(self, chunk: AudioChunk) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...


def format_of(output: str | None) -> AudioFormat:
    """Returns the audio format for an output; None is no output. Raises InvalidArgument for an unknown suffix."""
    if output is None:
        return "pcm_s16le"
    if output == STDOUT:
        return "wav"
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS:
        allowed = ", ".join(FORMATS)
        message = f"The file name {output!r} does not name an audio format; it must end in one of {allowed}."
        raise InvalidArgument(message, reason="OUTPUT_NAME_INVALID", field="output", value=output, allowed=allowed)
    return FORMATS[suffix]


def free_name(folder: Path) -> str:
    """Returns the default file name, or the first of mynah-2.wav, mynah-3.wav, ... that does not exist yet."""
    name, number = Path(DEFAULT_NAME), 1
    while (folder / name).exists():
        number += 1
        name = name.with_stem(f"{Path(DEFAULT_NAME).stem}-{number}")
    return str(name)


def open_sink(output: str | None, rate_hz: int) -> AudioSink:
    """Returns the sink for an output. The file appears when the context is left."""
    if output is None:
        return NullSink()
    if output == STDOUT:
        return StdoutSink()
    return WavFileSink(output, rate_hz) if Path(output).suffix.lower() == ".wav" else RawFileSink(output)


class RawFileSink:
    """A file with the server's bytes. They come in whole frames, so it is playable whenever it is closed.

    It is written beside its final name and takes that name at the end. An existing file is replaced by a whole one
    alone: it stays if there was no audio or if the command failed. Without one the audio before a failure is kept.
    What is not a regular file (a pipe) is written to directly.
    """

    def __init__(self, output: str) -> None:
        self._output = output
        self._target = Path(os.path.realpath(output))
        self._has_audio = False

    def __enter__(self) -> RawFileSink:
        """Raises OSError, which names the output, if the file cannot be written."""
        existing = self._target.stat() if self._target.exists() else None
        self._existed = existing is not None
        self._direct = existing is not None and not stat.S_ISREG(existing.st_mode)
        self._path = self._target
        if not self._direct:
            self._path = self._target.with_name(f".{self._target.name}.{os.getpid()}.partial")
        try:
            if existing is not None and not os.access(self._target, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            self._file = open(self._path, "wb")
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._output) from None
        if existing is not None and not self._direct:
            self._path.chmod(stat.S_IMODE(existing.st_mode))
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._has_audio = True
        self._file.write(chunk.data)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._file.close()
        except OSError:  # the disk is full
            if not self._direct:
                self._path.unlink()
            raise
        if self._direct:
            return
        if self._has_audio and not (self._existed and kind is not None):
            self._path.replace(self._target)
        else:
            self._path.unlink()


class WavFileSink(RawFileSink):
    """A WAV file. It is playable whenever it is closed, also after a part of the audio."""

    def __init__(self, output: str, rate_hz: int) -> None:
        super().__init__(output)
        self._rate_hz = rate_hz

    def __enter__(self) -> WavFileSink:
        super().__enter__()
        self._wave = wave.open(self._file, "wb")
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(self._rate_hz)
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._has_audio = True
        self._wave.writeframes(chunk.data)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            self._wave.close()
        finally:  # also if the disk has no space for the header
            super().__exit__(kind, *rest)


class StdoutSink:
    """Standard output, flushed after each chunk."""

    def __enter__(self) -> StdoutSink:
        return self

    def write(self, chunk: AudioChunk) -> None:
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.buffer.flush()

    def __exit__(self, *_: object) -> None:
        sys.stdout.buffer.flush()


class NullSink:
    """Writes nothing, for audio that is only played."""

    def __enter__(self) -> NullSink:
        return self

    def write(self, chunk: AudioChunk) -> None: ...

    def __exit__(self, *_: object) -> None: ...
