"""A Prometheus with hours of samples that were never scraped: what an exporter would have exported.

That the names and labels are the exporter's own is tested against the demo (tests/dashboards/test_demo.py).
"""

from __future__ import annotations

import contextlib
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.support import promtools
from tests.support.tools import need

if TYPE_CHECKING:
    from pathlib import Path

END: Final = 1_767_268_800.0
"""The time of the last samples: 2026-01-01 12:00 UTC."""
STEP: Final = 30.0
FINAL: Final = (2, 3)
STATES: Final = {0: "waiting", 1: "in_progress", 2: "completed", 3: "rejected"}

Reading = tuple[float, int]
Labels = tuple[tuple[str, str], ...]
History = Callable[[float], Reading | str | None]
"""A task so many seconds before the end: progress and status, the reason of a failure, or not read."""


def always(progress: float, status: int) -> History:
    return lambda _: (progress, status)


def moving(progress: float, per_minute: float) -> History:
    """In progress, and at that progress in the end; waiting and completed where that is beyond the ends."""

    def history(before: float) -> Reading:
        at = int(progress - per_minute * before / 60)
        return (0, 0) if at < 0 else (100, 2) if at >= 100 else (at, 1)

    return history


def failing(reason: str) -> History:
    return lambda _: reason


def then(first: History, before: float, second: History) -> History:
    """The second from so many seconds before the end on."""
    return lambda now: first(now) if now > before else second(now)


@dataclass(frozen=True)
class Task:
    id: int
    history: History
    name: str = ""
    listed_until: float = 0.0
    """So many seconds before the end."""


@dataclass(frozen=True)
class Account:
    tasks: list[Task]
    name: str = ""
    up: float | None = 1.0
    requests: float = 1.0
    """A second."""


@dataclass(frozen=True)
class Exporter:
    """An exporter, watched for `watched` seconds until the end, and gone for the last `gone` of them."""

    job: str
    accounts: list[Account]
    watched: float = 3600.0
    gone: float = 0.0
    settings: dict[str, float] = field(default_factory=dict)


class Samples:
    """Collects samples by metric, for samples of one metric have to stand together."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, name: str, labels: dict[str, str], time: float, value: float) -> None:
        inside = ",".join(f'{key}="{value}"' for key, value in labels.items() if value)
        self._lines[name].append(f"{name}{{{inside}}} {value} {time}\n")

    def write(self, path: Path) -> None:
        """As OpenMetrics, all as gauges: Prometheus keeps no types."""
        with path.open("w", encoding="utf-8") as file:
            for name, lines in self._lines.items():
                file.write(f"# TYPE {name} gauge\n")
                file.writelines(lines)
            file.write("# EOF\n")


def record(samples: Samples, exporter: Exporter) -> None:
    """Every sample of the exporter's life."""
    target = {"job": exporter.job, "instance": f"{exporter.job}:10117"}
    times = [END - before for before in _steps(exporter.watched)]
    for time in times:
        gone = END - time < exporter.gone
        samples.add("up", target, time, 0 if gone else 1)
        if not gone:
            settings = {
                "config_last_reload_successful": 1.0,
                "config_last_reload_success_timestamp_seconds": END - exporter.watched,
                "task_file_errors": 0.0,
                **exporter.settings,
            }
            samples.add("mobizon_exporter_build_info", {**target, "version": "1", "revision": "a"}, time, 1)
            samples.add("process_start_time_seconds", target, time, END - exporter.watched)
            for name, value in settings.items():
                samples.add(f"mobizon_exporter_{name}", target, time, value)
    for account in exporter.accounts:
        labels = {**target, "account": account.name}
        alive = [time for time in times if END - time >= exporter.gone]
        states = [_record_task(samples, labels, task, alive) for task in account.tasks]
        for at, time in enumerate(alive):
            _record_account(samples, labels, account, time, [of_task[at] for of_task in states])


def _steps(watched: float) -> Iterator[float]:
    before = watched
    while before >= 0:
        yield before
        before -= STEP


def _record_task(samples: Samples, labels: dict[str, str], task: Task, times: Iterable[float]) -> list[str]:
    """The series of a task; gives its state at each time."""
    own = {**labels, "task_id": str(task.id), "name": task.name}
    reading: Reading | None = None
    read = changed = 0.0
    states = []
    for time in times:
        if END - time < task.listed_until:
            states.append("")
            continue
        now = task.history(END - time)
        if isinstance(now, tuple):
            if now != reading:
                changed = time - 5
            if not (reading and reading[1] in FINAL):
                read = time - 5
            reading = now
        elif now == "not_found":
            reading = None
        if isinstance(now, str):
            samples.add("mobizon_task_error", {**own, "reason": now}, time, 1)
        if now is not None or reading:
            samples.add("mobizon_task_up", own, time, 0 if isinstance(now, str) else 1)
        if reading:
            samples.add("mobizon_task_progress", own, time, reading[0])
            samples.add("mobizon_task_status", own, time, reading[1])
            samples.add("mobizon_task_last_success_timestamp_seconds", own, time, read)
            samples.add("mobizon_task_last_change_timestamp_seconds", own, time, changed)
        states.append(STATES[reading[1]] if reading else "not_found" if now == "not_found" else "unknown")
    return states


def _record_account(
    samples: Samples, labels: dict[str, str], account: Account, time: float, states: Iterable[str]
) -> None:
    counted = dict.fromkeys([*STATES.values(), "not_found", "unknown"], 0)
    for state in filter(None, states):
        counted[state] += 1
    for state, tasks in counted.items():
        samples.add("mobizon_tasks", {**labels, "status": state}, time, tasks)
    active = sum(counted.values()) - counted["completed"] - counted["rejected"]
    if account.up is not None and active:
        samples.add("mobizon_up", labels, time, account.up)
    sent = account.requests * (time - END + 86_400) if active else 0
    failed = {"timeout": 0.0, "connection_error": sent if account.up == 0 else 0.0}
    samples.add("mobizon_api_requests_total", labels, time, sent)
    for reason, number in failed.items():
        samples.add("mobizon_api_request_failures_total", {**labels, "reason": reason}, time, number)
    for bound, share in (("0.1", 0.5), ("1", 1.0), ("+Inf", 1.0)):
        samples.add(
            "mobizon_api_request_duration_seconds_bucket", {**labels, "le": bound}, time, share * sent
        )
    samples.add("mobizon_api_request_interval_seconds", labels, time, 1)
    samples.add("mobizon_tasks_due", labels, time, 0)
    for status in ("completed", "rejected"):
        own = {**labels, "status": status}
        samples.add("mobizon_tasks_finished_total", own, time, counted[status])
        for bound in ("600", "3600", "+Inf"):
            within = 0 if bound == "600" else counted[status]
            samples.add("mobizon_task_duration_seconds_bucket", {**own, "le": bound}, time, within)


@contextlib.contextmanager
def prometheus(directory: Path, samples: Samples) -> Iterator[promtools.Prometheus]:
    """A Prometheus that has these samples, and scrapes nothing."""
    text = directory / "samples.txt"
    samples.write(text)
    create = [
        need("promtool"),
        "tsdb",
        "create-blocks-from",
        "openmetrics",
        str(text),
        str(directory / "data"),
    ]
    subprocess.run(create, check=True, capture_output=True)
    forever = "--storage.tsdb.retention.time=100y"
    with promtools.prometheus(directory, '{"scrape_configs": []}', forever) as server:
        yield server
