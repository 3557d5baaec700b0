"""Jobs run in threads that are started as they are needed, and used again while they are warm."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING

import pytest

from exporter.mobizon.workers import Workers
from tests.support.promtools import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0
NAME = "worker-of-a-test"


class Job:
    """Begins, and ends when it is let go."""

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go.wait(SOON)


def threads() -> int:
    return sum(thread.name == NAME for thread in threading.enumerate())


@pytest.fixture
def workers() -> Iterator[Workers]:
    workers = Workers(3, NAME)
    yield workers
    workers.close(SOON)
    assert not threads()


def begun(workers: Workers, number: int) -> list[Job]:
    jobs = [Job() for _ in range(number)]
    for job in jobs:
        workers.run(job)
        assert job.begun.wait(SOON)
    return jobs


def at_rest(workers: Workers, number: int) -> bool:
    return workers.resting == number


def end(workers: Workers, *jobs: Job) -> None:
    """Let them end one after the other, each when the one before is at rest."""
    for job in jobs:
        resting = workers.resting
        job.go.set()
        wait_until(partial(at_rest, workers, resting + 1), "at rest", every=0.005)


def test_the_thread_that_came_to_rest_last_is_taken_first(workers: Workers) -> None:
    first, second, third = begun(workers, 3)
    end(workers, second, first, third)
    again = begun(workers, 3)
    assert [job.thread for job in again] == [third.thread, first.thread, second.thread]
    end(workers, *again)


def test_a_thread_is_started_only_if_none_is_at_rest(workers: Workers) -> None:
    for _ in range(5):
        end(workers, *begun(workers, 1))
    assert threads() == 1


def test_jobs_in_excess_wait_and_run_in_their_order(workers: Workers) -> None:
    running = begun(workers, 3)
    done: list[int] = []
    for number in range(5):
        workers.run(partial(done.append, number))
    assert (threads(), done) == (3, [])
    running[0].go.set()
    wait_until(lambda: len(done) == 5, "all done", every=0.005)
    assert done == [0, 1, 2, 3, 4]
    end(workers, *running[1:])


def test_it_is_an_error_if_no_thread_can_be_started_and_the_job_never_runs(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    (running,), never = begun(workers, 1), Job()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_more_threads)
        with pytest.raises(RuntimeError):
            workers.run(never)
    end(workers, running, *begun(workers, 1))
    assert not never.begun.is_set()


def test_a_thread_at_rest_keeps_nothing_of_its_jobs(workers: Workers) -> None:
    jobs = begun(workers, 1)
    kept = weakref.ref(jobs[0])
    end(workers, *jobs)
    jobs.clear()
    wait_until(lambda: kept() is None, "freed", every=0.005)


def test_once_closed_they_take_no_job(workers: Workers) -> None:
    workers.close(SOON)
    with pytest.raises(RuntimeError):
        workers.run(Job())


def no_more_threads(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_has_not_begun_when_they_are_closed_never_does(workers: Workers) -> None:
    running, never = begun(workers, 3), Job()
    workers.run(never)
    workers.close(0.01)
    for job in running:
        job.go.set()
    wait_until(lambda: not threads(), "ended", every=0.005)
    assert not never.begun.is_set()


def test_a_thread_that_hangs_is_left_alone(workers: Workers) -> None:
    (hanging,) = begun(workers, 1)
    workers.close(0.01)
    assert threads() == 1
    hanging.go.set()
