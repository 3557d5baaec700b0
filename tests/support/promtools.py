"""Real servers for tests, on loopback: the exporter, Prometheus and Alertmanager."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.support.processes import ExporterProcess
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
# Generous, since the machine may be busy; a wait ends at once when it comes true.
PATIENCE = 60.0


def wait_until(
    condition: Callable[[], object], what: str, patience: float = PATIENCE, every: float = 0.1
) -> None:
    """Asks every so many seconds until the condition is true; AssertionError if it does not become so."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"not within {patience:.0f} s: {what}"
        time.sleep(every)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
            # Whatever went wrong before, this is the first thing to know.
            assert process.poll() is None, f"{command[0]} ended by itself: {log.read_text()}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def exporter(*arguments: str, port: int = 0) -> Iterator[str]:
    """Runs the exporter, and yields its URL; ends it as a service manager does."""
    with ExporterProcess(*arguments, port=port) as process:
        yield process.url
        process.stop()


def exported(demo: str) -> dict[str, set[str]]:
    """The samples that the demo exports once it has read a task and failed to find one, with their labels."""
    found: dict[str, set[str]] = {}

    def complete() -> bool:
        soon = {"X-Prometheus-Scrape-Timeout-Seconds": "1"}
        text = requests.get(f"{demo}/metrics", headers=soon, timeout=30).text
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return {"mobizon_task_error", "mobizon_task_progress"} <= set(found)

    wait_until(complete, "the demo shows a reading and an error")
    return found


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expr: str, at: float | None = None) -> list[dict[str, Any]]:
        """The series of an instant query, at Unix time `at` or now; AssertionError if it is refused."""
        return self._result("query", {"query": expr} if at is None else {"query": expr, "time": at})

    def query_range(self, expr: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of a query over a range; AssertionError if it is refused."""
        return self._result("query_range", {"query": expr, "start": start, "end": end, "step": step})

    def _result(self, path: str, data: dict[str, Any]) -> list[dict[str, Any]]:
        answer = requests.post(f"{self.url}/api/v1/{path}", data=data, timeout=30).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result

    def cpu_seconds(self) -> float:
        """What it has used of the processor."""
        found = re.search(r"^process_cpu_seconds_total (\S+)$", self._metrics(), re.MULTILINE)
        assert found
        return float(found[1])

    def targets(self) -> list[tuple[str, str]]:
        """The health of each target, and the error of its last scrape."""
        answer = requests.get(f"{self.url}/api/v1/targets", timeout=30).json()
        return [(target["health"], target["lastError"]) for target in answer["data"]["activeTargets"]]

    def firing(self) -> list[dict[str, str]]:
        """The labels of the alerts that are firing."""
        return [series["metric"] for series in self.query('ALERTS{alertstate="firing"}')]

    def evaluations(self) -> float:
        """How many times rules have been evaluated since the start."""
        iterations = r"^prometheus_rule_group_iterations_total\{.*\} (\S+)$"
        found = re.search(iterations, self._metrics(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def _metrics(self) -> str:
        return requests.get(f"{self.url}/metrics", timeout=30).text


@contextlib.contextmanager
def prometheus(directory: Path, configuration: str, *arguments: str) -> Iterator[Prometheus]:
    """Runs Prometheus on this configuration; its data stay in the directory for a next time."""
    config = directory / "prometheus.yaml"
    config.write_text(configuration, encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        need("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        *arguments,
    ]
    with _running(command, directory / "prometheus.log") as process:
        wait_until(
            lambda: _answers(process, f"{url}/-/ready", directory / "prometheus.log"), "Prometheus is up"
        )
        yield Prometheus(url)


@contextlib.contextmanager
def alertmanager(directory: Path, configuration: str) -> Iterator[str]:
    """Runs Alertmanager on this configuration and yields its URL."""
    config = directory / "alertmanager.yaml"
    config.write_text(configuration, encoding="utf-8")
    url = f"http://127.0.0.1:{free_port()}"
    command = [
        need("alertmanager"),
        f"--config.file={config}",
        f"--storage.path={directory / 'alertmanager'}",
        f"--web.listen-address={url.removeprefix('http://')}",
        "--cluster.listen-address=",
    ]
    with _running(command, directory / "alertmanager.log") as process:
        wait_until(
            lambda: _answers(process, f"{url}/-/ready", directory / "alertmanager.log"), "Alertmanager is up"
        )
        yield url


def _answers(process: subprocess.Popen[bytes], url: str, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with contextlib.suppress(requests.ConnectionError):
        return bool(requests.get(url, timeout=5).ok)
    return False
