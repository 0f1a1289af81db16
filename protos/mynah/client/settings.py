"""What a caller may choose: small frozen values. They check nothing; the server does, and names what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

AudioFormat = Literal[
    "pcm_s16le", "pcm_f32le", "wav", "ogg_opus", "webm_opus", "mp3", "flac", "aac", "mulaw", "alaw"
]  # fmt: skip
AUDIO_FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)


@dataclass(frozen=True)
class Sampling:
    """How speech is drawn; None leaves a choice to the server. Ranges stand in the contract (mynah/v1/speech.proto)."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    max_speech_tokens: int | None = None  # per segment


@dataclass(frozen=True)
class SpeechSettings:
    """Who speaks, how, and in which form it is sent; None leaves a choice to the server."""

    voice: str | None = None
    audio_format: AudioFormat | None = None
    sample_rate_hz: int | None = None
    sampling: Sampling = Sampling()


@dataclass(frozen=True)
class Tls:
    """A connection that is encrypted. `root_certificates`: PEM file of who is trusted; None: the system's.

    `certificate` and `key` (PEM files, both or neither) show a server that asks for it who this client is.
    """

    root_certificates: Path | None = None
    server_name: str | None = None  # the name the server's certificate must carry, if not that of the address
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True)
class Timeouts:
    """Seconds. Streams have no deadline of their own: the server's idle and stall limits end them."""

    connect_s: float = 10.0  # until the server answers an opened stream
    call_s: float = 30.0  # for info and for voices, except making one
    create_voice_s: float = 300.0
