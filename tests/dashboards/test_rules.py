"""The dashboards keep every rule, each rule finds what breaks it, and the JSON is what the code makes."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import dashboard_rules as rules
from tests.support import promtools
from tests.support.grafana import DASHBOARDS, DIRECTORY, NAMES, Json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
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


DEFAULTS = "panels.0.fieldConfig.defaults"
SCOPED = 'job=~"$job", instance=~"$instance"'


@pytest.mark.parametrize(
    ("rule", "change"),
    [
        (rules.has_a_datasource_variable, _set("templating.list.0.label", "Source")),
        (rules.has_a_datasource_variable, _set("templating.list.0.current", {})),
        (rules.has_job_and_instance, _set("templating.list.1.allValue", ".*")),
        (rules.has_job_and_instance, _set("templating.list.2.multi", False)),
        (rules.has_job_and_instance, _set("templating.list.1.definition", "query_result(up)")),
        (rules.refreshes_variables, _set("templating.list.2.refresh", 1)),
        (rules.describes_panels, _set("panels.0.description", "")),
        (rules.describes_panels, _set("panels.0.targets", [])),
        (rules.describes_panels, _set("panels.0.targets.0.datasource.uid", "prometheus")),
        (rules.has_valid_units, _set("panels.3.fieldConfig.defaults.unit", "seconds")),
        (rules.scopes_selectors, _set("panels.0.targets.0.expr", 'up{job=~"$job"}')),
        (
            rules.rates_over_the_rate_interval,
            _set("panels.0.targets.0.expr", f"rate(a{{{SCOPED}}}[5m])"),
        ),
        (rules.rates_every_counter, _set("panels.0.targets.0.expr", f"a_total{{{SCOPED}}}")),
        (rules.is_not_editable, _set("editable", True)),
        (rules.parses, _set("panels.0.targets.0.expr", "sum(")),
        (rules.parses, _set("panels.0.targets.0.expr", 'up{job="$unknown"}')),
        (rules.identifies_uniquely, _set("panels.0.id", 2)),
        (rules.identifies_uniquely, _set("panels.0.targets.0.refId", "")),
        (rules.identifies_uniquely, _set("uid", "")),
        (rules.reduces_to_a_value, _set("panels.0.options.reduceOptions.calcs", [])),
        (
            rules.is_gray_without_knowledge,
            _set(f"{DEFAULTS}.thresholds.steps.0.color", "green"),
        ),
        (rules.links_where_every_grafana_shows_them, _set("links.0.placement", "")),
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
        for rule, found in rules.EXCLUSIONS.items()
    }
    monkeypatch.setattr(rules, "excluded", lambda *_: False)
    by_name = {
        "target-job-rule": rules.scopes_selectors,
        "target-instance-rule": rules.scopes_selectors,
        "target-rate-interval-rule": rules.rates_over_the_rate_interval,
        "panel-units-rule": rules.has_valid_units,
    }
    for rule, panels in entries.items():
        faults = {re.split("[/:]", fault)[0] for fault in by_name[rule](DASHBOARDS[name])}
        assert faults == set(panels)
