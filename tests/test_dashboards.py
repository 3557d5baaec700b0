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
import yaml
from grafana_foundation_sdk.models import units

from tests.support import promql, promtools
from tests.support.grafana import ALL, DASHBOARDS, DIRECTORY, NAMES, Json, all_panels, expressions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {value for value in vars(units).values() if isinstance(value, str)}
RATES = {"rate", "irate", "increase"}
COUNTER = re.compile(r"_(total|bucket|count|sum)$")
# An interval that nobody would write, to tell the variable from a number.
RATE_INTERVAL = timedelta(seconds=4242)
PARSED = {**ALL, "__rate_interval": "4242s", "__range": "6h", "__to": "1767268800000"}
# What Prometheus adds, and what a list of one account, or of unnamed tasks, does not have.
LABELS_OF_ELSEWHERE = {"job", "instance", "account", "name"}
# Prometheus's own.
METRICS_OF_ELSEWHERE = {"up", "ALERTS", "ALERTS_FOR_STATE"}
LABELS_OF_ALERTS = {"alertname", "alertstate", "severity"}
# The file of Grafana's dashboard linter with what it is not to demand, and why.
EXCLUSIONS: Json = yaml.safe_load((DIRECTORY / ".lint").read_text("utf-8"))["exclusions"]


def excluded(rule: str, dashboard: Json, panel: str) -> bool:
    return {"dashboard": dashboard["title"], "panel": panel} in EXCLUSIONS[rule]["entries"]


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
    # Without a value of its own Grafana 13 cannot convert the dashboard to its present schema.
    return [] if right and first["current"].get("value") else ["the first variable is no data source"]


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
            faults += [f"{panel['title']}: {unit}" for unit in used if unit not in UNITS | {None}]
        if not (defaults.get("unit") or defaults.get("mappings")):
            faults.append(f"{panel['title']}: no unit")
    return [fault for fault in faults if not excluded("panel-units-rule", dashboard, fault.split(":")[0])]


def scopes_selectors(dashboard: Json) -> list[str]:
    wanted = {'job=~"$job"', 'instance=~"$instance"'}
    # The parser takes a dollar for any other character of a string, but not in a duration.
    ranges = {**PARSED, **{name: f"${name}" for name in ALL}}
    return [
        f"{where}: {selector.metric}"
        for where, expr in expressions(dashboard)
        if not excluded("target-job-rule", dashboard, where.rpartition("/")[0])
        for selector in promql.selectors(promql.filled(expr, ranges))
        if not wanted <= set(selector.matchers)
    ]


def rates_over_the_rate_interval(dashboard: Json) -> list[str]:
    return [
        f"{where}: {selector.metric}"
        for where, expr in expressions(dashboard)
        if not excluded("target-rate-interval-rule", dashboard, where.rpartition("/")[0])
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
        if panel["type"] == "stat"
        and not (
            panel["options"]["reduceOptions"]["calcs"] == ["lastNotNull"]
            and panel["fieldConfig"]["defaults"].get("noValue")
        )
    ]


def is_gray_without_knowledge(dashboard: Json) -> list[str]:
    """The first step of thresholds is what no value is shown in."""
    faults = []
    for panel in all_panels(dashboard):
        if panel["type"] not in {"stat", "table"}:
            continue
        properties = [prop for over in panel["fieldConfig"]["overrides"] for prop in over["properties"]]
        used = [prop["value"] for prop in properties if prop["id"] == "thresholds"]
        for thresholds in (panel["fieldConfig"]["defaults"]["thresholds"], *used):
            first = thresholds["steps"][0]
            if first["value"] is not None or first["color"] not in {"gray", "transparent", "text"}:
                faults.append(panel["title"])
    return faults


def links_where_every_grafana_shows_them(dashboard: Json) -> list[str]:
    """Grafana 13 leaves out a link with an empty `placement`, and with the SDK's default makes a menu."""
    placed = (*dashboard["links"], *dashboard["annotations"]["list"])
    return [item.get("title", item.get("name")) for item in placed if "placement" in item]


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
    is_gray_without_knowledge,
    links_where_every_grafana_shows_them,
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
        (has_a_datasource_variable, _set("templating.list.0.current", {})),
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
        (is_gray_without_knowledge, _set("panels.0.fieldConfig.defaults.thresholds.steps.0.color", "green")),
        (links_where_every_grafana_shows_them, _set("links.0.placement", "")),
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


@pytest.mark.parametrize("name", NAMES)
def test_every_exclusion_is_needed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {
        rule: [
            entry["panel"] for entry in found["entries"] if entry["dashboard"] == DASHBOARDS[name]["title"]
        ]
        for rule, found in EXCLUSIONS.items()
    }
    monkeypatch.setattr(sys.modules[__name__], "excluded", lambda *_: False)
    rules = {
        "target-job-rule": scopes_selectors,
        "target-instance-rule": scopes_selectors,
        "target-rate-interval-rule": rates_over_the_rate_interval,
        "panel-units-rule": has_valid_units,
    }
    for rule, panels in entries.items():
        faults = {re.split("[/:]", fault)[0] for fault in rules[rule](DASHBOARDS[name])}
        assert faults == set(panels)


def test_uids_are_stable_and_the_dashboards_link_to_each_other() -> None:
    assert [DASHBOARDS[name]["uid"] for name in NAMES] == list(NAMES)
    others = {
        "mobizon-tasks": ["mobizon-exporter", "mobizon-phone"],
        "mobizon-phone": ["mobizon-tasks"],
        "mobizon-exporter": ["mobizon-tasks"],
    }
    for name in NAMES:
        links = DASHBOARDS[name]["links"]
        assert [link["url"] for link in links] == [f"/d/{other}" for other in others[name]]
        assert all(link["includeVars"] and link["keepTime"] for link in links)


def test_the_links_of_a_task_keep_what_is_chosen() -> None:
    links = [
        link["url"]
        for name in ("mobizon-tasks", "mobizon-phone")
        for panel in all_panels(DASHBOARDS[name])
        for override in panel["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
        for link in prop["value"]
    ]
    assert len(links) == 4
    for link in links:
        assert {"job", "instance", "account", "task", "datasource"} == {
            *re.findall(r"\$\{(\w+):queryparam\}", link),
            *re.findall(r"var-(\w+)=", link),
        }


def test_the_account_is_shown_and_its_absence_matches() -> None:
    for dashboard in DASHBOARDS.values():
        account = next(item for item in query_variables(dashboard) if item["name"] == "account")
        assert (account.get("hide", 0), account["allValue"]) == (0, ".*")


# A screen of 1600 by 900 pixels less Grafana's bars, of which 13 has the higher ones, with a menu docked: a
# unit of the grid is 30 pixels high, and 8 lie between two.
SCREEN_HEIGHT = (900 - 140) // 38
ROW_HEIGHT, TABLE_HEAD, PANEL_HEAD = 36, 36, 40


def test_the_first_screen_answers_what_counts() -> None:
    top = DASHBOARDS["mobizon-tasks"]["panels"]
    assert [panel["title"] for panel in top[:6]] == [
        "Rejected",
        "Stalled",
        "Failing",
        "In progress",
        "Waiting",
        "Finished",
    ]
    assert {panel["gridPos"]["w"] for panel in top[:6]} == {4}
    table = top[6]
    place = table["gridPos"]
    assert (table["title"], place["w"], place["y"]) == ("Tasks", 24, top[0]["gridPos"]["h"])
    assert place["y"] + place["h"] <= SCREEN_HEIGHT
    assert place["h"] * 38 - 8 >= PANEL_HEAD + TABLE_HEAD + 15 * ROW_HEIGHT
    exporter = {panel["title"]: panel["gridPos"] for panel in DASHBOARDS["mobizon-exporter"]["panels"]}
    first = ("Exporter", "Accounts not served", "Configuration", "Accounts", "Requests by outcome")
    assert all(exporter[title]["y"] + exporter[title]["h"] <= SCREEN_HEIGHT for title in first)


def test_a_phone_shows_three_numbers_and_then_the_table() -> None:
    # It puts all panels one below the other, in the order of their places.
    panels = DASHBOARDS["mobizon-phone"]["panels"]
    placed = sorted(panels, key=lambda panel: (panel["gridPos"]["y"], panel["gridPos"]["x"]))
    assert [panel["title"] for panel in placed] == ["Rejected", "Stalled", "Failing", "Tasks"]


def test_the_order_of_the_table_is_that_of_a_column_nobody_sees() -> None:
    for name in ("mobizon-tasks", "mobizon-phone"):
        table = next(panel for panel in all_panels(DASHBOARDS[name]) if panel["title"] == "Tasks")
        merge, sort, organize = table["transformations"]
        assert [merge["id"], sort["id"], organize["id"]] == ["merge", "sortBy", "organize"]
        assert sort["options"]["sort"] == [{"field": "Value #F", "desc": True}]
        assert organize["options"]["excludeByName"]["Value #F"]
        assert not table["options"].get("sortBy")


def test_what_every_task_has_a_line_of_is_drawn_so_that_it_can_be_read() -> None:
    panels = {panel["title"]: panel for panel in all_panels(DASHBOARDS["mobizon-tasks"])}
    timeline = panels["Status over time"]
    assert timeline["fieldConfig"]["defaults"]["color"]["mode"] == "fixed"
    assert (timeline["options"]["perPage"], timeline["options"]["legend"]["showLegend"]) == (12, True)
    stacked = [
        panel["fieldConfig"]["defaults"]["custom"]
        for dashboard in DASHBOARDS.values()
        for panel in all_panels(dashboard)
        if panel["fieldConfig"]["defaults"].get("custom", {}).get("stacking", {}).get("mode") == "normal"
    ]
    assert stacked
    # Without a line a series of zeros does not frame the others, and an idle axis ends somewhere.
    assert all(custom["lineWidth"] == 0 and custom["axisSoftMax"] > 0 for custom in stacked)


def test_annotations_are_off_until_somebody_turns_them_on() -> None:
    found = DASHBOARDS["mobizon-tasks"]["annotations"]["list"]
    assert [(item["name"], item["enable"]) for item in found] == [
        ("Firing alerts", False),
        ("Restarts of the exporter", False),
    ]
    for item in found:
        assert promql.selectors(promql.filled(item["expr"], PARSED))
        assert item["datasource"] == DATASOURCE


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
        labels_of_all = LABELS_OF_ELSEWHERE.union(LABELS_OF_ALERTS, *exported.values())
        queries = [(item["name"], _variable_selector(item)) for item in query_variables(dashboard)]
        for where, expr in [*expressions(dashboard), *queries]:
            parsed = promql.filled(expr, PARSED)
            for selector in promql.selectors(parsed):
                if selector.metric in METRICS_OF_ELSEWHERE:
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


# Queries that return nothing from the demo within two minutes, and why.
EMPTY_BY_DESIGN = {
    **dict.fromkeys(
        ("No longer listed/A", "No longer listed/B", "No longer listed/C"),
        "nothing leaves the list of the demo",
    ),
    "Tasks/C": "it takes minutes to tell when a task will be ready; tests/dashboards/ has hours",
    "Firing alerts/A": "no rules are loaded",
    "Failures by reason/A": "a rate over a few scrapes may miss the few failures",
    "Requests by outcome/B": "likewise",
}


@pytest.mark.prometheus
@pytest.mark.slow
def test_every_panel_shows_data_of_the_demo_and_none_fails_without_tasks(demo: str, tmp_path: Path) -> None:
    scrapes = {
        "job_name": "mobizon",
        "scrape_interval": "2s",
        "scrape_timeout": "2s",
        "static_configs": [{"targets": [demo.removeprefix("http://")]}],
    }
    values = {**ALL, "__rate_interval": "30s", "__range": "10m", "__to": str(int(time.time() * 1000))}
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
