"""The exporter that one writes first: it asks for every task on every scrape, one after the other.

`python -m benchmarks.naive URL KEY TASKS` prints the port that it listens on.
"""

from __future__ import annotations

import sys
import time
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING

import requests
from prometheus_client import CollectorRegistry, Gauge, MetricsHandler

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

TIMEOUT = 5.0  # seconds


class Naive(CollectorRegistry):
    """Gauges that are set anew, as far as the API answers, before they are shown."""

    def __init__(self, url: str, key: str, tasks: range) -> None:
        super().__init__()
        self._url = f"{url}/service/taskqueue/getStatus"
        self._parameters = {"output": "json", "api": "v1", "apiKey": key}
        self._tasks = tasks
        self._session = requests.Session()
        self._gauges = [
            Gauge(name, name, ["task_id"], registry=self)
            for name in ("mobizon_task_progress", "mobizon_task_status")
        ]
        self._read = Gauge(
            "mobizon_task_last_success_timestamp_seconds", "When it was read", ["task_id"], registry=self
        )

    def collect(self) -> Iterable[Metric]:
        """Ask, and show what is known."""
        for task in self._tasks:
            answer = self._session.post(
                self._url, params=self._parameters, data={"id": task}, timeout=TIMEOUT
            ).json()
            if answer["code"] == 0:
                for gauge, field in zip(self._gauges, ("progress", "status"), strict=True):
                    gauge.labels(task).set(answer["data"][field])
                self._read.labels(task).set(time.time())
        return super().collect()


if __name__ == "__main__":
    _, url, key, tasks = sys.argv
    registry = Naive(url, key, range(1, int(tasks) + 1))
    server = ThreadingHTTPServer(("127.0.0.1", 0), MetricsHandler.factory(registry))
    print(server.server_port, flush=True)
    server.serve_forever()
