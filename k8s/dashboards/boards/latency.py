"""Time to first audio, gaps in the audio, and where the time goes."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines, spread
from k8s.dashboards.promql import Query, heat, per_second, quantiles, rate


def latency() -> Dashboard:
    """Time to first audio, gaps in the audio, and where the time goes."""
    silence = f"{rate('mynah_underrun_seconds_total')} / {rate('mynah_audio_seconds_total')}"
    return board(
        "latency",
        "Mynah · Latency",
        latency.__doc__ or "",
        [
            (
                "First audio",
                [
                    lines(
                        "Time to first audio",
                        "From speakable text on a silent stream to its first chunk passed to the connection. The "
                        "objective is 0.5 s for 95 % of them. Points are single streams; with traces each leads to its "
                        "trace.",
                        quantiles("mynah_ttfa_seconds", exemplars=True),
                        "s",
                        limit=0.5,
                        width=12,
                    ),
                    spread(
                        "Time to first audio, distribution",
                        "The same times, by bucket: two bands mean two kinds of streams, such as voices in and out of "
                        "T3's prefix cache.",
                        heat("mynah_ttfa_seconds", exemplars=True),
                        "s",
                        width=12,
                    ),
                ],
            ),
            (
                "Gaps in the audio",
                [
                    lines(
                        "Audio buffered when a chunk arrives",
                        "What a real-time listener still has to play when the next chunk comes; 0 is an underrun.",
                        quantiles("mynah_buffer_lead_seconds"),
                        "s",
                    ),
                    lines(
                        "Time between two chunks",
                        "Within one talkspurt, as passed to the connection.",
                        quantiles("mynah_chunk_gap_seconds", exemplars=True),
                        "s",
                    ),
                    lines(
                        "Silence per second of audio",
                        "Silence that underruns cause; the objective is 0.1 %.",
                        [Query(silence, "silence")],
                        "percentunit",
                        limit=0.001,
                    ),
                    lines(
                        "Underruns",
                        "Times a second that a real-time listener runs out of audio within a talkspurt.",
                        [per_second("mynah_underruns_total")],
                        "ops",
                        width=12,
                    ),
                    lines(
                        "Real-time factor",
                        "Time spent waiting for the engine per second of a segment's audio; over 1 it is too slow to "
                        "listen to.",
                        quantiles("mynah_real_time_factor_ratio", exemplars=True),
                        "none",
                        limit=1.0,
                        width=12,
                    ),
                ],
            ),
            (
                "Where the time goes",
                [
                    lines(
                        "T3: request to first token",
                        "T3's queue, the prefill of the prompt and the first step.",
                        quantiles("mynah_t3_prefill_seconds", exemplars=True),
                        "s",
                    ),
                    lines(
                        "Window: time in queue",
                        "How long a window waits until S3Gen takes it; it grows when S3Gen is saturated.",
                        quantiles("mynah_window_wait_seconds", exemplars=True),
                        "s",
                    ),
                    lines(
                        "Window: decode time",
                        "From leaving the queue to samples; it grows with a slower runtime or a neighbour.",
                        quantiles("mynah_window_decode_seconds", exemplars=True),
                        "s",
                    ),
                ],
            ),
        ],
    )
