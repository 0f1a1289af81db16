"""Two servers under load, behind nginx and with the client's own balancing: one is drained, one is killed, both are
restarted one after the other. Streams without audio are never lost; others end with a retryable error."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import mynah
from tests.fleet.hosts import Host, two_servers
from tests.service.serving import REFERENCE

TEXT = "A sentence that takes a second or two to be spoken to its end."
SAMPLES = len(TEXT) * 960
SLOW = "first_hop_tokens=8, hop_tokens=8"  # with a token in 20 ms: many small chunks over 1.2 s
BALANCED = ("the client", "nginx")


@dataclass
class Result:
    """How a stream ended: with all of its audio, or with an error after some of it."""

    samples: int = 0
    error: mynah.MynahError | None = None

    @property
    def complete(self) -> bool:
        return self.error is None and self.samples == SAMPLES


@dataclass
class Load:
    """`max_streams` clients that open one stream after another until `stop`."""

    client: mynah.Client
    max_streams: int = 12
    results: list[Result] = field(default_factory=list)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for index in range(self.max_streams):
                tasks.create_task(self._listener(index / 10))

    def stop(self) -> None:
        self._stopping.set()

    async def _listener(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        while not self._stopping.is_set():
            self.results.append(result := Result())
            try:
                async with self.client.stream() as stream:
                    await stream.send(TEXT)
                    await stream.end()
                    async for chunk in stream:
                        result.samples += chunk.samples
            except mynah.MynahError as error:
                result.error = error


NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log warn; worker_processes 1;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream mynah {{ {servers} }}
  server {{
    listen 127.0.0.1:{port} http2;
    client_max_body_size 0; grpc_read_timeout 1h; grpc_send_timeout 1h; client_body_timeout 1h;
    location / {{ grpc_pass grpc://mynah; grpc_connect_timeout 1s; }}
  }}
}}
"""


@asynccontextmanager
async def nginx(hosts: Sequence[Host], folder: Path) -> AsyncIterator[str]:
    """Runs nginx, which sends each stream to the host with the fewest; yields its address."""
    port = free_port()
    servers = "least_conn; " + " ".join(f"server {host.address} max_fails=1 fail_timeout=1s;" for host in hosts)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, servers=servers, port=port))
    running = await asyncio.create_subprocess_exec("nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder))
    try:
        await listens(port)
        yield f"127.0.0.1:{port}"
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def balanced(by: str, hosts: Sequence[Host], folder: Path) -> AsyncIterator[mynah.Client]:
    if by == "the client":
        async with mynah.Client([host.address for host in hosts], moves=20) as client:
            yield client
    else:
        async with nginx(hosts, folder) as address, mynah.Client(address, moves=20) as client:
            yield client


@asynccontextmanager
async def under_load(by: str, folder: Path) -> AsyncIterator[tuple[Host, Host, Load]]:
    """Two hosts under a load that has run for 2 s and stops at the end of the block."""
    async with two_servers(SLOW) as hosts, balanced(by, hosts, folder) as client:
        load = Load(client)
        running = asyncio.create_task(load.run())
        await asyncio.sleep(2.0)
        yield *hosts, load
        load.stop()
        await running


@pytest.mark.parametrize("by", BALANCED)
async def test_both_servers_carry_the_load(by: str, tmp_path: Path):
    async with under_load(by, tmp_path) as (first, second, load):
        spread = [await first.streams(), await second.streams()]
    assert min(spread) >= 3, spread
    assert all(result.complete for result in load.results)


@pytest.mark.parametrize("by", BALANCED)
async def test_a_rolling_restart_breaks_no_stream(by: str, tmp_path: Path):
    async with under_load(by, tmp_path) as (first, second, load):
        for host in (first, second):
            await host.drain()
            await host.start()
            await asyncio.sleep(1.0)
    broken = [result for result in load.results if not result.complete]
    assert not broken, broken
    assert len(load.results) >= 24


@pytest.mark.parametrize("by", BALANCED)
async def test_one_server_is_drained_and_the_other_killed(by: str, tmp_path: Path):
    async with under_load(by, tmp_path) as (first, second, load):
        await first.drain()
        await first.start()
        await asyncio.sleep(1.5)
        killed_with = await second.streams()
        await second.kill()
        await asyncio.sleep(2.0)
    assert killed_with >= 1
    lost = [result for result in load.results if not result.complete]
    assert len(lost) <= killed_with
    for result in lost:
        assert 0 < result.samples < SAMPLES, "a stream without audio was lost"
        assert result.error is not None, "a stream ended early without an error"
        assert result.error.retryable, result.error
    assert len(load.results) - len(lost) >= 24


async def spoken(client: mynah.Client, voice: str, streams: int = 12) -> list[str]:
    """How each of so many concurrent streams with this voice ended: "spoken" or the error's reason."""
    started = asyncio.Barrier(streams)

    async def speak() -> str:
        is_open = False
        try:
            async with client.stream(voice=voice) as stream:
                is_open = True
                await started.wait()  # all are open at once, so that a balancer spreads them
                await stream.send("Hello.")
                await stream.end()
                return "spoken" if sum([chunk.samples async for chunk in stream]) == 6 * 960 else "cut short"
        except mynah.MynahError as error:
            if not is_open:
                await started.wait()
            return error.reason

    return await asyncio.gather(*(speak() for _ in range(streams)))


@pytest.mark.parametrize("by", BALANCED)
async def test_a_voice_in_a_shared_folder_is_spoken_by_both_servers(by: str, tmp_path: Path):
    voices = tmp_path / "voices"
    async with two_servers(voices=(voices, voices)) as hosts, balanced(by, hosts, tmp_path) as client:
        made = await client.voices.create("Anna", REFERENCE, consent=True)
        assert await spoken(client, made.voice_id) == ["spoken"] * 12
        for host in hosts:
            async with mynah.Client(host.address) as alone:
                assert await spoken(alone, made.voice_id, 1) == ["spoken"]
                assert made.voice_id in [each.voice_id for each in await alone.voices.list()]
        await client.voices.delete(made.voice_id)
        await asyncio.sleep(1.1)  # a server trusts what it has in memory for a second
        assert await spoken(client, made.voice_id) == ["VOICE_NOT_FOUND"] * 12


async def test_a_voice_in_a_folder_of_one_server_is_unknown_to_the_other(tmp_path: Path):
    """What the manifests prevent where there are several replicas: see k8s/components/shared-voices."""
    voices = (tmp_path / "first", tmp_path / "second")
    async with two_servers(voices=voices) as hosts, nginx(hosts, tmp_path) as address:
        async with mynah.Client(hosts[0].address) as first, mynah.Client(hosts[1].address) as second:
            made = await first.voices.create("Anna", REFERENCE, consent=True)
            assert await spoken(first, made.voice_id, 1) == ["spoken"]
            assert await spoken(second, made.voice_id, 1) == ["VOICE_NOT_FOUND"]
        async with mynah.Client(address) as client:
            ends = await spoken(client, made.voice_id)
    assert set(ends) == {"spoken", "VOICE_NOT_FOUND"}


async def listens(port: int) -> None:
    """Returns when something listens at a port; nginx does not say when it does."""
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            return


def free_port() -> int:
    """A port that is free now; nginx cannot report a port that it chose."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
