"""A voice store that is damaged, empty, full or read-only: the server starts, and says whose fault it is."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from time import monotonic

import httpx
import pytest

import mynah
from engines.fake import fake_voice
from service.voices.stored_voice import stamped
from tests.faults.servers import CHUNKS, PYTHONPATH, Server, error_of, server, speaks
from tests.security.healthy import healthy_stream
from tests.service.serving import REFERENCE
from tests.service.telemetry.scraping import scrape

DAMAGED = ("broken", "cut", "empty")


@pytest.fixture
async def damaged_store(tmp_path):
    whole = stamped(fake_voice("Anna", b"anna")).to_bytes()
    for name, data in {"anna": whole, "broken": b"not a voice", "cut": whole[: len(whole) // 2], "empty": b""}.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
    async with (
        server("--voices-dir", str(tmp_path), token_s=0.04, script=CHUNKS) as at,
        mynah.Client(at.address) as client,
    ):
        yield at, client


async def test_a_damaged_voice_stops_no_start_and_is_not_the_clients_fault(
    damaged_store: tuple[Server, mynah.Client], tmp_path_factory: pytest.TempPathFactory
):
    at, client = damaged_store
    async with healthy_stream(at.address, at.process.pid, tmp_path_factory.mktemp("healthy")) as gaps:
        began_s = monotonic()
        await check_damaged_voices(at, client)
        await gaps.check(began_s, "damaged voices")


async def check_damaged_voices(at: Server, client: mynah.Client) -> None:
    assert await speaks(client, voice="anna")
    listed = {voice.voice_id for voice in await client.voices.list()}
    assert {"anna", "default"} <= listed <= {"anna", "default", "cut"}  # the header of a cut file is whole
    async with httpx.AsyncClient(base_url=f"http://{at.http}") as http:
        for voice_id in DAMAGED:
            errors = [await error_of(client, "Hi.", voice=voice_id)]
            with pytest.raises(mynah.MynahError) as raised:
                await client.voices.get(voice_id)
            errors.append(raised.value)
            for error in errors:
                assert (type(error), error.code, error.reason) == (mynah.ServerError, "DATA_LOSS", "VOICE_DAMAGED")
                assert (error.value, error.retryable) == (voice_id, False)
            answer = await http.get(f"/v1/voices/{voice_id}")
            assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
    assert (await scrape(at.admin))("mynah_voice_files_damaged") == 2
    log = at.log.read_text()
    for name in ("broken", "empty"):
        assert log.count(f"{name}.safetensors among the stored voices is left out") == 1
    await client.voices.delete("broken")  # as the message advises
    await client.voices.create("Anna", REFERENCE, consent=True, voice_id="broken")
    assert await speaks(client, voice="broken")


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
async def test_a_full_disk_of_a_client_is_a_sentence(
    damaged_store: tuple[Server, mynah.Client], suffix: str, tmp_path: Path
):
    output = tmp_path / f"out{suffix}"
    output.symlink_to("/dev/full")
    command = [sys.executable, "-m", "mynah", "--server", damaged_store[0].address, "say", "Hi.", "-o", str(output)]
    running = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": PYTHONPATH}
    )
    _, errors = await running.communicate()
    assert running.returncode == 1
    last = errors.decode().splitlines()[-1]
    assert last.startswith("mynah: The disk or the quota is full ([Errno 28] No space left on device). Free some space")
    assert "Traceback" not in errors.decode()


BUCKETS = """
import errno, os
import fsspec
from fsspec.implementations.memory import MemoryFileSystem

class Bucket(MemoryFileSystem):
    "As an object store: there are no folders, so listing one without objects fails."
    protocol = "bucket"
    store = {}
    pseudo_dirs = [""]

    def makedirs(self, path, exist_ok=False):
        pass

    def ls(self, path, detail=True, **kwargs):
        prefix = self._strip_protocol(path) + "/"
        names = [name for name in self.store if name.startswith(prefix)]
        if not names:
            raise FileNotFoundError(path)
        return [self.info(name) for name in names] if detail else names

fsspec.register_implementation("bucket", Bucket)
"""


async def test_an_empty_bucket_is_an_empty_store():
    async with server("--voices-dir", "bucket://voices", before=BUCKETS) as at, mynah.Client(at.address) as client:
        assert [voice.voice_id for voice in await client.voices.list()] == ["default"]
        await client.voices.create("Anna", REFERENCE, consent=True, voice_id="anna")
        assert await speaks(client, voice="anna")
        await client.voices.delete("anna")
        assert [voice.voice_id for voice in await client.voices.list()] == ["default"]


def in_own_mounts(script: str) -> list[str]:
    """A command that runs another one after `script`, with mounts that end with it. Skips where that is not allowed."""
    prefix = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    allowed = shutil.which("unshare") and subprocess.run(
        [*prefix, "mount -t tmpfs -o size=1m none /mnt"], capture_output=True, check=False
    )
    if not allowed or allowed.returncode:
        pytest.skip("this user may not mount a file system")
    return [*prefix, f'{script} && exec "$@"', "sh"]


@pytest.mark.parametrize(
    ("options", "status", "kind", "reason"),
    [
        ("size=16k", 507, mynah.ServerBusy, "STORAGE_FULL"),
        ("ro", 503, mynah.Unavailable, "STORAGE_READ_ONLY"),
    ],
)
async def test_a_full_or_read_only_disk_is_a_retryable_error_that_names_it(
    options: str, status: int, kind: type[mynah.MynahError], reason: str, tmp_path: Path
):
    within = in_own_mounts(f"mount -t tmpfs -o {options} none {tmp_path}")
    async with (
        server("--voices-dir", str(tmp_path), within=within, token_s=0.04, script=CHUNKS) as at,
        mynah.Client(at.address) as client,
        healthy_stream(at.address, at.process.pid, tmp_path.parent) as gaps,
    ):
        began_s = monotonic()
        with pytest.raises(kind) as raised:
            await client.voices.create("Anna", REFERENCE, consent=True)
        assert (raised.value.reason, raised.value.retryable) == (reason, True)
        async with httpx.AsyncClient(base_url=f"http://{at.http}") as http:
            form = {"name": "Anna", "consent": "true"}
            answer = await http.post("/v1/voices", data=form, files={"audio": REFERENCE})
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, reason)
        assert float(answer.headers["retry-after"]) > 0
        page = await scrape(at.admin)
        assert page("mynah_storage_errors_total", reason=reason) == 2
        assert page("mynah_errors_total", reason="INTERNAL") == 0
        assert ("ENOSPC" if reason == "STORAGE_FULL" else "EROFS") in at.log.read_text()
        assert await speaks(client)
        assert [voice.voice_id for voice in await client.voices.list()] == ["default"]
        await gaps.check(began_s, reason)
