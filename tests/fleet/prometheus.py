"""A Prometheus process for a test: it scrapes, evaluates our rules every second, and answers queries."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.fleet.manifests import rules

# shorter durations for the rules, so that a test can wait for them
_IN_SECONDS = {
    "2m": "2s", "5m": "10s", "10m": "10s", "15m": "15s", "30m": "20s", "1h": "20s", "6h": "30s", "1d": "60s",
}  # fmt: skip


class Prometheus:
    """A client of Prometheus' HTTP API."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """Returns the samples of an instant query."""
        answer = await self._get("query", query=expression)
        return list(answer["data"]["result"])

    async def firing(self) -> set[str]:
        answer = await self._get("alerts")
        return {a["labels"]["alertname"] for a in answer["data"]["alerts"] if a["state"] == "firing"}

    async def _get(self, endpoint: str, **parameters: str) -> Any:
        url = f"http://{self.address}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        raw = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())
        return json.loads(raw)


@asynccontextmanager
async def prometheus(targets: dict[str, str], folder: Path) -> AsyncIterator[Prometheus]:
    """Runs Prometheus on `targets`, pod -> HOST:PORT, in the namespace "mynah"."""
    durations = re.compile(rf"\b(?:{'|'.join(_IN_SECONDS)})\b")
    hastened = durations.sub(lambda match: _IN_SECONDS[match[0]], yaml.safe_dump(rules()))
    hastened = re.sub(r"interval: 15s", "interval: 1s", hastened)
    (folder / "rules.yaml").write_text(hastened)
    scraped = [{"targets": [address], "labels": {"namespace": "mynah", "pod": pod}} for pod, address in targets.items()]
    document = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "mynah-admin", "static_configs": scraped}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(document))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    flags = [f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data"]
    flags += [f"--web.listen-address={address}"]
    running = await asyncio.create_subprocess_exec("prometheus", *flags, stderr=asyncio.subprocess.PIPE)
    assert running.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"Server is ready" not in (line := await running.stderr.readline()):
                assert line, "Prometheus exited at the start"
        log = asyncio.create_task(running.stderr.read())  # keeps the pipe from filling up
        yield Prometheus(address)
        log.cancel()
    finally:
        running.terminate()
        await running.wait()
