"""What happens in a soak: registrations, waits, reloads, rotations of the key, outages, suspension."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import requests

from benchmarks.apis import OUTAGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.apis import Apis
    from tests.support.processes import ExporterProcess

KEYS: Final = ("first-key", "second-key")
FIRST_REGISTERED: Final = 15_001  # above the tasks of the configuration
WAIT: Final = 30  # seconds, as the wait's timeout
PATIENCE: Final = 120.0  # seconds that a client waits, a suspension included
SUSPENDED: Final = 60.0  # seconds
OUTAGE: Final = 20.0  # seconds
ENDS: Final = {200: "completed", 409: "rejected", 404: "not found", 504: "timed out"}


class Events:
    """Starts what is due at each `beat`; `seconds` are those since the start of the soak.

    `answers` counts the ends of waits, `lost` the requests of programs that had no proper answer.
    """

    def __init__(
        self, exporter: ExporterProcess, apis: Apis, key_file: Path, config: Path, *, hurry: float
    ) -> None:
        self._exporter, self._apis = exporter, apis
        self._key_file, self._config = key_file, config
        self._programs = ThreadPoolExecutor(8)
        self._lock = threading.Lock()
        self._ids = itertools.count(FIRST_REGISTERED)
        self._keys = itertools.cycle(KEYS)
        self._outages = itertools.cycle(OUTAGES)
        self.answers: Counter[str] = Counter()
        self.lost: list[str] = []
        self._due = [
            # every so many seconds, from so many on
            (_times(5.0, 5.0), self._program),
            (_times(60.0 / hurry, 20.0 / hurry), self._reload),
            (_times(180.0 / hurry, 90.0 / hurry), self._break_configuration),
            (_times(300.0 / hurry, 150.0 / hurry), self._rotate_key),
            (_times(240.0 / hurry, 120.0 / hurry), self._begin_outage),
            (_times(240.0 / hurry, 120.0 / hurry + OUTAGE), self._end_outage),
            (_times(1200.0 / hurry, 600.0 / hurry), self._suspend),
        ]
        self._next = [next(times) for times, _ in self._due]

    def beat(self, seconds: float) -> None:
        """Do what is due."""
        for at, (times, act) in enumerate(self._due):
            if self._next[at] <= seconds:
                self._next[at] = next(time for time in times if time > seconds)
                act()

    def end(self) -> None:
        """Wait for the programs."""
        self._programs.shutdown()

    def _rotate_key(self) -> None:
        self._key_file.write_text(next(self._keys))

    def _program(self) -> None:
        self._programs.submit(self._register_and_wait, next(self._ids))

    def _register_and_wait(self, task: int) -> None:
        """As a program does; each fourth goes away without waiting and stops the watch."""
        url = f"{self._exporter.url}/api/v1/tasks/{task}"
        try:
            put = requests.put(url, json={"name": f"program-{task}"}, timeout=PATIENCE)
            self._expect("PUT", put.status_code, (201,))
            if task % 4:
                waited = requests.get(f"{url}/wait?timeout={WAIT}s", timeout=WAIT + PATIENCE)
                self._expect("wait", waited.status_code, tuple(ENDS))
                with self._lock:
                    self.answers[ENDS.get(waited.status_code, "other")] += 1
            kept = requests.get(url, timeout=PATIENCE)
            self._expect("GET", kept.status_code, (200,))
            if task % 8 != 1:  # these are rejected, so --registry.keep-finished removes them
                deleted = requests.delete(url, timeout=PATIENCE)
                self._expect("DELETE", deleted.status_code, (204,))
        except requests.RequestException as error:
            with self._lock:
                self.lost.append(f"{task}: {type(error).__name__}")

    def _expect(self, request: str, status: int, expected: tuple[int, ...]) -> None:
        if status not in expected:
            with self._lock:
                self.lost.append(f"{request}: {status}")

    def _reload(self, expected: int = 200) -> None:
        answer = requests.post(f"{self._exporter.url}/-/reload", timeout=PATIENCE)
        self._expect("reload", answer.status_code, (expected,))

    def _break_configuration(self) -> None:
        """A file that cannot be used: the last good configuration goes on."""
        good = self._config.read_text()
        self._config.write_text("tasks: [\n")
        self._reload(expected=500)
        self._config.write_text(good)

    def _begin_outage(self) -> None:
        self._apis.fail(0, next(self._outages))

    def _end_outage(self) -> None:
        self._apis.fail(0, None)

    def _suspend(self) -> None:
        self._exporter.process.send_signal(signal.SIGSTOP)
        try:
            time.sleep(SUSPENDED)
        finally:
            self._exporter.process.send_signal(signal.SIGCONT)


def _times(every: float, first: float) -> Iterator[float]:
    return itertools.count(first, every)
