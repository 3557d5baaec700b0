"""What Grafana makes of a panel: the dashboards' JSON, and the texts and colours that it shows."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, Final

from tests.support import promql, promtools

if TYPE_CHECKING:
    from collections.abc import Iterator

Json = dict[str, Any]

DIRECTORY: Final = promtools.ROOT / "dashboards"
NAMES: Final = ("mobizon-tasks", "mobizon-phone", "mobizon-exporter")
DASHBOARDS: Final[dict[str, Json]] = {
    name: json.loads((DIRECTORY / f"{name}.json").read_text("utf-8")) for name in NAMES
}
ALL: Final = {"job": ".+", "instance": ".+", "account": ".*", "task": ".+", "datasource": "prometheus"}


def all_panels(dashboard: Json) -> list[Json]:
    """The panels, those in closed rows too, without the rows themselves."""
    found = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]
    return [panel for panel in found if panel["type"] != "row"]


def panel(dashboard: str, title: str) -> Json:
    (found,) = [panel for panel in all_panels(DASHBOARDS[dashboard]) if panel["title"] == title]
    return found


def expressions(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Where each PromQL expression of a panel stands, and the expression."""
    for panel in all_panels(dashboard):
        for target in panel["targets"]:
            yield f"{panel['title']}/{target['refId']}", target["expr"]


def query_variables(dashboard: Json) -> list[Json]:
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]


class Screen:
    """A dashboard as it is shown at a time, for these values of its variables, with six hours in view."""

    def __init__(self, server: promtools.Prometheus, at: float, **variables: str) -> None:
        self._server, self._at = server, at
        self.values = {
            **ALL,
            "__rate_interval": "2m",
            "__range": "6h",
            "__to": str(int(at * 1000)),
            **variables,
        }

    def stat(self, panel: Json) -> list[str]:
        """The cells of a stat panel: its text, its colour, and where there are several the name."""
        defaults = panel["fieldConfig"]["defaults"]
        cells = []
        for target in panel["targets"]:
            for series in self.query(target["expr"]):
                name = _legend(target.get("legendFormat", ""), series["metric"])
                options = {**defaults, **_overrides(panel).get(name, {})}
                cells.append((name, _cell(options, float(series["value"][1]))))
        if len(cells) == 1:
            return [cells[0][1]]
        return [f"{name}: {cell}" for name, cell in cells] or [_cell(defaults, None)]

    def table(self, panel: Json) -> list[dict[str, str]]:
        """The rows of a table, with the texts of the columns shown: as merge, sortBy and organize do."""
        _, sort, organize = (step["options"] for step in panel["transformations"])
        rows: dict[frozenset[tuple[str, str]], dict[str, Any]] = {}
        several = len(panel["targets"]) > 1
        for target in panel["targets"]:
            value = f"Value #{target['refId']}" if several else "Value"
            for series in self.query(target["expr"]):
                labels = series["metric"]
                row = rows.setdefault(_key(labels), {})
                row.update(labels)
                row[value] = float(series["value"][1])
        (order,) = sort["sort"]
        found = sorted(rows.values(), key=lambda row: row.get(order["field"], -1), reverse=order["desc"])
        titles = organize["renameByName"]
        overrides = _overrides(panel)
        return [
            {title: _text(overrides[title], row.get(source)) for source, title in titles.items()}
            for row in found
        ]

    def show(self, panel: Json) -> object:
        """Whatever the panel is."""
        show = {"stat": self.stat, "table": self.table}.get(panel["type"], self.lines)
        return show(panel)

    def lines(self, panel: Json, step: float = 30) -> dict[str, list[float]]:
        """The series of a graph by their names."""
        found = {}
        for target in panel["targets"]:
            expr = promql.filled(target["expr"], self.values)
            for series in self._server.query_range(expr, self._at - 6 * 3600, self._at, step):
                name = _legend(target["legendFormat"], series["metric"])
                found[name] = [float(value) for _, value in series["values"]]
        return found

    def query(self, expr: str) -> list[Json]:
        """The series of an expression now."""
        return self._server.query(promql.filled(expr, self.values), self._at)


def _key(labels: dict[str, str]) -> frozenset[tuple[str, str]]:
    """What rows are merged by; the reason is in one query alone."""
    return frozenset((name, value) for name, value in labels.items() if name != "reason")


def _legend(legend: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        legend = legend.replace(f"{{{{{name}}}}}", value)
    return " ".join(word for word in legend.split() if not word.startswith("{{"))


def _overrides(panel: Json) -> dict[str, Json]:
    return {
        override["matcher"]["options"]: {item["id"]: item["value"] for item in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }


def _cell(options: Json, value: float | None) -> str:
    mapped = _mapped(options, value)
    if mapped:
        return f"{mapped['text']} {mapped['color']}"
    color = ""
    for step in options["thresholds"]["steps"]:
        # Without a value Grafana takes the first.
        if step["value"] is None or (value is not None and value >= step["value"]):
            color = step["color"]
    return f"{_number(options, value)} {color}"


def _text(options: Json, value: Any) -> str:
    if isinstance(value, str):
        return value
    mapped = _mapped(options, value)
    return mapped["text"] if mapped else _number(options, value)


def _mapped(options: Json, value: float | None) -> Json | None:
    for mapping in options.get("mappings") or ():
        if mapping["type"] == "special" and value is None:
            special: Json = mapping["options"]["result"]
            return special
        if mapping["type"] == "value" and value is not None and f"{value:g}" in mapping["options"]:
            plain: Json = mapping["options"][f"{value:g}"]
            return plain
    return None


def _number(options: Json, value: float | None) -> str:
    if value is None:
        return str(options["noValue"])
    if str(options.get("unit")).startswith("dateTime"):
        return dt.datetime.fromtimestamp(value / 1000, dt.UTC).strftime("%d %H:%M")
    return f"{value:g}"
