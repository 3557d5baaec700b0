"""What the dashboards query is what the demo exports, and each panel shows something of it."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.support import promql, promtools
from tests.support.dashboard_rules import PARSED
from tests.support.grafana import ALL, DASHBOARDS, Json, expressions, query_variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What Prometheus adds, and what a list of one account, or of unnamed tasks, does not have.
LABELS_OF_ELSEWHERE = {"job", "instance", "account", "name"}
# Prometheus's own.
METRICS_OF_ELSEWHERE = {"up", "ALERTS", "ALERTS_FOR_STATE"}
LABELS_OF_ALERTS = {"alertname", "alertstate", "severity"}


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

        promtools.wait_until(all_shown, "every panel has been asked", patience=150, every=1)
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
