"""An exporter of nothing but `generate_latest` over plain metric families, of as many tasks as are wanted.

`python -m benchmarks.plain TASKS` prints the port that it listens on.
"""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, MetricsHandler
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter.metrics.task_series import FAMILIES
from exporter.model import Reading, TaskSpec, TaskView

if TYPE_CHECKING:
    from collections.abc import Sequence


def views(tasks: int, moment: float = 1_763_800_000.123) -> list[TaskView]:
    """So many tasks in progress, read one after the other until `moment` (Unix seconds)."""
    return [
        TaskView(TaskSpec(task), Reading(float(task % 100), 1, moment - task / 7), changed_at=moment - task)
        for task in range(1, tasks + 1)
    ]


class Plain(Collector):
    """The families of task series, made once; five samples a task, none of which has failed."""

    def __init__(self, tasks: Sequence[TaskView]) -> None:
        self._families = [Metric(name, documentation, "gauge") for name, documentation in FAMILIES.items()]
        for view in tasks:
            reading = view.reading
            assert reading  # of views()
            labels = {"task_id": str(view.spec.id)}
            values = (reading.progress, reading.status, 1, None, reading.taken_at, view.changed_at)
            for family, value in zip(self._families, values, strict=True):
                if value is not None:
                    family.add_sample(family.name, labels, value)

    def describe(self) -> list[Metric]:
        """Nothing, so that registering does not collect."""
        return []

    def collect(self) -> list[Metric]:
        """The families."""
        return self._families


def registry(tasks: Sequence[TaskView]) -> CollectorRegistry:
    """A registry with these tasks alone."""
    made = CollectorRegistry(auto_describe=False)
    made.register(Plain(tasks))
    return made


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry(views(int(sys.argv[1])))))
    print(server.server_port, flush=True)
    server.serve_forever()
