"""Where `mynah say` writes audio: a WAV file, a file in another format, or standard output."""

from __future__ import annotations

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


class AudioSink(Protocol):
    """A destination for audio, used as a context manager."""

    def __enter__(self) -> AudioSink: ...

    def write(self, chunk: AudioChunk) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def format_of(output: str) -> AudioFormat:
    """Returns the audio format for an output. Raises InvalidArgument if the file name has no known suffix."""
    if output == STDOUT:
        return "wav"
    suffix = Path(output).suffix.lower()
    if suffix not in FORMATS:
        allowed = ", ".join(FORMATS)
        message = f"The file name {output!r} does not name an audio format; it must end in one of {allowed}."
        raise InvalidArgument(message, reason="OUTPUT_NAME_INVALID", field="output", value=output, allowed=allowed)
    return FORMATS[suffix]


def open_sink(output: str, rate_hz: int) -> AudioSink:
    """Returns the sink for an output. The file is created when the context is entered."""
    if output == STDOUT:
        return StdoutSink()
    return WavFileSink(output, rate_hz) if Path(output).suffix.lower() == ".wav" else RawFileSink(output)


class WavFileSink:
    """A WAV file. It is playable whenever it is closed, also after a part of the audio."""

    def __init__(self, path: str, rate_hz: int) -> None:
        self._path, self._rate_hz = path, rate_hz

    def __enter__(self) -> WavFileSink:
        self._file = open(self._path, "wb")
        self._wave = wave.open(self._file, "wb")
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(self._rate_hz)
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._wave.writeframes(chunk.data)

    def __exit__(self, *_: object) -> None:
        with self._file:  # closed also if the disk has no space for the header
            self._wave.close()


class RawFileSink:
    """A file with the server's bytes. They come in whole frames, so it is playable whenever it is closed."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> RawFileSink:
        self._file = open(self._path, "wb")
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._file.write(chunk.data)

    def __exit__(self, *_: object) -> None:
        self._file.close()


class StdoutSink:
    """Standard output, flushed after each chunk."""

    def __enter__(self) -> StdoutSink:
        return self

    def write(self, chunk: AudioChunk) -> None:
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.buffer.flush()

    def __exit__(self, *_: object) -> None:
        sys.stdout.buffer.flush()
