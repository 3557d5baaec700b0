"""When an account is left alone, for how long, and whether it is said to be served (rule 8)."""

from __future__ import annotations

import math

import pytest

from exporter.errors import Reason, Scope
from exporter.refresh.backoff import Backoff
from tests.support.fakes import failure

UNREACHABLE = [Reason.TIMEOUT, Reason.CONNECTION_ERROR]
OTHER = [Reason.API_ERROR, Reason.HTTP_ERROR, Reason.INVALID_RESPONSE]
ACCOUNT = [Reason.UNAUTHORIZED, Reason.WRONG_HOST, Reason.ACCOUNT_BLOCKED]


def fail(backoff: Backoff, reason: Reason, times: int = 1, *, now: float = 100.0) -> None:
    for _ in range(times):
        backoff.failed(failure(reason), now - 0.1, now)


def state_after(backoff: Backoff, reason: Reason) -> tuple[bool | None, bool]:
    """Whether the account is said to be served, and whether it is left alone, after one more failure."""
    fail(backoff, reason)
    return backoff.up, backoff.active


def test_until_there_is_an_answer_nothing_is_known_and_nothing_left_alone() -> None:
    backoff = Backoff()
    assert backoff.up is None
    assert not backoff.active
    assert backoff.until == -math.inf


@pytest.mark.parametrize("up", [True, False])
def test_what_was_known_is_taken_over_without_the_delay(up: bool) -> None:
    backoff = Backoff(up)
    assert backoff.up is up
    assert not backoff.active


@pytest.mark.parametrize("reason", ACCOUNT)
def test_what_concerns_the_account_backs_it_off_at_once(reason: Reason) -> None:
    backoff = Backoff(up=True)
    fail(backoff, reason)
    assert backoff.active
    assert backoff.up is False
    assert backoff.until == 102.0


@pytest.mark.parametrize("reason", UNREACHABLE)
def test_it_is_not_served_after_three_requests_that_did_not_reach_it(reason: Reason) -> None:
    backoff = Backoff(up=True)
    seen = [state_after(backoff, reason) for _ in range(3)]
    assert seen == [(True, False), (True, False), (False, True)]


@pytest.mark.parametrize("reason", OTHER)
def test_five_failures_of_any_kind_back_it_off_and_a_failed_probe_tells_that_it_is_not_served(
    reason: Reason,
) -> None:
    backoff = Backoff(up=True)
    seen = [state_after(backoff, reason) for _ in range(5)]
    assert seen == [(True, False)] * 4 + [(True, True)], "a row of bad tasks passes for no bad account"
    assert state_after(backoff, reason) == (False, True)


@pytest.mark.parametrize("reason", UNREACHABLE + OTHER)
def test_a_first_failure_says_that_it_is_not_served(reason: Reason) -> None:
    backoff = Backoff()
    fail(backoff, reason)
    assert backoff.up is False
    assert not backoff.active


def test_failures_about_the_task_alone_say_that_it_is_served_but_count() -> None:
    backoff = Backoff()
    for _ in range(5):
        assert not backoff.active
        backoff.failed(failure(Reason.API_ERROR, scope=Scope.TASK), 99.0, 100.0)
        assert backoff.up is True
    assert backoff.active


def test_the_delay_doubles_up_to_a_minute_and_begins_anew_once_served() -> None:
    backoff, now, delays = Backoff(), 100.0, []
    for _ in range(7):
        fail(backoff, Reason.UNAUTHORIZED, now=now)
        delays.append(backoff.until - now)
        now = backoff.until + 1
    assert delays == [2, 4, 8, 16, 32, 60, 60]
    backoff.served()
    assert backoff.up is True
    assert not backoff.active
    fail(backoff, Reason.UNAUTHORIZED, now=now)
    assert backoff.until == now + 2


def test_requests_that_started_before_the_back_off_do_not_lengthen_it() -> None:
    backoff = Backoff()
    backoff.failed(failure(Reason.UNAUTHORIZED), 90.0, 100.0)
    backoff.failed(failure(Reason.UNAUTHORIZED), 99.9, 101.0)
    assert backoff.until == 102.0
    backoff.failed(failure(Reason.UNAUTHORIZED), 100.0, 101.0)
    assert backoff.until == 105.0


@pytest.mark.parametrize("reason", UNREACHABLE)
def test_an_answer_in_between_breaks_both_rows(reason: Reason) -> None:
    backoff = Backoff()
    for _ in range(3):
        fail(backoff, reason, 2)
        assert not backoff.active
        backoff.served()
    fail(backoff, Reason.API_ERROR, 4)
    backoff.failed(failure(Reason.NOT_FOUND), 99.0, 100.0)
    assert backoff.up is True
    fail(backoff, Reason.API_ERROR, 4)
    assert not backoff.active


def test_another_failure_breaks_the_row_of_those_that_did_not_reach_it() -> None:
    backoff = Backoff()
    for reason in (Reason.TIMEOUT, Reason.HTTP_ERROR, Reason.TIMEOUT, Reason.TIMEOUT):
        fail(backoff, reason)
    assert not backoff.active


def test_a_refusal_breaks_that_row_too_and_only_an_outage_of_them_says_that_it_is_not_served() -> None:
    backoff = Backoff(up=True)
    fail(backoff, Reason.TIMEOUT, 2)
    backoff.refused(outage=False)
    assert state_after(backoff, Reason.TIMEOUT) == (True, False)
    assert state_after(backoff, Reason.TIMEOUT) == (True, False)
    backoff.refused(outage=True)
    assert (backoff.up, backoff.active) == (False, False)
