"""Who speaks: by surface and by API key."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines, rows
from k8s.dashboards.promql import Query, p95, per_second, rate, select

_SURFACE = 'surface=~"$surface"'
_WHO = (_SURFACE, 'key=~"$key"')


def callers() -> Dashboard:
    """Streams, audio and outcomes by surface and by API key."""
    active = select("mynah_caller_streams_active", *_WHO)
    spoken = rate("mynah_caller_audio_seconds_total", "key", *_WHO, every="increase", over="$__range")
    ended = "Streams that ended, by outcome: FINISHED, CLIENT_GONE (the client left) or the error's reason."
    return board(
        "callers",
        "Mynah · Callers",
        callers.__doc__ or "",
        [
            (
                "By surface",
                [
                    lines(
                        "Open streams",
                        "By surface: grpc, http, websocket or riva.",
                        [Query(f"sum by (surface) ({active})", "{{surface}}")],
                        stacked=True,
                    ),
                    lines(
                        "Time to first audio, p95",
                        "Of each stream's first talkspurt, counted when the stream ends.",
                        [p95("mynah_caller_ttfa_seconds", "surface", _SURFACE, exemplars=True)],
                        "s",
                        limit=0.5,
                    ),
                    lines(
                        "Streams by their end",
                        ended,
                        [per_second("mynah_caller_streams_total", "surface, outcome", *_WHO)],
                        "ops",
                        stacked=True,
                    ),
                ],
            ),
            (
                "By API key",
                [
                    lines(
                        "Open streams",
                        "By the key's name; `anyone` where the server needs no key.",
                        [Query(f"sum by (key) ({active})", "{{key}}")],
                        stacked=True,
                    ),
                    lines(
                        "Audio received",
                        "Seconds of audio a second, counted when a stream ends.",
                        [per_second("mynah_caller_audio_seconds_total", "key", *_WHO)],
                        "none",
                        stacked=True,
                    ),
                    lines(
                        "Streams by their end",
                        ended,
                        [per_second("mynah_caller_streams_total", "key, outcome", *_WHO)],
                        "ops",
                        stacked=True,
                    ),
                    rows(
                        "Most audio",
                        "Seconds of audio in the shown time, of the twenty keys with the most.",
                        Query(f"topk(20, {spoken})"),
                        "s",
                        width=24,
                        height=7,
                    ),
                ],
            ),
        ],
    )
