"""The limits of one client's streams and uploads, and how long the server waits for the client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StreamPolicy:
    """The same for every stream of a server, whatever the transport."""

    max_pending_text_chars: int = 20_000
    max_pending_flushes: int = 1000
    send_queue_events: int = 8  # chunks and other events made ahead of a slow reader
    max_upload_bytes: int = 20_000_000
    idle_timeout_s: float = 300.0
    stall_timeout_s: float = 30.0
