"""An endless, seeded supply of malformed requests, and the check of a server's answers to them.

Each request is one call over gRPC.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import grpc.aio

from mynah.client.errors import from_status
from mynah.client.transport import half_close, send
from mynah.v1 import speech_pb2, voices_pb2

Request = speech_pb2.StreamSpeechRequest
_STREAM, _SYNTHESIZE = "/mynah.v1.Speech/StreamSpeech", "/mynah.v1.Speech/Synthesize"
_CREATE, _GET = "/mynah.v1.Voices/CreateVoice", "/mynah.v1.Voices/GetVoice"
_LIST, _DELETE = "/mynah.v1.Voices/ListVoices", "/mynah.v1.Voices/DeleteVoice"
_CLIENT_STREAMS = {_STREAM, _CREATE}
_FAULTS_OF_THE_SERVER = {"OK", "INTERNAL", "UNKNOWN", "UNAVAILABLE", "UNIMPLEMENTED", "CANCELLED", "NO_STATUS"}


@dataclass(frozen=True)
class Malformed:
    """Messages, as bytes, that every call of this method must refuse."""

    kind: str
    method: str
    messages: tuple[bytes, ...]


def supply(seed: int, max_text_chars: int) -> Iterator[Malformed]:
    """Malformed requests, all kinds equally often. `max_text_chars` is the server's limit for waiting text."""
    rng = random.Random(seed)
    makers = _makers(max_text_chars)
    while True:
        for kind, (method, make) in makers.items():
            messages = tuple(part if isinstance(part, bytes) else part.SerializeToString() for part in make(rng))
            yield Malformed(kind, method, messages)


def _makers(max_text_chars: int) -> dict[str, tuple[str, Callable[[random.Random], Sequence[Any]]]]:
    opening = _opening()
    too_long = "x " * (max_text_chars // 2 + 1)
    flush = Request(flush=speech_pb2.Flush(flush_id=3))
    return {
        "noise first": (_STREAM, lambda rng: [_noise(rng)]),
        "noise later": (_STREAM, lambda rng: [opening, _noise(rng)]),
        "cut short": (_STREAM, lambda rng: [opening, _text(rng, 40).SerializeToString()[: rng.randint(3, 40)]]),
        "nothing inside": (_STREAM, lambda rng: rng.choice([[Request()], [opening, Request()]])),
        "nothing at all": (_STREAM, lambda rng: []),
        "not opened": (_STREAM, lambda rng: [rng.choice([_text(rng, 9), flush, Request(cancel=speech_pb2.Cancel())])]),
        "opened twice": (_STREAM, lambda rng: [opening, _text(rng, 5), opening]),
        "bad sampling": (_STREAM, lambda rng: [_opening(sampling=_bad_sampling(rng))]),
        "bad rate": (_STREAM, lambda rng: [_opening(sample_rate_hz=rng.choice([-1, 0, 7, 2**31 - 1]))]),
        "bad format": (_STREAM, lambda rng: [_opening(audio_format=rng.randint(100, 2**31 - 1))]),
        "unknown voice id": (_STREAM, lambda rng: [_opening(voice_id=_word(rng))]),
        "bad voice id": (_STREAM, lambda rng: [_opening(voice_id="../" + _word(rng) * rng.randint(1, 50))]),
        "too much text": (_STREAM, lambda rng: [opening, Request(text=speech_pb2.TextFragment(content=too_long))]),
        "flush id 0": (_STREAM, lambda rng: [opening, Request(flush=speech_pb2.Flush(flush_id=0))]),
        "flush id again": (_STREAM, lambda rng: [opening, flush, flush]),
        "blank text": (_SYNTHESIZE, lambda rng: [speech_pb2.SynthesizeRequest(text=" \n" * rng.randint(0, 9))]),
        "long text": (_SYNTHESIZE, lambda rng: [speech_pb2.SynthesizeRequest(text=too_long)]),
        "unknown speaker": (_SYNTHESIZE, lambda rng: [_synthesis(rng, voice_id=_word(rng))]),
        "no consent": (_CREATE, lambda rng: [_new_voice(name=_word(rng), consent=False)]),
        "nameless": (_CREATE, lambda rng: [_new_voice(name=rng.choice(["", " ", "\x00", "n" * 81]), consent=True)]),
        "audio first": (_CREATE, lambda rng: [voices_pb2.CreateVoiceRequest(audio_chunk=rng.randbytes(50))]),
        "no audio": (_CREATE, lambda rng: [_new_voice(name=_word(rng), consent=True)]),
        "upload of noise": (_CREATE, lambda rng: [_noise(rng)]),
        "unknown voice": (_GET, lambda rng: [voices_pb2.GetVoiceRequest(voice_id=_word(rng))]),
        "bad page": (_LIST, lambda rng: [voices_pb2.ListVoicesRequest(page_size=-rng.randint(1, 99))]),
        "bad token": (_LIST, lambda rng: [voices_pb2.ListVoicesRequest(page_token="/" + _word(rng))]),
        "deleting an unknown voice": (_DELETE, lambda rng: [voices_pb2.DeleteVoiceRequest(voice_id=_word(rng))]),
        "deleting default": (_DELETE, lambda rng: [voices_pb2.DeleteVoiceRequest(voice_id="default")]),
    }  # fmt: skip


def _noise(rng: random.Random) -> bytes:
    return b"\xff" + rng.randbytes(rng.randint(0, 300))  # a wire type that does not exist


def _word(rng: random.Random) -> str:
    return "unknown-" + "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8))


def _text(rng: random.Random, chars: int) -> Request:
    return Request(text=speech_pb2.TextFragment(content="".join(rng.choices("abc éß☃", k=chars))))


def _opening(**settings: Any) -> Request:
    return Request(open=speech_pb2.OpenStream(settings=speech_pb2.SpeechSettings(**settings)))


def _synthesis(rng: random.Random, **settings: Any) -> speech_pb2.SynthesizeRequest:
    return speech_pb2.SynthesizeRequest(text="Hello.", settings=speech_pb2.SpeechSettings(**settings))


def _new_voice(**fields: Any) -> voices_pb2.CreateVoiceRequest:
    return voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(**fields))


def _bad_sampling(rng: random.Random) -> speech_pb2.Sampling:
    huge = rng.choice([float("nan"), float("inf"), -float("inf"), -1.0, 1e308])
    field = rng.choice(["temperature", "top_p", "repetition_penalty", "top_k", "max_speech_token_count"])
    return speech_pb2.Sampling(**{field: -rng.randint(1, 2**31) if field[-1] in "kt" else huge})


async def answer(channel: grpc.aio.Channel, request: Malformed) -> str:
    """Send a request and half-close. Returns "" if a typed error refuses it, else what is wrong with the answer."""
    if request.method in _CLIENT_STREAMS:
        response = channel.stream_stream(request.method)()
        for message in request.messages:
            if not await send(response, _Bytes(message)):
                break
        await half_close(response)
    else:
        response = channel.unary_stream(request.method)(request.messages[0])
    async for _ in _until_error(response):
        pass
    code, metadata = (await response.code()).name, await response.trailing_metadata()
    error = from_status(code, await response.details() or "", [(str(k), v) for k, v in metadata or ()])
    typed = error.reason != code and code not in _FAULTS_OF_THE_SERVER
    return "" if typed else f"{request.kind}: {code} {error.reason} {error}"


async def _until_error(call: Any) -> AsyncIterator[Any]:
    try:
        async for message in call:
            yield message
    except grpc.aio.AioRpcError:
        return


@dataclass(frozen=True)
class _Bytes:
    data: bytes

    def SerializeToString(self) -> bytes:
        return self.data
