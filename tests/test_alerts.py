"""The alert rules: valid, tested, documented, and from a rejection to its page with the real servers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from alerts import __main__ as alerts
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread, growing, rejected
from tests.support import promql, promtools
from tests.support.promtools import ROOT
from tests.support.tools import need, need_any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = ROOT / "alerts" / "mobizon.rules.yaml"
TESTS = sorted((ROOT / "alerts" / "tests").glob("*.yaml"))
MONITORING = ROOT / "deploy" / "kubernetes" / "monitoring"
RUNBOOKS = ROOT / "docs" / "runbooks.md"
PROMETHEUS = ROOT / "deploy" / "prometheus" / "prometheus.yaml"
ALERTMANAGER = ROOT / "deploy" / "alertmanager" / "alertmanager.yaml"

ALL_RULES: list[dict[str, Any]] = [
    rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in ALL_RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in ALL_RULES if "record" in rule}
WANTED = {
    "MobizonTaskRejected",
    "MobizonTaskStalled",
    "MobizonTaskWaitingTooLong",
    "MobizonTaskNotFound",
    "MobizonTaskDataStale",
    "MobizonTaskFileInvalid",
    "MobizonApiDown",
    "MobizonApiUnauthorized",
    "MobizonApiRateLimited",
    "MobizonRefreshTooSlow",
    "MobizonExporterDown",
    "MobizonExporterAbsent",
    "MobizonConfigReloadFailed",
}
# What Prometheus and Kubernetes add, and what one account, or unnamed tasks, do not have.
LABELS_OF_ELSEWHERE = {"job", "instance", "pod", "account", "name"}


VALUES: dict[str, Any] = yaml.safe_load((ROOT / "alerts" / "values.yaml").read_text("utf-8"))


@functools.cache
def unit_tests() -> list[dict[str, Any]]:
    groups = [yaml.safe_load(path.read_text("utf-8"))["tests"] for path in TESTS]
    return [test for group in groups for test in group]


def passes(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_alert_is_there() -> None:
    assert set(ALERTS) == WANTED


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_alert_is_complete(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"] == {"severity": VALUES["alerts"][name]["severity"]}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    annotations = rule["annotations"]
    assert set(annotations) == {"summary", "description", "runbook_url", "dashboard_url"}
    assert annotations["runbook_url"].endswith(f"/docs/runbooks.md#{name.lower()}")
    board = "mobizon-tasks?var-task={{ $labels.task_id }}" if _concerns_a_task(name) else "mobizon-exporter?"
    assert f"/d/{board}" in annotations["dashboard_url"]
    if _concerns_a_task(name):
        for label in ("task_id", "name", "account"):
            assert f"$labels.{label}" in annotations["summary"]
        assert "$labels.task_id" in annotations["description"]


def _concerns_a_task(name: str) -> bool:
    return name.startswith("MobizonTask") and name != "MobizonTaskFileInvalid"


def test_an_alert_waits_briefly_or_so_long_that_prometheus_restores_the_wait() -> None:
    waits = {name: rule.get("for", "0m") for name, rule in ALERTS.items()}
    assert {name: wait for name, wait in waits.items() if 2 < int(wait.removesuffix("m")) < 10} == {}


def test_a_recorded_series_is_needed_by_an_alert() -> None:
    for record in RECORDED:
        assert any(record in rule["expr"] for rule in ALERTS.values())


# Made from a template and values.


def made(folder: Path, changes: str = "") -> tuple[int, str]:
    """The exit status of `python -m alerts`, and what it says is wrong."""
    (folder / "mine.yaml").write_text(changes, encoding="utf-8")
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        status = alerts.main(["--values", str(folder / "mine.yaml"), "--output", str(folder / "rules")])
    return status, errors.getvalue()


def changed(folder: Path, changes: str) -> dict[str, dict[str, Any]]:
    """The alerts by name that are made with these changes."""
    assert made(folder, changes) == (0, "")
    (group,) = yaml.safe_load((folder / "rules" / RULES.name).read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for rule in group["rules"] if "alert" in rule}


@pytest.mark.parametrize("path", [RULES, MONITORING / "prometheusrule.yaml"], ids=lambda path: path.name)
def test_what_is_committed_is_what_make_alerts_makes(path: Path, tmp_path: Path) -> None:
    passes(sys.executable, "-m", "alerts", "--output", str(tmp_path))
    fresh = (tmp_path / path.name).read_text("utf-8")
    assert path.read_text("utf-8") == fresh, "run `make alerts`"


def test_addresses_are_changed_in_one_place(tmp_path: Path) -> None:
    changes = (
        "addresses: {runbooks: 'https://wiki.example.org/mobizon', grafana: 'https://grafana.example.org'}"
    )
    for name, rule in changed(tmp_path, changes).items():
        assert rule["annotations"]["runbook_url"] == f"https://wiki.example.org/mobizon#{name.lower()}"
        assert rule["annotations"]["dashboard_url"].startswith("https://grafana.example.org/d/mobizon-")
    text = (tmp_path / "rules" / RULES.name).read_text("utf-8")
    assert not any(address in text for address in VALUES["addresses"].values())


def test_severities_and_labels_are_those_of_the_values(tmp_path: Path) -> None:
    changes = """
    labels: {team: messaging, tier: "2"}
    alerts:
      MobizonTaskStalled: {severity: critical}
      MobizonApiDown: {labels: {team: platform, 'say "so"': "{{ $labels.job }}: yes"}}
    """
    rules = changed(tmp_path, changes)
    assert rules["MobizonTaskStalled"]["labels"] == {"severity": "critical", "team": "messaging", "tier": "2"}
    assert rules["MobizonTaskRejected"]["labels"] == {
        "severity": "critical",
        "team": "messaging",
        "tier": "2",
    }
    assert rules["MobizonApiDown"]["labels"] == {
        "severity": "critical",
        "team": "platform",
        "tier": "2",
        'say "so"': "{{ $labels.job }}: yes",
    }


def test_the_example_at_the_head_of_the_values_is_valid(tmp_path: Path) -> None:
    head = (ROOT / "alerts" / "values.yaml").read_text("utf-8").partition("# for example\n")[2]
    example = "".join(
        line.removeprefix("#   ") for line in itertools.takewhile(str.strip, head.splitlines(True))
    )
    rules = changed(tmp_path, example)
    assert "for 1 hour" in rules["MobizonTaskStalled"]["annotations"]["summary"]
    assert rules["MobizonApiRateLimited"]["labels"]["team"] == "platform"


THRESHOLDS = """
job: sms
memory: 20m
alerts:
  MobizonTaskStalled: {window: 1h}
  MobizonTaskWaitingTooLong: {window: 1h30m}
  MobizonTaskNotFound: {for: 30m}
  MobizonTaskDataStale: {age: 10m, for: 20m}
  MobizonApiDown: {window: 10m}
  MobizonApiUnauthorized: {for: 10m}
  MobizonApiRateLimited: {percent: 7.5, for: 20m}
  MobizonRefreshTooSlow: {refresh: 20m, for: 20m}
  MobizonExporterDown: {window: 10m}
  MobizonExporterAbsent: {window: 20m}
  MobizonConfigReloadFailed: {for: 1h}
  MobizonTaskFileInvalid: {for: 1h}
"""


@pytest.mark.prometheus
def test_changed_thresholds_move_every_alert(tmp_path: Path) -> None:
    """The tests of tests/changed_alerts.yaml are about just these."""
    assert set(yaml.safe_load(THRESHOLDS)["alerts"]) == WANTED - {"MobizonTaskRejected"}
    rules = changed(tmp_path, THRESHOLDS)
    assert "for 1 hour 30 minutes" in rules["MobizonTaskWaitingTooLong"]["annotations"]["summary"]
    cases = yaml.safe_load((ROOT / "tests" / "changed_alerts.yaml").read_text("utf-8"))
    assert {test["name"] for test in cases["tests"]} == WANTED - {"MobizonTaskRejected"}
    shutil.copy(ROOT / "tests" / "changed_alerts.yaml", tmp_path / "rules")
    for promtool in need_any("promtool", "promtool-3"):
        passes(promtool, "check", "rules", "--lint=all", "--lint-fatal", str(tmp_path / "rules" / RULES.name))
        passes(promtool, "test", "rules", str(tmp_path / "rules" / "changed_alerts.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("severity: page", "severity: unknown, expected one of addresses, job, labels, memory, alerts"),
        ("alerts: {MobizonTaskLost: {}}", "alerts.MobizonTaskLost: unknown, expected one of MobizonTask"),
        ("alerts: {MobizonApiDown: {for: 1m}}", "alerts.MobizonApiDown.for: unknown, expected one of "),
        ("alerts: {MobizonApiDown: 5m}", "alerts.MobizonApiDown: expected a mapping, got '5m'"),
        ("alerts: {MobizonApiDown: {window: 5}}", "MobizonApiDown.window: expected text, got 5"),
        ("alerts: {MobizonApiDown: {window: 5 min}}", "MobizonApiDown.window: expected a duration such as"),
        ("alerts: {MobizonApiDown: {severity: null}}", "MobizonApiDown.severity: expected text, got None"),
        ("alerts: {MobizonApiRateLimited: {percent: x}}", "RateLimited.percent: expected a number, got 'x'"),
        ("alerts: {MobizonTaskNotFound: {for: 5m}}", "MobizonTaskNotFound.for: expected at most 2m, or at"),
        ("labels: {team: 7}", "labels.team: expected text, got 7"),
        ("memory: 0m", "memory: expected a duration such as 30m or 1h30m, got '0m'"),
        ("- a list", "values: expected a mapping, got ['a list']"),
        ("a: [", "mine.yaml: while parsing"),
    ],
)
def test_values_that_make_no_rules_are_refused_with_a_reason(
    changes: str, message: str, tmp_path: Path
) -> None:
    status, errors = made(tmp_path, changes)
    assert status == 1
    assert message in errors
    assert not (tmp_path / "rules").exists()


def test_values_that_are_not_there_are_said_to_be_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert alerts.main(["--values", "nowhere.yaml"]) == 1
    assert "nowhere.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_alert_has_a_test_that_fires_it_and_one_that_keeps_it_quiet(name: str) -> None:
    cases = [
        case for test in unit_tests() for case in test.get("alert_rule_test", ()) if case["alertname"] == name
    ]
    counted = [
        case["expr"]
        for test in unit_tests()
        for case in test.get("promql_expr_test", ())
        if name in case["expr"]
    ]
    assert any(case["exp_alerts"] for case in cases)
    assert any(not case["exp_alerts"] for case in cases) or counted


@pytest.mark.parametrize("name", sorted(WANTED))
def test_an_alert_has_a_runbook(name: str) -> None:
    sections = RUNBOOKS.read_text("utf-8").split("\n## ")
    section = next(text for text in sections if text.startswith(f"{name}\n"))
    _, meaning, check, fix = section.strip().split("\n\n")
    assert meaning.endswith(".")
    assert check.startswith("**Check:** ")
    assert fix.startswith("**Fix:** ")


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (.*)$", RUNBOOKS.read_text("utf-8"), re.MULTILINE)) == WANTED


# Debian's, and the one that `make tools` builds.
BOTH = pytest.mark.parametrize("tool", ["promtool", "promtool-3"])


@pytest.mark.prometheus
@BOTH
def test_promtool_accepts_the_rules(tool: str) -> None:
    passes(need(tool), "check", "rules", "--lint=all", "--lint-fatal", str(RULES))


@pytest.mark.prometheus
@BOTH
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(path: Path, tool: str) -> None:
    passes(need(tool), "test", "rules", str(path))


def test_the_rules_are_tested_with_the_prometheus_of_the_stack() -> None:
    modules = (ROOT / ".ci" / "tools" / "go.mod").read_text("utf-8")
    tested = re.search(r"^\tgithub.com/prometheus/prometheus v0\.(\d)(\d+)\.(\d+)", modules, re.MULTILINE)
    assert tested
    # The module of Prometheus 3.14.0 is v0.314.0.
    version = ".".join(str(int(part)) for part in tested.groups())
    assert f"prom/prometheus:v{version}" in (ROOT / "deploy" / "compose.yaml").read_text("utf-8")
    assert f"tested with Prometheus 2.42 and {version.rpartition('.')[0]}" in RULES.read_text("utf-8")


@pytest.mark.prometheus
@BOTH
def test_promtool_accepts_the_configuration(tool: str, tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(PROMETHEUS, tmp_path)
    passes(need(tool), "check", "config", "prometheus.yaml", cwd=tmp_path)


@pytest.mark.prometheus
def test_amtool_accepts_the_configuration() -> None:
    passes(need("amtool"), "check-config", str(ALERTMANAGER))


def test_the_scrape_job_is_called_as_the_rules_have_it() -> None:
    configuration = yaml.safe_load(PROMETHEUS.read_text("utf-8"))
    assert [scrape["job_name"] for scrape in configuration["scrape_configs"]] == ["mobizon"]
    assert configuration["rule_files"] == [RULES.name]


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (("alertname=MobizonTaskRejected", "severity=critical"), "page"),
        (("alertname=MobizonTaskStalled", "severity=warning"), "mail"),
    ],
)
def test_alerts_reach_the_receiver_of_their_severity(labels: tuple[str, ...], receiver: str) -> None:
    route = passes(need("amtool"), "config", "routes", "test", f"--config.file={ALERTMANAGER}", *labels)
    assert route.strip() == receiver


def test_inhibitions_name_alerts_that_exist_and_let_rejections_through() -> None:
    for rule in yaml.safe_load(ALERTMANAGER.read_text("utf-8"))["inhibit_rules"]:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            pattern = re.fullmatch(r'alertname =~? "?(.*?)"?', matcher)
            assert pattern
            assert any(re.fullmatch(pattern[1], name) for name in WANTED)
        assert not any("Rejected" in matcher for matcher in rule["target_matchers"])


# With the real servers.


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The samples that the demo exports, with their labels."""
    with promtools.exporter("--demo") as demo:
        return promtools.exported(demo)


def test_every_metric_and_label_of_a_rule_is_exported(exported: dict[str, set[str]]) -> None:
    known = LABELS_OF_ELSEWHERE.union(*exported.values())
    for rule in ALL_RULES:
        for selector in promql.selectors(rule["expr"]):
            if selector.metric not in RECORDED | {"up"}:
                assert selector.metric in exported
                assert selector.labels <= exported[selector.metric] | LABELS_OF_ELSEWHERE
        assert promql.grouping_labels(rule["expr"]) <= known
        for text in rule.get("annotations", {}).values():
            assert set(re.findall(r"\$labels\.(\w+)", text)) <= known


def test_every_metric_of_a_runbook_is_exported(exported: dict[str, set[str]]) -> None:
    queries = re.findall(r"`([^`]*mobizon_[^`]*)`", RUNBOOKS.read_text("utf-8"))
    assert queries
    for selector in itertools.chain.from_iterable(promql.selectors(query) for query in queries):
        assert selector.metric in exported
        assert selector.labels <= exported[selector.metric] | LABELS_OF_ELSEWHERE


class Pager:
    """A webhook receiver that keeps what Alertmanager sends it."""

    def __init__(self) -> None:
        self.pages: list[tuple[float, dict[str, Any]]] = []
        pager = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                pager.pages.append((time.monotonic(), body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing: the test tells what is wrong."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def of(self, status: str) -> list[tuple[float, dict[str, Any]]]:
        return [(at, page) for at, page in self.pages if page["status"] == status]


@pytest.fixture
def pager() -> Iterator[Pager]:
    receiver = Pager()
    thread = threading.Thread(target=receiver.server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("cause", "quiet"),
    [
        ({"alertname": "MobizonApiDown", "account": "crm"}, {"MobizonTaskDataStale", "MobizonTaskNotFound"}),
        ({"alertname": "MobizonApiDown", "account": "shop"}, set()),
        ({"alertname": "MobizonExporterDown"}, {"MobizonTaskDataStale", "MobizonTaskNotFound"}),
    ],
    ids=["api-down", "another-account's-api-down", "exporter-down"],
)
def test_task_alerts_are_quiet_while_the_exporter_or_the_api_is_down_but_for_rejections(
    cause: dict[str, str], quiet: set[str], tmp_path: Path
) -> None:
    task = {"job": "mobizon", "account": "crm", "task_id": "7"}
    names = ("MobizonTaskDataStale", "MobizonTaskNotFound", "MobizonTaskRejected")
    alerts = [{"labels": {"job": "mobizon", **cause}}, *({"labels": {**task, "alertname": n}} for n in names)]
    with promtools.alertmanager(tmp_path, hurried_alertmanager("http://127.0.0.1:9/")) as url:
        requests.post(f"{url}/api/v2/alerts", json=alerts, timeout=30).raise_for_status()

        def inhibited() -> set[str]:
            answer = requests.get(f"{url}/api/v2/alerts", timeout=30).json()
            assert len(answer) == len(alerts)
            return {alert["labels"]["alertname"] for alert in answer if alert["status"]["inhibitedBy"]}

        # The state of an alert is known once its group has been flushed.
        promtools.wait_until(lambda: _all_processed(url), "Alertmanager has looked at each")
        promtools.wait_until(lambda: inhibited() == quiet, f"just {quiet} inhibited")


def _all_processed(url: str) -> bool:
    alerts = requests.get(f"{url}/api/v2/alerts", timeout=30).json()
    return all(alert["status"]["state"] != "unprocessed" for alert in alerts)


SCRAPE_INTERVAL = EVALUATION_INTERVAL = GROUP_WAIT = 1
MEMORY = 15
# What the servers need besides, on a machine that does other things too.
SLACK = 5


def hurried_prometheus(directory: Path, target: str, alertmanager: str) -> str:
    """The shipped configuration with the shipped rules, in a hurry."""
    rules = alerts.rules(alerts.values(changes={"memory": f"{MEMORY}s"}))
    (directory / RULES.name).write_text(rules, encoding="utf-8")
    configuration = yaml.safe_load(PROMETHEUS.read_text("utf-8"))
    configuration["global"]["evaluation_interval"] = f"{EVALUATION_INTERVAL}s"
    scrape = configuration["scrape_configs"][0]
    scrape |= {"scrape_interval": f"{SCRAPE_INTERVAL}s", "scrape_timeout": f"{SCRAPE_INTERVAL}s"}
    scrape["static_configs"][0]["targets"] = [target.removeprefix("http://")]
    managers = configuration["alerting"]["alertmanagers"][0]
    managers["static_configs"][0]["targets"] = [alertmanager.removeprefix("http://")]
    return yaml.safe_dump(configuration)


def hurried_alertmanager(pager: str) -> str:
    """The shipped configuration, in a hurry."""
    configuration = yaml.safe_load(ALERTMANAGER.read_text("utf-8"))
    for route in (configuration["route"], *configuration["route"]["routes"]):
        route |= {"group_wait": f"{GROUP_WAIT}s", "group_interval": "1s"}
    for receiver in configuration["receivers"]:
        receiver["webhook_configs"][0]["url"] = pager
    return yaml.safe_dump(configuration)


def _task_file(directory: Path, *tasks: dict[str, Any]) -> None:
    """Put in place by a rename, as programs that write task files should."""
    draft = directory / "tasks.draft"
    draft.write_text(yaml.safe_dump(list(tasks)), encoding="utf-8")
    draft.replace(directory / "tasks.yaml")


@pytest.mark.prometheus
@pytest.mark.slow
def test_a_rejected_task_pages_once_by_name_and_resolves_when_it_leaves_the_list(
    tmp_path: Path, pager: Pager
) -> None:
    simulator = Simulator({7: growing(3600), 8: growing(3600)}, limit="off")
    port = promtools.free_port()
    with contextlib.ExitStack() as servers:
        servers.enter_context(SimulatorThread(simulator))
        configuration = {
            "api": {"url": simulator.url, "key": DEMO_KEY, "request_interval": "100ms"},
            "task_files": ["tasks.yaml"],
        }
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        other = {"id": 8, "name": "import"}
        _task_file(tmp_path, {"id": 7, "name": "spring-sale", "labels": {"team": "crm"}}, other)
        arguments = (f"--config.file={tmp_path / 'config.yaml'}",)
        alertmanager = servers.enter_context(
            promtools.alertmanager(tmp_path, hurried_alertmanager(pager.url))
        )
        target = f"http://127.0.0.1:{port}"
        hurried = hurried_prometheus(tmp_path, target, alertmanager)

        with promtools.prometheus(tmp_path, hurried) as server:
            with promtools.exporter(*arguments, port=port):
                _wait_for_status(server, "1")
                began = time.monotonic()
                simulator.scenarios[7] = rejected()
                promtools.wait_until(lambda: pager.of("firing"), "the page")
                _is_the_page(pager, began)
            # The exporter is gone for a moment and has forgotten all it knew.
            promtools.wait_until(lambda: not server.query("mobizon_task_status"), "a scrape is missed")
            with promtools.exporter(*arguments, port=port):
                _wait_for_status(server, "3")
        with (
            promtools.exporter(*arguments, port=port),
            promtools.prometheus(tmp_path, hurried) as server,
        ):
            evaluated = server.evaluations()
            promtools.wait_until(lambda: server.evaluations() > evaluated + 5, "Prometheus goes on")
            assert [alert["task_id"] for alert in server.firing()] == ["7"]
            assert len(pager.pages) == 1

            _task_file(tmp_path, other)
            promtools.wait_until(lambda: pager.of("resolved"), "the page resolves")
            assert len(pager.pages) == 2


def _wait_for_status(server: promtools.Prometheus, status: str) -> None:
    def seen() -> bool:
        series = server.query('mobizon_task_status{task_id="7"}')
        return [sample["value"][1] for sample in series] == [status]

    promtools.wait_until(seen, f"status {status}")


def _is_the_page(pager: Pager, began: float) -> None:
    at, page = pager.of("firing")[0]
    labels, annotations = page["commonLabels"], page["commonAnnotations"]
    assert (labels["alertname"], labels["severity"]) == ("MobizonTaskRejected", "critical")
    assert (labels["task_id"], labels["name"], labels["team"]) == ("7", "spring-sale", "crm")
    assert annotations["summary"] == "Mobizon rejected task 7 (spring-sale)"
    refresh = 2 * 0.1
    assert at - began <= SCRAPE_INTERVAL + refresh + EVALUATION_INTERVAL + GROUP_WAIT + SLACK
