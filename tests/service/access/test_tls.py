"""TLS: which peers each side trusts, and certificates that change while a server runs."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

import mynah
from service.access.tls import Certificates
from service.config import ConfigError, ServerConfig, TlsFiles
from service.server import Server
from tests.service.access.tls_files import Authority, Pair
from tests.service.serving import FakeEngine, serving
from tests.service.telemetry.scraping import scrape


def client(address: str, roots: Path, own: Pair | None = None) -> mynah.Client:
    shown = (None, None) if own is None else (own.certificate, own.key)
    return mynah.Client(address, tls=mynah.Tls(roots, "localhost", *shown))


async def can_connect(at: mynah.Client) -> bool:
    async with at:
        try:
            return (await at.info()).model == "fake"
        except mynah.Unavailable:
            return False


async def test_clients_that_trust_the_authority_can_connect(tmp_path: Path):
    authority, stranger = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    own = authority.issue()
    async with serving(tls_certificate=own.certificate, tls_key=own.key) as at:
        async with client(at.address, authority.certificate) as trusting:
            assert sum([chunk.samples async for chunk in trusting.synthesize("Hello.")]) == 6 * 960
        assert not await can_connect(client(at.address, stranger.certificate))
        assert not await can_connect(mynah.Client(at.address))


async def test_with_mutual_tls_only_clients_of_the_authority_can_connect(tmp_path: Path):
    servers, clients, others = (Authority(tmp_path / name) for name in "abc")
    own = servers.issue()
    flags = {"tls_certificate": own.certificate, "tls_key": own.key, "tls_client_ca": clients.certificate}
    async with serving(**flags) as at:
        assert await can_connect(client(at.address, servers.certificate, clients.issue()))
        assert not await can_connect(client(at.address, servers.certificate, others.issue()))
        assert not await can_connect(client(at.address, servers.certificate))


async def test_a_new_certificate_is_used_and_open_streams_go_on(tmp_path: Path):
    old, new = Authority(tmp_path / "a"), Authority(tmp_path / "b")
    own = old.issue()
    async with (
        serving(tls_certificate=own.certificate, tls_key=own.key) as at,
        client(at.address, old.certificate) as early,
        early.stream() as stream,
    ):
        new.issue(own)  # replaces both files
        assert await can_connect(client(at.address, new.certificate))
        assert not await can_connect(client(at.address, old.certificate))
        await stream.send("Hello.")
        await stream.end()
        assert sum([chunk.samples async for chunk in stream]) == 6 * 960


async def test_a_certificate_that_does_not_match_its_key_is_not_used(tmp_path: Path):
    authority = Authority(tmp_path)
    own = authority.issue()
    async with serving(tls_certificate=own.certificate, tls_key=own.key) as at:
        certificate = own.certificate.read_bytes()
        authority.issue(own)
        own.certificate.write_bytes(certificate)  # the old one beside the new key
        assert await can_connect(client(at.address, authority.certificate))
        own.key.unlink()
        assert await can_connect(client(at.address, authority.certificate))


async def test_ssl_servers_reload_certificates_and_authorities(tmp_path: Path):
    old, new, clients, later_clients = (Authority(tmp_path / name) for name in "abcd")
    own, trusted = old.issue(), tmp_path / "trusted.pem"
    trusted.write_bytes(clients.certificate.read_bytes())
    certificates = Certificates(TlsFiles(own.certificate, own.key, trusted))
    async with greeter(certificates.ssl_context()) as port:
        assert await is_greeted(port, old, clients.issue())
        assert not await is_greeted(port, new, clients.issue())
        assert not await is_greeted(port, old, later_clients.issue())
        new.issue(own)
        trusted.write_bytes(later_clients.certificate.read_bytes())
        assert await is_greeted(port, new, later_clients.issue())
        assert not await is_greeted(port, old, later_clients.issue())
        assert not await is_greeted(port, new, clients.issue())


@asynccontextmanager
async def greeter(context: ssl.SSLContext) -> AsyncIterator[int]:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]


async def is_greeted(port: int, trusting: Authority, own: Pair) -> bool:
    context = ssl.create_default_context(cafile=str(trusting.certificate))
    context.load_cert_chain(own.certificate, own.key)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        async with asyncio.timeout(5):
            greeting = await reader.read()
        writer.close()
    except (ssl.SSLError, ConnectionError):
        return False
    return greeting == b"hello"


async def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path):
    missing = tmp_path / "missing.pem"
    with pytest.raises(ConfigError, match=r"missing\.pem"):
        Server(FakeEngine(), ServerConfig(listen="127.0.0.1:0", tls_certificate=missing, tls_key=missing))


@pytest.mark.parametrize("year", [2031, 2049, 2050, 2120])
async def test_the_end_of_the_certificate_is_a_metric(tmp_path: Path, year: int):
    """Certificates write years up to 2049 with two digits, later ones with four."""
    ends = datetime(year, 3, 4, 5, 6, 7, tzinfo=UTC)
    authority = Authority(tmp_path)
    own = authority.issue(not_after=ends)
    async with serving(tls_certificate=own.certificate, tls_key=own.key, admin_listen="127.0.0.1:0") as at:
        page = await scrape(await at.server.start_admin() or "")
        assert page("mynah_certificate_expiry_timestamp_seconds") == ends.timestamp()
