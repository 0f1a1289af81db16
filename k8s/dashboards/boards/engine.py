"""Batches and times of T3 and S3Gen."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines, spread
from k8s.dashboards.promql import Query, by_pod, heat, mean, p95, per_second, quantiles, rate


def engine() -> Dashboard:
    """Batches and times of T3 and S3Gen, and what has failed in them."""
    cached = rate("mynah_t3_prompt_positions_total", "", 'source="cached"')
    return board(
        "engine",
        "Mynah · Engine",
        engine.__doc__ or "",
        [
            (
                "T3: text to speech tokens",
                [
                    lines(
                        "Step time",
                        "One step makes one speech token, 40 ms of audio, for every segment in it.",
                        quantiles("mynah_t3_step_seconds"),
                        "s",
                    ),
                    lines(
                        "Segments in a step, mean",
                        "How many segments share a step.",
                        [mean("mynah_t3_batch_segments", "pod")],
                        "none",
                    ),
                    lines(
                        "KV cache in use",
                        "Share of T3's KV cache that running segments hold; when it is full, sequences are recomputed.",
                        [by_pod("mynah_t3_kv_cache_ratio")],
                        "percentunit",
                        limit=0.95,
                    ),
                    lines(
                        "Prompt positions found in the prefix cache",
                        "Share of the prompts' positions that need no computing; many voices lower it.",
                        [Query(f"{cached} / {rate('mynah_t3_prompt_positions_total')}", "share")],
                        "percentunit",
                        top=1.0,
                        width=12,
                    ),
                    lines(
                        "T3 engine being rebuilt",
                        "1 while a failed T3 engine is being rebuilt.",
                        [by_pod("mynah_t3_down")],
                        "bool_yes_no",
                        top=1.0,
                        width=12,
                    ),
                ],
            ),
            (
                "S3Gen: speech tokens to waveform",
                [
                    lines(
                        "Stage times, p95",
                        "Of one batch of windows, by stage.",
                        [p95("mynah_stage_seconds", "stage")],
                        "s",
                    ),
                    lines(
                        "Windows in a batch, mean",
                        "How many streams' windows share a call of S3Gen.",
                        [mean("mynah_batch_windows", "pod")],
                        "none",
                    ),
                    spread(
                        "New speech tokens in a window",
                        "40 ms of audio each: windows grow along a talkspurt and with the load.",
                        heat("mynah_hop_tokens"),
                    ),
                    lines(
                        "Windows decoded again",
                        "Windows whose samples were invalid and that the fallback runtime decoded again.",
                        [per_second("mynah_window_fallbacks_total", "runtime")],
                        "ops",
                        width=8,
                    ),
                    lines(
                        "Runtimes that failed their check",
                        "1 for a requested runtime that failed its parity check at the start; a slower one serves.",
                        [
                            Query(
                                f"max by (pod, runtime) ({by_pod('mynah_engine_refused').expr})", "{{pod}}: {{runtime}}"
                            )
                        ],
                        "bool_yes_no",
                        top=1.0,
                        width=8,
                    ),
                    lines(
                        "CUDA graphs that failed",
                        "Sizes of calls that were not captured at the start: they run without a graph, and slower.",
                        [Query(by_pod("mynah_failed_captures").expr, "{{pod}}: {{runtime}}")],
                    ),
                ],
            ),
        ],
    )
