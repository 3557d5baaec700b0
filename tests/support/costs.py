"""What calls cost, for tests that compare it: how fast the machine is changes from one minute to the next."""

import time
from collections.abc import Callable


def cpu_seconds(*calls: Callable[[], object], times: int = 5) -> list[float]:
    """The least processor time of this thread that each of the calls takes, made in turn."""
    took: list[list[float]] = [[] for _ in calls]
    for _ in range(times):
        for call, seconds in zip(calls, took, strict=True):
            began = time.thread_time()  # other work on the machine does not count
            call()
            seconds.append(time.thread_time() - began)
    return list(map(min, took))
