"""Other ways to export the same tasks, for comparison: `python -m benchmarks.peers KIND URL KEY TASKS [CA]`.

- `in-turn` asks for every task on every scrape, one after the other.
- `at-once` asks for every task on every scrape, all at the same time.
- `generic` asks for the task that a probe names (`/metrics?task=7`): JSON exporters with a target a task.

It prints the port that it listens on.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import requests
from prometheus_client import CollectorRegistry, Gauge, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable

KINDS = ("in-turn", "at-once", "generic")
TIMEOUT = 5.0  # seconds


class Peer:
    """Gauges that are set anew, as far as the API answers, before they are shown."""

    def __init__(self, url: str, key: str, threads: int, authority: str | None) -> None:
        self._url = f"{url}/service/taskqueue/getStatus"
        self._parameters = {"output": "json", "api": "v1", "apiKey": key}
        self._session = requests.Session()
        self._session.mount("http", requests.adapters.HTTPAdapter(pool_maxsize=threads))
        self._authority = authority or True  # True: those that the machine trusts
        self._threads = ThreadPoolExecutor(threads)

    def read(self, tasks: Iterable[int]) -> bytes:
        """Ask for these tasks, and show those that were answered."""
        registry = CollectorRegistry()
        gauges = {
            field: Gauge(f"mobizon_task_{name}", name, ["task_id"], registry=registry)
            for field, name in (
                ("progress", "progress"),
                ("status", "status"),
                ("read", "last_success_timestamp_seconds"),
            )
        }
        for task, data in self._threads.map(self._ask, tasks):
            for field, value in data.items():
                gauges[field].labels(task).set(value)
        return generate_latest(registry)

    def _ask(self, task: int) -> tuple[int, dict[str, float]]:
        answer = self._session.post(
            self._url,
            params=self._parameters,
            data={"id": task},
            timeout=TIMEOUT,
            verify=self._authority,
        ).json()
        return task, {**answer["data"], "read": time.time()} if answer["code"] == 0 else {}


def handler(peer: Peer, tasks: range) -> type[BaseHTTPRequestHandler]:
    """What answers scrapes, and probes for single tasks."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            probed = parse_qs(urlsplit(self.path).query).get("task")
            body = peer.read([int(probed[0])] if probed else tasks)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


if __name__ == "__main__":
    _, kind, url, key, number, *authority = sys.argv
    tasks = range(1, int(number) + 1)
    threads = {"in-turn": 1, "at-once": len(tasks), "generic": len(tasks)}[kind]
    peer = Peer(url, key, threads, *(authority or (None,)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(peer, tasks))
    print(server.server_port, flush=True)
    server.serve_forever()
