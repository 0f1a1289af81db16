"""Mutual TLS: a client whose authority was removed does not get in by resuming a session."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from time import monotonic

import pytest

from bench.scripted_server import Load, scripted_server
from tests.security.healthy import Access, healthy_stream
from tests.service.access.tls_files import Authority, Pair
from tests.service.serving import serving

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
HTTP = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n"
HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))


async def test_sessions_of_a_removed_authority_silence_no_stream(tmp_path: Path):
    """Clients of a removed authority come back with their sessions, on both ports, while one of the new one listens."""
    servers, clients, others = (Authority(tmp_path / name) for name in "abc")
    own, trusted, listener = servers.issue(), tmp_path / "trusted.pem", others.issue()
    trusted.write_bytes(clients.certificate.read_bytes())
    flags = ("--tls-certificate", own.certificate, "--tls-key", own.key, "--tls-client-ca", trusted)
    ports = ("--http-listen", "127.0.0.1:0", "--max-streams", "4")
    access = Access("", str(servers.certificate), str(listener.certificate), str(listener.key))
    async with scripted_server(Load(), tmp_path / "server.log", *map(str, flags), *ports) as server:
        stale = [
            Client(address, surface, context(servers, clients.issue(), version, surface))
            for surface, address in (("http", server.http), ("grpc", server.address))
            for version in VERSIONS
        ]
        sessions = [(await client.connect(None)).session for client in stale]
        trusted.write_bytes(others.certificate.read_bytes())
        async with healthy_stream(server.address, server.pid, tmp_path, access) as gaps:
            began_s = monotonic()
            for _ in range(30):
                tries = (client.connect(session) for client, session in zip(stale, sessions, strict=True))
                assert not any(each.answer for each in await asyncio.gather(*tries))
            await gaps.check(began_s, "sessions of a removed authority")


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize("surface", ["http", "grpc"])
async def test_a_removed_authority_ends_its_sessions(tmp_path: Path, surface: str, version: ssl.TLSVersion):
    servers, clients, others = (Authority(tmp_path / name) for name in "abc")
    own, trusted = servers.issue(), tmp_path / "trusted.pem"
    trusted.write_bytes(clients.certificate.read_bytes())
    flags = {"tls_certificate": own.certificate, "tls_key": own.key, "tls_client_ca": trusted}
    async with serving(**flags, http=True) as at:
        address = at.http if surface == "http" else at.address
        client = Client(address, surface, context(servers, clients.issue(), version, surface))
        first = await client.connect(None)
        assert first.answer
        again = await client.connect(first.session)
        assert again.answer
        assert not again.reused
        trusted.write_bytes(others.certificate.read_bytes())
        for session in (first.session, again.session, None):
            assert not (await client.connect(session)).answer


async def test_with_client_certificates_a_connection_asks_for_them_again_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("service.server._MAX_TRUST_S", 0)
    servers, clients = (Authority(tmp_path / name) for name in "ab")
    own = servers.issue()
    flags = {"tls_certificate": own.certificate, "tls_key": own.key, "tls_client_ca": clients.certificate}
    async with serving(**flags, http=True) as at:
        host, _, port = str(at.http).rpartition(":")
        tls = context(servers, clients.issue(), ssl.TLSVersion.TLSv1_3, "http")
        reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, server_hostname="localhost")
        writer.write(HTTP + HTTP)
        assert (await reader.read()).count(b"HTTP/1.1 200 ") == 1
        writer.close()


def context(servers: Authority, own: Pair, version: ssl.TLSVersion, surface: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(servers.certificate))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(own.certificate, own.key)
    if surface == "grpc":
        context.set_alpn_protocols(["h2"])
    return context


class Connected:
    """What a connection brought: the server's answer, and a session to resume."""

    def __init__(self, answer: bytes = b"", reused: bool = False, session: ssl.SSLSession | None = None) -> None:
        self.answer, self.reused, self.session = answer, reused, session


class Client:
    """Connects, sends a request, reads the beginning of its answer."""

    def __init__(self, address: str | None, surface: str, context: ssl.SSLContext) -> None:
        assert address is not None
        self._port = int(address.rpartition(":")[2])
        self._request = HTTP if surface == "http" else HTTP2
        self._context = context

    async def connect(self, session: ssl.SSLSession | None) -> Connected:
        return await asyncio.to_thread(self._connect, session)

    def _connect(self, session: ssl.SSLSession | None) -> Connected:
        # Refused while the port changes hands to a new authority's listener is no answer either.
        try:
            with (
                socket.create_connection(("127.0.0.1", self._port), timeout=30) as plain,
                self._context.wrap_socket(plain, server_hostname="localhost", session=session) as wrapped,
            ):
                wrapped.sendall(self._request)
                answer = wrapped.recv(100)
                return Connected(answer, bool(wrapped.session_reused), wrapped.session)
        except (ssl.SSLError, ConnectionError):
            return Connected()
