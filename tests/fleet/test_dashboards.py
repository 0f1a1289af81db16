"""The committed dashboards match the generator; every panel explains itself and uses metrics that exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from k8s.dashboards.__main__ import DASHBOARDS, FOLDER, write
from k8s.dashboards.boards.slo import FAULTS
from service.telemetry import metrics
from tests.fleet.manifests import ROOT, Manifest, dashboards, expressions, of_kind, rules

RULES_TEXT = (ROOT / "k8s/components/monitoring/rules.yaml").read_text()

_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
_PROCESS |= {"process_start_time_seconds", "up"}
# of other exporters, as their documentation names them
_DCGM = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE", "DCGM_FI_DEV_POWER_USAGE"}
_DCGM |= {"DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_DEV_GPU_TEMP"}
_KUBERNETES = {"kube_pod_container_status_restarts_total", "kube_pod_container_status_last_terminated_reason"}
_KUBERNETES |= {"kube_deployment_spec_replicas", "kube_deployment_status_replicas_available"}
_KUBERNETES |= {"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes"}
_OTHERS = _DCGM | _KUBERNETES | {"ALERTS"}


def known() -> set[str]:
    """The sample names of every metric in Prometheus."""
    names = _PROCESS | _OTHERS
    for metric in metrics.ALL:
        (family,) = metric.describe()
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}[family.type]
        names |= {family.name + suffix for suffix in suffixes}
    return names


def used(expression: str) -> set[str]:
    names = re.sub(r'"[^"]*"|\bby \([^)]*\)', "", expression)
    return set(re.findall(r"\b((?:mynah|process|kube|kubelet|DCGM)_\w+|up|ALERTS)\b(?!:)", names))


def recorded(expression: str) -> set[str]:
    """The recording rules that an expression uses."""
    return set(re.findall(r"\bmynah:[a-z0-9_:]+", expression))


def test_committed_dashboards_are_fresh(tmp_path: Path):
    write(tmp_path)
    for name in DASHBOARDS:
        assert (tmp_path / f"{name}.json").read_text() == (FOLDER / f"{name}.json").read_text(), (
            "run: python -m k8s.dashboards"
        )


@pytest.mark.parametrize("place", expressions())
def test_every_panel_uses_existing_metrics(place: str):
    assert used(expressions()[place]) <= known()
    assert recorded(expressions()[place]) <= {
        r["record"] for g in rules()["groups"] for r in g["rules"] if "record" in r
    }
    assert used(expressions()[place]) | recorded(expressions()[place])


def test_every_rule_uses_existing_metrics():
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert used(rule["expr"]) <= known(), rule


def panels() -> dict[str, Manifest]:
    return {
        f"{name}: {panel['title']} {panel['id']}": panel
        for name, board in dashboards().items()
        for panel in board["panels"]
        if panel["type"] != "row"
    }


@pytest.mark.parametrize("place", panels())
def test_every_panel_explains_itself(place: str):
    panel = panels()[place]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("place", panels())
def test_panels_with_exemplars_are_of_measurements_that_have_them(place: str):
    """The page of metrics has exemplars on these histograms' buckets; Grafana draws them on lines and heatmaps."""
    panel = panels()[place]
    asked = any(target["exemplar"] for target in panel["targets"])
    has = any(f"{name}_bucket" in target["expr"] for name in WITH_EXEMPLARS for target in panel["targets"])
    assert asked == (has and panel["type"] in ("timeseries", "heatmap"))


WITH_EXEMPLARS = {
    "mynah_ttfa_seconds", "mynah_caller_ttfa_seconds", "mynah_chunk_gap_seconds", "mynah_real_time_factor_ratio",
    "mynah_t3_prefill_seconds", "mynah_window_wait_seconds", "mynah_window_decode_seconds",
}  # fmt: skip


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_board_selects_pods_and_its_links_keep_the_selection(name: str):
    board = dashboards()[name]
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert variables[:3] == ["datasource", "namespace", "pod"]
    for link in board["links"]:
        assert link["includeVars"]
        assert link["keepTime"]
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    for variable in variables[1:]:
        assert any(f'{variable}=~"${variable}"' in query for query in queries), variable
    assert all('namespace=~"$namespace"' in query for query in queries)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_lie_side_by_side(name: str):
    taken: set[tuple[int, int]] = set()
    for panel in dashboards()[name]["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells), panel["title"]
        taken |= cells


def test_every_board_is_installed_and_has_an_address_of_its_own():
    boards = {
        key: json.loads(text)
        for manifest in of_kind("a10g", "ConfigMap")
        if manifest["metadata"].get("labels", {}).get("grafana_dashboard") == "1"
        for key, text in manifest["data"].items()
    }
    assert boards.keys() == {f"{name}.json" for name in DASHBOARDS}
    assert len({board["uid"] for board in boards.values()}) == len(DASHBOARDS)


def test_the_budgets_count_the_faults_that_the_rules_count():
    faults = {re.sub(r"\s+", "", match) for match in re.findall(r"mynah_errors_total\{(.*?)\}", RULES_TEXT, re.DOTALL)}
    assert faults == {FAULTS}


def test_every_metric_is_in_a_panel_or_rule():
    """An unused metric costs memory and scrapes for nothing."""
    queries = " ".join([*expressions().values(), *(r["expr"] for g in rules()["groups"] for r in g["rules"])])
    shown = used(queries)
    for metric in metrics.ALL:
        (family,) = metric.describe()
        assert any(name.startswith(family.name) for name in shown), family.name
