"""What one exposition shows, and the families of the exporter itself; no I/O.

The series of accounts and tasks, of which there may be tens of thousands, are account_series.py's and
task_series.py's.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter import __version__, revision

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
    """Yields the exporter's own families, of the snapshot that was put here last."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering does not collect."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The families, in the order in which they are shown."""
        yield from _exporter(self.snapshot)


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
        ("build_info", "Build information of the exporter; always 1.", build, 1),
        (
            "config_last_reload_successful",
            "Whether the last configuration reload attempt was successful.",
            {},
            1 if snapshot.reload_successful else 0,
        ),
        (
            "config_last_reload_success_timestamp_seconds",
            "Unix time of the last successful configuration reload.",
            {},
            snapshot.reloaded_at,
        ),
        (
            "task_file_errors",
            "Task files with errors or skipped ids.",
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
