"""Panels and dashboards by Grafana's own builders: a panel is a title, a sentence about it, its queries and a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_options
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from k8s.dashboards.promql import Query

Panel = Builder[models.Panel]
Row = tuple[str, Sequence[Panel]]
COLUMNS = 24
_PROMETHEUS = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
B = TypeVar("B", timeseries.Panel, stat.Panel, heatmap.Panel, table.Panel)


def lines(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str = "short",
    *,
    limit: float | None = None,
    stacked: bool = False,
    top: float | None = None,
    width: int = 8,
) -> Panel:
    """Lines over time, from 0. `limit` draws a line at an objective; `top` ends the axis."""
    panel = _drawn(timeseries.Panel(), title, description, queries, unit, limit, width, 8).min(0)
    panel.fill_opacity(20 if stacked else 5).show_points(options.VisibilityMode.NEVER)
    panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL if stacked else options.StackingMode.NONE))
    style = options.GraphThresholdsStyleMode.LINE if limit is not None else options.GraphThresholdsStyleMode.OFF
    panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(style))
    every, largest_first = options.TooltipDisplayMode.MULTI, options.SortOrder.DESCENDING
    panel.tooltip(common.VizTooltipOptions().mode(every).sort(largest_first))
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST).show_legend(True)
    panel.legend(legend.placement(options.LegendPlacement.BOTTOM))
    return panel if top is None else panel.max(top)


def number(
    title: str,
    description: str,
    query: Query,
    unit: str = "short",
    *,
    limit: float | None = None,
    good_above: bool = False,
    width: int = 4,
) -> Panel:
    """One number, its colour by `limit`; `good_above`: red below it instead of above."""
    panel = _drawn(stat.Panel(), title, description, [query], unit, limit, width, 5, good_above)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    return panel.color_mode(options.BigValueColorMode.VALUE).graph_mode(options.BigValueGraphMode.AREA)


def spread(title: str, description: str, query: Query, unit: str = "short", *, width: int = 8) -> Panel:
    """A histogram over time as a heatmap."""
    panel = _drawn(heatmap.Panel(), title, description, [query], unit, None, width, 8, kind=PromQueryFormat.HEATMAP)
    mode = heatmap_options.HeatmapColorMode.SCHEME
    panel.color(heatmap.HeatmapColorOptions().mode(mode).scheme("Blues").steps(64))
    return panel.calculate(False).cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit))


def rows(title: str, description: str, query: Query, unit: str = "short", *, width: int = 8, height: int = 5) -> Panel:
    """A table with a row for each series, as it is now."""
    return _drawn(table.Panel(), title, description, [query], unit, None, width, height, kind=PromQueryFormat.TABLE)


def board(
    name: str, title: str, description: str, content: Sequence[Row], variables: Sequence[str] = ()
) -> models.Dashboard:
    """A dashboard of titled rows, with variables for Prometheus, namespaces, pods and `variables`, labels of
    `mynah_caller_streams_total`."""
    made = dashboard.Dashboard(title).uid(f"mynah-{name}").description(description).tags(["mynah"]).editable()
    made.refresh("10s").time("now-1h", "now").tooltip(models.DashboardCursorSync.CROSSHAIR)
    made.with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    made.with_variable(_variable("namespace", "mynah_build_info"))
    made.with_variable(_variable("pod", 'mynah_build_info{namespace=~"$namespace"}'))
    for label in variables:
        made.with_variable(_variable(label, 'mynah_caller_streams_total{namespace=~"$namespace"}'))
    link = dashboard.DashboardLink("Mynah").type(models.DashboardLinkType.DASHBOARDS).tags(["mynah"])
    made.link(link.as_dropdown(True).include_vars(True).keep_time(True))
    for row, panels in content:
        made.with_row(dashboard.Row(row))
        for panel in panels:
            made.with_panel(panel)
    built = made.build()
    for number_, panel_ in enumerate(built.panels or (), start=1):
        panel_.id_val = number_
    return built


def _drawn(
    panel: B,
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    limit: float | None,
    width: int,
    height: int,
    good_above: bool = False,
    kind: PromQueryFormat = PromQueryFormat.TIME_SERIES,
) -> B:
    """What all kinds of panels have."""
    for index, query in enumerate(queries):
        panel.with_target(_target(chr(ord("A") + index), query, kind))
    below, above = ("red", "green") if good_above else ("green", "red")
    steps = [models.Threshold(color="green" if limit is None else below)]
    if limit is not None:
        steps.append(models.Threshold(color=above, value=limit))
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    panel.title(title).description(description).unit(unit).datasource(_PROMETHEUS)
    return panel.span(width).height(height)


def _target(ref_id: str, query: Query, kind: PromQueryFormat) -> prometheus.Dataquery:
    target = prometheus.Dataquery().ref_id(ref_id).expr(query.expr).legend_format(query.legend or "__auto")
    target.datasource(_PROMETHEUS).format(kind).exemplar(query.exemplars)
    return target.instant() if kind is PromQueryFormat.TABLE else target.range()


def _variable(label: str, series: str) -> dashboard.QueryVariable:
    query: dict[str, object] = {"query": f"label_values({series}, {label})", "refId": label}
    made = dashboard.QueryVariable(label).label(label).query(query).datasource(_PROMETHEUS)
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return made.include_all(True).all_value(".*").multi(True).current(everything)
