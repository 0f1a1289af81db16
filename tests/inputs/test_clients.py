"""What clients send, on the shipped model: OpenAI's HTTP, the command line, Riva's calls; and each right value."""

from __future__ import annotations

import asyncio
import io
import os
import re
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from riva.client.proto import riva_audio_pb2, riva_tts_pb2, riva_tts_pb2_grpc

import mynah
from mynah.client.errors import MynahError, from_status
from tests.mynah.cli.test_say_output import install

ROOT = Path(__file__).parents[2]
PATHS = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
READS_ITSELF = "This is read so that a voice can be made of it. It takes a few seconds, and then a little more of them."
SPEECH = "/v1/audio/speech"
HI = {"model": "tts-1", "input": "Hi there.", "voice": "default", "response_format": "pcm"}


@dataclass(frozen=True)
class Served:
    """A server on the shipped model, with two voices made of its own speech: Anna Lee (v1) and Nova (v2)."""

    grpc: str
    http: httpx.Client
    calls: riva_tts_pb2_grpc.RivaSpeechSynthesisStub


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    listen = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--max-streams", "4"]
    command = [sys.executable, "-m", "service", "--model", "tiny", *listen]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        output = ""
        for line in running.stdout:
            output += line
            if "serving after" in line:
                break
        at_grpc, at_http = (re.search(rf"{name} (?:http://)?(\S+)", output) for name in ("listening on", "HTTP at"))
        assert at_grpc is not None, output
        assert at_http is not None, output
        asyncio.run(make_voices(at_grpc[1]))
        with (
            httpx.Client(base_url=f"http://{at_http[1]}", timeout=120) as http,
            grpc.insecure_channel(at_grpc[1]) as channel,
        ):
            yield Served(at_grpc[1], http, riva_tts_pb2_grpc.RivaSpeechSynthesisStub(channel))
        running.terminate()
        assert running.wait(60) == 0


async def make_voices(address: str) -> None:
    async with mynah.Client(address) as client:
        audio = [chunk.data async for chunk in client.synthesize(READS_ITSELF, audio_format="wav")]
        for name, voice_id in (("Anna Lee", "v1"), ("Nova", "v2")):
            await client.voices.create(name, b"".join(audio), consent=True, voice_id=voice_id)


def wav_of(data: bytes) -> tuple[int, int]:
    """The frames that the header claims, and those that follow."""
    with wave.open(io.BytesIO(data)) as file:
        return file.getnframes(), len(file.readframes(10**9)) // 2


@pytest.mark.parametrize(
    ("path", "kind", "expected"),
    [
        ("/v1/audio/voices", "voices", {"id": "v1", "name": "Anna Lee"}),
        ("/v1/audio/voices?model=tts-1", "voices", {"id": "v2", "name": "Nova"}),
        ("/v1/audio/models", "models", {"id": "tiny", "name": "tiny"}),
    ],
)
def test_lists_of_open_webui(path: str, kind: str, expected: dict[str, str], served: Served):
    answer = served.http.get(path).json()
    assert answer.keys() == {kind}
    assert expected in answer[kind]
    assert all(entry.keys() == {"id", "name"} for entry in answer[kind])


@pytest.mark.parametrize(
    ("name", "status"), [("tiny", 200), ("tts-1", 200), ("gpt-4o-mini-tts", 200), ("whisper", 404)]
)
def test_models(name: str, status: int, served: Served):
    answer = served.http.get(f"/v1/models/{name}")
    assert answer.status_code == status
    assert "tts-1" in answer.text or status == 200


@pytest.mark.parametrize(
    ("voice", "speaks", "replaced"),
    [
        (None, "default", None),
        ("default", "default", None),
        ("alloy", "default", "alloy"),
        ("marin", "default", "marin"),
        ("nova", "v2", None),
        ("Anna Lee", "v1", None),
        ("anna lee", "v1", None),
        ({"id": "v1"}, "v1", None),
    ],
)
def test_voices_of_openais_clients(voice: Any, speaks: str, replaced: str | None, served: Served):
    answer = served.http.post(SPEECH, json=HI | {"voice": voice})
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mynah-voice"] == speaks
    assert answer.headers.get("x-mynah-voice-replaced") == replaced
    assert 0.2 < len(answer.content) / 48_000 < 4.0


@pytest.mark.parametrize(("voice", "status"), [("Alloy", 400), ("bert", 404), ("V1", 400), ("", 400)])
def test_a_voice_that_does_not_exist(voice: str, status: int, served: Served):
    answer = served.http.post(SPEECH, json=HI | {"voice": voice})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (status, "voice")
    assert {"default", "v1", "v2"} <= set(error["allowed"].split(", "))
    assert ("'v1' exists" in error["message"]) == (voice == "V1")


def test_a_body_without_a_model(served: Served):
    assert served.http.post(SPEECH, json={"input": "Hi there."}).headers["content-type"] == "audio/mpeg"


@pytest.mark.parametrize("stream", [False, True, None])
def test_the_length_of_a_wav(stream: bool | None, served: Served):
    answer = served.http.post(SPEECH, json=HI | {"response_format": "wav", "stream": stream})
    claimed, frames = wav_of(answer.content)
    assert frames > 4000
    assert (claimed == frames) == (stream is False)
    assert ("content-length" in answer.headers) == (stream is False)


# The command line


def cli(served: Served, folder: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": PATHS}
    if path is not None:
        environment["PATH"] = f"{path}:{environment['PATH']}"
    command = [sys.executable, "-m", "mynah", *arguments, "--server", served.grpc]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["say", "   ", "-o", "keep.wav"], 2, "nothing to speak"),
        (["say", "Hi.", "--voice", "bert", "-o", "keep.wav"], 2, "the server has default, "),
        (["say", "-Hello", "-o", "keep.wav"], 2, "mynah say -- -Hello"),
        (["voices", "create", "keep.wav", "--name", "A", "--id", "Anna", "--consent"], 2, "in lower case: 'anna'"),
        (["say", "Hi.", "--play", "-o", "keep.mp3"], 2, "--play works without -o"),
    ],
)
def test_a_refusal_says_what_to_do_and_leaves_files(
    arguments: list[str], status: int, says: str, served: Served, tmp_path: Path
):
    (tmp_path / "keep.wav").write_bytes(b"kept")
    done = cli(served, tmp_path, *arguments)
    assert (done.returncode, says in done.stderr) == (status, True), done.stderr
    assert (tmp_path / "keep.wav").read_bytes() == b"kept"
    assert [path.name for path in tmp_path.iterdir()] == ["keep.wav"]


@pytest.mark.parametrize(
    ("arguments", "writes"),
    [
        (["say", "Hi there."], "mynah-2.wav"),
        (["say", "Hi there.", "--voice", "Anna Lee", "-o", "anna.wav"], "anna.wav"),
        (["say", "Hi there.", "-o", "mynah.wav"], "mynah.wav"),
    ],
)
def test_say_writes_the_file_that_was_asked_for(arguments: list[str], writes: str, served: Served, tmp_path: Path):
    (tmp_path / "mynah.wav").write_bytes(b"kept")
    done = cli(served, tmp_path, *arguments)
    assert done.returncode == 0, done.stderr
    claimed, frames = wav_of((tmp_path / writes).read_bytes())
    assert claimed == frames > 4000
    assert {path.name for path in tmp_path.iterdir()} == {"mynah.wav", writes}
    assert writes == "mynah.wav" or (tmp_path / "mynah.wav").read_bytes() == b"kept"


def test_say_plays(served: Served, tmp_path: Path):
    install(tmp_path / "bin", "aplay", f"cat > {tmp_path}/played")
    done = cli(served, tmp_path, "say", "Hi there.", "--play", path=tmp_path / "bin")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "played").stat().st_size > 8000
    assert {path.name for path in tmp_path.iterdir()} == {"bin", "played"}


def test_voices_have_a_header(served: Served, tmp_path: Path):
    listed = cli(served, tmp_path, "voices", "list").stdout.splitlines()
    assert listed[0].split() == ["ID", "CREATED", "NAME"]
    assert {"default", "v1", "v2"} <= {line.split()[0] for line in listed}
    assert any(line.startswith("v1 ") and line.endswith("  Anna Lee") for line in listed)


# Riva


def request(text: str, voice: str = "") -> riva_tts_pb2.SynthesizeSpeechRequest:
    return riva_tts_pb2.SynthesizeSpeechRequest(
        text=text, voice_name=voice, sample_rate_hz=24_000, encoding=riva_audio_pb2.LINEAR_PCM
    )


@pytest.mark.parametrize("voice", ["", "mynah.default", "mynah.v1", "mynah.Anna Lee", "nova"])
def test_voices_of_rivas_clients(voice: str, served: Served):
    assert len(served.calls.Synthesize(request("Hi there.", voice)).audio) > 8000


def test_rivas_unary_call_refuses_what_its_client_could_not_receive(served: Served):
    with pytest.raises(grpc.RpcError) as raised:
        served.calls.Synthesize(request("This is a sentence of some length. " * 70))
    error = typed(raised.value)
    assert (error.reason, error.field, "SynthesizeOnline" in str(error)) == ("TEXT_TOO_LONG", "text", True)


def test_a_cancelled_call_of_rivas_clients_frees_the_server(served: Served):
    call = served.calls.SynthesizeOnline(iter([request("This is a sentence of some length. " * 400)]))
    assert len(next(call).audio) > 0
    call.cancel()
    asyncio.run(idle(served.grpc))


async def idle(address: str) -> None:
    """Returns once no stream is open; the text would take minutes."""
    async with asyncio.timeout(60), mynah.Client(address) as client:
        while (await client.info()).open_streams:
            pass


def typed(error: Any) -> MynahError:
    return from_status(error.code().name, error.details(), list(error.trailing_metadata()))
