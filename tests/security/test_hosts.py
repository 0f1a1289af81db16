"""DNS rebinding: a page whose name was pointed at the server is refused where callers need no key."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service.access.hosts import Hosts
from service.access.keys import ApiKey, digest, write_keys
from tests.service.access.tls_files import Authority
from tests.service.http.clients import HELLO, SPEECH, http_serving
from tests.service.serving import serving
from tests.service.telemetry.scraping import http

FOREIGN = "evil.example"


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8080",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "page.localhost",
        "[::1]:80",
        "127.1.2.3",
    ],
)
def test_loopback_is_answered_everywhere(host: str):
    assert Hosts("127.0.0.1:8080").allows(host)
    assert Hosts("0.0.0.0:8080").allows(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.example:8080", "", "a@localhost", "loc"],
)
def test_on_loopback_other_names_are_refused(host: str):
    assert not Hosts("127.0.0.1:8080").allows(host)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("10.1.2.3:8080", True),
        ("[fd00::1]:8080", True),
        ("mynah", True),
        ("mynah.speech.svc", True),
        ("mynah.speech.svc.cluster.local:8080", True),
        ("host.docker.internal", True),
        ("evil.example", False),
        ("svc.evil.example", False),
        ("mynah.svc.example", False),
        ("10.1.2.3.evil.example", False),
    ],
)
def test_elsewhere_names_are_answered_that_no_stranger_can_own(host: str, allowed: bool):
    assert Hosts("0.0.0.0:8080").allows(host) is allowed


def test_the_operator_allows_names():
    hosts = Hosts("127.0.0.1:8080", ("Speech.Example", "other.example"))
    assert hosts.allows("speech.example:443")
    assert hosts.allows("other.example")
    assert not hosts.allows(FOREIGN)
    assert Hosts("127.0.0.1:8080", ("*",)).allows(FOREIGN)


async def test_a_foreign_host_is_refused_on_every_path_even_with_its_own_origin():
    async with http_serving() as (_, client):
        headers = {"host": FOREIGN, "origin": f"http://{FOREIGN}"}
        for call in (
            client.post(SPEECH, json=HELLO, headers=headers),
            client.get("/v1/voices", headers=headers),
            client.get("/openapi.json", headers=headers),
            client.get("/v1/stream", headers=headers | _UPGRADE),
        ):
            answer = await call
            assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED")
        assert (await client.get("/readyz", headers=headers)).status_code == 200  # a load balancer's probe
        assert (await client.get("/v1/voices")).status_code == 200


_UPGRADE = {
    "connection": "upgrade",
    "upgrade": "websocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def test_an_allowed_host_is_answered():
    async with http_serving(allowed_host=(FOREIGN,)) as (_, client):
        assert (await client.get("/v1/voices", headers={"host": FOREIGN})).status_code == 200


async def test_with_keys_or_tls_any_host_is_fine(tmp_path: Path):
    keys = tmp_path / "keys.json"
    write_keys(keys, [ApiKey("anna", digest("secret"))])
    async with http_serving(api_keys=keys) as (_, client):
        headers = {"host": FOREIGN, "authorization": "Bearer secret"}
        assert (await client.get("/v1/voices", headers=headers)).status_code == 200
    own = Authority(tmp_path).issue()
    async with (
        http_serving(tls_certificate=own.certificate, tls_key=own.key) as (at, _),
        httpx.AsyncClient(base_url=f"https://{at.http}", verify=False) as client,
    ):
        assert (await client.get("/v1/voices", headers={"host": FOREIGN})).status_code == 200


async def test_the_admin_port_on_loopback_refuses_foreign_hosts():
    async with serving(admin_listen="127.0.0.1:0") as at:
        admin = await at.server.start_admin()
        assert admin is not None
        for host, status in ((FOREIGN, 403), ("localhost", 200)):
            request = f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            assert (await http(admin, request)).status == status


async def test_a_browser_cannot_call_grpc():
    """Its page would need HTTP/2 without TLS, which no browser speaks; HTTP/1.1 gets no answer."""
    async with serving() as at, httpx.AsyncClient(base_url=f"http://{at.address}") as client:
        with pytest.raises(httpx.TransportError):
            await client.post("/mynah.v1.Speech/GetServerInfo", headers={"host": FOREIGN})
