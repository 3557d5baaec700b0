"""The decisions of one account's schedule, one at a time; what they amount to is in test_refresher.py."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest

from exporter.errors import ApiError, Reason, Scope
from exporter.model import Reading, Remembered, TaskSpec
from exporter.refresh.clock import Instant
from exporter.refresh.pacing import Pacer
from exporter.refresh.schedule import Schedule
from exporter.refresh.task import Budget, InFlight
from tests.support.fakes import failure, reading

WALL, ELAPSED = 1e9, 5000.0  # what the other two clocks show more than the monotonic one
ANSWERED = [Reason.API_ERROR, Reason.INVALID_RESPONSE, Reason.NOT_FOUND]
UNANSWERED = [Reason.TIMEOUT, Reason.CONNECTION_ERROR, Reason.HTTP_ERROR]


def budget(interval: float = 1.0) -> Budget:
    return Budget(Pacer(interval, random.Random(1)))


def specs(ids: Iterable[int]) -> list[TaskSpec]:
    return [TaskSpec(task_id) for task_id in ids]


class Account:
    """A schedule, and the time that a test moves."""

    def __init__(self, tasks: int = 1, *, asked: bool = True, key: Budget | None = None) -> None:
        self.schedule = Schedule(key or budget())
        self.now = 1000.0
        self.schedule.list_tasks(specs(range(1, tasks + 1)))
        if asked:
            self.ask()

    @property
    def at(self) -> Instant:
        return Instant(self.now, self.now + WALL, self.now + ELAPSED)

    def next_start(self) -> float | None:
        return self.schedule.next_start(self.now)

    def due(self) -> int:
        return self.schedule.due(self.now, self.schedule.tasks.values())

    def ask(self) -> int:
        return self.schedule.ask(self.now)

    def start(self) -> InFlight:
        """Start and send the next request as soon as it may be."""
        self.now = self.schedule.next_start(self.now) or self.now
        request = self.schedule.start(self.now)
        self.schedule.sent(request, self.now)
        return request

    def finish(self, request: InFlight, outcome: Reading | ApiError | Reason, *, took: float = 0.1) -> None:
        self.now = max(self.now, request.started + took)
        outcome = failure(outcome) if isinstance(outcome, Reason) else outcome
        self.schedule.finish(request, outcome, self.at)

    def make(self, outcome: Reading | ApiError | Reason | None = None) -> int:
        """Make one request; the id of its task."""
        request = self.start()
        self.finish(request, outcome or Reading(50, 1, self.now + WALL))
        return request.task.spec.id


class TestAsks:
    def test_nothing_is_due_until_somebody_asks(self) -> None:
        account = Account(3, asked=False)
        assert (account.due(), account.next_start()) == (0, None)
        account.ask()
        assert (account.due(), account.next_start()) == (3, 1000.0)

    def test_before_there_is_a_list_nothing_is_active(self) -> None:
        schedule = Schedule(budget())
        assert (schedule.active, schedule.ask(0.0), schedule.next_start(0.0)) == (0, 1, None)

    def test_asks_share_a_number_until_a_request_starts(self) -> None:
        account = Account(2, asked=False)
        assert [account.ask(), account.ask()] == [1, 1]
        account.start()
        assert [account.ask(), account.ask()] == [2, 2]
        account.schedule.list_tasks(specs([1, 2, 3]))
        assert [account.ask(), account.ask()] == [3, 3], "which the new task is due for"

    def test_a_task_is_due_until_a_request_started_after_the_ask_is_answered(self) -> None:
        account = Account(1)
        request = account.start()
        account.ask()
        assert account.due() == 0, "one request at a time"
        account.finish(request, reading())
        assert account.due() == 1
        account.make()
        assert account.due() == 0

    def test_a_new_task_waits_for_the_next_ask(self) -> None:
        account = Account(1)
        account.schedule.list_tasks(specs([1, 2]))
        assert [account.make(), account.next_start()] == [1, None]
        account.ask()
        assert account.make() == 2

    def test_an_ask_expires_after_five_minutes_and_a_full_refresh(self) -> None:
        account = Account(2, key=budget(interval=2.0))
        account.now = 1303.99
        assert (account.due(), account.next_start()) == (2, 1303.99)
        account.now = 1304.0
        assert account.next_start() is None
        assert account.due() == 0
        assert account.ask() == 2
        assert (account.due(), account.next_start()) == (2, 1304.0)

    def test_who_asks_again_keeps_an_ask_from_expiring(self) -> None:
        account = Account(2)
        account.now = 1200.0
        account.ask()
        account.now = 1400.0
        assert account.due() == 2

    def test_a_task_that_is_waited_for_is_due_again_and_again(self) -> None:
        account = Account(2, asked=False)
        task = account.schedule.tasks[2]
        account.schedule.wait_for(task, wanted=True)
        assert [account.make() for _ in range(3)] == [2, 2, 2]
        account.now += 1000
        assert account.make() == 2, "though no ask is left"
        account.schedule.wait_for(task, wanted=False)
        assert account.next_start() is None


class TestSpacing:
    def test_it_counts_from_when_the_request_was_sent_and_none_starts_before(self) -> None:
        account = Account(2)
        request = account.schedule.start(1000.0)
        account.now = 1003.0
        assert account.next_start() is None
        account.schedule.sent(request, 1002.5)
        account.schedule.sent(request, 1002.9)
        assert account.next_start() == 1003.5
        assert request.started == 1002.5

    def test_one_that_was_never_sent_counts_from_its_start(self) -> None:
        account = Account(2)
        request = account.schedule.start(1000.0)
        account.finish(request, Reason.CONNECTION_ERROR)
        assert account.next_start() == 1001.0

    def test_it_is_what_the_pacer_says(self) -> None:
        account = Account(2)
        account.make(ApiError(Reason.RATE_LIMITED, "wait", retry_after=7.0))
        assert account.next_start() == pytest.approx(1007.1)

    @pytest.mark.parametrize(
        ("reason", "outage"),
        [*((reason, False) for reason in ANSWERED), *((reason, True) for reason in UNANSWERED)],
    )
    def test_only_an_answer_ends_a_row_of_refusals(self, reason: Reason, outage: bool) -> None:
        account = Account(40)
        for _ in range(15):
            account.make(Reason.RATE_LIMITED)
        account.make(reason)
        account.make(Reason.RATE_LIMITED)
        assert account.schedule.backing_off is outage
        assert account.schedule.budget.pacer.outage is outage

    def test_a_reading_ends_it_too(self) -> None:
        account = Account(40)
        for _ in range(15):
            account.make(Reason.RATE_LIMITED)
        account.make()
        account.make(Reason.RATE_LIMITED)
        assert not account.schedule.backing_off


class TestAnswers:
    def test_a_reading_is_kept_and_the_account_served(self) -> None:
        account = Account(2)
        request = account.start()
        account.finish(request, Reading(40, 1, 7.0))
        task = account.schedule.tasks[1]
        assert task.reading == Reading(40, 1, 7.0)
        assert task.read_at == account.at.elapsed
        assert task.request is None
        assert account.schedule.budget.in_flight == set()
        assert account.schedule.backoff.up is True
        assert account.due() == 1

    def test_a_task_that_fails_is_left_alone_for_five_seconds_and_holds_up_no_other(self) -> None:
        account = Account(2)
        account.make(Reason.API_ERROR)
        failed = account.now
        assert account.schedule.tasks[1].failure
        account.make()
        account.ask()
        assert account.due() == 1
        assert account.make() == 2
        assert account.next_start() == failed + 5
        account.now = failed + 5
        assert account.due() == 1
        assert account.make() == 1

    def test_a_task_not_found_loses_its_reading(self) -> None:
        account = Account(1)
        account.make()
        account.ask()
        account.make(Reason.API_ERROR)
        assert account.schedule.tasks[1].reading
        account.now += 10
        account.ask()
        account.make(Reason.NOT_FOUND)
        assert account.schedule.tasks[1].reading is None

    def test_a_refused_task_stays_due_and_keeps_its_turn_once(self) -> None:
        account = Account(3)
        assert account.make(Reason.RATE_LIMITED) == 1
        assert account.due() == 3
        assert account.schedule.tasks[1].asked_at == -math.inf
        assert [account.make(Reason.RATE_LIMITED) for _ in range(3)] == [1, 2, 1]
        assert account.due() == 3

    def test_a_request_that_the_plumbing_lost_leaves_no_trace_but_its_spacing(self) -> None:
        account = Account(3)
        lost = ApiError(Reason.CONNECTION_ERROR, "closed", scope=Scope.CONNECTION)
        assert [account.make(lost) for _ in range(5)] == [1] * 5
        assert account.now == pytest.approx(1004.1)
        assert account.schedule.tasks[1].failure is None
        assert account.schedule.backoff.up is None
        assert account.due() == 3

    def test_an_answer_for_a_task_that_has_left_does_not_bring_it_back(self) -> None:
        account = Account(2)
        request = account.start()
        account.schedule.list_tasks(specs([2]))
        account.ask()
        account.finish(request, Reason.RATE_LIMITED)
        assert [account.make(), account.next_start()] == [2, None]

    def test_nor_does_it_queue_another_of_the_same_id(self) -> None:
        account = Account(1)
        request = account.start()
        account.schedule.list_tasks([])
        account.schedule.list_tasks(specs([1]))
        account.finish(request, reading(100, 2))
        assert account.schedule.tasks[1].reading is None
        assert account.schedule.active == 1


class TestList:
    def test_what_is_known_of_tasks_that_stay_is_kept(self) -> None:
        account = Account(2)
        account.make()
        named = TaskSpec(1, "named")
        account.schedule.list_tasks([named])
        assert list(account.schedule.tasks) == [1]
        assert account.schedule.tasks[1].spec is named
        assert account.schedule.tasks[1].reading
        assert account.next_start() is None

    def test_active_are_those_that_are_not_finished(self) -> None:
        account = Account(3)
        assert account.schedule.active == 3
        account.make(reading(100, 2))
        assert account.schedule.active == 2
        account.schedule.list_tasks(specs([1, 2]))
        assert account.schedule.active == 1
        final = Remembered(Reading(100, 3, WALL), WALL, WALL)
        account.schedule.restore({2: final, 9: final}, account.at)
        assert account.schedule.active == 0
        assert account.ask() == 2
        assert (account.due(), account.next_start()) == (0, None)

    def test_while_none_is_active_nothing_is_known_of_the_account(self) -> None:
        account = Account(2)
        account.make(Reason.UNAUTHORIZED)
        assert account.schedule.backing_off_since < math.inf
        account.schedule.list_tasks([])
        assert account.schedule.backoff.up is None
        assert not account.schedule.backing_off
        assert account.schedule.backing_off_since == math.inf

    def test_a_task_that_was_restored_as_finished_while_it_was_asked_about_stays_so(self) -> None:
        account = Account(2)
        request = account.start()
        final = Remembered(Reading(100, 2, account.at.wall), account.at.wall, account.at.wall)
        account.schedule.restore({1: final}, account.at)
        account.finish(request, Reason.TIMEOUT)
        assert account.schedule.active == 1
        assert account.schedule.tasks[1].reading == final.reading

    def test_a_restored_task_takes_its_turn_by_the_age_of_its_reading(self) -> None:
        account = Account(3)
        for task_id, age in ((1, 10.0), (2, 30.0)):
            known = Remembered(Reading(1, 1, account.at.wall - age), WALL, None)
            account.schedule.restore({task_id: known}, account.at)
        assert [account.make() for _ in range(3)] == [3, 2, 1]


class TestBackOff:
    def down(self, tasks: int = 3) -> Account:
        """Task 1 has been read, then the key was refused."""
        account = Account(tasks)
        account.make()
        account.make(Reason.UNAUTHORIZED)
        return account

    def test_one_request_at_a_time_probes(self) -> None:
        account = self.down()
        begun = account.at.elapsed
        assert account.next_start() == account.now + 2
        request = account.start()
        account.now += 10
        assert account.next_start() is None
        account.finish(request, Reason.UNAUTHORIZED)
        assert account.next_start() == account.now + 4
        assert account.schedule.backing_off_since == begun
        account.make()
        assert not account.schedule.backing_off
        assert account.schedule.backing_off_since == math.inf

    def test_a_probe_keeps_the_spacing_too(self) -> None:
        account = self.down()
        account.schedule.budget.pacer.started(account.now + 60)
        assert account.next_start() == account.now + 61

    def test_every_second_probe_asks_for_the_task_read_last(self) -> None:
        account = Account(4)
        assert [account.make(), account.make()] == [1, 2]
        account.make(Reason.UNAUTHORIZED)
        probed = [account.make(Reason.UNAUTHORIZED) for _ in range(6)]
        assert probed == [2, 4, 2, 1, 2, 3]
        account.make()
        account.ask()
        account.make(Reason.UNAUTHORIZED)
        assert account.make(Reason.UNAUTHORIZED) == 2, "a new back-off begins with it"

    def test_so_does_the_first_one_of_an_account_whose_key_is_refused_already(self) -> None:
        first = Account(3)
        for _ in range(16):
            first.make(Reason.RATE_LIMITED)
        second = Account(3, key=first.schedule.budget)
        second.schedule.restore({3: Remembered(Reading(1, 1, second.at.wall), WALL, None)}, second.at)
        assert second.make(Reason.RATE_LIMITED) == 3

    def test_without_a_task_that_was_ever_read_they_take_turns(self) -> None:
        account = Account(3)
        assert [account.make(Reason.UNAUTHORIZED) for _ in range(5)] == [1, 2, 3, 1, 2]

    def test_finished_tasks_and_those_under_way_are_not_probed_with(self) -> None:
        account = Account(4)
        account.make()
        account.make(reading(100, 2))
        under_way = account.start()
        account.make(Reason.UNAUTHORIZED)
        assert under_way.task.spec.id == 3
        assert account.next_start() is None
        probed = {account.schedule.start(account.now).task.spec.id for _ in range(2)}
        assert probed == {1, 4}

    def test_failures_meanwhile_are_not_held_against_a_task(self) -> None:
        account = self.down()
        account.make(Reason.TIMEOUT)
        assert [task.delay for task in account.schedule.tasks.values()] == [0, 0, 0]

    def test_old_answers_do_not_lengthen_it(self) -> None:
        account = Account(3)
        requests = [account.start() for _ in range(3)]
        for request in requests:
            account.finish(request, Reason.UNAUTHORIZED, took=5.0)
        account.ask()
        assert account.next_start() == requests[0].started + 5 + 2

    def test_an_outage_of_refusals_is_one(self) -> None:
        account = Account(3)
        for _ in range(16):
            account.make(Reason.RATE_LIMITED)
        assert account.schedule.backing_off
        assert account.schedule.backoff.up is False
        assert account.schedule.backing_off_since == account.at.elapsed
        assert account.schedule.outlook(account.now).next_start is None
        next_start = account.next_start()
        assert next_start is not None
        assert 4.05 <= next_start - account.now + 0.1 <= 4.3
        account.start()
        assert account.next_start() is None

    def test_another_address_forgets_failures_but_not_what_is_known_of_the_account(self) -> None:
        account = Account(3)
        account.make(Reason.NOT_FOUND)
        account.make(Reason.UNAUTHORIZED)
        account.schedule.forget_failures()
        assert account.schedule.backoff.up is False
        assert not account.schedule.backing_off
        assert account.schedule.backing_off_since == math.inf
        account.ask()
        assert account.due() == 3


class TestAnotherKey:
    def test_nothing_is_known_of_it_and_it_has_its_own_budget(self) -> None:
        account = Account(2)
        account.make(Reason.UNAUTHORIZED)
        new = budget()
        account.schedule.use(new)
        assert account.schedule.backoff.up is None
        assert not account.schedule.backing_off
        assert account.next_start() == account.now
        assert account.start().budget is new

    def test_what_the_old_one_is_told_is_not_held_against_it(self) -> None:
        account = Account(2)
        request = account.start()
        old = account.schedule.budget
        account.schedule.use(budget())
        account.finish(request, Reason.UNAUTHORIZED)
        assert old.in_flight == set()
        assert account.schedule.backoff.up is None
        assert account.schedule.tasks[1].failure is None
        assert account.make() == 1

    def test_a_reading_is_one_but_says_nothing_of_it(self) -> None:
        account = Account(2)
        request = account.start()
        account.schedule.use(budget())
        account.finish(request, reading())
        assert account.schedule.tasks[1].reading
        assert account.schedule.backoff.up is None
        assert account.due() == 1


class TestOutlook:
    def test_what_is_to_be_sent_and_what_is_under_way(self) -> None:
        account = Account(5)
        account.make(reading(100, 2))
        account.make(Reason.API_ERROR)
        account.make()
        second = account.ask()
        request = account.start()
        outlook = account.schedule.outlook(account.now)
        assert request.task.spec.id == 4
        assert outlook.now == account.now
        assert outlook.in_flight == [(0, second, request.started)]
        assert sorted(outlook.to_send) == list(outlook.to_send) == [0, 1, second]
        assert outlook.next_start == account.now + 1
        account.now += 3
        assert account.schedule.outlook(account.now).next_start == account.now
        assert outlook.spacing == 1.0

    def test_of_more_than_can_be_answered_in_time_it_tells_no_more_than_that(self) -> None:
        account = Account(1000)
        assert len(account.schedule.outlook(account.now, account.now + 9.5).to_send) < 15
        assert len(account.schedule.outlook(account.now).to_send) == 1000

    @pytest.mark.parametrize("in_flight", [0, 1, 3])
    @pytest.mark.parametrize("backing_off", [0, 2])
    @pytest.mark.parametrize("interval", [0.5, 1.0])
    def test_what_it_leaves_out_changes_no_decision(
        self, in_flight: int, backing_off: int, interval: float
    ) -> None:
        account = Account(20, key=budget(interval))
        for _ in range(backing_off):
            account.make(Reason.API_ERROR)
        for _ in range(in_flight):
            account.start()
        ask = account.ask()
        account.start()
        latest = account.schedule.outlook(account.now).complete_at(ask)
        for deadline in (*(account.now + seconds for seconds in range(30)), latest, latest - 0.001):
            outlook = account.schedule.outlook(account.now, deadline)
            assert outlook.pending(ask)
            assert (outlook.complete_at(ask) <= deadline) is (latest <= deadline)

    def test_what_backs_off_is_not_to_be_sent_before_its_time(self) -> None:
        account = Account(1)
        account.make(Reason.API_ERROR)
        retry_at = account.schedule.tasks[1].retry_at
        account.ask()
        assert account.schedule.outlook(retry_at - 0.01).to_send == []
        assert account.schedule.outlook(retry_at).to_send == [1]

    def test_what_is_answered_is_not_to_come(self) -> None:
        account = Account(2)
        account.make()
        assert account.schedule.outlook(account.now).to_send == [0]

    def test_the_latency_follows_slow_answers_at_once_and_quick_ones_slowly(self) -> None:
        account = Account(4)
        assert account.schedule.outlook(account.now).latency == 0.25
        for took, latency in ((2.0, 2.0), (0.1, 1.81), (5.0, 5.0)):
            account.finish(account.start(), reading(), took=took)
            assert account.schedule.outlook(account.now).latency == pytest.approx(latency)
        account.finish(account.start(), Reason.TIMEOUT, took=30.0)
        assert account.schedule.outlook(account.now).latency == pytest.approx(5.0)
