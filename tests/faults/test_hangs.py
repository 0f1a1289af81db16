"""An engine, an event loop or a store that hangs: it is found, those who wait get an error, and the process can end."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from time import monotonic

import httpx
import pytest

import mynah
from service.shutdown import FORCED_EXIT
from tests.faults.servers import CHUNKS, Server, error_of, server, speaks
from tests.security.healthy import MAX_GAP_S, Gaps, healthy_stream, listener
from tests.service.telemetry.scraping import scrape

HANG = "hangs_on='hang', freezes_on='freeze'"
CHECKED_EVERY_S = 0.2  # the watchdog: a tenth of the bound
SHORT_END = "import service.server; service.server._END_TIMEOUT_S = service.server._CLOSE_TIMEOUT_S = 0.1"


async def readiness_is(at: Server, path: str, status: int) -> None:
    while (await at.get(path)).status != status:  # noqa: ASYNC110 - what the server says changes on its own
        await asyncio.sleep(0.02)


async def talk_to_the_end(client: mynah.Client, begun: asyncio.Event) -> mynah.MynahError:
    """Keeps one stream speaking until it ends with an error."""
    try:
        async with client.stream() as stream:
            feeding = asyncio.create_task(_feed(stream))
            try:
                async for _ in stream:
                    begun.set()
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)
    except mynah.MynahError as error:
        return error
    raise AssertionError("the stream ended well")


async def _feed(stream: mynah.SpeechStream) -> None:
    while True:
        await stream.send("This goes on and on. ")
        await stream.flush()
        await asyncio.sleep(0.05)


async def test_a_decode_that_never_returns_ends_its_streams_and_is_seen_by_probes():
    async with server("--hang-timeout-s", "2", script=HANG) as at, mynah.Client(at.address) as client:
        begun = asyncio.Event()
        healthy = asyncio.create_task(talk_to_the_end(client, begun))
        await begun.wait()
        assert await at.health("liveness") == "SERVING"
        errors = [await error_of(client, "Now hang."), await healthy, await error_of(client, "Is it back?")]
        assert [(type(error), error.reason, error.retryable) for error in errors] == [
            (mynah.Unavailable, "ENGINE_STALLED", True)
        ] * 3
        for path in ("/readyz", "/healthz"):
            assert ((await at.get(path)).status, (await at.get(path)).body) == (503, b"stalled\n")
        for name in ("", "liveness", "mynah.v1.Speech"):
            assert await at.health(name) == "NOT_SERVING"
        async with httpx.AsyncClient(base_url=f"http://{at.http}") as http:
            answer = await http.post("/v1/audio/speech", json={"input": "Hi.", "model": "fake", "voice": "default"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "ENGINE_STALLED")
            assert (await http.get("/healthz")).status_code == 503
        assert (await scrape(at.admin))("mynah_stalled", part="s3gen") == 1
        at.process.send_signal(signal.SIGTERM)
        assert await at.ended() == FORCED_EXIT
        log = at.log.read_text()
        assert log.count("s3gen has stalled") == 1
        assert log.count("MainThread:") == 1


async def test_streams_beside_a_hung_decode_wait_no_longer_than_the_bound(tmp_path: Path):
    """They share its device, so what they can have is an error in time: they hear chunks up to the hang, then that."""
    hang_timeout_s = 2.0
    only = f"{HANG}, decoders=1, {CHUNKS}"  # as a device decodes for all streams
    async with (
        server("--hang-timeout-s", str(hang_timeout_s), script=only, token_s=0.04) as at,
        mynah.Client(at.address) as client,
        healthy_stream(at.address, at.process.pid, tmp_path) as gaps,
    ):
        began_s = monotonic()
        await gaps.check(began_s, "before the hang")
        hanging = asyncio.create_task(error_of(client, "Now hang."))
        silent_s, reason = await gaps.attacked.end(began_s)
        bound_s = max(hang_timeout_s, float(re.findall(r"not returned for (\d+) s", at.log.read_text())[0]))
        usual_s = await gaps.control.largest_s(began_s)
        print(f"a hung decode: silent for {silent_s:.2f} s, then {reason}; control {usual_s:.2f} s")
        assert reason == "ENGINE_STALLED"
        assert silent_s < bound_s + 2 * CHECKED_EVERY_S + MAX_GAP_S + usual_s
        assert (await hanging).reason == "ENGINE_STALLED"


async def test_a_stream_speaks_on_while_the_server_drains():
    """Ctrl-C: what is open goes on without a gap, up to the end of the grace, and ends with a typed error."""
    async with (
        server("--grace-s", "1.5", token_s=0.04, script=CHUNKS) as at,
        listener(at.address, at.process.pid) as healthy,
    ):
        began_s = monotonic()
        at_rest_s = await healthy.largest_s(began_s, 3)
        began_s = monotonic()
        at.process.send_signal(signal.SIGINT)
        silent_s, reason = await healthy.end(began_s)
        print(f"draining: silent for {silent_s:.2f} s, at rest {at_rest_s:.2f} s, then {reason}")
        assert reason == "DRAINING"
        assert silent_s < max(MAX_GAP_S, at_rest_s + 0.3)
        assert await at.ended() == 0


async def test_a_hang_that_was_not_found_does_not_keep_the_process():
    flags = ("--hang-timeout-s", "3600", "--grace-s", "0.1")
    async with server(*flags, script=HANG, before=SHORT_END) as at, mynah.Client(at.address) as client:
        begun = asyncio.Event()
        others = asyncio.create_task(talk_to_the_end(client, begun))
        hanging = asyncio.create_task(error_of(client, "Now hang."))
        await begun.wait()
        at.process.send_signal(signal.SIGTERM)
        assert await at.ended() == FORCED_EXIT
        assert (await others).retryable
        assert (await hanging).retryable


async def test_an_event_loop_that_hangs_ends_the_process_with_its_stacks_in_the_log():
    async with server("--hang-timeout-s", "2", script=HANG) as at, mynah.Client(at.address) as client:
        assert (await error_of(client, "Now freeze.")).retryable
        assert await at.ended() == FORCED_EXIT
        log = at.log.read_text()
        assert "event_loop has stalled" in log
        assert "_hang_if_scripted" in log  # where it hangs


async def test_a_hung_event_loop_does_not_outlive_the_grace_period():
    flags = ("--hang-timeout-s", "3600", "--grace-s", "0.1")
    short = "import service.server; service.server.END_TIMEOUT_S = 0.1"
    async with server(*flags, script=HANG, before=short) as at, mynah.Client(at.address) as client:
        freezing = asyncio.create_task(error_of(client, "Now freeze."))
        await readiness_times_out(at)
        at.process.send_signal(signal.SIGTERM)
        assert await at.ended() == FORCED_EXIT
        assert (await freezing).retryable


async def readiness_times_out(at: Server) -> None:
    """Returns once the server no longer answers."""
    while True:
        try:
            async with asyncio.timeout(2):
                await at.get("/readyz")
        except TimeoutError:
            return


HUNG_STORE = """
from service.voices.files import FolderFiles
read = FolderFiles.read
FolderFiles.read = lambda self, voice_id, max_bytes=None: (
    threading.Event().wait() if "hung" in voice_id else read(self, voice_id, max_bytes)
)
"""


@pytest.fixture
async def hung_store(tmp_path):
    flags = ("--voices-dir", str(tmp_path), "--store-timeout-s", "1")
    async with (
        server(*flags, before=HUNG_STORE, token_s=0.04, script=CHUNKS) as at,
        mynah.Client(at.address) as client,
        healthy_stream(at.address, at.process.pid, tmp_path.parent) as gaps,
    ):
        for number in range(40):
            (tmp_path / f"hung-{number}.safetensors").write_bytes(b"x")
        yield at, client, gaps


async def test_a_store_that_hangs_silences_no_stream(hung_store: tuple[Server, mynah.Client, Gaps]):
    at, client, gaps = hung_store
    began_s = monotonic()
    waiting = [asyncio.create_task(client.voices.get(f"hung-{number}")) for number in range(40)]
    for audio_format in ("mp3", "ogg_opus", "flac", "aac"):
        assert await speaks(client, audio_format=audio_format)
    assert (await at.get("/metrics")).status == 200
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert {(type(error), error.reason, error.retryable) for error in results} == {
        (mynah.Unavailable, "STORE_TIMEOUT", True)
    }
    assert await speaks(client, audio_format="mp3")
    error = await error_of(client, "Hi.", voice="hung-0")
    assert (error.reason, error.retryable) == ("STORE_TIMEOUT", True)
    async with httpx.AsyncClient(base_url=f"http://{at.http}") as http:
        answer = await http.get("/v1/voices/hung-1")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "STORE_TIMEOUT")
    assert (await scrape(at.admin))("mynah_storage_errors_total", reason="STORE_TIMEOUT") >= 42
    await gaps.check(began_s, "a hung store")
    at.process.send_signal(signal.SIGTERM)
    assert await at.ended() == 0  # its threads do not keep the process


HELD_INTERPRETER = """
import ctypes
import service.watchdog
service.watchdog._MIN_ALARM_S = 3.0
from service.voices.files import FolderFiles
read = FolderFiles.read
FolderFiles.read = lambda self, voice_id, max_bytes=None: (
    ctypes.PyDLL(None).sleep(3600) if "held" in voice_id else read(self, voice_id, max_bytes)
)
"""


async def test_a_library_that_keeps_the_interpreter_does_not_keep_the_process(tmp_path):
    """`ctypes.PyDLL` calls a function of C without giving up the interpreter's lock, so that no Python code runs."""
    flags = ("--voices-dir", str(tmp_path), "--hang-timeout-s", "1")
    async with server(*flags, before=HELD_INTERPRETER) as at, mynah.Client(at.address) as client:
        (tmp_path / "held.safetensors").write_bytes(b"x")
        holding = asyncio.create_task(client.voices.get("held"))
        assert await at.ended() == 1
        with pytest.raises(mynah.MynahError) as raised:
            await holding
        assert raised.value.retryable
        log = at.log.read_text()
        assert "Timeout (0:00:03)!" in log
        assert "in <lambda>" in log  # where it is held


HELD_END = """
import atexit, ctypes
from service import watchdog
watchdog._END_ALARM_S = 0.5
atexit.register(ctypes.PyDLL(None).sleep, 3600)
"""


async def test_a_library_that_keeps_the_interpreters_end_does_not_keep_the_process():
    async with server(before=HELD_END) as at:
        at.process.terminate()
        assert await at.ended() == 1
        assert "Timeout (0:00:00.5" in at.log.read_text()
