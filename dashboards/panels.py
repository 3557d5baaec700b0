"""The kinds of panels that the dashboards are made of; tables are in dashboards/tables.py."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import common as common_builder
from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.builders import prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery

DATASOURCE: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
STATUSES: Final = {
    "0": ("waiting", "blue"),
    "1": ("in progress", "dark-yellow"),
    "2": ("completed", "green"),
    "3": ("rejected", "red"),
}
NO_DATA: Final = "no data"


@dataclass(frozen=True, slots=True)
class Head:
    """What a panel is called, what it says when asked, and what its numbers are."""

    title: str
    description: str
    unit: str = "short"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel.

    `instant` ones give the value now, as a table where the panel is one. `interval` is the least step of a
    query over a range, and with it the least `$__rate_interval`.
    """

    expr: str
    legend: str = ""
    instant: bool = False
    as_table: bool = False
    interval: str = ""


def thresholds(*steps: tuple[float, str], base: str = "gray") -> dashboard_builder.ThresholdsConfig:
    """Colours by value. The base is shown without a value, too, so it has to promise nothing."""
    values = [dashboard.Threshold(value=None, color=base)]
    values += [dashboard.Threshold(value=value, color=color) for value, color in steps]
    return dashboard_builder.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(values)


def value_map(
    texts: Mapping[str, tuple[str, str]], *, null: tuple[str, str] | None = None
) -> list[dashboard.ValueMapping]:
    """Values shown as a text in a colour; `null` is for no value."""
    mappings: list[dashboard.ValueMapping] = [
        dashboard.ValueMap(
            options={
                value: dashboard.ValueMappingResult(text=text, color=color, index=index)
                for index, (value, (text, color)) in enumerate(texts.items())
            }
        )
    ]
    if null:
        text, color = null
        result = dashboard.ValueMappingResult(text=text, color=color, index=len(texts))
        options = dashboard.DashboardSpecialValueMapOptions(dashboard.SpecialValueMatch.NULL_AND_NAN, result)
        mappings.append(dashboard.SpecialValueMap(options))
    return mappings


def override(panel: dashboard.Panel, fields: Mapping[str, Mapping[str, object]]) -> dashboard.Panel:
    """The panel, with these options for the fields of these names."""
    if panel.field_config is not None:
        panel.field_config.overrides = [
            dashboard.DashboardFieldConfigSourceOverrides(
                matcher=dashboard.MatcherConfig(id_val="byName", options=name),
                properties=[
                    dashboard.DynamicConfigValue(id_val=key, value=value) for key, value in options.items()
                ],
            )
            for name, options in fields.items()
        ]
    return panel


def painted(panel: dashboard.Panel, colors: Mapping[str, str]) -> dashboard.Panel:
    """The panel, with the series of these names in these colours."""
    return override(
        panel, {name: {"color": {"mode": "fixed", "fixedColor": color}} for name, color in colors.items()}
    )


def stat_panel(
    head: Head,
    *queries: Query,
    steps: dashboard_builder.ThresholdsConfig,
    mappings: Mapping[str, tuple[str, str]] | None = None,
    on_background: bool = False,
) -> dashboard.Panel:
    """The last number of each series, with its name where there are several."""
    # Names would be drawn too small to read where several numbers share a panel.
    text = common_builder.VizTextDisplayOptions()
    if len(queries) > 1:
        text = text.title_size(13).value_size(28)
    mode = common.BigValueColorMode.BACKGROUND if on_background else common.BigValueColorMode.VALUE
    return (
        stat.Panel()
        .title(head.title)
        .description(head.description)
        .targets(targets(queries))
        .unit(head.unit)
        .decimals(0)
        .no_value(NO_DATA)
        .mappings(value_map(mappings) if mappings else [])
        .thresholds(steps)
        .reduce_options(
            common_builder.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False).fields("")
        )
        .color_mode(mode)
        .graph_mode(common.BigValueGraphMode.NONE)
        .text_mode(common.BigValueTextMode.AUTO)
        .text(text)
        .build()
    )


@dataclass(frozen=True, slots=True)
class Look:
    """How a graph is drawn; `long_legend` puts the legend where it scrolls."""

    stacked: bool = False
    bars: bool = False
    points: bool = False
    long_legend: bool = False
    decimals: float | None = None
    maximum: float | None = None
    soft_maximum: float | None = None
    """Shown at least, so that an axis without values does not reach who knows where."""


def graph_panel(head: Head, *queries: Query, look: Look) -> dashboard.Panel:
    """Lines over time, or bars."""
    legend = common_builder.VizLegendOptions().show_legend(show_legend=True)
    if look.long_legend:
        legend = legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
        legend = legend.calcs(["lastNotNull"])
    else:
        legend = legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
        legend = legend.calcs([])
    filled = look.stacked or look.bars
    panel = (
        timeseries.Panel()
        .title(head.title)
        .description(head.description)
        .targets(targets(queries))
        .unit(head.unit)
        .no_value(NO_DATA)
        .min(0)
        # Without lines a series of zeros does not frame the ones that it is stacked on.
        .line_width(0 if filled else 1)
        .fill_opacity(70 if filled else 0)
        .show_points(common.VisibilityMode.ALWAYS if look.points else common.VisibilityMode.NEVER)
        .legend(legend)
        .tooltip(
            common_builder.VizTooltipOptions()
            .mode(common.TooltipDisplayMode.MULTI)
            .sort(common.SortOrder.DESCENDING)
        )
    )
    if filled:
        panel = panel.stacking(common_builder.StackingConfig().mode(common.StackingMode.NORMAL).group("A"))
    if look.bars:
        # A bar stands left of its time, for it sums up what came before.
        panel = panel.draw_style(common.GraphDrawStyle.BARS).bar_alignment(common.BarAlignment.BEFORE)
    if look.decimals is not None:
        panel = panel.decimals(look.decimals)
    if look.maximum is not None:
        panel = panel.max(look.maximum)
    if look.soft_maximum is not None:
        panel = panel.axis_soft_max(look.soft_maximum)
    return panel.build()


def timeline_panel(head: Head, query: Query, mappings: Sequence[dashboard.ValueMapping]) -> dashboard.Panel:
    """The states of every series over time, in pages where Grafana knows pages (from 11 on)."""
    return (
        statetimeline.Panel()
        .title(head.title)
        .description(head.description)
        .targets(targets([query]))
        .unit(head.unit)
        .no_value(NO_DATA)
        .mappings(list(mappings))
        # Colours by threshold would leave the legend out.
        .color_scheme(dashboard_builder.FieldColor().mode(dashboard.FieldColorModeId.FIXED))
        .merge_values(merge_values=True)
        .show_value(common.VisibilityMode.NEVER)
        .row_height(0.8)
        .per_page(12)
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


def targets(queries: Sequence[Query]) -> list[Builder[Dataquery]]:
    """The queries as Grafana has them, A, B and so on."""
    built: list[Builder[Dataquery]] = []
    for ref_id, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().datasource(DATASOURCE).ref_id(ref_id).expr(query.expr)
        target = target.instant() if query.instant else target.range()
        if query.interval:
            target = target.interval(query.interval)
        kind = PromQueryFormat.TABLE if query.as_table else PromQueryFormat.TIME_SERIES
        built.append(target.format(kind).legend_format(query.legend))
    return built
