"""What is known of accounts and of the exporter itself, as metric families; no I/O.

The series of tasks, of which there may be tens of thousands, are exporter/metrics/task_series.py's.
"""

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

    from exporter.model import AccountView

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
        """The families, in the order in which they are shown."""
        yield from _accounts(self.snapshot.accounts)
        yield from _exporter(self.snapshot)


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
