"""Spans of what a stream goes through, for OpenTelemetry. The only file that names it; not configured, nothing happens.

Spans carry ids, counts and times, never text. They belong to the process, as its metrics do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from engines.api import WindowFigures
from service.config import ConfigError
from service.telemetry.metrics import EngineMetrics

_tracer: Any = None  # OpenTelemetry's Tracer, once there is one
_provider: Any = None


def configure(endpoint: str | None) -> None:
    """Send spans to an OTLP/gRPC endpoint; None: make none. Raises ConfigError when OpenTelemetry is not installed."""
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        message = f"spans are to go to {endpoint}, but {error.name} is not installed; install mynah[otel] or unset it"
        raise ConfigError(message) from error
    about = {"service.version": version("mynah")}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        about["service.name"] = "mynah"
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    use(provider)


def use(provider: Any) -> None:
    """Make spans with this TracerProvider from now on; None: make none."""
    global _tracer, _provider
    _provider = provider
    _tracer = None if provider is None else provider.get_tracer("mynah", version("mynah"))


def shut_down() -> None:
    """Send what is left. Blocks for seconds at most."""
    if _provider is not None:
        _provider.shutdown()


class StreamTrace:
    """One stream's spans: `stream`, below it a `segment` for each, below that the stages as they end."""

    def __init__(self, stream_id: str, audio_format: str, sample_rate_hz: int) -> None:
        self._span: Any = None
        if _tracer is not None:
            about = {"mynah.stream_id": stream_id, "mynah.format": audio_format, "mynah.rate_hz": sample_rate_hz}
            self._span = _tracer.start_span("stream", attributes=about)

    @contextmanager
    def segment(self, index: int, chars: int) -> Iterator[None]:
        """Inside, this task speaks a segment."""
        if self._span is None:
            yield
            return
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        about = {"mynah.segment_index": index, "mynah.chars": chars}
        parent = set_span_in_context(self._span)
        # an exception's own words may hold text: its kind is all that goes out
        with _tracer.start_as_current_span(
            "segment", parent, attributes=about, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def window(self, window: WindowFigures | None) -> None:
        """S3Gen has just made a chunk in this window, of the segment that this task speaks."""
        if window is not None:
            _ended("s3gen queue", window.queue_s, ago_s=window.decode_s)
            _ended("s3gen decode", window.decode_s, hop_tokens=window.new_speech_tokens)

    def end(self) -> None:
        """The stream is over."""
        if self._span is not None:
            self._span.end()


class TracedEngine(EngineMetrics):
    """What an engine tells, as metrics, and as spans below the segment that the telling task speaks."""

    def segment_prefilled(self, seconds: float) -> None:
        super().segment_prefilled(seconds)
        _ended("t3 prefill", seconds)

    def segment_generated(self, seconds: float, speech_tokens: int) -> None:
        super().segment_generated(seconds, speech_tokens)
        _ended("t3", seconds, speech_tokens=speech_tokens)


def _ended(name: str, seconds: float, ago_s: float = 0.0, **about: int) -> None:
    """A span that took so long and ended `ago_s` before now."""
    if _tracer is None:
        return
    end_ns = time.time_ns() - round(ago_s * 1e9)
    attributes = {f"mynah.{key}": value for key, value in about.items()}
    _tracer.start_span(name, attributes=attributes, start_time=end_ns - round(seconds * 1e9)).end(end_ns)
