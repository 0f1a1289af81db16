"""The log of `mynah-serve` as a process: streams, voices, signals and the end, as text and as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

import mynah
from service.access.keys import ApiKey, digest, write_keys
from tests.service.serving import REFERENCE
from tests.service.test_process import line, process

_TEXT_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z [A-Z]+ [\w.]+ \S")
# the local time of a machine far from Greenwich; `libraries` is what gRPC and others write at DEBUG and worse
FAR = {"TZ": "Pacific/Kiritimati"}
LIBRARIES = """
    import logging, os
    logging.getLogger("grpc.aio").debug("noise")
    logging.getLogger("botocore.auth").debug("noise")
    logging.getLogger("mynah.service").debug("own\\x1b line")
    os.write(2, b"E1129 21:03:28.123456   12345 some.cc:1884] Handshake failed\\n")
""".strip()


def objects(output: bytes) -> list[dict[str, Any]]:
    """Every line of the output, each an object of printable ASCII."""
    lines = output.decode("ascii").splitlines()
    assert all(each.isprintable() for each in lines)
    return [json.loads(each) for each in lines]


async def use_every_surface(grpc: str, http: str) -> None:
    """A stream on each, a voice made and deleted on two; one stream is left in its middle."""
    async with mynah.Client(grpc, api_key="hers") as client:
        await client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        _ = [chunk async for chunk in client.synthesize("Hello there.", voice="anna")]
        async with client.stream() as left:
            await left.send("This is never heard to its end, since its client leaves.")
            await left.flush()
            await anext(aiter(left))
        await client.voices.delete("anna")
    headers = {"authorization": "Bearer hers"}
    async with httpx.AsyncClient(base_url=http, headers=headers) as web:
        await web.post("/v1/audio/speech", json={"model": "fake", "input": "Hi.", "voice": "default"})
        files, form = {"audio": ("a.wav", REFERENCE)}, {"name": "Bob", "consent": "true", "voice_id": "bob"}
        assert (await web.post("/v1/voices", data=form, files=files)).status_code == 201
        assert (await web.delete("/v1/voices/bob")).status_code == 204
    async with connect(f"{http.replace('http', 'ws')}/v1/stream", additional_headers=headers) as socket:
        for message in ({"open": {}}, {"text": {"content": "Hi."}}, {"end": {}}):
            await socket.send(json.dumps(message))
        _ = [each async for each in socket]


async def test_json_lines_say_who_streams_who_made_voices_and_how_the_process_ends(tmp_path: Path):
    keys = tmp_path / "keys.json"
    write_keys(keys, [ApiKey("anna-key", digest("hers"))])
    flags = ("--http-listen", "127.0.0.1:0", "--max-streams", "4", "--api-keys", str(keys), "--voices-dir", "memory")
    flags += ("--log-format", "json", "--log-level", "debug")
    async with process(*flags, before=LIBRARIES, environment=FAR) as running:
        grpc = json.loads(await line(running))["message"].split()[2]
        http = json.loads(await line(running))["message"].split()[2]
        while "serving after" not in json.loads(await line(running))["message"]:
            pass
        await use_every_surface(grpc, http)
        running.send_signal(signal.SIGTERM)
        out, err = await running.communicate()
    assert running.returncode == 0
    objects(out)
    log = objects(err)
    assert all(re.fullmatch(r"[\d-]{10}T[\d:]{8}\.\d{3}Z", each["time"]) for each in log)
    assert not [each for each in log if each["message"] == "noise"]
    assert [each["level"] for each in log if each["message"] == "own\\x1b line"] == ["DEBUG"]
    assert [each["level"] for each in log if each["logger"] == "grpc.core"] == ["ERROR"]
    opened, ended = ([each for each in log if each["message"] == f"stream {what}"] for what in ("opened", "ended"))
    assert [each["surface"] for each in opened] == ["grpc", "grpc", "http", "websocket"]
    assert {each["stream_id"] for each in opened} == {each["stream_id"] for each in ended}
    assert {each["key"] for each in opened + ended} == {"anna-key"}
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", each["peer"]) for each in opened + ended)
    assert opened[0]["voice_id"] == "anna"
    assert sorted(each["outcome"] for each in ended) == ["CLIENT_GONE", "FINISHED", "FINISHED", "FINISHED"]
    first = ended[0]
    assert (first["audio_s"], first["text_chars"], first["underruns"], first["cancels"]) == (0.48, 12, 0, 0)
    assert first["audio_bytes"] == 12 * 960 * 2
    assert 0 < first["first_audio_s"] <= first["open_s"]
    audit = [
        (each["message"], each["voice_id"], each.get("consent"), each["surface"], each["key"])
        for each in log
        if each["message"].startswith("voice ")
    ]
    assert audit == [
        ("voice created", "anna", "given by the uploader", "grpc", "anna-key"),
        ("voice deleted", "anna", None, "grpc", "anna-key"),
        ("voice created", "bob", "given by the uploader", "http", "anna-key"),
        ("voice deleted", "bob", None, "http", "anna-key"),
    ]
    *_, received, last = [each for each in log if each["logger"] == "mynah.service"]
    assert received["message"].startswith("SIGTERM received: 0 streams and 0 uploads are open and have 30 s")
    assert last["message"] == "the process ends with status 0"


async def test_text_lines_are_in_utc_and_the_second_signal_is_named():
    async with process("--max-streams", "2", "--grace-s", "60", environment=FAR) as running:
        address = (await line(running)).split()[3]
        await line(running)
        async with mynah.Client(address, moves=0) as client:
            stream = client.stream()
            await stream.__aenter__()
            running.send_signal(signal.SIGTERM)
            assert "stopping: 1 open stream" in await line(running)
            running.send_signal(signal.SIGINT)
            _, err = await running.communicate()
            with suppress(mynah.MynahError):
                await stream.__aexit__(None, None, None)
    lines = err.decode().splitlines()
    assert all(_TEXT_LINE.match(each) for each in lines)
    ended = next(each for each in lines if "stream ended" in each)
    assert " surface=grpc " in ended
    assert " outcome=DRAINING " in ended
    assert any("SIGTERM received: 1 streams" in each for each in lines)
    assert any("SIGINT received again" in each for each in lines)
    assert lines[-1].endswith("INFO mynah.service the process ends with status 0")


@pytest.mark.parametrize(("before", "status"), [("raise CheckpointError('x')", 1), ("raise ZeroDivisionError", 1)])
async def test_every_end_has_its_line(before: str, status: int):
    async with process("--log-format", "json", before=before) as running:
        _, err = await asyncio.wait_for(running.communicate(), 60)
    assert running.returncode == status
    assert objects(err)[-1]["message"].startswith(f"the process ends with status {status}")
