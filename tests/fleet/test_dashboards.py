"""The committed dashboards match the generator, and every query and rule uses metrics that the server has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from k8s.dashboards.__main__ import DASHBOARDS, FOLDER, write
from service.telemetry import metrics
from tests.fleet.manifests import expressions, rules

_PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}


def known() -> set[str]:
    """The sample names of every metric in Prometheus."""
    names = set(_PROCESS)
    for metric in metrics.ALL:
        (family,) = metric.describe()
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}[family.type]
        names |= {family.name + suffix for suffix in suffixes}
    return names


def used(expression: str) -> set[str]:
    without_strings = re.sub(r'"[^"]*"', "", expression)
    return set(re.findall(r"\b((?:mynah|process)_[a-z0-9_]+)\b(?!:)", without_strings))


def test_committed_dashboards_are_fresh(tmp_path: Path):
    write(tmp_path)
    for name in DASHBOARDS:
        assert (tmp_path / f"{name}.json").read_text() == (FOLDER / f"{name}.json").read_text(), (
            "run: python -m k8s.dashboards"
        )


@pytest.mark.parametrize("place", expressions())
def test_every_panel_uses_existing_metrics(place: str):
    assert used(expressions()[place])
    assert used(expressions()[place]) <= known()


def test_every_rule_uses_existing_metrics():
    for group in rules()["groups"]:
        for rule in group["rules"]:
            assert used(rule["expr"]) <= known(), rule


def test_every_metric_is_in_a_panel_or_rule():
    """An unused metric costs memory and scrapes for nothing."""
    queries = " ".join([*expressions().values(), *(r["expr"] for g in rules()["groups"] for r in g["rules"])])
    shown = used(queries)
    for metric in metrics.ALL:
        (family,) = metric.describe()
        assert any(name.startswith(family.name) for name in shown), family.name
