"""Who asked for streams and voices, from where, and how they ended: in the log and in the metrics. Never their text."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import monotonic

from service.errors import ClientGone
from service.handlers.failures import failure_of, root_cause
from service.stream.session import Session
from service.telemetry import metrics
from service.telemetry.logs import Field, write_event

log = logging.getLogger("mynah.service")

_FINISHED, _CLIENT_GONE = "FINISHED", "CLIENT_GONE"
_VOICE_CHANGES = {"voice created": "created", "voice deleted": "deleted", "voice made for one call": "one_call"}


@dataclass(frozen=True)
class Origin:
    """Where a call came from. `peer` is HOST:PORT, of the proxy if there is one."""

    surface: str
    peer: str

    @classmethod
    def of_address(cls, surface: str, address: tuple[str, int] | None) -> Origin:
        """The origin of a socket's peer; None if it is not known."""
        if address is None:
            return cls(surface, "unknown")
        host, port = address[0], address[1]
        return cls(surface, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@contextmanager
def logged_stream(stream_id: str, key: str, origin: Origin, session: Session) -> Iterator[None]:
    """Writes a line when the stream opens, and one with its figures when the block ends, however it does; counts it."""
    settings, began_s = session.settings, monotonic()
    who: dict[str, Field] = {"stream_id": stream_id, "key": key, **asdict(origin)}
    opened: dict[str, Field] = {
        "model": session.model,
        "voice_id": settings.voice_id,
        "audio_format": settings.audio.audio_format.value,
        "sample_rate_hz": settings.audio.sample_rate_hz,
        "language": settings.language,
    }
    write_event(log, "stream opened", who | opened)
    open_streams = metrics.CALLER_STREAMS_ACTIVE.labels(origin.surface, key)
    open_streams.inc()
    outcome = _FINISHED
    try:
        yield
    except BaseException as error:
        outcome = _outcome_of(error)
        raise
    finally:
        open_streams.dec()
        seconds = round(monotonic() - began_s, 3)
        write_event(log, "stream ended", {**who, "outcome": outcome, "open_s": seconds, **session.figures()})
        _count(origin.surface, key, outcome, session)


def _count(surface: str, key: str, outcome: str, session: Session) -> None:
    figures = session.figures()
    metrics.CALLER_STREAMS.labels(surface, key, outcome).inc()
    metrics.CALLER_AUDIO.labels(surface, key).inc(figures["audio_s"] or 0.0)
    if (first_audio_s := figures["first_audio_s"]) is not None:
        metrics.CALLER_TTFA.labels(surface).observe(first_audio_s, session.exemplar)


def _outcome_of(error: BaseException) -> str:
    """The reason that the client gets, or that it has left: then gRPC cancels the call."""
    cause = root_cause(error) if isinstance(error, Exception) else error
    if isinstance(cause, ClientGone | asyncio.CancelledError):
        return _CLIENT_GONE
    return failure_of(cause).reason


def audit_voice(
    what: str,
    key: str,
    origin: Origin,
    voice_id: str | None = None,
    consent: str | None = None,
    recording_kept: bool | None = None,
) -> None:
    """Writes an audit's line about a voice that was made or deleted, and counts it."""
    metrics.VOICE_CHANGES.labels(_VOICE_CHANGES[what]).inc()
    about: dict[str, Field] = {"voice_id": voice_id, "consent": consent, "recording_kept": recording_kept}
    write_event(log, what, {**about, "key": key, **asdict(origin)}, audit=True)
