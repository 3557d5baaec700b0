"""What both dashboards share besides their panels: variables, the grid, the frame.

The classic schema is built, and its version pinned to the one of Grafana 9.4: an older Grafana does not
read a newer schema, while every newer one migrates this one by itself.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.panels import DATASOURCE, Head

if TYPE_CHECKING:
    from collections.abc import Iterable

SCHEMA_OF_GRAFANA_9_4: Final = 37
GRID_WIDTH: Final = 24

# Selectors. `account` may match nothing, for with one account there is no such label.
TARGET: Final = 'job=~"$job", instance=~"$instance"'
ACCOUNT: Final = f'{TARGET}, account=~"$account"'
TASK: Final = f'{ACCOUNT}, task_id=~"$task"'


def variables(*, with_task: bool) -> list[dashboard.VariableModel]:
    """The variables every dashboard has, in the order in which they depend on each other."""
    datasource = dashboard_builder.DatasourceVariable("datasource").label("Data source").type("prometheus")
    found = [
        datasource.build(),
        _label_values("job", "Job", "label_values(mobizon_exporter_build_info, job)", ".+"),
        _label_values(
            "instance", "Instance", 'label_values(mobizon_exporter_build_info{job=~"$job"}, instance)', ".+"
        ),
        # Hidden, since Grafana cannot hide it just where it is empty; the table's column sets it.
        _label_values(
            "account", "Account", f"label_values(mobizon_tasks{{{TARGET}}}, account)", ".*", hidden=True
        ),
    ]
    if with_task:
        found.append(_task())
    return found


def _label_values(
    name: str, label: str, query: str, all_value: str, *, hidden: bool = False
) -> dashboard.VariableModel:
    hide = dashboard.VariableHide.HIDE_VARIABLE if hidden else dashboard.VariableHide.DONT_HIDE
    return _query_variable(name, label, query).all_value(all_value).hide(hide).build()


def _task() -> dashboard.VariableModel:
    """Named in the list, but by its id in queries and links, so that `var-task=124` opens one task."""
    titled = (
        f'label_join(max by (task_id, name) (mobizon_task_up{{{ACCOUNT}}}), "title", " ", "task_id", "name")'
    )
    return (
        _query_variable("task", "Task", f"query_result({titled})")
        .regex('/task_id="(?<value>[^"]+)",\\s*title="(?<text>[^"]+)"/')
        .sort(dashboard.VariableSort.NUMERICAL_ASC)
        .all_value(".+")
        .build()
    )


def _query_variable(name: str, label: str, query: str) -> dashboard_builder.QueryVariable:
    return (
        dashboard_builder.QueryVariable(name)
        .label(label)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": f"Variable-{name}"})
        .definition(query)
        .refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(dashboard.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(dashboard.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


class Grid:
    """Places panels from left to right and from top to bottom, and numbers them."""

    def __init__(self) -> None:
        self._panels: list[dashboard.Panel | dashboard.RowPanel] = []
        self._id = self._x = self._y = self._height = 0

    def add(self, width: int, height: int, *panels: dashboard.Panel) -> None:
        """Panels of one size, side by side."""
        self._panels += self._placed(width, height, panels)

    def collapsed(self, title: str, width: int, height: int, *panels: dashboard.Panel) -> None:
        """A row that is closed until somebody opens it, with panels of one size."""
        self._break()
        row = dashboard_builder.Row(title).collapsed(collapsed=True).build()
        self._id += 1
        row.id_val = self._id
        row.grid_pos = dashboard.GridPos(h=1, w=GRID_WIDTH, x=0, y=self._y)
        below = self._y + 1
        self._y = below
        row.panels = self._placed(width, height, panels)
        # What is closed takes no room: the next row stands right below.
        self._x, self._y, self._height = 0, below, 0
        self._panels.append(row)

    def panels(self) -> list[dashboard.Panel | dashboard.RowPanel]:
        """All of them, as the dashboard wants them."""
        return self._panels

    def _placed(self, width: int, height: int, panels: Iterable[dashboard.Panel]) -> list[dashboard.Panel]:
        placed = []
        for panel in panels:
            if self._x + width > GRID_WIDTH:
                self._break()
            self._id += 1
            panel.id_val = self._id
            panel.datasource = DATASOURCE
            panel.grid_pos = dashboard.GridPos(h=height, w=width, x=self._x, y=self._y)
            self._x += width
            self._height = max(self._height, height)
            placed.append(panel)
        return placed

    def _break(self) -> None:
        self._x, self._y, self._height = 0, self._y + self._height, 0


def board(
    uid: str, head: Head, *, other: tuple[str, str], grid: Grid, with_task: bool
) -> dashboard.Dashboard:
    """A dashboard of these panels, with a link to the `other` one (title, uid)."""
    other_title, other_uid = other
    link = (
        dashboard_builder.DashboardLink(other_title)
        .type(dashboard.DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/{other_uid}")
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
    )
    built = (
        dashboard_builder.Dashboard(head.title)
        .uid(uid)
        .description(head.description)
        .tags(["mobizon"])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("30s")
        .links([link])
        .build()
    )
    for shown in built.links or []:
        # The SDK would hide it in a menu, where Grafana has one.
        shown.placement = ""
    built.annotations = dashboard.AnnotationContainer(list_val=[])
    built.schema_version = SCHEMA_OF_GRAFANA_9_4
    built.templating = dashboard.DashboardDashboardTemplating(list_val=variables(with_task=with_task))
    built.panels = grid.panels()
    return built


def to_json(built: dashboard.Dashboard) -> str:
    """The JSON that Grafana imports, the same on every run."""
    return json.dumps(built, cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
