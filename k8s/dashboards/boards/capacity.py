"""Utilization of the servers, refused streams and errors."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines
from k8s.dashboards.promql import Query, per_second, rate, select


def capacity() -> Dashboard:
    """Utilization of the servers, refused streams and errors."""
    active, limit = f"sum({select('mynah_streams_active')})", f"sum({select('mynah_streams_capacity')})"
    offline = f"sum({select('mynah_streams_offline')})"
    guard = Query(rate("mynah_word_guard_total", "fault, action"), "{{fault}}: {{action}}")
    return board(
        "capacity",
        "Mynah · Capacity",
        capacity.__doc__ or "",
        [
            (
                "Streams",
                [
                    lines(
                        "Open streams and limit",
                        "The limit is what the serving pods measured or were set to; pods that start or drain have "
                        "none. Streams without a listener, as bulk work has, are beyond it.",
                        [Query(active, "open"), Query(limit, "limit"), Query(offline, "without a listener")],
                        width=12,
                    ),
                    lines(
                        "Utilization",
                        "Share of the slots in use. The autoscaler adds pods from 70 % on; over 90 % for ten minutes "
                        "there is an alert (the line).",
                        [Query(f"{active} / {limit}", "share")],
                        "percentunit",
                        limit=0.9,
                        width=12,
                    ),
                    lines("Admitted", "Streams that got a slot.", [per_second("mynah_streams_admitted_total")], "ops"),
                    lines(
                        "Refused",
                        "Streams refused before they began, by reason: a client retries those elsewhere.",
                        [per_second("mynah_streams_refused_total", "reason")],
                        "ops",
                        stacked=True,
                    ),
                    lines(
                        "Errors",
                        "Calls that ended with an error, by reason; most reasons are a client's own fault (api.md).",
                        [per_second("mynah_errors_total", "reason")],
                        "ops",
                        stacked=True,
                    ),
                    lines(
                        "Cancelled by clients",
                        "Cancels on streams that go on, as when a person interrupts.",
                        [per_second("mynah_cancels_total")],
                        "ops",
                    ),
                    lines(
                        "Segments retried",
                        "The engine failed before the stream had any audio, and the segment was spoken again.",
                        [per_second("mynah_retries_total")],
                        "ops",
                    ),
                    lines(
                        "Words: what the guard found",
                        "Segments in which the guard on words found a fault, and what it did; only with --word-guard "
                        "or on streams that ask for it.",
                        [guard],
                        "ops",
                        stacked=True,
                    ),
                ],
            ),
            (
                "Audio",
                [
                    lines(
                        "Segments by their end",
                        "runaway: speech that was much longer than its text allows, and was ended.",
                        [per_second("mynah_segments_total", "end")],
                        "ops",
                        stacked=True,
                    ),
                    lines(
                        "Audio synthesised",
                        "Seconds of audio made in a second: streams that are spoken in real time.",
                        [Query(rate("mynah_audio_seconds_total"), "seconds/s")],
                        "none",
                    ),
                    lines(
                        "Audio sent",
                        "Encoded bytes passed to connections, by format.",
                        [per_second("mynah_audio_sent_bytes_total", "format")],
                        "Bps",
                        stacked=True,
                    ),
                ],
            ),
        ],
    )
