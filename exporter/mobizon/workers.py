"""Threads for jobs that wait most of the time."""

from __future__ import annotations

import threading
import time
from collections import deque
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    Job = Callable[[], object]


class Workers:
    """Runs jobs, which must not raise, in up to `most` threads; they are started only as they are needed.

    A job goes to the thread that came to rest last: of hundreds, it is still in the processor's caches. (A
    ThreadPoolExecutor takes the one that has rested longest.)
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._resting: list[SimpleQueue[Job | None]] = []  # where each takes its next job from
        self._waiting: deque[Job] = deque()
        self._closed = False

    @property
    def resting(self) -> int:
        """How many threads wait for a job."""
        return len(self._resting)

    def run(self, job: Job) -> None:
        """Run a job as soon as there is a thread for it; RuntimeError if its thread cannot be started."""
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            if self._resting:
                self._resting.pop().put(job)
            elif len(self._threads) < self._most:
                self._start(job)
            else:
                self._waiting.append(job)

    def _start(self, job: Job) -> None:
        jobs: SimpleQueue[Job | None] = SimpleQueue()
        thread = threading.Thread(target=self._work, args=(jobs,), name=self._name, daemon=True)
        thread.start()
        self._threads.append(thread)
        jobs.put(job)

    def close(self, timeout: float) -> None:
        """Begin nothing more; threads that are not done within so many seconds are left alone."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            for resting in self._resting:
                resting.put(None)
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, jobs: SimpleQueue[Job | None]) -> None:
        while job := jobs.get():
            job()
            del job  # which would be kept while the thread rests
            with self._lock:
                if self._closed:
                    return
                if self._waiting:
                    jobs.put(self._waiting.popleft())
                else:
                    self._resting.append(jobs)
