"""What both dashboards share besides their panels: variables, the grid, the frame.

The classic schema is built, and its version pinned to the one of Grafana 9.4: an older Grafana does not
read a newer schema, while every newer one migrates this one by itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as dashboard_builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from dashboards.expressions import ACCOUNT, TARGET
from dashboards.panels import DATASOURCE, Head

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana_foundation_sdk.cog.builder import Builder

SCHEMA_OF_GRAFANA_9_4: Final = 37
GRID_WIDTH: Final = 24

# Title and uid of each dashboard, for the links between them.
TASKS: Final = ("Tasks", "mobizon-tasks")
EXPORTER: Final = ("Exporter and API", "mobizon-exporter")
PHONE: Final = ("On a phone", "mobizon-phone")


def variables(*, with_task: bool) -> list[dashboard.VariableModel]:
    """The variables every dashboard has, in the order in which they depend on each other."""
    datasource = (
        dashboard_builder.DatasourceVariable("datasource")
        .label("Data source")
        .type("prometheus")
        .current(dashboard.VariableOption(selected=False, text="default", value="default"))
    )
    found = [
        datasource.build(),
        _label_values("job", "Job", "label_values(mobizon_exporter_build_info, job)", ".+"),
        _label_values(
            "instance", "Instance", 'label_values(mobizon_exporter_build_info{job=~"$job"}, instance)', ".+"
        ),
        _label_values("account", "Account", f"label_values(mobizon_tasks{{{TARGET}}}, account)", ".*"),
    ]
    if with_task:
        found.append(_task())
    return found


def _label_values(name: str, label: str, query: str, all_value: str) -> dashboard.VariableModel:
    return _query_variable(name, label, query).all_value(all_value).build()


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


def data_link(to: tuple[str, str], title: str, query: str) -> dict[str, object]:
    """A link of a table's cell to a dashboard, with the time and the data source kept and this query."""
    url = f"/d/{to[1]}?${{datasource:queryparam}}&${{__url_time_range}}&{query}"
    return {"title": title, "url": url, "targetBlank": False}


@dataclass(frozen=True, slots=True)
class Marks:
    """Marks on graphs where a query has a value; with `value_is_time` at the times, in ms, that it says."""

    name: str
    expr: str
    color: str
    title: str
    text: str
    value_is_time: bool = False

    def built(self) -> dashboard.AnnotationQuery:
        """The annotation, off until somebody turns it on."""
        return dashboard.AnnotationQuery(
            name=self.name,
            datasource=DATASOURCE,
            enable=False,
            icon_color=self.color,
            expr=self.expr,
            step="60s",
            title_format=self.title,
            text_format=self.text,
            use_value_for_time=self.value_is_time,
        )


def board(
    this: tuple[str, str],
    head: Head,
    *,
    others: Iterable[tuple[str, str]],
    grid: Grid,
    marks: Iterable[Marks] = (),
) -> dashboard.Dashboard:
    """A dashboard of these panels, with links to the others."""
    links: list[Builder[dashboard.DashboardLink]] = [
        dashboard_builder.DashboardLink(title)
        .type(dashboard.DashboardLinkType.LINK)
        .icon("dashboard")
        .url(f"/d/{uid}")
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
        for title, uid in others
    ]
    built = (
        dashboard_builder.Dashboard(head.title)
        .uid(this[1])
        .description(head.description)
        .tags(["mobizon"])
        .readonly()
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .timezone("browser")
        .refresh("30s")
        .links(links)
        .build()
    )
    built.annotations = dashboard.AnnotationContainer(list_val=[mark.built() for mark in marks])
    built.schema_version = SCHEMA_OF_GRAFANA_9_4
    with_task = this != EXPORTER
    built.templating = dashboard.DashboardDashboardTemplating(list_val=variables(with_task=with_task))
    built.panels = grid.panels()
    return built


def to_json(built: dashboard.Dashboard) -> str:
    """The JSON that Grafana imports, the same on every run."""
    made = json.loads(json.dumps(built, cls=JSONEncoder))
    for item in (*made["links"], *made["annotations"]["list"]):
        # Of the SDK's default Grafana 13 makes a menu; with an empty one it leaves the link out.
        del item["placement"]
    return json.dumps(made, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
