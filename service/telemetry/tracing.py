"""OpenTelemetry spans of streams, segments and engine stages. Without `configure`, no span is made.

Spans carry ids, counts and times, never text. The tracer belongs to the process, as its metrics do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engines.api import WindowFigures
from engines.version import VERSION
from service.config import ConfigError
from service.telemetry.metrics import EngineMetrics

_tracer: Any = None  # OpenTelemetry's Tracer, once configured
_provider: Any = None


def configure(endpoint: str | None) -> None:
    """Sends spans to an OTLP/gRPC endpoint, or none if it is None. Raises ConfigError without OpenTelemetry."""
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        message = f"Spans to {endpoint} need {error.name}; install mynah-speech-server[otel] or unset the endpoint."
        raise ConfigError(message) from error
    resource = {"service.version": VERSION}
    if not os.environ.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = "mynah"
    provider = TracerProvider(resource=Resource.create(resource))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    use(provider)


def use(provider: Any) -> None:
    """Makes spans with this TracerProvider from now on, or none if it is None."""
    global _tracer, _provider
    _provider = provider
    _tracer = None if provider is None else provider.get_tracer("mynah", VERSION)


def shut_down() -> None:
    """Sends the remaining spans. Blocks for seconds at most."""
    if _provider is not None:
        _provider.shutdown()


class StreamTrace:
    """The spans of one stream: `stream`, its children `segment`, and their children, the engine's stages."""

    def __init__(self, stream_id: str, audio_format: str, sample_rate_hz: int) -> None:
        self.stream_id = stream_id
        self._span: Any = None
        if _tracer is not None:
            attributes = {"mynah.stream_id": stream_id, "mynah.format": audio_format, "mynah.rate_hz": sample_rate_hz}
            self._span = _tracer.start_span("stream", attributes=attributes)
        self.exemplar = {"stream_id": stream_id, **self._trace_id()}  # of this stream's measurements

    def _trace_id(self) -> dict[str, str]:
        """The id under which a trace store finds this stream; none if it is not sampled."""
        if self._span is None or not (context := self._span.get_span_context()).trace_flags.sampled:
            return {}
        return {"trace_id": f"{context.trace_id:032x}"}

    @contextmanager
    def segment(self, index: int, chars: int) -> Iterator[None]:
        """A segment's span, current for this task inside the block."""
        if self._span is None:
            yield
            return
        from opentelemetry.trace import Status, StatusCode, set_span_in_context

        attributes = {"mynah.segment_index": index, "mynah.chars": chars}
        parent = set_span_in_context(self._span)
        # an exception's message may hold text, so only its class is recorded
        with _tracer.start_as_current_span(
            "segment", parent, attributes=attributes, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except Exception as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def window(self, window: WindowFigures | None) -> None:
        """Adds the spans of a window that S3Gen has just decoded, below the current segment."""
        if window is not None:
            _ended("s3gen queue", window.queue_s, ago_s=window.decode_s)
            _ended("s3gen decode", window.decode_s, hop_tokens=window.new_speech_tokens)

    def end(self) -> None:
        """Ends the stream's span."""
        if self._span is not None:
            self._span.end()


class TracedEngine(EngineMetrics):
    """An Observer that also makes spans, below the segment of the current task."""

    def segment_prefilled(self, seconds: float) -> None:
        super().segment_prefilled(seconds)
        _ended("t3 prefill", seconds)

    def segment_generated(self, seconds: float, speech_tokens: int) -> None:
        super().segment_generated(seconds, speech_tokens)
        _ended("t3", seconds, speech_tokens=speech_tokens)


def _ended(name: str, seconds: float, ago_s: float = 0.0, **figures: int) -> None:
    """Adds a span of this length that ended `ago_s` ago."""
    if _tracer is None:
        return
    end_ns = time.time_ns() - round(ago_s * 1e9)
    attributes = {f"mynah.{key}": value for key, value in figures.items()}
    _tracer.start_span(name, attributes=attributes, start_time=end_ns - round(seconds * 1e9)).end(end_ns)
