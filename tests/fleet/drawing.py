"""Boards as pictures: each panel's results drawn where Grafana would put it."""

from __future__ import annotations

import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from PIL import Image

from tests.fleet.manifests import Manifest

_COLUMN_IN, _ROW_IN = 0.52, 0.27  # of Grafana's grid
_DPI = 72
_NO_DATA = "no data here"
_SECONDS = (("d", 86_400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3))
_SMALL = {"fontsize": 6.5}


@dataclass(frozen=True)
class Series:
    """A legend, and its samples: times in s from the beginning, values."""

    legend: str
    times_s: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Result:
    """What a panel's queries gave: series, and exemplars as (time in s, value)."""

    series: list[Series]
    exemplars: list[tuple[float, float]]
    labels: list[dict[str, str]]  # of each series, for tables


def draw(board: Manifest, results: dict[int, Result], path: Path) -> None:
    """Draws a board from the results of its panels, by their ids, as a PNG of few colours."""
    panels = board["panels"]
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + 2
    figure = plt.figure(figsize=(24 * _COLUMN_IN, height * _ROW_IN), dpi=_DPI)
    figure.text(0.01, 1 - 0.9 / height, board["title"], fontsize=11, weight="bold", va="center")
    for panel in panels:
        _place(figure, panel, height, results)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plt.close(figure)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)


def _place(figure: Figure, panel: Manifest, height: int, results: dict[int, Result]) -> None:
    at = panel["gridPos"]
    top = 1 - (at["y"] + 2) / height
    if panel["type"] == "row":
        figure.text(0.01, top - 0.5 / height, panel["title"], fontsize=8, weight="bold", va="center", color="#555")
        return
    left, right, above, below = (0.055, 0.015, 1.2 / height, 2.0 / height)
    if panel["type"] in ("stat", "table"):
        left, below = 0.012, 0.3 / height
    x, width, tall = at["x"] / 24, at["w"] / 24, at["h"] / height
    axes = figure.add_axes((x + left, top - tall + below, width - left - right, tall - above - below))
    figure.text(x + 0.01, top - 0.6 * above, panel["title"], fontsize=7.5, va="center")
    result = results[panel["id"]]
    if not any(np.isfinite(series.values).any() for series in result.series):
        axes.text(0.5, 0.5, _NO_DATA, ha="center", va="center", color="#999", transform=axes.transAxes, fontsize=7.5)
        axes.set_axis_off()
        return
    {"timeseries": _lines, "heatmap": _heat, "stat": _number, "table": _table}[panel["type"]](axes, panel, result)


def _lines(axes: Axes, panel: Manifest, result: Result) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    unit = defaults["unit"]
    shown = sorted(result.series, key=lambda series: series.legend)[:12]
    if defaults["custom"]["stacking"]["mode"] == "normal":
        times_s = np.unique(np.concatenate([series.times_s for series in shown]))
        layers = [np.interp(times_s, one.times_s, np.nan_to_num(one.values), left=0, right=0) for one in shown]
        axes.stackplot(times_s, layers, labels=[one.legend for one in shown], alpha=0.6, linewidth=0)
    else:
        for one in shown:
            axes.plot(one.times_s, one.values, label=one.legend, linewidth=1)
    if result.exemplars:
        axes.scatter(*zip(*result.exemplars, strict=True), s=5, color="#d62728", alpha=0.5, linewidths=0, zorder=3)
    for step in defaults["thresholds"]["steps"]:
        if step.get("value") is not None:
            axes.axhline(step["value"], color="#d62728", linewidth=0.8, linestyle="--")
    values = np.concatenate([one.values[np.isfinite(one.values)] for one in shown])
    axes.set_ylim(bottom=min(0, values.min()), top=defaults.get("max") or (None if values.max() else 1.0))
    _axes(axes, unit)
    labels = [text.removesuffix("_total")[:22] for text in axes.get_legend_handles_labels()[1]]
    place = {"loc": "upper left", "bbox_to_anchor": (-0.12, -0.15), "ncols": 3, "frameon": False}
    axes.legend(
        axes.get_legend_handles_labels()[0][:6], labels[:6], columnspacing=1, handlelength=1.2, **place, **_SMALL
    )


def _heat(axes: Axes, panel: Manifest, result: Result) -> None:
    """Prometheus counts up to each bound; Grafana and this show the counts between two."""
    bounded = [(math.inf if one.legend == "+Inf" else float(one.legend), one) for one in result.series]
    bounds, series = zip(*sorted(bounded, key=lambda pair: pair[0]), strict=True)
    times_s = np.unique(np.concatenate([one.times_s for one in series]))
    counts = [np.interp(times_s, one.times_s, np.nan_to_num(one.values), left=0, right=0) for one in series]
    between = np.clip(np.diff(np.stack(counts), axis=0, prepend=0), 0, None)
    used = np.flatnonzero(between.max(axis=1) > 0.05)
    first, last = max(0, used[0] - 1), min(len(bounds) - 2, used[-1] + 1)
    norm = LogNorm(0.1, max(1.0, between.max()))
    axes.pcolormesh(times_s, np.arange(first, last + 2), between[first : last + 1, :-1], cmap="Blues", norm=norm)
    step = max(1, (last - first) // 6)
    ticks = range(first, last + 1, step)
    axes.set_yticks(
        [tick + 1 for tick in ticks],
        [_worded(bounds[tick], panel["fieldConfig"]["defaults"]["unit"]) for tick in ticks],
    )
    if result.exemplars:
        rows = [
            (time_s, np.interp(value, bounds[:-1], np.arange(1, len(bounds)))) for time_s, value in result.exemplars
        ]
        axes.scatter(*zip(*rows, strict=True), s=5, color="#d62728", alpha=0.5, linewidths=0)
    axes.tick_params(labelsize=6.5, length=2)
    axes.set_xlabel("s", **_SMALL)


def _number(axes: Axes, panel: Manifest, result: Result) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    value = float(result.series[0].values[np.isfinite(result.series[0].values)][-1])
    colour = "green"
    for step in defaults["thresholds"]["steps"]:
        if step.get("value") is None or value >= step["value"]:
            colour = step["color"]
    axes.text(0.5, 0.5, _worded(value, defaults["unit"]), ha="center", va="center", fontsize=22, color=colour)
    axes.set_axis_off()


def _table(axes: Axes, panel: Manifest, result: Result) -> None:
    hidden = {"__name__", "instance", "job", "namespace", "alertstate"}
    names = sorted({name for labels in result.labels for name in labels} - hidden)
    unit = panel["fieldConfig"]["defaults"]["unit"]
    cells = [
        [labels.get(name, "") for name in names] + [_worded(float(series.values[-1]), unit)]
        for labels, series in zip(result.labels, result.series, strict=True)
    ][:8]
    axes.set_axis_off()
    table = axes.table(cells, colLabels=[*names, "value"], loc="upper left", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(6)
    table.auto_set_column_width(list(range(len(names) + 1)))


def _axes(axes: Axes, unit: str) -> None:
    axes.tick_params(labelsize=6.5, length=2)
    if unit == "bool_yes_no":
        axes.set_yticks([0, 1], ["no", "yes"])
    else:
        axes.yaxis.set_major_formatter(lambda value, _: _worded(value, unit))
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="#ddd", linewidth=0.5)
    axes.margins(x=0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _worded(value: float, unit: str) -> str:
    """A value with its unit, as short as Grafana's."""
    if value == 0 or not math.isfinite(value):
        return "+Inf" if value > 0 else f"{value:g}"
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %" if abs(value) < 10 else f"{100 * value:,.0f} %"
        case "s":
            name, scale = next((each for each in _SECONDS if abs(value) >= each[1]), _SECONDS[-1])
            return f"{value / scale:.3g} {name}"
        case "bytes" | "Bps":
            power = min(3, int(math.log(max(abs(value), 1), 1024)))
            return f"{value / 1024**power:.3g} {['B', 'KiB', 'MiB', 'GiB'][power]}{'/s' if unit == 'Bps' else ''}"
        case "ops":
            return f"{value:.2g}/s"
        case "bool_yes_no":
            return "yes" if value else "no"
    return f"{value:.3g}"


def legend_of(template: str, labels: dict[str, str]) -> str:
    """Grafana's `{{label}}` filled in; without a template the labels that differ."""
    if template in ("", "__auto"):
        return ", ".join(value for name, value in sorted(labels.items()) if name != "__name__")
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), template)


def series_of(template: str, results: list[dict[str, Any]], began_s: float) -> list[Series]:
    """A range query's answer as series."""
    return [
        Series(
            legend_of(template, one["metric"]),
            np.array([time_s - began_s for time_s, _ in one["values"]]),
            np.array([float(value) for _, value in one["values"]]),
        )
        for one in results
    ]
