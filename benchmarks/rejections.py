"""Rejects tasks at an API, and sees when an exporter shows it."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.apis import Apis
    from tests.support.processes import Samples

REJECTED_TASKS = 8
REJECTED = 3  # the status


class Rejections:
    """Rejects one task after another at random times, leaving time to see the last one."""

    def __init__(self, apis: Apis, at: int, end: float) -> None:
        self._apis, self._at = apis, at
        self._updating = threading.Lock()  # probes come at the same time
        now = time.monotonic()
        chance = random.Random(at)  # noqa: S311 - moments, no secrets
        latest = max(now, end - 60.0)
        self._planned = sorted(chance.uniform(now, latest) for _ in range(REJECTED_TASKS))
        self._pending: dict[int, float] = {}
        self._next = 1

    def update(self, samples: Samples, delays: list[float]) -> None:
        """Reject what is due, and record the delays of rejections that a scrape has just shown."""
        with self._updating:
            now = time.monotonic()
            for labels, value in samples.all("mobizon_task_status"):
                task = int(labels["task_id"])
                if value == REJECTED and task in self._pending:
                    delays.append(now - self._pending.pop(task))
            while self._planned and self._planned[0] <= now:
                self._planned.pop(0)
                self._pending[self._next] = self._apis.reject(self._at, self._next)
                self._next += 1
