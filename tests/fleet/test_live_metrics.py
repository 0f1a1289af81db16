"""A real server under load, scraped by a real Prometheus: panels have data, and alerts fire if it is slow."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest

import mynah
from tests.fleet.manifests import ROOT, expressions
from tests.fleet.prometheus import prometheus
from tests.fleet.servers import REAL, fake, server
from tests.service.serving import REFERENCE
from tests.service.test_process import ENVIRONMENT

TEXT = "The harbour was quiet that morning, and the boats lay still."
# without samples on a healthy server without a GPU, TLS and Kubernetes
_NOT_HERE = ("mynah_gpu_memory", "mynah_window_fallbacks", "mynah_t3_kv_cache_ratio", "mynah_word_guard")
_NOT_HERE += ("DCGM_", "kube_", "kubelet_", "ALERTS", "mynah_engine_refused", "mynah_certificate_expiry")
_NOT_HERE += ("mynah_failed_captures",)


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


async def clone_voices(client: mynah.Client, until: asyncio.Event) -> None:
    """Makes and deletes a voice every 0.3 s, and asks for one without audio."""
    while not until.is_set():
        made = await client.voices.create("Anna", REFERENCE, consent=True)
        await client.voices.delete(made.voice_id)
        with suppress(mynah.MynahError):
            await client.voices.create("Anna", b"", consent=True)
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
    for variable, value in {"$__rate_interval": "15s", "$__range": "1m", "$namespace": "mynah"}.items():
        expression = expression.replace(variable, value)
    return re.sub(r"\$(pod|surface|key)\b", ".*", expression)


async def test_every_panel_has_data(tmp_path: Path):
    queries = {
        place: concrete(expression)
        for place, expression in expressions().items()
        if not any(name in expression for name in _NOT_HERE)
    }
    assert len(queries) > 35
    scraped = AsyncExitStack()
    async with scraped:
        at_a = await scraped.enter_async_context(server(REAL, "--max-streams", "3"))
        at_b = await scraped.enter_async_context(server(fake(""), "--max-streams", "3"))
        at = await scraped.enter_async_context(prometheus({"a": at_a.admin, "b": at_b.admin}, tmp_path))
        await scraped.enter_async_context(busy(at_b.grpc, clone_voices))
        silent = dict(queries)

        async def all_seen() -> bool:
            for place, expression in list(silent.items()):
                if any(sample["value"][1] != "NaN" for sample in await at.query(expression)):
                    del silent[place]
            return not silent

        async with loaded(at_a.grpc):
            with suppress(TimeoutError):  # the other panels need rejections, cancels and invalid requests
                await eventually(all_seen, 15.0)
        async with busy(at_a.grpc, cause_errors):
            try:
                await eventually(all_seen, 45.0)
            except TimeoutError:
                pytest.fail(f"no data for {silent}")


async def test_alerts_fire_when_the_engine_is_slow_and_not_before(tmp_path: Path):
    slow = fake("first_hop_tokens=10, hop_tokens=10")  # a second to the first chunk, then one for each 0.4 s of audio
    async with server(slow, "--max-streams", "2") as one, prometheus({"a": one.admin}, tmp_path) as at:

        async def scraped() -> bool:
            return bool(await at.query("mynah:streams:saturation"))

        await eventually(scraped)
        assert not await at.firing() & {"MynahSlowFirstAudio", "MynahNoRoomLeft"}

        async def fired() -> bool:
            return {"MynahSlowFirstAudio", "MynahUnderruns", "MynahNoRoomLeft"} <= await at.firing()

        async with busy(one.grpc, speak_on, speak_on):
            await eventually(fired)


async def test_an_exemplar_of_the_first_audio_leads_to_its_trace(tmp_path: Path):
    """Grafana follows `trace_id`: see k8s/cluster/charts/kube-prometheus-stack.yaml."""
    began_s = time.time()
    traced = server(fake(""), "--otlp-endpoint", "http://127.0.0.1:9")  # the ids are there without a collector
    async with traced as one, prometheus({"a": one.admin}, tmp_path) as at, mynah.Client(one.grpc) as client:
        async with client.stream() as stream:
            await stream.send("Hello.")
            await stream.end()
            assert sum([chunk.samples async for chunk in stream])
        expression = next(e for place, e in expressions().items() if place.startswith("latency: Time to first audio "))
        found: list[dict[str, str]] = []

        async def scraped() -> bool:
            answer = await at.exemplars(concrete(expression), began_s, time.time())
            found[:] = [exemplar["labels"] for exemplar in answer]
            return bool(found)

        await eventually(scraped)
    assert [labels["stream_id"] for labels in found] == [stream.opened.stream_id]
    assert all(re.fullmatch(r"[0-9a-f]{32}", labels["trace_id"]) for labels in found)
