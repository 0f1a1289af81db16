"""`python -m k8s.dashboards`: writes the four Grafana dashboards as JSON into the monitoring component.

docs/metrics.md describes the metrics.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from k8s.dashboards.panels import Panel, Query, dashboard

FOLDER = Path(__file__).parents[1] / "components" / "monitoring" / "dashboards"
_HERE = '{namespace=~"$namespace"}'
_RATE = "[$__rate_interval]"


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{_HERE}{_RATE}))"


def _quantiles(metric: str, by: str = "") -> list[Query]:
    """p50, p95 and p99 of a histogram."""
    grouping = f"{by}, le" if by else "le"
    legend = f"{{{{{by}}}}} " if by else ""
    return [
        Query(f"histogram_quantile({q / 100}, {_rate(f'{metric}_bucket', grouping)})", f"{legend}p{q}")
        for q in (50, 95, 99)
    ]


def _p95(metric: str, by: str) -> Query:
    return Query(f"histogram_quantile(0.95, {_rate(f'{metric}_bucket', f'{by}, le')})", f"{{{{{by}}}}}")


def _mean(metric: str, by: str) -> Query:
    return Query(f"{_rate(f'{metric}_sum', by)} / {_rate(f'{metric}_count', by)}", f"{{{{{by}}}}}")


def _heat(metric: str) -> list[Query]:
    return [Query(f"sum by (le) (increase({metric}_bucket{_HERE}{_RATE}))", "{{le}}")]


def latency() -> dict[str, Any]:
    """Time to first audio, gaps in the audio, and where the time goes."""
    silence = f"{_rate('mynah_underrun_seconds_total')} / {_rate('mynah_audio_seconds_total')}"
    return dashboard(
        "mynah-latency",
        "Mynah · Latency",
        latency.__doc__ or "",
        [
            (
                "First audio",
                [
                    Panel("Time to first audio", _quantiles("mynah_ttfa_seconds"), "s", limit=0.5, width=12),
                    Panel("Time to first audio, distribution", _heat("mynah_ttfa_seconds"), "s", "heatmap", width=12),
                ],
            ),
            (
                "Gaps in the audio",
                [
                    Panel("Audio buffered when a chunk arrives", _quantiles("mynah_buffer_lead_seconds"), "s"),
                    Panel("Time between two chunks", _quantiles("mynah_chunk_gap_seconds"), "s"),
                    Panel("Silence per second of audio", [Query(silence, "silence")], "percentunit", limit=0.001),
                    Panel("Underruns", [Query(_rate("mynah_underruns_total"), "per second")], "ops"),
                    Panel("Real-time factor", _quantiles("mynah_real_time_factor_ratio"), "none", limit=1.0),
                ],
            ),
            (
                "Where the time goes",
                [
                    Panel("T3: request to first token", _quantiles("mynah_t3_prefill_seconds"), "s"),
                    Panel("Window: time in queue", _quantiles("mynah_window_wait_seconds"), "s"),
                    Panel("Window: decode time", _quantiles("mynah_window_decode_seconds"), "s"),
                ],
            ),
        ],
    )


def capacity() -> dict[str, Any]:
    """Utilization of the servers, refused streams and errors."""
    active, limit = f"sum(mynah_streams_active{_HERE})", f"sum(mynah_streams_capacity{_HERE})"
    return dashboard(
        "mynah-capacity",
        "Mynah · Capacity",
        capacity.__doc__ or "",
        [
            (
                "Streams",
                [
                    Panel("Open streams and limit", [Query(active, "open"), Query(limit, "limit")], width=12),
                    Panel("Utilization", [Query(f"{active} / {limit}", "share")], "percentunit", limit=0.9, width=12),
                    Panel("Admitted", [Query(_rate("mynah_streams_admitted_total"), "per second")], "ops"),
                    Panel(
                        "Refused", [Query(_rate("mynah_streams_refused_total", "reason"), "{{reason}}")], "ops",
                        stacked=True,
                    ),
                    Panel(
                        "Words: what the guard found",
                        [Query(_rate("mynah_word_guard_total", "fault, action"), "{{fault}}: {{action}}")],
                        "ops",
                        stacked=True,
                    ),
                    Panel("Segments retried", [Query(_rate("mynah_retries_total"), "per second")], "ops"),
                    Panel("Cancelled by clients", [Query(_rate("mynah_cancels_total"), "per second")], "ops"),
                    Panel(
                        "Errors", [Query(_rate("mynah_errors_total", "reason"), "{{reason}}")], "ops", stacked=True
                    ),
                ],
            ),
            (
                "Audio",
                [
                    Panel(
                        "Segments by their end", [Query(_rate("mynah_segments_total", "end"), "{{end}}")], "ops",
                        description="runaway: speech that was much longer than its text allows, and was ended.",
                    ),
                    Panel("Audio synthesised", [Query(_rate("mynah_audio_seconds_total"), "seconds/s")], "none"),
                    Panel("Audio sent", [Query(_rate("mynah_audio_sent_bytes_total", "format"), "{{format}}")], "Bps"),
                ],
            ),
        ],
    )  # fmt: skip


def engine() -> dict[str, Any]:
    """Batches and times of T3 and S3Gen, and GPU memory."""
    cached = 'sum(rate(mynah_t3_prompt_positions_total{source="cached",namespace=~"$namespace"}[$__rate_interval]))'
    used = 'mynah_gpu_memory_bytes{kind="used",namespace=~"$namespace"}'
    return dashboard(
        "mynah-engine",
        "Mynah · Engine",
        engine.__doc__ or "",
        [
            (
                "T3: text to speech tokens",
                [
                    Panel("Step time", _quantiles("mynah_t3_step_seconds"), "s"),
                    Panel("Segments in a step, mean", [_mean("mynah_t3_batch_segments", "instance")], "none"),
                    Panel("KV cache in use", [Query(f"mynah_t3_kv_cache_ratio{_HERE}", "{{instance}}")], "percentunit"),
                    Panel(
                        "Prompt positions found in the prefix cache",
                        [Query(f"{cached} / {_rate('mynah_t3_prompt_positions_total')}", "share")],
                        "percentunit",
                    ),
                    Panel("T3 engine being rebuilt", [Query(f"mynah_t3_down{_HERE}", "{{instance}}")], "bool_yes_no"),
                ],
            ),
            (
                "S3Gen: speech tokens to waveform",
                [
                    Panel("Stage times, p95", [_p95("mynah_stage_seconds", "stage")], "s"),
                    Panel("Windows in a batch, mean", [_mean("mynah_batch_windows", "instance")], "none"),
                    Panel("New speech tokens in a window", _heat("mynah_hop_tokens"), "none", "heatmap"),
                    Panel(
                        "Windows decoded again",
                        [Query(_rate("mynah_window_fallbacks_total", "runtime"), "{{runtime}}")],
                        "ops",
                    ),
                ],
            ),
            ("Device", [Panel("GPU memory in use", [Query(used, "{{instance}}")], "bytes", width=12)]),
        ],
    )


def fleet() -> dict[str, Any]:
    """The servers side by side."""
    return dashboard(
        "mynah-fleet",
        "Mynah · Fleet",
        fleet.__doc__ or "",
        [
            (
                "Now",
                [
                    Panel("Servers", [Query(f"count(mynah_build_info{_HERE})")], kind="stat", width=4, height=5),
                    Panel(
                        "Open streams", [Query(f"sum(mynah_streams_active{_HERE})")], kind="stat", width=4, height=5
                    ),
                    Panel("Engines", [Query(f"mynah_engine_info{_HERE}")], kind="table", width=8, height=5),
                    Panel("Versions", [Query(f"mynah_build_info{_HERE}")], kind="table", width=8, height=5),
                ],
            ),
            (
                "By server",
                [
                    Panel("Open streams", [Query(f"mynah_streams_active{_HERE}", "{{instance}}")], stacked=True),
                    Panel("Time to first audio, p95", [_p95("mynah_ttfa_seconds", "instance")], "s", limit=0.5),
                    Panel(
                        "Silence", [Query(_rate("mynah_underrun_seconds_total", "instance"), "{{instance}}")], "s"
                    ),
                    Panel(
                        "Resident memory", [Query(f"process_resident_memory_bytes{_HERE}", "{{instance}}")], "bytes"
                    ),
                    Panel(
                        "CPU", [Query(_rate("process_cpu_seconds_total", "instance"), "{{instance}}")], "percentunit"
                    ),
                    Panel("Open files", [Query(f"process_open_fds{_HERE}", "{{instance}}")]),
                ],
            ),
        ],
    )  # fmt: skip


DASHBOARDS = {"latency": latency, "capacity": capacity, "engine": engine, "fleet": fleet}


def write(folder: Path) -> None:
    """Writes all dashboards as FOLDER/NAME.json."""
    for name, make in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(make(), indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
