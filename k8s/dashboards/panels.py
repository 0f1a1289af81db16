"""Grafana's dashboard JSON from short descriptions: a panel is a title, a unit and its queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_SCHEMA_VERSION = 39
_COLUMNS = 24
_DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Query:
    """A PromQL expression and its legend."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """`kind`: timeseries, stat, heatmap or table. `limit` draws a line at an objective."""

    title: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: str = "timeseries"
    description: str = ""
    limit: float | None = None
    width: int = 8
    height: int = 8
    stacked: bool = False

    def json(self, number: int, x: int, y: int) -> dict[str, Any]:
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": _DATASOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [self._target(index, query) for index, query in enumerate(self.queries)],
            "fieldConfig": {"defaults": self._defaults(), "overrides": []},
            "options": self._options(),
        }

    def _target(self, index: int, query: Query) -> dict[str, Any]:
        target: dict[str, Any] = {
            "refId": chr(ord("A") + index),
            "datasource": _DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend or "__auto",
        }
        if self.kind == "heatmap":
            target["format"] = "heatmap"
        if self.kind == "table":
            target |= {"format": "table", "instant": True}
        return target

    def _defaults(self) -> dict[str, Any]:
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if self.limit is not None:
            steps.append({"color": "red", "value": self.limit})
        defaults: dict[str, Any] = {"unit": self.unit, "thresholds": {"mode": "absolute", "steps": steps}}
        if self.kind == "timeseries":
            defaults["min"] = 0
            defaults["custom"] = {
                "fillOpacity": 20 if self.stacked else 5,
                "showPoints": "never",
                "stacking": {"mode": "normal" if self.stacked else "none"},
                "thresholdsStyle": {"mode": "line" if self.limit is not None else "off"},
            }
        return defaults

    def _options(self) -> dict[str, Any]:
        if self.kind == "stat":
            return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value", "graphMode": "area"}
        if self.kind == "heatmap":
            return {"calculate": False, "yAxis": {"unit": self.unit}, "cellGap": 1}
        if self.kind == "timeseries":
            return {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list"}}
        return {}


def dashboard(uid: str, title: str, description: str, rows: Sequence[tuple[str, Sequence[Panel]]]) -> dict[str, Any]:
    """Returns a dashboard of titled rows; panels fill a row from the left and wrap when it is full."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row_title, row in rows:
        panels.append(_row(row_title, len(panels) + 1, y))
        y = _place(row, panels, y + 1)
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["mynah"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [_datasource_variable(), _variable("namespace", "mynah_build_info")]},
        "links": [{"title": "Mynah", "type": "dashboards", "tags": ["mynah"], "asDropdown": True, "keepTime": True}],
        "panels": panels,
    }


def _row(title: str, number: int, y: int) -> dict[str, Any]:
    position = {"x": 0, "y": y, "w": _COLUMNS, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": position, "panels": []}


def _place(row: Sequence[Panel], panels: list[dict[str, Any]], y: int) -> int:
    x = height = 0
    for panel in row:
        if x + panel.width > _COLUMNS:
            x, y, height = 0, y + height, 0
        panels.append(panel.json(len(panels) + 1, x, y))
        x, height = x + panel.width, max(height, panel.height)
    return y + height


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}


def _variable(label: str, metric: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _DATASOURCE,
        "query": {"query": f"label_values({metric}, {label})", "refId": label},
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
    }
