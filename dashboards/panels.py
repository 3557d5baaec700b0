"""The kinds of panels that the dashboards are made of."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import bargauge, prometheus, stat, statetimeline, table, timeseries
from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery

DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
STATUSES: Final = {
    "0": ("waiting", "blue"),
    "1": ("in progress", "yellow"),
    "2": ("completed", "green"),
    "3": ("rejected", "red"),
}
# Shown where there is no value.
NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class Head:
    """What a panel is called, what it says when asked, and what its numbers are."""

    title: str
    description: str
    unit: str = "short"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel; `instant` ones give the value now, as a table where the panel is one."""

    expr: str
    legend: str = ""
    instant: bool = False
    as_table: bool = False


def thresholds(*steps: tuple[float | None, str]) -> dashboard_builder.ThresholdsConfig:
    """Colours by value; the first step, of None, is the colour below all others."""
    return (
        dashboard_builder.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(value=value, color=color) for value, color in steps])
    )


def value_map(texts: dict[str, tuple[str, str]]) -> list[dashboard.ValueMapping]:
    """Values shown as a text in a colour."""
    return [
        dashboard.ValueMap(
            options={
                value: dashboard.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(texts.items())
            }
        )
    ]


def painted(panel: dashboard.Panel, colors: Mapping[str, str]) -> dashboard.Panel:
    """The panel, with the series of these names in these colours."""
    if panel.field_config is not None:
        panel.field_config.overrides = [
            dashboard.DashboardFieldConfigSourceOverrides(
                matcher=dashboard.MatcherConfig(id_val="byName", options=name),
                properties=[dashboard.DynamicConfigValue("color", {"mode": "fixed", "fixedColor": color})],
            )
            for name, color in colors.items()
        ]
    return panel


def stat_panel(
    head: Head,
    query: Query,
    *,
    steps: dashboard_builder.ThresholdsConfig | None = None,
    mappings: Sequence[dashboard.ValueMapping] = (),
    on_background: bool = False,
) -> dashboard.Panel:
    """One number, the last; a dash where there is none."""
    mode = common.BigValueColorMode.BACKGROUND if on_background else common.BigValueColorMode.VALUE
    return (
        stat.Panel()
        .title(head.title)
        .description(head.description)
        .targets(_targets([query]))
        .unit(head.unit)
        .no_value(NONE)
        .mappings(list(mappings))
        .thresholds(steps or thresholds((None, "text")))
        .reduce_options(_last())
        .color_mode(mode)
        .graph_mode(common.BigValueGraphMode.NONE)
        .build()
    )


def bar_panel(head: Head, query: Query) -> dashboard.Panel:
    """A horizontal bar for every series, full at 100."""
    return (
        bargauge.Panel()
        .title(head.title)
        .description(head.description)
        .targets(_targets([query]))
        .unit(head.unit)
        .min(0)
        .max(100)
        .no_value(NONE)
        .thresholds(thresholds((None, "blue"), (100, "green")))
        .orientation(common.VizOrientation.HORIZONTAL)
        .display_mode(common.BarGaugeDisplayMode.BASIC)
        .value_mode(common.BarGaugeValueMode.TEXT)
        .show_unfilled(show_unfilled=True)
        # With hundreds of tasks the panel scrolls rather than drawing bars too thin to read.
        .min_viz_height(16)
        .reduce_options(_last())
        .build()
    )


def graph_panel(
    head: Head,
    queries: Sequence[Query],
    *,
    stacked: bool = False,
    maximum: float | None = None,
    many: bool = False,
) -> dashboard.Panel:
    """Lines over time; `many` puts the legend where hundreds of entries scroll."""
    legend = common_builder.VizLegendOptions().show_legend(show_legend=True)
    if many:
        legend = legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
        legend = legend.calcs(["lastNotNull"])
    else:
        legend = legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
        legend = legend.calcs([])
    panel = (
        timeseries.Panel()
        .title(head.title)
        .description(head.description)
        .targets(_targets(queries))
        .unit(head.unit)
        .min(0)
        .line_width(1)
        .fill_opacity(60 if stacked else 0)
        .show_points(common.VisibilityMode.NEVER)
        .legend(legend)
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel = panel.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if maximum is not None:
        panel = panel.max(maximum)
    return panel.build()


def timeline_panel(head: Head, query: Query, mappings: Sequence[dashboard.ValueMapping]) -> dashboard.Panel:
    """The states of every series over time, in pages where Grafana knows pages (from 11 on)."""
    return (
        statetimeline.Panel()
        .title(head.title)
        .description(head.description)
        .targets(_targets([query]))
        .unit(head.unit)
        .mappings(list(mappings))
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .per_page(25)
        .fill_opacity(80)
        .line_width(0)
        .legend(
            common_builder.VizLegendOptions()
            .show_legend(show_legend=True)
            .display_mode(common.LegendDisplayMode.LIST)
            .placement(common.LegendPlacement.BOTTOM)
            .calcs([])
        )
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.SINGLE)
            .sort(common.SortOrder.NONE)
        )
        .build()
    )


def table_panel(
    head: Head,
    queries: Sequence[Query],
    *,
    columns: dict[str, str],
    formats: dict[str, dict[str, object]],
    sort_by: str,
) -> dashboard.Panel:
    """A row for every label set, the queries' values side by side.

    `columns` names the columns in their order, by the field's name before (values that are not named there
    are hidden); `formats` holds the field options of a column, by its name after.
    """
    values = [
        "Value",
        *(f"Value #{ref_id}" for ref_id, _ in zip(string.ascii_uppercase, queries, strict=False)),
    ]
    organize = {
        "excludeByName": {name: True for name in ("Time", *values) if name not in columns},
        "indexByName": {name: index for index, name in enumerate(columns)},
        "renameByName": columns,
    }
    panel = (
        table.Panel()
        .title(head.title)
        .description(head.description)
        .targets(_targets(queries))
        .unit(head.unit)
        .no_value(NONE)
        .show_header(show_header=True)
        .sort_by([common_builder.TableSortByFieldState().display_name(sort_by).desc(desc=True)])
        .transformations(
            [
                dashboard.DataTransformerConfig("merge", options={}),
                dashboard.DataTransformerConfig("organize", options=organize),
            ]
        )
    )
    for name, options in formats.items():
        panel = panel.override_by_name(
            name, [dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in options.items()]
        )
    built = panel.build()
    if built.field_config is not None:
        # Cells are told how to look in the way of Grafana 9.4 (`displayMode`, here and in `formats`); the
        # schema's version makes later ones migrate it to their `cellOptions`.
        built.field_config.defaults.custom = {"align": "auto", "displayMode": "auto", "filterable": True}
    return built


def _targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    targets: list[Builder[Dataquery]] = []
    for ref_id, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().datasource(DATASOURCE).ref_id(ref_id).expr(query.expr)
        target = target.instant() if query.instant else target.range()
        kind = PromQueryFormat.TABLE if query.as_table else PromQueryFormat.TIME_SERIES
        targets.append(target.format(kind).legend_format(query.legend))
    return targets


def _last() -> common_builder.ReduceDataOptions:
    return common_builder.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False).fields("")
