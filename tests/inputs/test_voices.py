"""Recordings as people send them, uploaded to a server with the shipped model: what is used, said and refused."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from mynah.v1 import speech_pb2, speech_pb2_grpc
from tests.clips import wav_bytes
from tests.engines.conditioning.media import encode
from tests.engines.conditioning.sounds import LIKE_A_VOICE, made
from tests.inputs.recordings import (
    RATE_HZ,
    Samples,
    clicks,
    hum,
    joined,
    music,
    noise,
    silence,
    spoken,
    tone,
    with_pauses,
)

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A server process with the shipped model."""

    http: httpx.Client
    channel: grpc.Channel

    def create(self, audio: bytes, **fields: str) -> httpx.Response:
        form = {"name": "a stranger", "consent": "true", **fields}
        return self.http.post("/v1/voices", data=form, files={"audio": ("clip.wav", audio)})

    def created(self, audio: bytes, **fields: str) -> dict[str, Any]:
        answer = self.create(audio, **fields)
        assert answer.status_code == 201, answer.text
        voice: dict[str, Any] = answer.json()
        return voice


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    flags = ["--model", "tiny", "--threads", "1", "--max-streams", "3", "--voices-dir", "memory"]
    listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"]
    command = [sys.executable, "-m", "service", *flags, *listen]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        output = ""
        while "uploaded voices" not in output:
            line = process.stdout.readline()
            assert line, f"the server ended: {output}"
            output += line
        assert "uploaded voices are in memory" in output
        at, http = (re.search(pattern, output) for pattern in (r"listening on (\S+)", r"HTTP at (\S+)"))
        assert at is not None
        assert http is not None
        with httpx.Client(base_url=http[1], timeout=120) as client, grpc.insecure_channel(at[1]) as channel:
            yield Server(client, channel)
    finally:
        process.terminate()
        process.wait(30)


def wav(samples: Samples) -> bytes:
    return wav_bytes(samples, RATE_HZ)


CLIPPED = np.clip(spoken() * 8, -0.6, 0.6)
# (recording, where the used part begins and how long it is, the reasons of the warnings)
USED = {
    "clean": (spoken(8.0), 0.0, 8.0, []),
    "just over 5 s": (spoken(5.01, "rms"), 0.0, 5.01, []),
    "another speaker": (spoken(8.0, "awb"), 0.0, 8.0, []),
    "15 s of silence first": (joined(silence(15.0), spoken()), 15.0, 8.0, []),
    "20 s of hum first": (joined(hum(20.0), spoken()), 20.0, 8.0, []),
    "20 s of music first": (joined(music(20.0), spoken()), 20.0, 8.0, []),
    "music on both sides": (joined(music(6.0), spoken(), music(6.0)), 6.0, 8.0, []),
    "a tone, then a long silence behind": (joined(tone(3.0), spoken(), silence(30.0)), 3.0, 8.0, []),
    "an offset of a tenth": (spoken() + np.float32(0.1), 0.0, 8.0, ["DC_OFFSET"]),
    "noise under it": (spoken() + noise(8.0, 0.04), 0.0, 8.0, ["NOISY"]),
    "hum under it": (spoken() + hum(8.0), 0.0, 8.0, ["NOISY"]),
    "clipped": (CLIPPED - CLIPPED.mean(), 0.0, 8.0, ["CLIPPED"]),
    "very soft": (spoken() * np.float32(0.01), 0.0, 8.0, []),
    "pauses of two seconds": (with_pauses(2.0), None, None, ["LONG_PAUSES"]),
}


@pytest.mark.parametrize("name", USED)
def test_the_part_with_the_speech_is_used(name: str, server: Server) -> None:
    samples, begin_s, used_s, reasons = USED[name]
    voice = server.created(wav(samples))
    if begin_s is not None:
        assert voice["used_from_s"] == pytest.approx(begin_s, abs=0.6)
        assert voice["used_s"] == pytest.approx(used_s, abs=0.8)
    assert [warning["reason"] for warning in voice["warnings"]] == reasons
    assert all(warning["message"].endswith(".") for warning in voice["warnings"])
    assert (voice["speech_share"] > 0.75) == ("LONG_PAUSES" not in reasons)
    assert (voice["speech_to_noise_db"] < 15) == ("NOISY" in reasons)
    assert "similarity" not in voice or voice["similarity"] is None
    assert "few speakers" in voice["similarity_skipped"]
    assert not voice["kept"]


def test_the_half_without_noise_is_used(server: Server) -> None:
    voice = server.created(wav(joined(spoken(12.0) + noise(12.0, 0.06), spoken(12.0))))
    assert voice["used_from_s"] > 9.0
    assert voice["speech_to_noise_db"] > 20.0


# (recording, the reason of the refusal, a figure that its message must name)
REFUSED = {
    "nothing but music": (music(20.0), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech in 20.0 s"),
    "nothing but hum": (hum(20.0), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech"),
    "nothing but noise": (noise(20.0, 0.1), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech"),
    "a tone": (tone(10.0), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech"),
    "clicks": (clicks(10.0), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech"),
    **{name: (made(name), "AUDIO_TOO_LITTLE_SPEECH", "s of speech in 8.0 s") for name in LIKE_A_VOICE},
    "3 s of speech in 40 s": (
        joined(silence(20.0), spoken(3.0), silence(17.0)),
        "AUDIO_TOO_LITTLE_SPEECH",
        "in 40.0 s",
    ),
    "words far apart": (with_pauses(14.0, piece_s=2.0), "AUDIO_TOO_LITTLE_SPEECH", "within 15 s"),
    "silence": (silence(10.0), "AUDIO_SILENT", "LUFS"),
    "a constant": (silence(10.0) + np.float32(0.5), "AUDIO_TOO_LITTLE_SPEECH", "0.0 s of speech"),
    "too short": (spoken(4.0), "AUDIO_TOO_SHORT", "4.00 s"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_recording_without_enough_speech_is_refused_with_figures(name: str, server: Server) -> None:
    samples, reason, figure = REFUSED[name]
    answer = server.create(wav(samples))
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (reason, "audio")
    assert figure in error["message"]


@pytest.mark.parametrize("rate_hz", [8_000, 44_100, 48_000])
def test_every_sample_rate_is_judged_alike(rate_hz: int, server: Server) -> None:
    from engines.audio import resample

    samples = resample(joined(silence(10.0), spoken(6.0)), RATE_HZ, rate_hz)
    voice = server.created(wav_bytes(samples, rate_hz))
    assert voice["used_from_s"] == pytest.approx(10.0, abs=0.6)


def test_stereo_whose_channels_cancel_is_one_channel(server: Server) -> None:
    planes = np.stack([spoken(), -spoken()])
    voice = server.created(encode("wav", "pcm_s16le", RATE_HZ, planes))
    assert [warning["reason"] for warning in voice["warnings"]] == ["CHANNELS_CANCEL"]
    assert voice["used_s"] == pytest.approx(8.0, abs=0.1)


def test_a_voice_is_reported_the_same_in_lists(server: Server) -> None:
    voice = server.created(wav(joined(silence(5.0), spoken(6.0))), voice_id="listed")
    listed = {each["voice_id"]: each for each in server.http.get("/v1/voices?page_size=1000").json()["voices"]}
    assert listed["listed"] == voice == server.http.get("/v1/voices/listed").json()


def test_a_switch_keeps_the_loudness(server: Server) -> None:
    soft = wav(spoken() * np.float32(0.1))
    assert server.created(soft, normalize_loudness="false")["voice_id"]
    error = server.create(soft, normalize_loudness="perhaps").json()["error"]
    assert (error["param"], error["allowed"]) == ("normalize_loudness", "true or false")


def test_the_model_says_that_it_speaks_no_tags(server: Server) -> None:
    info = speech_pb2_grpc.SpeechStub(server.channel).GetServerInfo(speech_pb2.GetServerInfoRequest())  # type: ignore[no-untyped-call]
    assert list(info.tags) == []


def test_built_in_voices_are_listed_spoken_and_cannot_be_deleted(server: Server) -> None:
    voices = server.http.get("/v1/voices?page_size=1000").json()["voices"]
    built_in = {voice["voice_id"] for voice in voices if voice["built_in"]}
    shipped = {path.stem for path in (ROOT / "engines/embedded/tiny").glob("*.pt")} - {"conds"}
    assert built_in == {"default"} | shipped
    for voice_id in built_in:
        body = {"model": "tiny", "input": "Hello there.", "voice": voice_id, "response_format": "pcm"}
        assert len(server.http.post("/v1/audio/speech", json=body).content) > 10_000
        assert server.http.delete(f"/v1/voices/{voice_id}").json()["error"]["code"] == "VOICE_BUILT_IN"
