"""The operator's port: states of health, refusals, and connections that do not end."""

from __future__ import annotations

import asyncio

import pytest

from engines.fake import FakeEngine
from service.access.admission import Admission
from service.admin import AdminServer
from service.config import ConfigError
from service.models import Models
from tests.service.serving import serving
from tests.service.telemetry.scraping import get, http


async def test_readiness_follows_the_server():
    async with serving(warm=False, admin_listen="127.0.0.1:0") as at:
        admin = await at.server.start_admin()
        assert admin is not None
        states = []
        for step in (at.server.warm_up, lambda: asyncio.sleep(0)):
            answer = await get(admin, "/readyz")
            states.append((answer.status, answer.body, (await get(admin, "/healthz")).status))
            await step()
        at.engine.health.set(False)
        answer = await get(admin, "/readyz")
        states.append((answer.status, answer.body, (await get(admin, "/healthz")).status))
        at.engine.health.set(True)
        at.server.admission.drain()
        answer = await get(admin, "/readyz")
        states.append((answer.status, answer.body, (await get(admin, "/healthz")).status))
    assert states == [
        (503, b"warming up\n", 200),
        (200, b"serving\n", 200),
        (503, b"rebuilding the engine\n", 200),
        (503, b"about to stop\n", 200),
    ]


async def test_without_an_address_there_is_none():
    async with serving() as at:
        assert await at.server.start_admin() is None


async def admin() -> tuple[AdminServer, str]:
    server = AdminServer(Models([FakeEngine()]), Admission(1, 1))
    return server, await server.start("127.0.0.1:0")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /healthz?verbose HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /secrets HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_requests_good_and_bad(request_: bytes, status: int):
    server, address = await admin()
    assert (await http(address, request_)).status == status
    await server.stop()


async def test_head_has_no_body():
    server, address = await admin()
    answer = await http(address, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 1000
    await server.stop()


async def test_half_a_request_and_a_disconnect_leave_nothing_behind():
    server, address = await admin()
    host, _, port = address.rpartition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /met")
    writer.close()
    await writer.wait_closed()
    assert (await get(address, "/healthz")).status == 200
    await server.stop()


async def test_stopping_ends_silent_connections():
    server, address = await admin()
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await get(address, "/healthz")  # by now the silent one has been accepted, too
    async with asyncio.timeout(2):
        await server.stop()
        assert await reader.read() == b""
    writer.close()


async def test_a_port_that_is_taken_is_named():
    server, address = await admin()
    with pytest.raises(ConfigError, match=address):
        await AdminServer(Models([FakeEngine()]), Admission(1, 1)).start(address)
    await server.stop()
