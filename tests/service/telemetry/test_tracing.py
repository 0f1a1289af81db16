"""Spans as OpenTelemetry receives them: one tree for each stream, without its text."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import mynah
from engines.errors import EngineFailure
from engines.fake import Script
from service.config import ConfigError, read_config
from service.telemetry import tracing
from service.telemetry.tracing import TracedEngine
from tests.service.serving import Serving, serving
from tests.service.telemetry.scraping import scrape

SECRET = "Nobody else may read this sentence."


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.use(provider)
    yield exporter
    tracing.use(None)


async def speak(at: Serving, text: str = SECRET) -> str:
    async with at.client.stream() as stream:
        await stream.send(text)
        await stream.end()
        assert sum([chunk.samples async for chunk in stream])
        return stream.opened.stream_id


def below(spans: tuple[ReadableSpan, ...], parent: ReadableSpan) -> list[ReadableSpan]:
    assert parent.context is not None
    children = [span for span in spans if span.parent is not None and span.parent.span_id == parent.context.span_id]
    return sorted(children, key=lambda span: (span.start_time or 0, -(span.end_time or 0)))


async def test_a_stream_is_a_tree_of_spans(spans: InMemorySpanExporter):
    async with serving(Script(token_s=0.002, decode_s=0.01), observer=TracedEngine()) as at:
        stream_id = await speak(at)
        await at.settled()
    finished = spans.get_finished_spans()
    (stream,) = [span for span in finished if span.name == "stream"]
    assert stream.attributes is not None
    assert stream.attributes["mynah.stream_id"] == stream_id
    (segment,) = below(finished, stream)
    assert (segment.name, dict(segment.attributes or {})) == (
        "segment",
        {"mynah.segment_index": 0, "mynah.chars": len(SECRET)},
    )
    stages = below(finished, segment)
    assert sorted({span.name for span in stages}) == ["s3gen decode", "s3gen queue", "t3", "t3 prefill"]
    hops = [span.attributes["mynah.hop_tokens"] for span in stages if span.name == "s3gen decode" and span.attributes]
    assert hops == [10, 25]
    for span in stages:
        assert span.start_time is not None
        assert span.end_time is not None
        assert span.start_time <= span.end_time <= (segment.end_time or 0) + 1e9
    assert len(finished) == 2 + len(stages)


async def test_exemplars_name_the_trace(spans: InMemorySpanExporter):
    """So that a point on a dashboard leads to the stream's trace."""
    engine = {"script": Script(token_s=0.002), "observer": TracedEngine(), "admin_listen": "127.0.0.1:0"}
    async with serving(**engine) as at:  # type: ignore[arg-type]
        admin = await at.server.start_admin()
        assert admin is not None
        await speak(at)
        await at.settled()
        page = await scrape(admin)
    (stream,) = [span for span in spans.get_finished_spans() if span.name == "stream"]
    assert stream.context is not None
    trace_id = f"{stream.context.trace_id:032x}"
    for metric in ("mynah_ttfa", "mynah_caller_ttfa", "mynah_t3_prefill", "mynah_window_decode"):
        assert trace_id in page.trace_ids[f"{metric}_seconds_bucket"], metric


async def test_streams_do_not_mix(spans: InMemorySpanExporter):
    async with serving(Script(token_s=0.002), observer=TracedEngine()) as at:
        async with at.client.stream() as one, at.client.stream() as other:
            for stream in (one, other):
                await stream.send(SECRET)
                await stream.end()
            for stream in (one, other):
                assert sum([chunk.samples async for chunk in stream])
        await at.settled()
    finished = spans.get_finished_spans()
    streams = [span for span in finished if span.name == "stream"]
    assert len({span.context.trace_id for span in streams if span.context}) == 2
    for stream in streams:
        (segment,) = below(finished, stream)
        assert len([span for span in below(finished, segment) if span.name == "s3gen decode"]) == 2


async def test_spans_hold_no_text_even_after_an_error(spans: InMemorySpanExporter):
    failing = Script(failure=EngineFailure(f"could not say {SECRET!r}"), fail_after_chunks=1)
    async with serving(failing, observer=TracedEngine()) as at:
        with pytest.raises(mynah.ServerError):
            await speak(at)
        await at.settled()
    exported = [span.to_json() for span in spans.get_finished_spans()]
    (segment,) = [span for span in spans.get_finished_spans() if span.name == "segment"]
    assert segment.status.description == "EngineFailure"
    assert not [line for line in exported if "Nobody" in line]


async def test_without_a_configuration_no_span_is_made():
    exporter = InMemorySpanExporter()
    async with serving(observer=TracedEngine()) as at:
        await speak(at)
    assert not exporter.get_finished_spans()
    assert tracing._tracer is None


def test_the_endpoint_is_an_option_or_open_telemetrys_variable():
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
    assert read_config([], {}).otlp_endpoint is None
    assert read_config([], environment).otlp_endpoint == "http://collector:4317"
    assert read_config(["--otlp-endpoint", "https://other:1"], environment).otlp_endpoint == "https://other:1"
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        read_config([], {"OTEL_EXPORTER_OTLP_ENDPOINT": "collector"})


def test_an_endpoint_without_open_telemetry_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    with pytest.raises(ConfigError, match=r"mynah-speech-server\[otel\]"):
        tracing.configure("http://127.0.0.1:4317")
    assert tracing._tracer is None
