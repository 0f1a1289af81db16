"""The GPUs below the servers, by NVIDIA's DCGM exporter and by the servers."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines
from k8s.dashboards.promql import Query, select

_GPU = "{{pod}} {{gpu}}"


def gpu() -> Dashboard:
    """Utilization, memory, power and faults of the pods' GPUs. Needs the DCGM exporter with the pods' labels."""
    used, free = select("DCGM_FI_DEV_FB_USED"), select("DCGM_FI_DEV_FB_FREE")
    own = select("mynah_gpu_memory_bytes", 'kind="used"')
    total = select("mynah_gpu_memory_bytes", 'kind="total"')
    streams = select("mynah_streams_active")
    return board(
        "gpu",
        "Mynah · GPU",
        gpu.__doc__ or "",
        [
            (
                "Work",
                [
                    lines(
                        "GPU utilization",
                        "Share of the time in which a kernel ran; a GPU at 100 % may still have room in its units.",
                        [Query(f"{select('DCGM_FI_DEV_GPU_UTIL')} / 100", _GPU)],
                        "percentunit",
                        top=1.0,
                    ),
                    lines(
                        "Power",
                        "What the GPU draws; at its limit the clocks fall.",
                        [Query(select("DCGM_FI_DEV_POWER_USAGE"), _GPU)],
                        "watt",
                    ),
                    lines(
                        "Open streams on it",
                        "Streams of the pod that holds the GPU.",
                        [Query(streams, "{{pod}}")],
                    ),
                ],
            ),
            (
                "Memory",
                [
                    lines(
                        "Memory share",
                        "Used of all memory, by DCGM: every process on the GPU.",
                        [Query(f"{used} / ({used} + {free})", _GPU)],
                        "percentunit",
                        limit=0.95,
                        top=1.0,
                        width=12,
                    ),
                    lines(
                        "Memory share by the server",
                        "The same as the server sees it. The alert MynahGpuMemory is on this one.",
                        [Query(f"{own} / on (namespace, pod) {total}", "{{pod}}")],
                        "percentunit",
                        limit=0.95,
                        top=1.0,
                        width=12,
                    ),
                ],
            ),
            (
                "Health",
                [
                    lines(
                        "Last XID",
                        "Number of the driver's last error on the GPU, 0 for none: 79 is off the bus, 48, 63 and "
                        "64 are memory, 13, 31 and 43 are a program's fault. A server ends when its GPU fails.",
                        [Query(select("DCGM_FI_DEV_XID_ERRORS"), _GPU)],
                        width=12,
                    ),
                    lines(
                        "Temperature",
                        "Of the GPU; clocks fall from about 85 degrees on.",
                        [Query(select("DCGM_FI_DEV_GPU_TEMP"), _GPU)],
                        "celsius",
                        width=12,
                    ),
                ],
            ),
        ],
    )
