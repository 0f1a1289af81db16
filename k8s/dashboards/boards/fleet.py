"""The servers side by side: readiness, restarts, load, process."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from k8s.dashboards.panels import board, lines, number, rows
from k8s.dashboards.promql import PODS, RULES, Query, by_pod, p95, per_second, rate, select

_JOB = 'job="mynah-admin"'  # processes of other jobs have the same metrics
_RESTARTS = "kube_pod_container_status_restarts_total"
_REASON = "kube_pod_container_status_last_terminated_reason"
_WANTED, _READY = "kube_deployment_spec_replicas", "kube_deployment_status_replicas_available"


def fleet() -> Dashboard:
    """The servers side by side: readiness, restarts, load, process."""
    scraped, started = select("up", _JOB), select("process_start_time_seconds", _JOB)
    replicas = f'{{deployment="mynah",{RULES}}}'
    return board(
        "fleet",
        "Mynah · Fleet",
        fleet.__doc__ or "",
        [
            (
                "Now",
                [
                    number(
                        "Servers", "Servers that Prometheus scrapes.", Query(f"count({select('mynah_build_info')})")
                    ),
                    number(
                        "Serving",
                        "Servers that accept streams; the others start or drain.",
                        Query(f"count({select('mynah_streams_capacity')})"),
                    ),
                    number("Open streams", "On all of them.", Query(f"sum({select('mynah_streams_active')})")),
                    rows(
                        "Engines",
                        "Model, device and runtimes of each server.",
                        Query(select("mynah_engine_info")),
                        width=8,
                    ),
                    rows(
                        "Versions",
                        "More than one while a rolling update runs.",
                        Query(select("mynah_build_info")),
                        width=4,
                    ),
                ],
            ),
            (
                "Readiness and restarts",
                [
                    lines(
                        "Servers wanted and available",
                        "The deployment's replicas and those available, by kube-state-metrics.",
                        [Query(f"{_WANTED}{replicas}", "wanted"), Query(f"{_READY}{replicas}", "available")],
                    ),
                    lines(
                        "Answers scrapes",
                        "1 while the server's admin port answers.",
                        [Query(scraped, "{{pod}}")],
                        "bool_yes_no",
                        top=1.0,
                    ),
                    lines(
                        "Stalled",
                        "1 after the watchdog has found that a part does not advance; the pod is then restarted.",
                        [Query(f"max by (pod, part) ({select('mynah_stalled')})", "{{pod}}: {{part}}")],
                        "bool_yes_no",
                        top=1.0,
                    ),
                    lines(
                        "Processes begun",
                        "Starts of a server's process in a pod within half an hour, as its scrapes show them.",
                        [Query(f"changes({started}[30m])", "{{pod}}")],
                    ),
                    lines(
                        "Container restarts",
                        "Restarts by the kubelet within an hour, by kube-state-metrics.",
                        [Query(f'increase({_RESTARTS}{{{PODS},container="server"}}[1h])', "{{pod}}")],
                    ),
                    rows(
                        "Why containers ended",
                        "The last end of each container: OOMKilled, or Error with an exit status of operations.md.",
                        Query(f'{_REASON}{{{PODS},container="server"}} == 1'),
                        height=8,
                    ),
                ],
            ),
            (
                "By server",
                [
                    lines("Open streams", "By pod.", [by_pod("mynah_streams_active")], stacked=True),
                    lines(
                        "Time to first audio, p95",
                        "A single slow server shows here.",
                        [p95("mynah_ttfa_seconds", "pod", exemplars=True)],
                        "s",
                        limit=0.5,
                    ),
                    lines(
                        "Silence",
                        "Seconds of silence a second that underruns cause, by pod.",
                        [per_second("mynah_underrun_seconds_total", "pod")],
                        "s",
                    ),
                    lines(
                        "Resident memory",
                        "Of the server's process.",
                        [by_pod("process_resident_memory_bytes", _JOB)],
                        "bytes",
                    ),
                    lines(
                        "CPU",
                        "Processor seconds a second, of the server's process.",
                        [Query(rate("process_cpu_seconds_total", "pod", _JOB), "{{pod}}")],
                        "none",
                    ),
                    lines(
                        "Open files",
                        "Descriptors of the server's process; each connection is one.",
                        [by_pod("process_open_fds", _JOB)],
                    ),
                    lines(
                        "Certificate ends in",
                        "Time until the TLS certificate in use expires; under a week there is an alert.",
                        [Query(f"{select('mynah_certificate_expiry_timestamp_seconds')} - time()", "{{pod}}")],
                        "s",
                        width=24,
                    ),
                ],
            ),
        ],
    )
