"""A scrape of the operator's port as Prometheus does it: an HTTP request, and the samples on the page."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_plain
from prometheus_client.samples import Sample

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


async def http(address: str, request: bytes) -> Answer:
    """Sends bytes and reads the response to its end."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body)


async def get(address: str, path: str, accept: str = "*/*") -> Answer:
    return await http(address, f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode())


@dataclass
class Page:
    """The samples of one scrape: name and labels -> value."""

    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = field(default_factory=dict)
    exemplars: dict[str, set[str]] = field(default_factory=dict)  # sample name -> stream ids of its exemplars
    trace_ids: dict[str, set[str]] = field(default_factory=dict)  # likewise
    types: dict[str, str] = field(default_factory=dict)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum over all samples that have these labels."""
        wanted = set(labels.items())
        return sum(value for (sample, has), value in self.values.items() if sample == name and wanted <= has)

    def add(self, sample: Sample) -> None:
        self.values[sample.name, frozenset(sample.labels.items())] = sample.value
        if sample.exemplar is not None:
            labels = sample.exemplar.labels
            self.exemplars.setdefault(sample.name, set()).add(labels["stream_id"])
            self.trace_ids.setdefault(sample.name, set()).update({labels["trace_id"]} if "trace_id" in labels else ())


async def scrape(address: str, accept: str = OPENMETRICS) -> Page:
    answer = await get(address, "/metrics", accept)
    assert answer.status == 200
    parse = parse_openmetrics if "openmetrics" in answer.headers["content-type"] else parse_plain
    page = Page()
    for family in parse(answer.body.decode()):
        page.types[family.name] = family.type
        for sample in family.samples:
            page.add(sample)
    return page
