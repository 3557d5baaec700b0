"""Tables: a row for every label set, the values of several queries side by side."""

from __future__ import annotations

import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import table
from grafana_foundation_sdk.models import dashboard

from dashboards.panels import STATUSES, Head, Query, override, targets, thresholds, value_map

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# A cell without a value.
NOTHING: Final = "-"
# Labels that rows are merged by, and that not every table has a column for.
LABELS: Final = ("account", "reason")

NOT_READ: Final = ("not read", "gray")
# Cells are styled in the way of Grafana 9.4 (`displayMode`); the version of the schema makes later ones
# migrate it to their `cellOptions`.
ON_COLOR: Final[dict[str, object]] = {"custom.displayMode": "color-background-solid"}
STATUS_CELL: Final[dict[str, object]] = {
    "mappings": value_map({**STATUSES, "-1": NOT_READ}, null=NOT_READ),
    **ON_COLOR,
}
PERCENT_BAR: Final[dict[str, object]] = {
    "unit": "percent",
    "min": 0,
    "max": 100,
    "color": {"mode": "fixed", "fixedColor": "blue"},
    "custom.displayMode": "basic",
}
RED_TEXT: Final[dict[str, object]] = {
    "color": {"mode": "fixed", "fixedColor": "red"},
    "custom.displayMode": "color-text",
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the field that fills it (a label, or `Value #A` of query A), its title and its options."""

    source: str
    title: str
    options: Mapping[str, object] = field(default_factory=dict)


def width(pixels: int) -> dict[str, object]:
    """The option for a column that needs just so much, so that others get the rest."""
    return {"custom.width": pixels}


def table_panel(
    head: Head,
    expressions: Sequence[str],
    columns: Sequence[Column],
    *,
    sort_by: str,
    empty: str,
) -> dashboard.Panel:
    """The values of each query, merged where the labels are the same; what no column shows is hidden.

    The greatest `sort_by`, a column's source or a value that no column shows, comes first. `empty` is shown
    instead of rows.
    """
    shown = [column.source for column in columns]
    values = ["Value", *(f"Value #{ref_id}" for ref_id in string.ascii_uppercase[: len(expressions)])]
    organize = {
        "excludeByName": {name: True for name in ("Time", *LABELS, *values) if name not in shown},
        "indexByName": {name: index for index, name in enumerate(shown)},
        "renameByName": {column.source: column.title for column in columns},
    }
    order = {"fields": {}, "sort": [{"field": sort_by, "desc": True}]}
    panel = (
        table.Panel()
        .title(head.title)
        .description(head.description)
        .targets(targets([Query(expr, instant=True, as_table=True) for expr in expressions]))
        .unit(head.unit)
        .no_value(empty)
        .thresholds(thresholds(base="transparent"))
        .show_header(show_header=True)
        .transformations(
            [
                dashboard.DataTransformerConfig("merge", options={}),
                # Before `organize` hides the column by which it sorts.
                dashboard.DataTransformerConfig("sortBy", options=order),
                dashboard.DataTransformerConfig("organize", options=organize),
            ]
        )
    )
    built = panel.build()
    if built.field_config is not None:
        built.field_config.defaults.custom = {"align": "auto", "displayMode": "auto", "filterable": True}
    # `empty` is for the table; a cell has its own text.
    return override(built, {column.title: {"noValue": NOTHING, **column.options} for column in columns})
