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

    async def query_range(self, expression: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Returns the series of a range query."""
        answer = await self._get("query_range", query=expression, start=start_s, end=end_s, step=step_s)
        return list(answer["data"]["result"])

    async def exemplars(self, expression: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """Returns the exemplars of all series that an expression uses: labels, value, timestamp."""
        answer = await self._get("query_exemplars", query=expression, start=start_s, end=end_s)
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    async def firing(self) -> set[str]:
        answer = await self._get("alerts")
        return {a["labels"]["alertname"] for a in answer["data"]["alerts"] if a["state"] == "firing"}

    async def _get(self, endpoint: str, **parameters: str | float) -> Any:
        url = f"http://{self.address}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        raw = await asyncio.to_thread(lambda: urllib.request.urlopen(url, timeout=5).read())
        return json.loads(raw)


@asynccontextmanager
async def prometheus(targets: dict[str, str], folder: Path, *, hasten: bool = True) -> AsyncIterator[Prometheus]:
    """Runs Prometheus on `targets`, pod -> HOST:PORT, in the namespace "mynah". `hasten`: the rules' minutes become
    seconds."""
    durations = re.compile(rf"\b(?:{'|'.join(_IN_SECONDS)})\b")
    text = yaml.safe_dump(rules())
    hastened = durations.sub(lambda match: _IN_SECONDS[match[0]], text) if hasten else text
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
    flags += [f"--web.listen-address={address}", "--enable-feature=exemplar-storage"]
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
