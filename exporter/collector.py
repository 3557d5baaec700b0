"""What is known, as metric families: no I/O, and the names, labels and values that users are promised."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter import __version__, revision
from exporter.model import STATES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from exporter.model import AccountView, TaskView

    Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one exposition tells: `reloaded_at` in Unix seconds."""

    accounts: tuple[AccountView, ...] = ()
    reload_successful: bool = True
    reloaded_at: float = 0.0
    task_file_errors: int = 0


class SnapshotCollector(Collector):
    """Yields the families of the snapshot that was put here last."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families of the contract, section 4."""
        yield from _tasks(self.snapshot.accounts)
        yield from _accounts(self.snapshot.accounts)
        yield from _exporter(self.snapshot)


def _tasks(accounts: tuple[AccountView, ...]) -> list[Metric]:
    """Such as these.

    mobizon_task_progress{name="spring-sale",task_id="124",team="crm"} 45.0
    mobizon_task_status{name="spring-sale",task_id="124",team="crm"} 1.0
    mobizon_task_up{name="spring-sale",task_id="124",team="crm"} 0.0
    mobizon_task_error{name="spring-sale",reason="timeout",task_id="124",team="crm"} 1.0
    """
    progress = _gauge("mobizon_task_progress", "Progress of the task in percent, as Mobizon reports it.")
    status = _gauge(
        "mobizon_task_status", "Status of the task: 0 waiting, 1 in progress, 2 completed, 3 rejected."
    )
    up = _gauge("mobizon_task_up", "Whether the last request for the task was answered with a reading.")
    error = _gauge("mobizon_task_error", "Why the last request for the task has failed.")
    success = _gauge(
        "mobizon_task_last_success_timestamp_seconds", "When the task's reading was taken, in Unix time."
    )
    change = _gauge(
        "mobizon_task_last_change_timestamp_seconds",
        "When the task's progress or status last changed, in Unix time.",
    )
    for account in accounts:
        for task in account.tasks:
            labels = _labels(account, task)
            if task.reading and not task.stale:
                progress.add_sample(progress.name, labels, task.reading.progress)
                status.add_sample(status.name, labels, task.reading.status)
            if task.reading:
                success.add_sample(success.name, labels, task.reading.taken_at)
                change.add_sample(change.name, labels, task.changed_at)
            if task.reading or task.failure:
                up.add_sample(up.name, labels, 0 if task.failure else 1)
            if task.failure:
                error.add_sample(error.name, {**labels, "reason": task.failure.reason.value}, 1)
    return [progress, status, up, error, success, change]


def _accounts(accounts: tuple[AccountView, ...]) -> list[Metric]:
    """Such as these.

    mobizon_tasks{status="in_progress"} 3.0
    mobizon_up 1.0
    mobizon_api_requests_total 1234.0
    mobizon_api_request_failures_total{reason="timeout"} 2.0
    mobizon_api_request_duration_seconds_bucket{le="0.1"} 1200.0
    mobizon_api_request_interval_seconds 1.0
    mobizon_tasks_due 0.0
    """
    tasks = _gauge("mobizon_tasks", "Tasks listed, by status.")
    up = _gauge("mobizon_up", "Whether the API serves the account.")
    requests = Metric("mobizon_api_requests", "Requests sent to the API.", "counter")
    failures = Metric(
        "mobizon_api_request_failures", "Requests that brought no reading, by reason.", "counter"
    )
    duration = Metric(
        "mobizon_api_request_duration_seconds", "Seconds from a request to its answer.", "histogram"
    )
    interval = _gauge(
        "mobizon_api_request_interval_seconds", "Spacing of requests now in force, start to start."
    )
    due = _gauge("mobizon_tasks_due", "Tasks whose request has yet to be sent.")
    for account in accounts:
        labels = {"account": account.name} if account.name else {}
        counted = dict.fromkeys(STATES, 0)
        for task in account.tasks:
            counted[task.state] += 1
        for state, number in counted.items():
            tasks.add_sample(tasks.name, {**labels, "status": state}, number)
        if account.up is not None:
            up.add_sample(up.name, labels, 1 if account.up else 0)
        requests.add_sample("mobizon_api_requests_total", labels, account.requests)
        for reason, number in account.failures.items():
            failures.add_sample(
                "mobizon_api_request_failures_total", {**labels, "reason": reason.value}, number
            )
        total = 0
        for bound, number in zip((*account.durations.bounds, "+Inf"), account.durations.counts, strict=True):
            total += number
            duration.add_sample(f"{duration.name}_bucket", {**labels, "le": str(bound)}, total)
        duration.add_sample(f"{duration.name}_count", labels, total)
        duration.add_sample(f"{duration.name}_sum", labels, account.durations.seconds)
        interval.add_sample(interval.name, labels, account.spacing)
        due.add_sample(due.name, labels, account.due)
    return [tasks, up, requests, failures, duration, interval, due]


def _exporter(snapshot: Snapshot) -> list[Metric]:
    """Such as these.

    mobizon_exporter_build_info{python_version="3.11.7",revision="abc1234",version="0.1.0"} 1.0
    mobizon_exporter_config_last_reload_successful 1.0
    mobizon_exporter_config_last_reload_success_timestamp_seconds 1.7638e+09
    mobizon_exporter_task_file_errors 0.0
    """
    build = {
        "version": __version__,
        "revision": revision(),
        "python_version": platform.python_version(),
    }
    rows: list[tuple[str, str, Labels, float]] = [
        ("build_info", "What this exporter was built from; always 1.", build, 1),
        (
            "config_last_reload_successful",
            "Whether the configuration on disk is valid and in force.",
            {},
            1 if snapshot.reload_successful else 0,
        ),
        (
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in Unix time.",
            {},
            snapshot.reloaded_at,
        ),
        (
            "task_file_errors",
            "Task files whose present content is not, or not wholly, in force.",
            {},
            snapshot.task_file_errors,
        ),
    ]
    families = []
    for name, documentation, labels, value in rows:
        family = _gauge(f"mobizon_exporter_{name}", documentation)
        family.add_sample(family.name, labels, value)
        families.append(family)
    return families


def _gauge(name: str, documentation: str) -> Metric:
    return Metric(name, documentation, "gauge")


def _labels(account: AccountView, task: TaskView) -> Labels:
    """`task_id`, then what is given of `name`, `account` and the user's labels."""
    labels = {"task_id": str(task.spec.id)}
    if task.spec.name:
        labels["name"] = task.spec.name
    if account.name:
        labels["account"] = account.name
    return labels | dict(task.spec.labels)
