"""The alert rules: valid, tested, documented, and from a rejection to its page with the real servers."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import requests
import yaml

from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread, growing, rejected
from tests.support import promql, promtools
from tests.support.promtools import ROOT
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RULES = ROOT / "alerts" / "mobizon.rules.yaml"
TESTS = sorted((ROOT / "alerts" / "tests").glob("*.yaml"))
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


def test_the_head_of_the_rules_states_each_threshold() -> None:
    head = RULES.read_text("utf-8").partition("groups:")[0]
    for name in WANTED:
        assert name.removeprefix("Mobizon") in head


def test_a_recorded_series_is_needed_by_an_alert() -> None:
    for record in RECORDED:
        assert any(record in rule["expr"] for rule in ALERTS.values())


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
    for part in ("Meaning", "Impact", "Diagnosis", "Mitigation"):
        assert f"**{part}.**" in section


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^## (.*)$", RUNBOOKS.read_text("utf-8"), re.MULTILINE)) == WANTED


@pytest.mark.prometheus
def test_promtool_accepts_the_rules() -> None:
    passes(need("promtool"), "check", "rules", "--lint=all", "--lint-fatal", str(RULES))


@pytest.mark.prometheus
@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_the_unit_tests_of_the_rules_pass(path: Path) -> None:
    passes(need("promtool"), "test", "rules", str(path))


@pytest.mark.prometheus
def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path)
    shutil.copy(PROMETHEUS, tmp_path)
    passes(need("promtool"), "check", "config", "prometheus.yaml", cwd=tmp_path)


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
    named = set(re.findall(r"`(mobizon_\w+)`", RUNBOOKS.read_text("utf-8")))
    assert named
    assert named <= set(exported)


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
    rules = RULES.read_text("utf-8").replace("[15m]", f"[{MEMORY}s]")
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
    """Put in place at once, as whoever writes task files should."""
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
