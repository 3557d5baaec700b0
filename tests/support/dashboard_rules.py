"""What a linter of dashboards demands, and what was seen to go wrong in Grafana 9.4 and 13.

Each rule takes a dashboard and gives what is wrong with it.
"""

from __future__ import annotations

import re
from datetime import timedelta

import yaml
from grafana_foundation_sdk.models import units

from tests.support import promql
from tests.support.grafana import ALL, DIRECTORY, Json, all_panels, expressions, query_variables

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
UNITS = {value for value in vars(units).values() if isinstance(value, str)}
RATES = {"rate", "irate", "increase"}
COUNTER = re.compile(r"_(total|bucket|count|sum)$")
# An unlikely interval, to distinguish the variable from a number.
RATE_INTERVAL = timedelta(seconds=4242)
PARSED = {**ALL, "__rate_interval": "4242s", "__range": "6h", "__to": "1767268800000"}
# The file of Grafana's dashboard linter with what it is not to demand, and why.
EXCLUSIONS: Json = yaml.safe_load((DIRECTORY / ".lint").read_text("utf-8"))["exclusions"]


def excluded(rule: str, dashboard: Json, panel: str) -> bool:
    return {"dashboard": dashboard["title"], "panel": panel} in EXCLUSIONS[rule]["entries"]


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
