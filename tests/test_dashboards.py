"""The dashboards: what is committed is what the code makes, keeps every lint rule, and shows data."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from grafana_foundation_sdk.models import units

from tests.support import promql, promtools

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Json = dict[str, Any]

DIRECTORY = promtools.ROOT / "dashboards"
NAMES = ("mobizon-tasks", "mobizon-exporter")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {value for value in vars(units).values() if isinstance(value, str)}
RATES = {"rate", "irate", "increase"}
COUNTER = re.compile(r"_(total|bucket|count|sum)$")
# An interval that nobody would write, to tell the variable from a number.
RATE_INTERVAL = timedelta(seconds=4242)
ALL = {"job": ".+", "instance": ".+", "account": ".*", "task": ".+", "datasource": "prometheus"}
PARSED = {**ALL, "__rate_interval": "4242s", "__range": "6h"}
# What Prometheus adds, and what a list of one account, or of unnamed tasks, does not have.
LABELS_OF_ELSEWHERE = {"job", "instance", "account", "name"}

DASHBOARDS = {name: json.loads((DIRECTORY / f"{name}.json").read_text("utf-8")) for name in NAMES}


def all_panels(dashboard: Json) -> list[Json]:
    """The panels, those in closed rows too, without the rows themselves."""
    found = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]
    return [panel for panel in found if panel["type"] != "row"]


def expressions(dashboard: Json) -> Iterator[tuple[str, str]]:
    """Where each PromQL expression stands, and the expression."""
    for panel in all_panels(dashboard):
        for target in panel.get("targets", ()):
            yield f"{panel['title']}/{target['refId']}", target["expr"]


def query_variables(dashboard: Json) -> list[Json]:
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]


# The rules. Each gives what is wrong.


def has_a_datasource_variable(dashboard: Json) -> list[str]:
    first = dashboard["templating"]["list"][0]
    right = (first["type"], first["name"], first["query"], first["label"]) == (
        "datasource",
        "datasource",
        "prometheus",
        "Data source",
    )
    return [] if right else ["the first variable is no data source"]


def has_job_and_instance(dashboard: Json) -> list[str]:
    variables = {variable["name"]: variable for variable in query_variables(dashboard)}
    faults = []
    for name in ("job", "instance"):
        variable = variables.get(name, {})
        query = str(variable.get("definition", ""))
        if not (query.startswith("label_values(") and query.endswith(f", {name})")):
            faults.append(f"{name} is not found by label_values")
        if not (variable.get("multi") and variable.get("includeAll") and variable.get("allValue") == ".+"):
            faults.append(f"{name} does not take several values, or all by .+")
    return faults


def refreshes_variables(dashboard: Json) -> list[str]:
    return [variable["name"] for variable in query_variables(dashboard) if variable["refresh"] != 2]


def describes_panels(dashboard: Json) -> list[str]:
    faults = []
    for panel in all_panels(dashboard):
        if not (panel.get("title") and panel.get("description")):
            faults.append(f"{panel['id']}: no title or description")
        if not panel.get("targets"):
            faults.append(f"{panel['id']}: no target")
        sources = [
            panel.get("datasource"),
            *(target.get("datasource") for target in panel.get("targets", ())),
        ]
        if any(source != DATASOURCE for source in sources):
            faults.append(f"{panel['id']}: another data source")
    return faults


def has_valid_units(dashboard: Json) -> list[str]:
    faults = []
    for panel in all_panels(dashboard):
        defaults = panel["fieldConfig"]["defaults"]
        properties = [prop for over in panel["fieldConfig"]["overrides"] for prop in over["properties"]]
        used = [defaults.get("unit"), *(prop["value"] for prop in properties if prop["id"] == "unit")]
        if not defaults.get("mappings"):
            faults += [f"{panel['title']}: {unit}" for unit in used if unit not in UNITS]
    return faults


def scopes_selectors(dashboard: Json) -> list[str]:
    wanted = {'job=~"$job"', 'instance=~"$instance"'}
    # The parser takes a dollar for any other character of a string, but not in a duration.
    ranges = {name: f"${name}" for name in ALL} | {"__rate_interval": "1m", "__range": "1h"}
    return [
        f"{where}: {selector.metric}"
        for where, expr in expressions(dashboard)
        for selector in promql.selectors(promql.filled(expr, ranges))
        if not wanted <= set(selector.matchers)
    ]


def rates_over_the_rate_interval(dashboard: Json) -> list[str]:
    return [
        f"{where}: {selector.metric}"
        for where, expr in expressions(dashboard)
        for selector in promql.selectors(promql.filled(expr, PARSED))
        if RATES & set(selector.functions) and selector.range != RATE_INTERVAL
    ]


def rates_every_counter(dashboard: Json) -> list[str]:
    return [
        f"{where}: {selector.metric}"
        for where, expr in expressions(dashboard)
        for selector in promql.selectors(promql.filled(expr, PARSED))
        if COUNTER.search(selector.metric) and not RATES & set(selector.functions)
    ]


def is_not_editable(dashboard: Json) -> list[str]:
    return [] if dashboard["editable"] is False else ["editable"]


def parses(dashboard: Json) -> list[str]:
    faults = []
    for where, expr in expressions(dashboard):
        try:
            promql.selectors(promql.filled(expr, PARSED))
        except (ValueError, KeyError) as error:
            faults.append(f"{where}: {error}")
    return faults


def identifies_uniquely(dashboard: Json) -> list[str]:
    panels = [inner for panel in dashboard["panels"] for inner in (panel, *panel.get("panels", ()))]
    ids = [panel["id"] for panel in panels]
    faults = [f"id {number}" for number in ids if number < 1 or ids.count(number) > 1]
    for panel in all_panels(dashboard):
        refs = [target["refId"] for target in panel.get("targets", ())]
        faults += [f"{panel['title']}: refId {ref!r}" for ref in refs if not ref or refs.count(ref) > 1]
    return faults if dashboard.get("uid") else [*faults, "no uid"]


def reduces_to_a_value(dashboard: Json) -> list[str]:
    """A stat panel without a calculation shows nothing, and one without `noValue` says "No data"."""
    return [
        panel["title"]
        for panel in all_panels(dashboard)
        if panel["type"] in {"stat", "bargauge"}
        and not (
            panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
            and panel["fieldConfig"]["defaults"].get("noValue")
        )
    ]


RULES = (
    has_a_datasource_variable,
    has_job_and_instance,
    refreshes_variables,
    describes_panels,
    has_valid_units,
    scopes_selectors,
    rates_over_the_rate_interval,
    rates_every_counter,
    is_not_editable,
    parses,
    identifies_uniquely,
    reduces_to_a_value,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_dashboard_keeps_every_rule(rule: Callable[[Json], list[str]], name: str) -> None:
    assert rule(DASHBOARDS[name]) == []


def _set(path: str, value: Any) -> Callable[[Json], None]:
    """Changes one thing, by its path."""

    def change(dashboard: Json) -> None:
        *way, last = path.split(".")
        place: Any = dashboard
        for step in way:
            place = place[int(step) if step.isdecimal() else step]
        place[int(last) if last.isdecimal() else last] = value

    return change


SCOPED = 'job=~"$job", instance=~"$instance"'


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (has_a_datasource_variable, _set("templating.list.0.label", "Source")),
        (has_job_and_instance, _set("templating.list.1.allValue", ".*")),
        (has_job_and_instance, _set("templating.list.2.multi", False)),
        (has_job_and_instance, _set("templating.list.1.definition", "query_result(up)")),
        (refreshes_variables, _set("templating.list.2.refresh", 1)),
        (describes_panels, _set("panels.0.description", "")),
        (describes_panels, _set("panels.0.targets", [])),
        (describes_panels, _set("panels.0.targets.0.datasource.uid", "prometheus")),
        (has_valid_units, _set("panels.3.fieldConfig.defaults.unit", "seconds")),
        (scopes_selectors, _set("panels.0.targets.0.expr", 'up{job=~"$job"}')),
        (rates_over_the_rate_interval, _set("panels.0.targets.0.expr", f"rate(a_total{{{SCOPED}}}[5m])")),
        (rates_every_counter, _set("panels.0.targets.0.expr", f"a_total{{{SCOPED}}}")),
        (is_not_editable, _set("editable", True)),
        (parses, _set("panels.0.targets.0.expr", "sum(")),
        (parses, _set("panels.0.targets.0.expr", 'up{job="$unknown"}')),
        (identifies_uniquely, _set("panels.0.id", 2)),
        (identifies_uniquely, _set("panels.0.targets.0.refId", "")),
        (identifies_uniquely, _set("uid", "")),
        (reduces_to_a_value, _set("panels.0.options.reduceOptions.calcs", [])),
    ],
)
def test_a_rule_finds_what_breaks_it(
    rule: Callable[[Json], list[str]], change: Callable[[Json], None]
) -> None:
    broken = copy.deepcopy(DASHBOARDS["mobizon-exporter"])
    change(broken)
    assert rule(broken)


def test_the_committed_json_is_what_the_code_makes(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "dashboards", "--output", str(tmp_path)]
    subprocess.run(command, cwd=promtools.ROOT, check=True)
    made = {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text("utf-8") for path in DIRECTORY.glob("*.json")}


def test_uids_are_stable_and_the_dashboards_link_to_each_other() -> None:
    assert [DASHBOARDS[name]["uid"] for name in NAMES] == list(NAMES)
    for name, other in (NAMES, NAMES[::-1]):
        link = DASHBOARDS[name]["links"][0]
        assert (link["url"], link["includeVars"], link["keepTime"]) == (f"/d/{other}", True, True)


def test_the_account_is_hidden_and_its_absence_matches() -> None:
    for dashboard in DASHBOARDS.values():
        account = next(item for item in query_variables(dashboard) if item["name"] == "account")
        assert (account["hide"], account["allValue"]) == (2, ".*")


def test_panels_do_not_overlap() -> None:
    for dashboard in DASHBOARDS.values():
        for row in (dashboard["panels"], *(panel.get("panels", []) for panel in dashboard["panels"])):
            cells = [
                (x, y)
                for place in (panel["gridPos"] for panel in row)
                for x in range(place["x"], place["x"] + place["w"])
                for y in range(place["y"], place["y"] + place["h"])
            ]
            assert len(cells) == len(set(cells))
            assert all(x < 24 for x, _ in cells)


# Against the demo.


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    with promtools.exporter("--demo") as url:
        yield url


@pytest.fixture(scope="module")
def exported(demo: str) -> dict[str, set[str]]:
    """The samples that the demo exports, with their labels."""
    return promtools.exported(demo)


def test_every_metric_and_label_of_a_dashboard_is_exported(exported: dict[str, set[str]]) -> None:
    faults = []
    for name, dashboard in DASHBOARDS.items():
        labels_of_all = LABELS_OF_ELSEWHERE.union(*exported.values())
        queries = [(item["name"], _variable_selector(item)) for item in query_variables(dashboard)]
        for where, expr in [*expressions(dashboard), *queries]:
            parsed = promql.filled(expr, PARSED)
            for selector in promql.selectors(parsed):
                if selector.metric == "up":  # Prometheus's own
                    continue
                if selector.metric not in exported:
                    faults.append(f"{name}: {where}: {selector.metric}")
                elif not selector.labels <= exported[selector.metric] | LABELS_OF_ELSEWHERE:
                    faults.append(f"{name}: {where}: {selector}")
            if not promql.grouping_labels(parsed) <= labels_of_all:
                faults.append(f"{name}: {where}: {promql.grouping_labels(parsed)}")
    assert faults == []


def _variable_selector(variable: Json) -> str:
    """The PromQL within `label_values(..., label)` or `query_result(...)`."""
    definition: str = variable["definition"]
    inner = definition[definition.index("(") + 1 : -1]
    return inner.rpartition(",")[0] if definition.startswith("label_values") else inner


# Queries that return nothing from the demo, and why.
EMPTY_BY_DESIGN = dict.fromkeys(
    ("No longer listed/A", "No longer listed/B", "No longer listed/C"),
    "nothing leaves the list of the demo",
)


@pytest.mark.prometheus
@pytest.mark.slow
def test_every_panel_shows_data_of_the_demo_and_none_fails_without_tasks(demo: str, tmp_path: Path) -> None:
    scrapes = {
        "job_name": "mobizon",
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "static_configs": [{"targets": [demo.removeprefix("http://")]}],
    }
    values = {**ALL, "__rate_interval": "30s", "__range": "10m"}
    wanted = {
        f"{name}: {where}": promql.filled(expr, values)
        for name, dashboard in DASHBOARDS.items()
        for where, expr in expressions(dashboard)
        if where not in EMPTY_BY_DESIGN
    }
    with promtools.prometheus(tmp_path, json.dumps({"scrape_configs": [scrapes]})) as server:
        # A panel that has shown data needs not be asked again; the last ones wait for a task to move.
        began, missing = time.monotonic(), set(wanted)

        def all_shown() -> bool:
            missing.difference_update({where for where in missing if server.query(wanted[where])})
            return not missing or time.monotonic() - began > 120

        promtools.wait_until(all_shown, "every panel has been asked", patience=150)
        assert missing == set(), server.targets()
        _states_of_the_demo_are_shown(server)
        _task_variable_names_tasks(server)
        for dashboard in DASHBOARDS.values():
            for _, expr in expressions(dashboard):
                server.query(promql.filled(expr, {**values, "task": "none"}))
                server.query(promql.filled(expr, {**values, "job": "none"}))


def _states_of_the_demo_are_shown(server: promtools.Prometheus) -> None:
    promtools.wait_until(
        lambda: (
            {series["value"][1] for series in server.query("mobizon_task_status")} >= {"0", "1", "2", "3"}
        ),
        "a task in each of the four states",
    )


def _task_variable_names_tasks(server: promtools.Prometheus) -> None:
    """Grafana writes a series as `{a="1",b="2"} value time` and takes text and value from it."""
    variable = next(item for item in query_variables(DASHBOARDS["mobizon-tasks"]) if item["name"] == "task")
    pattern = re.compile(variable["regex"].strip("/").replace("(?<", "(?P<"))
    options = {}
    for series in server.query(promql.filled(_variable_selector(variable), ALL)):
        labels = ",".join(f'{key}="{value}"' for key, value in sorted(series["metric"].items()))
        match = pattern.search(f"{{{labels}}} 1 1700000000000")
        assert match
        options[match["value"]] = match["text"]
    ids = {series["metric"]["task_id"] for series in server.query("mobizon_task_up")}
    assert set(options) == ids
    assert all(text.split()[0] == value for value, text in options.items())
