"""The alerts as Prometheus evaluates them: each fires when it should and only then, and has a runbook."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fleet.manifests import ROOT, rules

AT = "60m"
POD = 'namespace="mynah",pod="mynah-0"'


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    named = ",".join([POD, *(f'{key}="{value}"' for key, value in labels.items())])
    return {"series": f"{metric}{{{named}}}", "values": values}


def first_chunks(within_objective: int, total: int) -> list[dict[str, str]]:
    """Histogram series of first chunks per minute."""
    return [
        series("mynah_ttfa_seconds_bucket", f"0+{within_objective}x60", le="0.5"),
        series("mynah_ttfa_seconds_bucket", f"0+{total}x60", le="1.0"),
        series("mynah_ttfa_seconds_bucket", f"0+{total}x60", le="+Inf"),
        series("mynah_ttfa_seconds_count", f"0+{total}x60"),
    ]


def growing(metric: str, per_minute: float, **labels: str) -> dict[str, str]:
    return series(metric, f"0+{per_minute}x60", **labels)


def up(*values: str) -> list[dict[str, str]]:
    """Scrapes of several pods."""
    labels = 'namespace="mynah",job="mynah-admin"'
    return [{"series": f'up{{{labels},pod="mynah-{pod}"}}', "values": each} for pod, each in enumerate(values)]


ADMITTED = growing("mynah_streams_admitted_total", 1000)
# alert -> (series that make it fire, series that do not)
CASES: dict[str, tuple[list[dict[str, str]], list[dict[str, str]]]] = {
    # a page: the budget of 5 % is used 14.4 times too fast; a ticket: 6 times
    "MynahSlowFirstAudio": (first_chunks(20, 100), first_chunks(60, 100)),
    "MynahFirstAudioBudget": (first_chunks(60, 100), first_chunks(80, 100)),
    "MynahUnderruns": (
        [growing("mynah_underrun_seconds_total", 2), growing("mynah_audio_seconds_total", 100)],
        [growing("mynah_underrun_seconds_total", 1), growing("mynah_audio_seconds_total", 100)],
    ),
    "MynahUnderrunBudget": (
        [growing("mynah_underrun_seconds_total", 1), growing("mynah_audio_seconds_total", 100)],
        [growing("mynah_underrun_seconds_total", 5), growing("mynah_audio_seconds_total", 1000)],
    ),
    "MynahErrors": (
        [ADMITTED, growing("mynah_errors_total", 20, reason="ENGINE_FAILED")],
        # a full server refuses, and a client's own fault is none of the server's
        [ADMITTED, growing("mynah_errors_total", 500, reason="ENGINE_BUSY")],
    ),
    "MynahErrorBudget": (
        [ADMITTED, growing("mynah_errors_total", 7, reason="T3_FAILED")],
        [ADMITTED, growing("mynah_errors_total", 500, reason="TEXT_EMPTY")],
    ),
    "MynahRefusals": (
        [ADMITTED, growing("mynah_streams_refused_total", 100, reason="ENGINE_BUSY")],
        [ADMITTED, growing("mynah_streams_refused_total", 1, reason="ENGINE_BUSY")],
    ),
    "MynahNoRoomLeft": (
        [series("mynah_streams_active", "31x60"), series("mynah_streams_capacity", "32x60")],
        [series("mynah_streams_active", "20x60"), series("mynah_streams_capacity", "32x60")],
    ),
    "MynahEngineFallback": (
        [series("mynah_engine_refused", "1x60", runtime="tensorrt")],
        [series("mynah_engine_refused", "0x60", runtime="tensorrt")],
    ),
    "MynahWindowsRejected": (
        [growing("mynah_window_fallbacks_total", 6, runtime="onnx")],
        [series("mynah_window_fallbacks_total", "0x20 1x40", runtime="onnx")],
    ),
    "MynahT3Down": ([series("mynah_t3_down", "1x60")], [series("mynah_t3_down", "0x60")]),
    "MynahStalled": (
        [series("mynah_stalled", "0x50 1x10", part="s3gen"), series("mynah_stalled", "0x60", part="t3")],
        [series("mynah_stalled", "0x60", part="s3gen"), series("mynah_stalled", "0x60", part="t3")],
    ),
    "MynahStorage": (
        [series("mynah_storage_errors_total", "0x50 1x10", reason="STORAGE_FULL")],
        [series("mynah_storage_errors_total", "5x60", reason="STORAGE_FULL")],
    ),
    "MynahVoiceFilesDamaged": (
        [series("mynah_voice_files_damaged", "2x60")],
        [series("mynah_voice_files_damaged", "0x60")],
    ),
    "MynahKvCachePressure": (
        [series("mynah_t3_kv_cache_ratio", "0.99x60")],
        [series("mynah_t3_kv_cache_ratio", "0.8x60")],
    ),
    "MynahGpuMemory": (
        [
            series("mynah_gpu_memory_bytes", "23.5x60", kind="used"),
            series("mynah_gpu_memory_bytes", "24x60", kind="total"),
        ],
        [
            series("mynah_gpu_memory_bytes", "10x60", kind="used"),
            series("mynah_gpu_memory_bytes", "24x60", kind="total"),
        ],
    ),
    "MynahPodDown": (
        up("1x60", "1x60", "0x60"),
        up("1x60", "1x60", "0x50 1x10"),
    ),
    "MynahReplicasMissing": (
        [
            series("kube_deployment_spec_replicas", "3x60", deployment="mynah"),
            series("kube_deployment_status_replicas_available", "2x60", deployment="mynah"),
        ],
        [
            series("kube_deployment_spec_replicas", "2x50 3x10", deployment="mynah"),
            series("kube_deployment_status_replicas_available", "2x60", deployment="mynah"),
        ],
    ),
    "MynahVolumeFull": (
        [
            series("kubelet_volume_stats_available_bytes", "1x60", persistentvolumeclaim="mynah-voices"),
            series("kubelet_volume_stats_capacity_bytes", "20x60", persistentvolumeclaim="mynah-voices"),
        ],
        [
            series("kubelet_volume_stats_available_bytes", "1x60", persistentvolumeclaim="another"),
            series("kubelet_volume_stats_capacity_bytes", "20x60", persistentvolumeclaim="another"),
        ],
    ),
    "MynahCertificateExpires": (
        [series("mynah_certificate_expiry_timestamp_seconds", f"{6 * 86_400}x60")],
        [series("mynah_certificate_expiry_timestamp_seconds", f"{8 * 86_400}x60")],
    ),
    "MynahAbsent": (
        [
            series("mynah_build_info", "1x20 stale"),
            {"series": 'mynah_build_info{namespace="another",pod="mynah-0"}', "values": "1x60"},
        ],
        [series("mynah_build_info", "1x60")],
    ),
}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]


def case(alert: str, firing: bool) -> dict[str, Any]:
    expected = [{"value": 1}] if firing else []
    return {
        "name": f"{alert} {'fires' if firing else 'is silent'}",
        "interval": "1m",
        "input_series": CASES[alert][0 if firing else 1],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": AT,
                "exp_samples": expected,
            }
        ],
    }


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)


def test_every_alert_fires_when_it_should_and_only_then(tmp_path: Path):
    assert CASES.keys() == {alert["alert"] for alert in alerts()}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    done = promtool("check", "rules", tmp_path / "rules.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    tests = [case(alert, firing) for alert in CASES for firing in (True, False)]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", tmp_path / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reports_a_failing_case(tmp_path: Path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    wrong = case("MynahT3Down", True) | {"input_series": CASES["MynahT3Down"][1]}
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [wrong]}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    assert promtool("test", "rules", tmp_path / "tests.yaml").returncode == 1


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_links_to_its_runbook(alert: dict[str, Any]):
    page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
    assert page == "https://docs.example.com/mynah/operations.md", "an alert's link is opened anywhere"
    headings = re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert anchor in [heading.lower().replace(" ", "-") for heading in headings]
    assert alert["labels"]["severity"] in ("page", "ticket")


TRIGGERS = {
    "streams": (
        [series("mynah_streams_active", "40x60"), series("mynah_streams_capacity", "32x60")],
        40 / 32 / 0.7,
    ),
    "first-audio": (
        [*first_chunks(90, 100), series("mynah_build_info", "1x60")],
        2,  # one more than there are
    ),
    "refused": (
        [growing("mynah_streams_refused_total", 10, reason="STREAMS_EXHAUSTED"), series("mynah_build_info", "1x60")],
        2,
    ),
}


def test_every_trigger_of_the_autoscaler_asks_for_pods(tmp_path: Path):
    """A query whose labels do not match is empty, and KEDA ignores an empty answer."""
    manifest = yaml.safe_load((ROOT / "k8s/components/autoscaling/scaledobject.yaml").read_text())
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in manifest["spec"]["triggers"]}
    assert queries.keys() == TRIGGERS.keys()
    tests = [
        {
            "name": name,
            "interval": "1m",
            "input_series": TRIGGERS[name][0],
            "promql_expr_test": [
                {
                    "expr": f"round({query}, 0.001)",
                    "eval_time": AT,
                    "exp_samples": [{"value": round(TRIGGERS[name][1], 3), "labels": "{}"}],
                }
            ],
        }
        for name, query in queries.items()
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules()))
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", tmp_path / "tests.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
