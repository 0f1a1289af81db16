"""`python -m k8s.dashboards`: the four dashboards as JSON beside the component that loads them.

Each panel answers a question that an operator asks; the metrics are those of docs/metrics.md.
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
    """How soon and how smoothly people hear something."""
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
                    Panel("Time to first audio, all", _heat("mynah_ttfa_seconds"), "s", "heatmap", width=12),
                ],
            ),
            (
                "No gap after it",
                [
                    Panel("Audio still to be heard when a chunk comes", _quantiles("mynah_buffer_lead_seconds"), "s"),
                    Panel("Between two chunks", _quantiles("mynah_chunk_gap_seconds"), "s"),
                    Panel("Silence per audio", [Query(silence, "silence")], "percentunit", limit=0.001),
                    Panel("Underruns", [Query(_rate("mynah_underruns_total"), "a second")], "ops"),
                    Panel("Real-time factor", _quantiles("mynah_real_time_factor_ratio"), "none", limit=1.0),
                ],
            ),
            (
                "Where the time goes",
                [
                    Panel("T3: request to first token", _quantiles("mynah_t3_prefill_seconds"), "s"),
                    Panel("A window waits", _quantiles("mynah_window_wait_seconds"), "s"),
                    Panel("A window is decoded", _quantiles("mynah_window_decode_seconds"), "s"),
                ],
            ),
        ],
    )


def capacity() -> dict[str, Any]:
    """How full the servers are, and who is turned away."""
    active, places = f"sum(mynah_streams_active{_HERE})", f"sum(mynah_streams_capacity{_HERE})"
    return dashboard(
        "mynah-capacity",
        "Mynah · Capacity",
        capacity.__doc__ or "",
        [
            (
                "Streams",
                [
                    Panel("Open streams and places", [Query(active, "open"), Query(places, "places")], width=12),
                    Panel("Taken", [Query(f"{active} / {places}", "share")], "percentunit", limit=0.9, width=12),
                    Panel("Opened", [Query(_rate("mynah_streams_admitted_total"), "a second")], "ops"),
                    Panel(
                        "Refused", [Query(_rate("mynah_streams_refused_total", "reason"), "{{reason}}")], "ops",
                        stacked=True,
                    ),
                    Panel("Tried again inside", [Query(_rate("mynah_retries_total"), "a second")], "ops"),
                    Panel("Cancelled by clients", [Query(_rate("mynah_cancels_total"), "a second")], "ops"),
                    Panel(
                        "Errors", [Query(_rate("mynah_errors_total", "reason"), "{{reason}}")], "ops", stacked=True
                    ),
                ],
            ),
            (
                "Work",
                [
                    Panel("Audio made per second", [Query(_rate("mynah_audio_seconds_total"), "seconds")], "none"),
                    Panel("Sent", [Query(_rate("mynah_audio_sent_bytes_total", "format"), "{{format}}")], "Bps"),
                ],
            ),
        ],
    )  # fmt: skip


def engine() -> dict[str, Any]:
    """What T3 and S3Gen do with the device."""
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
                    Panel("A step", _quantiles("mynah_t3_step_seconds"), "s"),
                    Panel("Segments in a step", [_mean("mynah_t3_batch_segments", "instance")], "none"),
                    Panel("KV cache taken", [Query(f"mynah_t3_kv_cache_ratio{_HERE}", "{{instance}}")], "percentunit"),
                    Panel(
                        "Prompt found in the prefix cache",
                        [Query(f"{cached} / {_rate('mynah_t3_prompt_positions_total')}", "share")],
                        "percentunit",
                    ),
                    Panel("Engine being rebuilt", [Query(f"mynah_t3_down{_HERE}", "{{instance}}")], "bool_yes_no"),
                ],
            ),
            (
                "S3Gen: speech tokens to waveform",
                [
                    Panel("Stages, p95", [_p95("mynah_stage_seconds", "stage")], "s"),
                    Panel("Windows in a call", [_mean("mynah_batch_windows", "instance")], "none"),
                    Panel("Hops", _heat("mynah_hop_tokens"), "none", "heatmap"),
                    Panel(
                        "Windows decoded again",
                        [Query(_rate("mynah_window_fallbacks_total", "runtime"), "{{runtime}}")],
                        "ops",
                    ),
                ],
            ),
            ("Device", [Panel("GPU memory", [Query(used, "{{instance}}")], "bytes", width=12)]),
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
                    Panel("What runs", [Query(f"mynah_engine_info{_HERE}")], kind="table", width=8, height=5),
                    Panel("Versions", [Query(f"mynah_build_info{_HERE}")], kind="table", width=8, height=5),
                ],
            ),
            (
                "Spread",
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
    """All dashboards as FOLDER/NAME.json."""
    for name, make in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(make(), indent=1) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
