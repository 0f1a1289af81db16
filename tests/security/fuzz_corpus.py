"""What the fuzzers begin with: valid inputs that use every field, former findings, and the words of each format."""

from __future__ import annotations

import json

from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToDict
from riva.client.proto import riva_tts_pb2

from mynah.v1 import speech_pb2, voices_pb2

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
_HTTP = [
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    b"HEAD /a?b=%41 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    _POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\nabc" + _POST + b"Content-Length: 0\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: z\r\n\r\n",
    _POST + b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    HANDSHAKE,
    HANDSHAKE.replace(b"GET", b"HEAD").replace(b"Key: ", b"Key: \xff"),
    # a body that stops being HTTP before or after its answer has begun
    b"HEAD / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n\na",
    _POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na0\r\n\r\n\na",
    b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 700 + b"x",
]
_WEBSOCKET = [
    b"\x81\x82\0\0\0\0{}",
    b"\x82\x85\1\2\3\4abcde",
    b"\x89\x80\0\0\0\0\x8a\x80\0\0\0\0\x88\x82\0\0\0\0\x03\xe8",
    b"\x01\x81\0\0\0\0a\x00\x81\0\0\0\0b\x89\x81\0\0\0\0c\x80\x81\0\0\0\0d",
    b"\x81\xfe\0\x80\0\0\0\0" + b"a" * 128,
    b"\x82\xff\0\0\0\0\0\1\0\0\0\0\0\0" + bytes(65_536),
    b"\x81\x82\0\0\0\0\xc3\x28",
    b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * 1100,
]


def _part(name: str, value: str, more: str = "") -> bytes:
    return f'--xxxxxxxx\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'.encode()


_AUDIO = _part("audio", "RIFF" + "0" * 100, '; filename="a.wav"')
_FIELDS = [("name", "Anna"), ("consent", "true"), ("voice_id", "anna"), ("normalize_loudness", "false")]
_FORM = b"".join(_part(*each) for each in _FIELDS) + _AUDIO
_MULTIPART = [
    b"xxxxxxxx" + _FORM + b"--xxxxxxxx--\r\n",
    b"xxxxxxxx" + _AUDIO + _AUDIO + b"--xxxxxxxx--\r\n",
    b"xxxxxxxx" + _part("name", "a").replace(b"\r\n\r\n", b"\r\nContent-Type: text/plain; charset=x\r\n\r\n", 1),
]
_SETTINGS = speech_pb2.SpeechSettings(voice_id="default")
_SETTINGS.sampling.SetInParent()
_SPEECH = {
    "model": "tts-1",
    "input": "Hi.",
    "voice": {"id": "default"},
    "response_format": "wav",
    "speed": 1.0,
    "stream_format": "sse",
    "seed": 1,
    "temperature": 0.5,
    "instructions": "",
}
_REQUESTS = [
    speech_pb2.StreamSpeechRequest(open=speech_pb2.OpenStream(settings=_SETTINGS)),
    speech_pb2.StreamSpeechRequest(text=speech_pb2.TextFragment(content="x")),
    speech_pb2.StreamSpeechRequest(flush=speech_pb2.Flush(flush_id=1)),
    speech_pb2.StreamSpeechRequest(cancel=speech_pb2.Cancel()),
]
_MESSAGES = [
    *_REQUESTS,
    speech_pb2.SynthesizeRequest(text="Hi.", settings=_SETTINGS),
    voices_pb2.CreateVoiceRequest(metadata=voices_pb2.NewVoice(name="Anna", consent=True, voice_id="anna")),
    voices_pb2.ListVoicesRequest(page_size=3, page_token="x"),
    riva_tts_pb2.SynthesizeSpeechRequest(
        text="Hi.",
        language_code="en-US",
        encoding=1,
        sample_rate_hz=24_000,
        voice_name="default",
        custom_configuration={"seed": "1", "consent": "true"},
        zero_shot_data={"audio_prompt": b"RIFF", "sample_rate_hz": 24_000, "encoding": 1},
    ),
]
SEEDS: dict[str, list[bytes]] = {
    "http": _HTTP,
    "websocket": _WEBSOCKET,
    "multipart": _MULTIPART,
    "body": [json.dumps(_SPEECH).encode(encoding) for encoding in ("utf-8", "utf-16", "utf-32-be")],
    "grpc_messages": [message.SerializeToString() for message in _MESSAGES],
    "frames": [
        *(json.dumps(MessageToDict(request, preserving_proto_field_name=True)).encode() for request in _REQUESTS),
        *(request.SerializeToString() for request in _REQUESTS),
        json.dumps(_SPEECH).encode(),
        b"https://app.example",
    ],
    "spoken_text": [
        b"\x03<speak>It costs <sub alias='five'>$5</sub>.<break time='1s'/><mark name='m'/>At 10:30 p.m.</speak>",
        b"\x04<say-as interpret-as='date' format='dmy'>5/12/2024</say-as> &amp; <prosody rate='slow'>slow</prosody>",
        b"\x01# Title\n\n```py\ncode\n```\n- **a** [b](https://c.d/e) [pause:0.5s] | x | 1/2 km\n\nx@y.zz XIV",
        "\x02🎉 3½ £3m –7 +1 555 123 4567 󰀀󸀀 word".encode(),
    ],
    "text": [b"localhost:80", b"[::1]:80", b"2026-01-01 \x1b[2J\r\n\xff\xc3\xa9"],
}


def _names(message: Descriptor, seen: set[str]) -> list[bytes]:
    """The fields of a message and of those inside it, as JSON names them."""
    if message.full_name in seen:
        return []
    seen.add(message.full_name)
    names = [f'"{field.name}": '.encode() for field in message.fields]
    for field in message.fields:
        names += _names(field.message_type, seen) if field.message_type else []
    return names


_JSON = [b"{}", b"[]", b"null", b"true", b"1e999", b"-1", b'"\\ud800"', b"NaN"]
_BODY_NAMES = [f'"{name}": '.encode() for name in _SPEECH]
_FRAME_NAMES = _names(speech_pb2.StreamSpeechRequest.DESCRIPTOR, set())
WORDS: dict[str, list[bytes]] = {
    "http": [b"Content-Length: ", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: websocket"],
    "websocket": [b"\x81\x80", b"\x00\x80", b"\x80\x80", b"\x88\x80", b"\x89\x80", b"\xc1\x80", b"\xff" * 8],
    "multipart": [b"--xxxxxxxx\r\n", b"\r\n\r\n", b"filename=", b"filename*=", *(n.encode() for n, _ in _FIELDS)],
    "body": [*_JSON, *_BODY_NAMES],
    "grpc_messages": [b"\x0a", b"\x12", b"\xff\xff\xff\xff\x0f", b"seed", b"consent"],
    "frames": [*_JSON, *_FRAME_NAMES, *_BODY_NAMES],
    "spoken_text": [
        *(f"<{name}>".encode() for name in ("speak", "p", "s", "sub alias='a'", "prosody rate='fast'", "break/")),
        *(f"</{name}>".encode() for name in ("sub", "s", "p", "say-as", "phoneme")),
        *(b"[pause:1s]", b"```\n", b"**", b"](", b"&lt;", b"<phoneme ph='a'>", b"<say-as interpret-as='digits'>"),
        *(b"$1,234.56", b"10:30", b"1/2", b"May 5", b"2024", b"e.g.", b"VIII", b"\n\n", b"kg", b"5'10\""),
    ],
    "text": [b"localhost", b"[::ffff:127.0.0.1]", b".internal", b"\xe2\x80\xae", b"\x1b["],
}
