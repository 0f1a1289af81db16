"""A real server under load, scraped by a real Prometheus: panels have data, and alerts fire if it is slow."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

import mynah
from tests.fleet.manifests import ROOT, expressions
from tests.fleet.prometheus import prometheus
from tests.service.test_process import ENVIRONMENT, FAKE

TEXT = "The harbour was quiet that morning, and the boats lay still."
# metrics without samples on a healthy server without a GPU
_NOT_HERE = ("mynah_gpu_memory", "mynah_window_fallbacks", "mynah_t3_kv_cache_ratio", "mynah_word_guard")
_REAL = ["-m", "service", "--model", "random:tiny", "--device", "cpu", "--threads", "2"]


def fake(script: str) -> list[str]:
    return ["-c", FAKE.replace("token_s=0.002", "token_s=0.1").format(before="pass", script=script)]


@asynccontextmanager
async def server(program: list[str], *flags: str) -> AsyncIterator[tuple[str, str]]:
    """Starts a server process; yields (address, address of the admin port) when it serves."""
    listen = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", *flags]
    running = await asyncio.create_subprocess_exec(
        sys.executable, *program, *listen, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env=ENVIRONMENT,
    )  # fmt: skip
    output = ""
    try:
        assert running.stdout is not None
        async with asyncio.timeout(120):
            while "serving after" not in output:
                line = (await running.stdout.readline()).decode()
                assert line, output
                output += line
        address, admin = re.search(r"listening on (\S+)", output), re.search(r"at http://(\S+)", output)
        assert address is not None
        assert admin is not None
        yield address[1], admin[1]
    finally:
        running.kill()
        await running.wait()


async def speak_on(client: mynah.Client, until: asyncio.Event) -> None:
    while not until.is_set():
        async with client.stream(sampling=mynah.Sampling(max_speech_tokens=60)) as stream:
            await stream.send(TEXT)
            await stream.cancel()
            await stream.send(TEXT)
            await stream.end()
            async for _ in stream:
                pass


async def cause_errors(client: mynah.Client, until: asyncio.Event) -> None:
    """Causes a rejection, a cancel and an invalid request every 0.3 s."""
    while not until.is_set():
        with suppress(mynah.ServerBusy):
            async with client.stream(), client.stream(), client.stream(), client.stream():
                pass
        with suppress(mynah.ServerBusy):
            async with client.stream() as stream:
                await stream.send(TEXT)
                await stream.cancel()
        with suppress(mynah.NotFound, mynah.ServerBusy):
            async with client.stream(voice="nobody"):
                pass
        await asyncio.sleep(0.3)


@asynccontextmanager
async def busy(
    address: str, *what: Callable[[mynah.Client, asyncio.Event], Coroutine[None, None, None]]
) -> AsyncIterator[None]:
    over = asyncio.Event()
    async with mynah.Client(address) as client, asyncio.TaskGroup() as tasks:
        for work in what:
            tasks.create_task(work(client, over))
        try:
            yield
        finally:
            over.set()


@asynccontextmanager
async def loaded(address: str) -> AsyncIterator[None]:
    """Runs the load generator: one stream a second, played in real time."""
    flags = ["--server", address, "--surface", "grpc", "--rate", "1", "--seconds", "12"]
    quiet = asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", *flags, stdout=quiet, env=ENVIRONMENT, cwd=ROOT
    )
    try:
        yield
        assert await running.wait() == 0
    finally:
        if running.returncode is None:
            running.kill()
            await running.wait()


async def eventually(check: Callable[[], Awaitable[bool]], within_s: float = 60.0) -> None:
    """Polls until `check()` returns True, because Prometheus does not notify of a scrape."""
    async with asyncio.timeout(within_s):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(1.0)


def concrete(expression: str) -> str:
    return expression.replace("$__rate_interval", "15s").replace("$namespace", "mynah")


async def test_every_panel_has_data(tmp_path: Path):
    queries = {
        place: concrete(expression)
        for place, expression in expressions().items()
        if not any(name in expression for name in _NOT_HERE)
    }
    assert len(queries) > 35
    async with server(_REAL, "--max-streams", "3") as (address, admin), prometheus({"a": admin}, tmp_path) as at:
        silent = dict(queries)

        async def all_seen() -> bool:
            for place, expression in list(silent.items()):
                if any(sample["value"][1] != "NaN" for sample in await at.query(expression)):
                    del silent[place]
            return not silent

        async with loaded(address):
            with suppress(TimeoutError):  # the other panels need rejections, cancels and invalid requests
                await eventually(all_seen, 15.0)
        async with busy(address, cause_errors):
            try:
                await eventually(all_seen, 45.0)
            except TimeoutError:
                pytest.fail(f"no data for {silent}")


async def test_alerts_fire_when_the_engine_is_slow_and_not_before(tmp_path: Path):
    slow = fake("first_hop_tokens=10, hop_tokens=10")  # a second to the first chunk, then one for each 0.4 s of audio
    async with server(slow, "--max-streams", "2") as (address, admin), prometheus({"a": admin}, tmp_path) as at:

        async def scraped() -> bool:
            return bool(await at.query("mynah:streams:saturation"))

        await eventually(scraped)
        assert not await at.firing() & {"MynahSlowFirstAudio", "MynahNoRoomLeft"}

        async def fired() -> bool:
            return {"MynahSlowFirstAudio", "MynahUnderruns", "MynahNoRoomLeft"} <= await at.firing()

        async with busy(address, speak_on, speak_on):
            await eventually(fired)
