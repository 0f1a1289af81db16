"""What the `mynah` command does once its arguments are read. Audio and lists go to files and standard output, talk to
standard error."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
import wave
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Protocol

from mynah.cli.batch.command import batch
from mynah.cli.meter import Meter
from mynah.cli.stdin import fragments
from mynah.client.client import Client
from mynah.client.errors import InvalidArgument, Unavailable
from mynah.client.events import AudioChunk
from mynah.client.settings import AudioFormat, Sampling, Tls
from mynah.client.stream import SpeechStream


async def execute(chosen: argparse.Namespace) -> None:
    """Run the chosen command. Raises MynahError, OSError, ValueError."""
    named = chosen.ca or chosen.cert
    tls = Tls(chosen.ca, certificate=chosen.cert, key=chosen.cert_key) if named else chosen.tls
    connect = partial(Client, tls=tls, api_key=_api_key(chosen.api_key_file))
    if chosen.command == "batch":
        await batch(chosen, connect)
        return
    async with connect(chosen.server) as client:
        if chosen.command == "say":
            await _say(client, chosen)
        elif chosen.command == "health":
            await _health(client, chosen.service)
        elif chosen.command == "info":
            await _info(client)
        else:
            await _voices(client, chosen)


def _api_key(file: Path | None) -> str | None:
    return file.read_text().strip() if file else os.environ.get("MYNAH_API_KEY")


async def _say(client: Client, chosen: argparse.Namespace) -> None:
    sampling = Sampling(
        temperature=chosen.temperature,
        top_k=chosen.top_k,
        top_p=chosen.top_p,
        repetition_penalty=chosen.repetition_penalty,
        seed=chosen.seed,
    )
    to_stdout = chosen.output == "-"
    stream = client.stream(
        voice=chosen.voice,
        sample_rate_hz=chosen.rate,
        audio_format="wav" if to_stdout else _format_of(chosen.output),
        sampling=sampling,
    )
    talk = _Silence() if chosen.quiet else _Talk()
    async with stream:
        rate_hz = stream.opened.settings.sample_rate_hz
        assert rate_hz is not None
        talk.opened(stream)
        meter = Meter(rate_hz)
        with _Standard() if to_stdout else _file(chosen.output, rate_hz) as sink:
            await _speak(stream, chosen.text, sink, meter, talk)
    talk.finished(meter, "standard output" if to_stdout else chosen.output)


async def _speak(stream: SpeechStream, text: str, sink: _Sink, meter: Meter, talk: _Silence) -> None:
    """Send and listen at once; whichever fails ends the other."""
    try:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(_send(stream, text, meter))
            async for chunk in stream:
                meter.hear(chunk, time.monotonic())
                sink.write(chunk)
                talk.heard(meter)
            sending.cancel()  # the server ended the stream; there is nobody to send to any more
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
    if not meter.samples:
        raise InvalidArgument("there was nothing to speak in the text", reason="TEXT_EMPTY", field="text")


async def _send(stream: SpeechStream, text: str, meter: Meter) -> None:
    most = stream.max_piece_chars
    async for fragment in fragments() if text == "-" else _once(text):
        for start in range(0, len(fragment), most):
            piece = fragment[start : start + most]
            await stream.room(len(piece))
            if piece.strip():
                meter.start(time.monotonic())
            await stream.send(piece)
    await stream.end()


async def _once(text: str) -> AsyncIterator[str]:
    yield text


# Of a WAV file the samples alone are asked for: its header is written here, with the true length.
_FORMATS: dict[str, AudioFormat] = {
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


def _format_of(output: str) -> AudioFormat:
    suffix = Path(output).suffix.lower()
    if suffix not in _FORMATS:
        allowed = ", ".join(_FORMATS)
        message = f"the file name {output!r} does not say which format it is to have; allowed: {allowed}"
        raise InvalidArgument(message, reason="OUTPUT_NAME_INVALID", field="output", value=output, allowed=allowed)
    return _FORMATS[suffix]


def _file(output: str, rate_hz: int) -> _WavFile | _PlainFile:
    return _WavFile(output, rate_hz) if Path(output).suffix.lower() == ".wav" else _PlainFile(output)


class _Sink(Protocol):
    """Where audio goes."""

    def write(self, chunk: AudioChunk) -> None: ...


class _WavFile:
    """A WAV file that is whole and playable whenever it is closed, also after half of the audio."""

    def __init__(self, path: str, rate_hz: int) -> None:
        self._path, self._rate_hz = path, rate_hz

    def __enter__(self) -> _WavFile:
        self._file = open(self._path, "wb")
        self._wave = wave.open(self._file, "wb")
        self._wave.setnchannels(1)
        self._wave.setsampwidth(2)
        self._wave.setframerate(self._rate_hz)
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._wave.writeframes(chunk.data)

    def __exit__(self, *_: object) -> None:
        self._wave.close()
        self._file.close()


class _PlainFile:
    """The server's bytes as they come; whole frames, so playable whenever it is closed."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> _PlainFile:
        self._file = open(self._path, "wb")
        return self

    def write(self, chunk: AudioChunk) -> None:
        self._file.write(chunk.data)

    def __exit__(self, *_: object) -> None:
        self._file.close()


class _Standard:
    """Standard output, each chunk at once."""

    def __enter__(self) -> _Standard:
        return self

    def write(self, chunk: AudioChunk) -> None:
        sys.stdout.buffer.write(chunk.data)
        sys.stdout.buffer.flush()

    def __exit__(self, *_: object) -> None:
        sys.stdout.buffer.flush()


class _Silence:
    """Says nothing."""

    def opened(self, stream: SpeechStream) -> None: ...

    def heard(self, meter: Meter) -> None: ...

    def finished(self, meter: Meter, where: str) -> None: ...


class _Talk(_Silence):
    """Progress and summary for people; progress only where it can be overwritten."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()

    def opened(self, stream: SpeechStream) -> None:
        if stream.opened.notice:
            _tell(stream.opened.notice)

    def heard(self, meter: Meter) -> None:
        if self._live:
            print(f"\r{meter.audio_s:6.1f} s of audio", end="", file=sys.stderr, flush=True)

    def finished(self, meter: Meter, where: str) -> None:
        if self._live:
            print("\r", end="", file=sys.stderr)
        _tell(summary(meter, where))


def summary(meter: Meter, where: str) -> str:
    """One line: how much audio, in how many chunks, how soon and how fast, and where it is."""
    assert meter.ttfa_s is not None
    assert meter.rtf is not None
    return (
        f"{meter.audio_s:.2f} s of audio in {meter.chunks} chunks; time to first audio {meter.ttfa_s * 1000:.0f} ms, "
        f"real-time factor {meter.rtf:.2f}; {where}"
    )


def _tell(line: str) -> None:
    print(f"mynah: {line}", file=sys.stderr)


async def _health(client: Client, service: str) -> None:
    if not await client.health(service):
        raise Unavailable("the server is there and takes no streams now", reason="NOT_SERVING", retry_after_s=1.0)
    print("SERVING")


async def _info(client: Client) -> None:
    info = await client.info()
    lines = {
        "version": info.version,
        "model": f"{info.model}{' (random weights)' if info.random_weights else ''}",
        "device": f"{info.device} (T3 {info.t3_runtime}, S3Gen {info.s3gen_runtime})",
        "streams": f"{info.open_streams} of {info.limits.max_open_streams} open",
        "sample rates": ", ".join(str(rate) for rate in info.sample_rates_hz) + " Hz",
        "formats": ", ".join(info.audio_formats),
        "waiting text": f"at most {info.limits.max_pending_text_chars} chars on a stream",
    }
    if info.notice:
        lines["notice"] = info.notice
    for name, value in lines.items():
        print(f"{name + ':':14}{value}")


async def _voices(client: Client, chosen: argparse.Namespace) -> None:
    if chosen.action == "create":
        audio = Path(chosen.audio)
        voice = await client.voices.create(chosen.name, audio, consent=chosen.consent, voice_id=chosen.id)
        print(voice.voice_id)
        _tell(f"made voice {voice.voice_id} ({voice.name}) from {voice.reference_s:.1f} s of {audio}")
    elif chosen.action == "list":
        for voice in await client.voices.list():
            created = voice.created.isoformat() if voice.created else "built in"
            print(f"{voice.voice_id}\t{created}\t{voice.name}")
    else:
        await client.voices.delete(chosen.id)
        _tell(f"deleted voice {chosen.id}")
