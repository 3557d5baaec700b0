"""The deadlines of one request, and giving it up, under a clock that the test moves."""

from __future__ import annotations

import pytest

from exporter.errors import Reason
from exporter.mobizon.call import Call


class Request:
    """A call with 5 seconds a phase, and what it has told of its sending."""

    def __init__(self) -> None:
        self.now = 100.0
        self.told: list[float] = []
        self.call = Call(5.0, self.told.append, lambda: self.now)

    def begin(self, *, after: float = 0.0) -> None:
        self.now += after
        self.call.begin()

    def cannot_begin(self, *, after: float = 0.0) -> None:
        with pytest.raises(TimeoutError):
            self.begin(after=after)


def test_a_request_that_waits_for_a_thread_has_no_deadline() -> None:
    request = Request()
    assert request.call.deadline is None
    request.now += 1000
    assert not request.call.give_up_if_late(0.0)
    request.begin()
    assert request.call.deadline == request.now + 5


def test_each_phase_has_the_whole_time() -> None:
    request = Request()
    request.begin()
    request.begin(after=5.0)
    assert request.call.deadline == 110.0


def test_what_is_late_is_not_sent() -> None:
    request = Request()
    request.begin()
    request.cannot_begin(after=5.01)
    assert request.told == []


def test_what_is_given_up_is_not_sent() -> None:
    request = Request()
    request.call.give_up()
    request.cannot_begin()
    request = Request()
    request.begin()
    request.call.give_up()
    request.cannot_begin()


def test_the_moment_of_sending_is_told() -> None:
    request = Request()
    request.begin()
    request.now += 1.5
    request.call.sent()
    assert request.told == [101.5]


def test_it_is_given_up_as_late_once_its_deadline_has_passed_by_the_grace() -> None:
    request = Request()
    request.begin()
    request.now += 5.9
    assert request.call.give_up_if_late(1.0) is False
    request.now = 106.0
    assert request.call.give_up_if_late(1.0) is True
    request.now = 101.0
    request.cannot_begin()
    assert request.call.give_up_if_late(1.0) is True, "it stays given up"


@pytest.mark.parametrize(("sent", "missing"), [(False, "connection"), (True, "complete answer")])
def test_a_time_out_says_what_did_not_come(sent: bool, missing: str) -> None:
    request = Request()
    request.begin()
    if sent:
        request.call.sent()
    error = request.call.timed_out()
    assert (error.reason, error.detail) == (Reason.TIMEOUT, f"no {missing} within 5 s")
