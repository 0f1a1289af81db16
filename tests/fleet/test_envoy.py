"""Envoy's time limit on a request, which the component `gateway-envoy` lifts, with a real Envoy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import mynah
from tests.fleet.manifests import ROOT, with_components
from tests.fleet.servers import fake, server
from tests.fleet.test_two_servers import free_port, listens

ENVOY = ROOT / ".venv-ui" / "bin" / "envoy"
_HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_OPTIONS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
SENTENCE = "The harbour was quiet that morning, and the boats lay still in the low grey light."
LONG = f"{SENTENCE} {SENTENCE}"
LIMIT_S = 15  # Envoy's default, from the client's last text on


def listener(port: int, route: dict[str, Any]) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": "mynah", **route}}]
    hosts = [{"name": "all", "domains": ["*"], "routes": routes}]
    manager = {
        "@type": _HTTP,
        "stat_prefix": f"at_{port}",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": hosts},
        "http_filters": [{"name": "router", "typed_config": {"@type": _ROUTER}}],
    }
    filters = [{"name": "http", "typed_config": manager}]
    return {"address": socket_address("127.0.0.1", port), "filter_chains": [{"filters": filters}]}


def socket_address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}


@asynccontextmanager
async def envoy(server_address: str, routes: dict[int, dict[str, Any]], folder: Path) -> AsyncIterator[None]:
    """Runs Envoy with a listener for each route, by their ports."""
    host, _, port = server_address.partition(":")
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": socket_address(host, int(port))}}]}]
    cluster = {
        "name": "mynah",
        "load_assignment": {"cluster_name": "mynah", "endpoints": endpoints},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _OPTIONS,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
    }
    listeners = [listener(port, route) for port, route in routes.items()]
    config = {"static_resources": {"listeners": listeners, "clusters": [cluster]}}
    (folder / "envoy.json").write_text(json.dumps(config))
    flags = ["--config-path", str(folder / "envoy.json"), "--use-dynamic-base-id", "--concurrency", "1"]
    running = await asyncio.create_subprocess_exec(ENVOY, *flags, "--log-level", "error")
    try:
        await asyncio.gather(*map(listens, routes))
        yield
    finally:
        running.terminate()
        await running.wait()


async def spoken(port: int) -> tuple[int, str]:
    """How many samples of the text came through, and the error's reason."""
    samples = 0
    async with mynah.Client(f"127.0.0.1:{port}", moves=0) as client:
        try:
            async with client.stream() as stream:
                await stream.send(LONG)
                await stream.end()
                async for chunk in stream:
                    samples += chunk.samples
        except mynah.MynahError as error:
            return samples, error.reason
    return samples, ""


async def test_a_long_speech_needs_the_policy_of_the_component(tmp_path: Path):
    (policy,) = (m for m in with_components("gateway-envoy") if m["kind"] == "BackendTrafficPolicy")
    timeout = policy["spec"]["timeout"]["http"]["requestTimeout"]  # Envoy Gateway makes the route's timeout of it
    plain, with_policy = free_port(), free_port()
    async with (
        server(fake(""), "--max-streams", "4") as one,
        envoy(one.grpc, {plain: {}, with_policy: {"timeout": timeout}}, tmp_path),
    ):
        (cut, reason), (whole, no_reason) = await asyncio.gather(spoken(plain), spoken(with_policy))
    characters = 2 * len(SENTENCE)
    assert characters * 0.1 > LIMIT_S, "the fake engine makes a token for each character every 0.1 s"
    assert whole == characters * 960
    assert not no_reason
    assert 0 < cut < whole
    assert reason
