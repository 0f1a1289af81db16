"""The service's Prometheus metrics, an Observer that updates them, and the page that Prometheus scrapes.

Metrics belong to the process, not to a server: they are in prometheus_client's default registry, as vLLM's are.
`python -m service.telemetry.metrics` prints the table of docs/metrics.md.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import TypeVar

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, Metric, exposition
from prometheus_client.metrics import MetricWrapperBase

from engines.api import Engine, Observer, T3Use
from engines.errors import EngineBusy
from engines.version import VERSION
from service.errors import RequestError
from service.telemetry.call_log import ENGINE_CALLS

# 20 ms to 5 s in steps of about a quarter, with a margin at both ends
_SECONDS = [0.005, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.065, 0.08, 0.1, 0.125, 0.16, 0.2, 0.25, 0.32, 0.4, 0.5]
_SECONDS += [0.65, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5, 3.2, 4.0, 5.0, 10.0, 30.0]
_STEP_SECONDS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.04, 0.06, 0.1, 0.2, 0.5, 1.0, 5.0)
_LEAD_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0)
_RATIOS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 4.0)
_COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256)
_HOPS = (4, 6, 8, 10, 12, 16, 20, 25, 32, 40, 50, 75, 100, 150, 250)

ALL: list[MetricWrapperBase] = []
M = TypeVar("M", bound=MetricWrapperBase)


def _add(metric: M) -> M:
    ALL.append(metric)
    return metric


class _WhenKnown(Gauge):
    """A gauge that is exported only while it has a value: what a server does not know yet must not be summed."""

    known = False

    def set_if(self, known: bool, value: float) -> None:
        self.known = known
        self.set(value)

    def collect(self) -> Iterable[Metric]:
        return super().collect() if self.known else ()


STREAMS_ACTIVE = _add(Gauge("mynah_streams_active", "Open streams that have a listener"))
STREAMS_OFFLINE = _add(
    Gauge("mynah_streams_offline", "Open streams without a listener, which the capacity does not limit")
)
STREAMS_CAPACITY = _add(
    _WhenKnown("mynah_streams_capacity", "Limit on streams with a listener; absent while the server does not serve")
)
STREAMS_ADMITTED = _add(Counter("mynah_streams_admitted", "Streams admitted"))
STREAMS_REFUSED = _add(Counter("mynah_streams_refused", "Streams refused, by reason", ["reason"]))
CANCELS = _add(Counter("mynah_cancels", "Cancels by clients, on streams that continued"))
ERRORS = _add(Counter("mynah_errors", "Calls that ended with an error, by reason", ["reason"]))
RETRIES = _add(Counter("mynah_retries", "Segments retried because the engine failed before the stream had any audio"))

SEGMENTS = _add(
    Counter("mynah_segments", "Segments, by how they ended: spoken, skipped, token_limit or runaway", ["end"])
)

WORD_GUARD = _add(
    Counter(
        "mynah_word_guard",
        "Segments in which the guard on words found a fault: late_end, repeated, invented_tail or early_stop; by what "
        "it did: retried, stopped or reported",
        ["fault", "action"],
    )
)

TTFA = _add(
    Histogram(
        "mynah_ttfa",
        "Time to first audio: from speakable text on an idle stream to its first chunk passed to the connection",
        unit="seconds",
        buckets=_SECONDS,
    )
)
CHUNK_GAP = _add(
    Histogram("mynah_chunk_gap", "Time between two chunks of one talkspurt", unit="seconds", buckets=_SECONDS)
)
BUFFER_LEAD = _add(
    Histogram(
        "mynah_buffer_lead",
        "Audio left in a real-time player when the next chunk arrives; 0 on an underrun",
        unit="seconds",
        buckets=_LEAD_SECONDS,
    )
)
UNDERRUNS = _add(Counter("mynah_underruns", "Underruns: times a real-time player ran out of audio within a talkspurt"))
UNDERRUN_TIME = _add(Counter("mynah_underrun", "Silence that these underruns caused", unit="seconds"))
# by who asked; these appear with a caller's first stream, so sums over all callers use the metrics without labels
CALLER_STREAMS_ACTIVE = _add(
    Gauge("mynah_caller_streams_active", "Open streams, by surface and name of the API key", ["surface", "key"])
)
CALLER_STREAMS = _add(
    Counter(
        "mynah_caller_streams",
        "Streams that ended, by surface, name of the API key and outcome: FINISHED, CLIENT_GONE or the error's reason",
        ["surface", "key", "outcome"],
    )
)
CALLER_AUDIO = _add(
    Counter(
        "mynah_caller_audio",
        "Audio received by clients, counted when its stream ends, by surface and name of the API key",
        ["surface", "key"],
        unit="seconds",
    )
)
CALLER_TTFA = _add(
    Histogram(
        "mynah_caller_ttfa",
        "Time to first audio of each stream's first talkspurt, counted when the stream ends",
        ["surface"],
        unit="seconds",
        buckets=_SECONDS,
    )
)
REAL_TIME_FACTOR = _add(
    Histogram(
        "mynah_real_time_factor",
        "Time spent waiting for the engine per second of a segment's audio; waiting for the client is excluded",
        unit="ratio",
        buckets=_RATIOS,
    )
)
AUDIO = _add(Counter("mynah_audio", "Audio synthesised", unit="seconds"))
AUDIO_BYTES = _add(Counter("mynah_audio_sent", "Audio passed to connections", ["format"], unit="bytes"))

T3_PREFILL = _add(
    Histogram(
        "mynah_t3_prefill",
        "Time from a segment's request to its first speech token: queue, prefill and the first step",
        unit="seconds",
        buckets=_SECONDS,
    )
)
T3_STEP = _add(
    Histogram("mynah_t3_step", "Time of one T3 step, for its whole batch", unit="seconds", buckets=_STEP_SECONDS)
)
T3_BATCH = _add(Histogram("mynah_t3_batch", "Segments in one T3 step", unit="segments", buckets=_COUNTS))
T3_PROMPT = _add(
    Counter(
        "mynah_t3_prompt",
        "Prompt positions, computed (read) or found in the prefix cache (cached)",
        ["source"],
        unit="positions",
    )
)
T3_KV_CACHE = _add(
    Gauge("mynah_t3_kv_cache", "Share of T3's KV cache used by running segments; of several, the fullest", unit="ratio")
)

WINDOW_WAIT = _add(
    Histogram("mynah_window_wait", "Time of a window in S3Gen's queue", unit="seconds", buckets=_SECONDS)
)
WINDOW_DECODE = _add(
    Histogram(
        "mynah_window_decode", "Time from a window's leaving the queue to its samples", unit="seconds", buckets=_SECONDS
    )
)
STAGE = _add(
    Histogram(
        "mynah_stage",
        "Time of one S3Gen stage for one batch of windows: encoder, cfm and vocoder; on a GPU flow (encoder and cfm) "
        "and vocoder; with the published graphs waveform (all in one)",
        ["stage"],
        unit="seconds",
        buckets=_SECONDS,
    )
)
BATCH = _add(Histogram("mynah_batch", "Windows decoded in one batch", unit="windows", buckets=_COUNTS))
HOP = _add(Histogram("mynah_hop", "New speech tokens (40 ms each) in a window", unit="tokens", buckets=_HOPS))

UPLOADS_ACTIVE = _add(Gauge("mynah_uploads_active", "Uploads of reference audio that are being received or made"))
VOICE_CREATION = _add(
    Histogram(
        "mynah_voice_creation",
        "Time from an upload's last byte to its stored voice",
        unit="seconds",
        buckets=_SECONDS,
    )
)
VOICE_CHANGES = _add(
    Counter("mynah_voice_changes", "Voices created, deleted, or made for one call (one_call)", ["change"])
)
VOICES_STORED = _add(Gauge("mynah_voices_stored", "Uploaded voices in the store, at this server's last look"))

GPU_MEMORY = _add(Gauge("mynah_gpu_memory", "GPU memory: used (by all processes) and total", ["kind"], unit="bytes"))
WINDOW_FALLBACKS = _add(
    Counter(
        "mynah_window_fallbacks", "Windows that a runtime failed to decode, decoded again by its fallback", ["runtime"]
    )
)
T3_DOWN = _add(Gauge("mynah_t3_down", "1 while a failed T3 engine is being rebuilt"))
CERTIFICATE_EXPIRY = _add(
    _WhenKnown("mynah_certificate_expiry_timestamp_seconds", "End of the TLS certificate in use, in Unix time")
)
STALLED = _add(Gauge("mynah_stalled", "1 after this part has stopped: t3, s3gen, engine or event_loop", ["part"]))
STORAGE_ERRORS = _add(
    Counter("mynah_storage_errors", "Calls that failed because of the disk or the voice store, by reason", ["reason"])
)
VOICE_FILES_DAMAGED = _add(Gauge("mynah_voice_files_damaged", "Files among the stored voices that cannot be used"))
ENGINE_REFUSED = _add(
    Gauge(
        "mynah_engine_refused",
        "1 for a requested runtime that failed its check at the start and does not serve",
        ["runtime"],
    )
)
FAILED_CAPTURES = _add(
    Gauge(
        "mynah_failed_captures",
        "Sizes of calls that could not be captured as CUDA graphs at the start and run eagerly",
        ["runtime"],
    )
)
_ENGINE_LABELS = ("model", "device", "t3_runtime", "s3gen_runtime", "random_weights")
ENGINE_INFO = _add(Gauge("mynah_engine_info", "1 for each model, with its engine as labels", _ENGINE_LABELS))
BUILD_INFO = _add(Gauge("mynah_build_info", "1, with the running version as labels", ["version", "python"]))
BUILD_INFO.labels(VERSION, platform.python_version()).set(1)
for source in ("read", "cached"):
    T3_PROMPT.labels(source)  # so that both are exported from the start, at 0
STORAGE_REASONS = ("STORAGE_FULL", "STORAGE_READ_ONLY", "STORAGE_FAILED", "STORE_TIMEOUT", "VOICE_DAMAGED")
FAULT_REASONS = ("ENGINE_ERROR", "ENGINE_FAILURE", "ENGINE_STALLED", "INTERNAL")
for fault_reason in FAULT_REASONS:
    ERRORS.labels(fault_reason)  # so that the first one counts: a counter that appears at 1 has not increased
for change in ("created", "deleted", "one_call"):
    VOICE_CHANGES.labels(change)
for storage_reason in STORAGE_REASONS:
    STORAGE_ERRORS.labels(storage_reason)
for part in ("t3", "s3gen", "engine", "event_loop"):
    STALLED.labels(part)

# the current task's stream as the exemplar of a measurement: `stream_id`, and `trace_id` if it is traced
exemplar: ContextVar[dict[str, str] | None] = ContextVar("exemplar", default=None)


@contextmanager
def counting_rejections() -> Iterator[None]:
    """Counts a rejection that is raised inside the block."""
    try:
        yield
    except (RequestError, EngineBusy) as rejection:
        STREAMS_REFUSED.labels(rejection.reason).inc()
        raise


class EngineMetrics(Observer):
    """An Observer that updates the metrics of an engine. Each engine of a process has its own."""

    def __init__(self, caches: dict[int, float] | None = None) -> None:
        """`caches`: the shares in use of the KV caches of the engines that serve together; None: of this one alone."""
        self._last_use = T3Use()
        self._caches = {} if caches is None else caches
        self._caches[id(self)] = 0.0

    def segment_prefilled(self, seconds: float) -> None:
        T3_PREFILL.observe(seconds, exemplar.get())

    def step_ran(self, seconds: float, sequences: int) -> None:
        T3_STEP.observe(seconds)
        T3_BATCH.observe(sequences)

    def t3_used(self, use: T3Use) -> None:
        self._caches[id(self)] = use.kv_cache_share
        T3_KV_CACHE.set(max(self._caches.values()))
        last, self._last_use = self._last_use, use
        T3_PROMPT.labels("read").inc(_increase(last.read_positions, use.read_positions))
        T3_PROMPT.labels("cached").inc(_increase(last.cached_positions, use.cached_positions))

    def calling(self, stage: str) -> AbstractContextManager[None]:
        return ENGINE_CALLS.calling(stage)

    def batch_ran(self, windows: int) -> None:
        BATCH.observe(windows)

    def stage_ran(self, stage: str, seconds: float) -> None:
        STAGE.labels(stage).observe(seconds)

    def window_rejected(self, runtime: str) -> None:
        WINDOW_FALLBACKS.labels(runtime).inc()


def _increase(before: int, now: int) -> int:
    """The increase of a counter that restarts at 0 when an engine is rebuilt."""
    return now - before if now >= before else now


def page(engines: Sequence[Engine], accept: str, *, max_streams: int, serves: bool) -> tuple[bytes, str]:
    """Returns all metrics of the process in the format that `accept` asks for, and its content type.

    serves: whether streams are admitted. Before that the capacity is not measured, and afterwards it is none.
    """
    STREAMS_CAPACITY.set_if(serves, max_streams)
    T3_DOWN.set(not all(engine.health.healthy for engine in engines))
    for gauge in (ENGINE_INFO, ENGINE_REFUSED, FAILED_CAPTURES):
        gauge.clear()
    for info in (engine.info for engine in engines):
        random_weights = str(info.random_weights).lower()
        ENGINE_INFO.labels(info.model, info.device, info.t3_runtime, info.s3gen_runtime, random_weights).set(1)
        for runtime, _ in info.refused_runtimes:
            ENGINE_REFUSED.labels(runtime).set(1)
        for runtime, sizes in info.failed_captures:
            FAILED_CAPTURES.labels(runtime).inc(sizes)
    memory = engines[0].device_memory()
    if memory is not None:
        GPU_MEMORY.labels("used").set(memory.used_bytes)
        GPU_MEMORY.labels("total").set(memory.total_bytes)
    encode: Callable[..., bytes]
    encode, content_type = exposition.choose_encoder(accept)
    return encode(REGISTRY), content_type


def table() -> str:
    """The Markdown table of all metrics."""
    rows = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in ALL:
        (family,) = metric.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())
