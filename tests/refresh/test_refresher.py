"""The ten rules of refreshing, under a clock that the test moves."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from exporter.errors import ApiError, Reason, Scope
from exporter.model import Failure, Reading, Remembered, Secret, TaskSource
from exporter.refresh.outlook import Outlook
from exporter.refresh.schedule import Schedule
from exporter.refresh.statefile import Memory, fingerprint
from tests.support.fakes import START, FakeApi, World, account, failure, reading

ACCOUNT_WIDE = [Reason.UNAUTHORIZED, Reason.WRONG_HOST, Reason.ACCOUNT_BLOCKED]


def gaps(api: FakeApi) -> list[float]:
    return [round(b - a, 9) for a, b in itertools.pairwise(api.times())]


def first_then_readings(first: Reading | ApiError) -> Iterator[Reading | ApiError]:
    return itertools.chain([first], itertools.repeat(reading()))


class TestScrapeDriven:
    def test_nothing_is_sent_when_nobody_asks(self) -> None:
        world = World(account(5))
        world.loop.advance(3600)
        assert world.api.sent == []

    def test_one_scrape_costs_one_request_a_task_and_then_there_is_silence(self) -> None:
        world = World(account(20))
        world.scrape()
        world.loop.advance(3600)
        assert sorted(world.api.asked()) == list(range(1, 21))

    def test_a_view_of_the_page_asks_too_and_does_not_wait(self) -> None:
        world = World(account(3))
        world.ask()
        world.loop.advance(60)
        assert len(world.api.sent) == 3

    def test_a_reload_asks_for_nothing(self) -> None:
        world = World(account(3))
        world.scrape()
        world.loop.advance(60)
        world.apply(account(6))
        world.loop.advance(600)
        assert len(world.api.sent) == 3

    def test_whoever_asked_long_ago_is_not_served_for_ever(self) -> None:
        world = World(account(3))
        world.api.answer = lambda *_: failure(Reason.RATE_LIMITED)
        world.scrape()
        world.loop.advance(400)
        sent = len(world.api.sent)
        world.loop.advance(36000)
        assert len(world.api.sent) == sent

    def test_finished_tasks_are_not_asked_for_again(self) -> None:
        world = World(account(3))
        world.api.answer = lambda _, task_id: reading(100, task_id)
        world.scrape()
        world.loop.advance(60)
        world.scrape()
        world.loop.advance(60)
        assert sorted(world.api.asked()) == [1, 1, 2, 3]


class TestFreshWhenItCanBe:
    def test_a_scrape_waits_for_the_answers_to_requests_sent_after_it(self) -> None:
        world = World(account(5))
        first = world.scrape()
        world.loop.advance(15)
        world.loop.advance(0.5)
        second = world.scrape()
        world.loop.advance(15)
        assert first.took == pytest.approx(4.1)
        assert second.took == pytest.approx(4.1)
        taken = [task.reading.taken_at for task in second.views[0].tasks if task.reading]
        assert len(taken) == 5
        assert all(at >= START + second.at for at in taken)

    def test_a_scrape_that_cannot_have_all_answers_in_time_is_answered_at_once(self) -> None:
        world = World(account(20))
        scrape = world.scrape()
        assert scrape.took == 0
        world.loop.advance(25)
        assert len(world.api.sent) == 20, "the requests go on after it has answered"

    def test_the_deadline_is_the_scrapes_own(self) -> None:
        world = World(account(5))
        assert world.scrape(timeout=3).took == 0
        world.loop.advance(60)
        patient = world.scrape(timeout=30)
        world.loop.advance(60)
        assert patient.took == pytest.approx(4.1)

    def test_answers_that_fail_to_come_hold_a_scrape_until_its_deadline_and_no_longer(self) -> None:
        world = World(account(2))
        world.api.latency = lambda: 60.0
        scrape = world.scrape()
        world.loop.advance(60)
        assert scrape.took == 9.5

    def test_slow_answers_are_reckoned_with(self) -> None:
        world = World(account(8))
        world.api.latency = lambda: 3.0
        assert world.scrape(timeout=30).answered_at is None
        world.loop.advance(60)
        assert world.scrape().took == 0, "7 s of sending and 3 s of answering do not fit into 9.5 s"

    def test_a_wait_that_has_become_vain_ends(self) -> None:
        world = World(account(9))
        world.api.answer = lambda *_: failure(Reason.RATE_LIMITED, retry_after=30)
        scrape = world.scrape()
        world.loop.advance(20)
        assert scrape.took == pytest.approx(0.1)

    def test_without_active_tasks_a_scrape_is_answered_at_once(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: reading(100, 2)
        world.scrape()
        world.loop.advance(5)
        assert world.scrape().took == 0

    def test_an_account_that_cannot_be_read_in_time_does_not_spoil_the_others(self) -> None:
        world = World(account(3, key="A" * 40, name="small"), account(99, key="B" * 40, name="large"))
        scrape = world.scrape()
        world.loop.advance(9)
        assert scrape.took == pytest.approx(2.1)
        assert all(task.reading for task in scrape.views[0].tasks)

    def test_a_scrape_that_hangs_up_is_forgotten(self) -> None:
        world = World(account(3))
        scrape = world.scrape()
        scrape.give_up()
        world.loop.advance(60)
        assert scrape.answered_at is None
        assert len(world.api.sent) == 3


class TestNeverTooOften:
    def test_overlapping_scrapes_reloads_and_views_keep_the_spacing(self) -> None:
        world = World(account(10))
        for step in range(200):
            world.scrape()
            world.ask()
            world.apply(account(range(1 + step % 3, 11)))
            world.loop.advance(0.17)
        assert len(world.api.sent) > 30
        assert min(gaps(world.api)) >= 1.0

    def test_an_account_keeps_its_spacing_when_it_is_renamed_or_taken_out_and_put_back(self) -> None:
        world = World(account(5, key="A" * 40))
        world.scrape()
        world.loop.advance(0.3)
        world.apply(account(5, key="A" * 40, name="renamed"))
        world.scrape()
        world.loop.advance(0.3)
        world.apply(account(5, key="B" * 40))
        world.apply(account(5, key="A" * 40, name="again"))
        world.scrape()
        world.loop.advance(5)
        assert min(gaps(world.api)) >= 1.0

    def test_each_key_has_a_budget_of_its_own(self) -> None:
        world = World(account(5, key="A" * 40, name="a"), account(5, key="B" * 40, name="b"))
        scrape = world.scrape()
        world.loop.advance(9)
        assert scrape.took == pytest.approx(4.1)
        assert len(world.api.times("A" * 40)) == len(world.api.times("B" * 40)) == 5

    def test_spacing_counts_from_when_the_request_reached_the_wire(self) -> None:
        world = World(account(6))
        delays = itertools.cycle([0.4, 0.0])
        world.api.connect = lambda: next(delays)
        world.scrape()
        world.loop.advance(20)
        assert len(world.api.sent) == 6
        assert min(gaps(world.api)) >= 1.0


class TestNeverIdle:
    def test_slow_answers_do_not_lower_the_rate(self) -> None:
        world = World(account(40))
        world.api.latency = lambda: 2.0
        for _ in range(10):
            world.scrape()
            world.loop.advance(10)
        assert len(world.api.sent) >= 99
        assert world.api.most_in_flight >= 2

    def test_a_task_has_one_request_in_flight_at_most(self) -> None:
        world = World(account(2))
        world.api.latency = lambda: 5.0
        for _ in range(100):
            world.scrape()
            world.loop.advance(0.5)
        assert world.api.most_in_flight == 2


class TestFair:
    def test_tasks_never_asked_about_come_first_but_take_every_second_start_at_most(self) -> None:
        world = World(account(3))
        world.scrape()
        world.loop.advance(10)
        world.apply(account(range(1, 6)))
        world.api.sent.clear()
        world.scrape()
        world.loop.advance(10)
        assert world.api.asked() == [4, 1, 5, 2, 3]

    def test_then_the_one_not_asked_for_longest(self) -> None:
        world = World(account(40))
        for _ in range(40):
            world.scrape()
            world.loop.advance(7)
        asked = world.api.asked()
        for task_id in range(1, 41):
            turns = [at for at, asked_id in enumerate(asked) if asked_id == task_id and at >= 80]
            assert len(turns) > 1
            assert {b - a for a, b in itertools.pairwise(turns)} == {40}

    def test_what_is_known_of_tasks_that_stay_survives_a_reload(self) -> None:
        world = World(account(4))
        world.scrape(timeout=2.5)
        world.loop.advance(1.5)
        world.apply(account([4, 2, 1, 3]))
        assert [task.reading is not None for task in world.view().tasks] == [False, True, True, False]
        world.loop.advance(10)
        assert world.api.asked() == [1, 2, 4, 3]


class TestShared:
    def test_twenty_scrapes_at_once_cost_little_more_than_one(self) -> None:
        world = World(account(5))
        scrapes = [world.scrape() for _ in range(20)]
        world.loop.advance(15)
        assert len(world.api.sent) <= 6
        assert all(task.reading for scrape in scrapes for task in scrape.views[0].tasks)
        assert max(scrape.took for scrape in scrapes) < 9.5

    def test_what_a_scrape_costs_does_not_grow_with_those_that_wait_already(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        judged = 0
        outlook = Schedule.outlook

        def counted(schedule: Schedule, now: float, deadline: float = math.inf) -> Outlook:
            nonlocal judged
            judged += 1
            return outlook(schedule, now, deadline)

        monkeypatch.setattr(Schedule, "outlook", counted)
        accounts, number = 20, 40
        world = World(*(account(2, key=f"{at:040}", name=f"account {at}") for at in range(accounts)))
        scrapes = [world.scrape() for _ in range(number)]
        assert judged <= accounts * number
        world.loop.advance(15)
        assert all(task.reading for scrape in scrapes for view in scrape.views for task in view.tasks)
        assert judged <= accounts * number + len(world.api.sent), "once for each answer"
        assert len(world.api.sent) / accounts <= 3

    def test_a_scrape_is_not_answered_before_all_accounts_are_asked(self) -> None:
        world = World(*(account(1, key=name * 40, name=name) for name in "abc"))
        answered: list[float] = []
        asking, _ = world.refresher.refresh(9.5, lambda: answered.append(world.loop.now))
        for _ in asking:  # all answers to one account come before the next one is asked
            world.loop.advance(1)
        assert len(world.api.sent) == 3
        assert answered == [3]

    def test_one_that_gives_up_while_accounts_are_asked_is_forgotten(self) -> None:
        world = World(*(account(1, key=name * 40, name=name) for name in "abc"))
        answered: list[float] = []
        asking, give_up = world.refresher.refresh(9.5, lambda: answered.append(world.loop.now))
        next(asking)
        give_up()
        world.loop.advance(60)
        assert (len(world.api.sent), answered) == (1, [])

    @pytest.mark.parametrize("later", [0.0, 0.05, 1.05, 2.95, 3.05])
    def test_a_scrape_that_waits_is_answered_as_soon_whoever_comes_after_it(self, later: float) -> None:
        world = World(account(4, key="A" * 40, name="a"), account(2, key="B" * 40, name="b"))
        world.scrape()
        world.loop.advance(20)
        first = world.scrape()
        world.loop.advance(later)
        hurried, second = world.scrape(timeout=0.2), world.scrape()
        assert hurried.took == 0
        world.loop.advance(15)
        assert first.took == pytest.approx(3.1)
        assert 3 < second.took < 9.5
        for scrape in (first, second):
            taken = [task.reading.taken_at for view in scrape.views for task in view.tasks if task.reading]
            assert len(taken) == 6
            assert min(taken) >= START + scrape.at

    def test_a_scrape_that_waits_in_vain_is_let_go_at_its_deadline_whoever_comes_after_it(self) -> None:
        world = World(account(1))
        world.api.latency = lambda: 60.0
        scrapes = []
        for _ in range(12):
            scrapes.append(world.scrape())
            world.loop.advance(1)
        world.loop.advance(60)
        assert [scrape.took for scrape in scrapes] == [9.5] * 12


class TestSlowDownWhenTold:
    def test_a_refused_task_stays_due(self) -> None:
        world = World(account(2))
        answers: Iterator[Reading | ApiError] = iter(
            [failure(Reason.RATE_LIMITED), reading(), reading(), reading()]
        )
        world.api.answer = lambda *_: next(answers)
        scrape = world.scrape()
        world.loop.advance(9)
        assert sorted(world.api.asked()) in ([1, 1, 2], [1, 2, 2])
        assert all(task.reading and not task.failure for task in scrape.views[0].tasks)

    def test_the_spacing_in_force_is_shown(self) -> None:
        world = World(account(2))
        world.api.answer = lambda *_: failure(Reason.RATE_LIMITED)
        world.scrape()
        world.loop.advance(2)
        assert world.view().spacing > world.view().interval == 1.0
        assert world.view().failures[Reason.RATE_LIMITED] == len(world.api.sent)

    def test_retry_after_is_honoured(self) -> None:
        world = World(account(2))
        answers: Iterator[Reading | ApiError] = itertools.chain(
            [failure(Reason.RATE_LIMITED, retry_after=20)], itertools.repeat(reading())
        )
        world.api.answer = lambda *_: next(answers)
        world.scrape()
        world.loop.advance(60)
        assert gaps(world.api)[0] >= 20

    def test_a_task_that_is_refused_keeps_its_turn_once(self) -> None:
        world = World(account(4))
        refusals = {3: 1}

        def answer(_: str, task_id: int) -> Reading | ApiError:
            if refusals.get(task_id, 0):
                refusals[task_id] -= 1
                return failure(Reason.RATE_LIMITED)
            return reading()

        world.scrape()
        world.loop.advance(20)
        world.api.answer = answer
        for _ in range(10):
            world.scrape(0.0)
            world.loop.advance(1.5)
        assert world.api.asked()[4:10] == [1, 2, 3, 3, 4, 1]

    def test_a_task_that_is_refused_again_and_again_holds_up_no_other(self) -> None:
        world = World(account(4))
        world.scrape()
        world.loop.advance(10)
        read = len(world.api.asked())
        world.api.answer = lambda _, task_id: failure(Reason.RATE_LIMITED) if task_id == 3 else reading()
        for _ in range(20):
            world.scrape(0.0)
            world.loop.advance(2.0)
        asked = world.api.asked()[read:]
        assert asked[:9] == [1, 2, 3, 3, 4, 1, 2, 3, 4]

    def test_nothing_but_refusals_is_an_account_that_is_not_served(self) -> None:
        world = World(account(5))
        world.api.answer = lambda *_: failure(Reason.RATE_LIMITED)
        for _ in range(8):
            world.scrape()
            world.loop.advance(15)
        assert world.view().up is False
        assert world.scrape().took == 0
        before = len(world.api.sent)
        world.loop.advance(60)
        assert len(world.api.sent) - before <= 60 / 4
        world.api.answer = lambda *_: reading()
        for _ in range(4):
            world.scrape()
            world.loop.advance(15)
        assert world.view().up is True
        assert all(task.failure is None for task in world.view().tasks)


class TestFailSmall:
    def test_a_task_that_fails_backs_off_by_itself_up_to_five_minutes(self) -> None:
        world = World(account(2))
        world.api.answer = lambda _, task_id: failure(Reason.NOT_FOUND) if task_id == 2 else reading()
        for _ in range(400):
            world.scrape()
            world.loop.advance(5)
        asked = [sent.at for sent in world.api.sent if sent.task_id == 2]
        pauses = [b - a for a, b in itertools.pairwise(asked)]
        assert pauses[0] <= 10.5
        assert all(b > a for a, b in itertools.pairwise(pauses[:6]))
        assert 295 <= max(pauses) <= 310
        assert len([sent for sent in world.api.sent if sent.task_id == 1]) == 400
        assert world.view().up is True

    def test_dead_ids_do_not_eat_the_budget_of_live_ones(self) -> None:
        world = World(account(50))
        world.api.answer = lambda _, task_id: failure(Reason.NOT_FOUND) if task_id > 10 else reading()
        for _ in range(120):
            world.scrape()
            world.loop.advance(15)
        world.api.sent.clear()
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
        dead = [sent for sent in world.api.sent if sent.task_id > 10]
        assert len(dead) <= 3 * 40, "each at most once in five minutes"
        assert len(world.api.sent) - len(dead) >= 0.85 * 400

    @pytest.mark.parametrize("reason", ACCOUNT_WIDE)
    def test_what_concerns_the_account_backs_it_off_at_once(self, reason: Reason) -> None:
        world = World(account(5))
        world.api.answer = lambda *_: failure(reason)
        scrape = world.scrape()
        world.loop.advance(1)
        assert scrape.took == pytest.approx(0.1)
        assert world.view().up is False
        assert len(world.api.sent) == 1
        assert world.scrape().took == 0

    @pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.CONNECTION_ERROR])
    def test_three_time_outs_or_connection_failures_in_a_row_back_it_off(self, reason: Reason) -> None:
        world = World(account(9))
        world.api.answer = lambda *_: failure(reason)
        world.scrape()
        world.loop.advance(3.0)
        assert len(world.api.sent) == 3
        assert world.view().up is False
        assert world.view().backing_off

    @pytest.mark.parametrize(
        "reason", [Reason.API_ERROR, Reason.HTTP_ERROR, Reason.INVALID_RESPONSE], ids=str
    )
    def test_five_failures_of_any_kind_in_a_row_back_it_off(self, reason: Reason) -> None:
        world = World(account(9))
        world.api.answer = lambda *_: failure(reason)
        world.scrape()
        world.loop.advance(4.05)
        assert not world.view().backing_off
        world.loop.advance(0.1)
        assert len(world.api.sent) == 5
        assert world.view().backing_off

    def test_an_answer_in_between_breaks_the_row(self) -> None:
        world = World(account(30))
        world.api.answer = lambda _, task_id: failure(Reason.TIMEOUT) if task_id % 3 else reading()
        world.scrape()
        world.loop.advance(40)
        assert len(world.api.sent) == 30
        assert not world.view().backing_off

    def test_a_row_of_missing_tasks_is_no_trouble_of_the_account(self) -> None:
        world = World(account(30))
        world.api.answer = lambda *_: failure(Reason.NOT_FOUND)
        world.scrape()
        world.loop.advance(40)
        assert not world.view().backing_off
        assert world.view().up is True
        assert {task.state for task in world.view().tasks} == {"not_found"}

    def test_a_dead_account_is_probed_by_one_request_at_a_time_at_most_a_minute_apart(self) -> None:
        world = World(account(5))
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        world.api.latency = lambda: 4.0
        world.scrape()
        world.loop.advance(9)
        world.api.most_in_flight = 0
        for _ in range(60):
            scrape = world.scrape()
            world.loop.advance(15)
            assert scrape.took == 0
        assert world.api.most_in_flight == 1
        assert max(gaps(world.api)) <= 64.5
        assert gaps(world.api)[-1] >= 60
        world.api.answer = lambda *_: reading()
        world.loop.advance(5)
        for _ in range(5):
            world.scrape()
            world.loop.advance(15)
        assert world.view().up is True
        assert all(task.reading and not task.failure for task in world.view().tasks)

    def test_nobody_asks_nobody_probes(self) -> None:
        world = World(account(5))
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        world.scrape()
        world.loop.advance(1000)
        sent = len(world.api.sent)
        world.loop.advance(36000)
        assert len(world.api.sent) == sent

    def test_the_probe_asks_for_a_task_that_has_answered_before(self) -> None:
        world = World(account(8))
        bad = {2, 3, 4, 5, 6}
        world.scrape()
        world.loop.advance(20)
        world.api.answer = lambda _, task_id: failure(Reason.API_ERROR) if task_id in bad else reading()
        world.api.sent.clear()
        world.scrape()
        world.loop.advance(8)
        assert world.api.asked() == [1, 2, 3, 4, 5, 6, 1]
        assert world.view().up is True

    @pytest.mark.parametrize("others_answered", [False, True])
    def test_an_api_that_is_back_is_noticed_within_two_probes_whatever_the_others_do(
        self, *, others_answered: bool
    ) -> None:
        world = World(account(61))
        good, down = 17, False

        def answer(_: str, task_id: int) -> Reading | ApiError:
            until = 100 + 20 * task_id if others_answered else 0  # then this one fails for ever
            if not down and (task_id == good or world.loop.now < until):
                return reading()
            return failure(Reason.API_ERROR)

        world.api.answer = answer
        for _ in range(120):
            world.scrape()
            world.loop.advance(15)
        for _ in range(5):
            down = True
            for _ in range(40):
                world.scrape()
                world.loop.advance(15)
            assert world.view().backing_off
            down = False
            sent = len(world.api.sent)
            while world.view().backing_off:
                world.scrape()
                world.loop.advance(0.2)
            assert len(world.api.sent) - sent <= 2
            world.scrape()
            world.loop.advance(200)

    def test_every_second_probe_asks_for_another_task(self) -> None:
        world = World(account(5))
        world.api.answer = lambda _, task_id: reading() if task_id <= 2 else failure(Reason.API_ERROR)
        for _ in range(10):
            world.scrape()
            world.loop.advance(15)
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        while not world.view().backing_off:
            world.scrape()
            world.loop.advance(1)
        world.api.sent.clear()
        for _ in range(400):
            world.scrape()
            world.loop.advance(1)
        probes = world.api.asked()
        assert len(probes) >= 8
        assert set(probes[::2]) <= {1, 2}
        assert {3, 4, 5} <= set(probes[1::2])

    def test_failures_while_the_account_is_down_are_not_held_against_the_task(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
        world.api.answer = lambda *_: reading()
        for _ in range(5):
            world.scrape()
            world.loop.advance(15)
        assert world.view().tasks[0].failure is None

    def test_old_answers_do_not_lengthen_the_back_off(self) -> None:
        world = World(account(9))
        world.api.answer = lambda *_: failure(Reason.TIMEOUT)
        world.api.latency = lambda: 5.0
        world.scrape()
        world.loop.advance(7.05)
        assert world.view().backing_off
        world.loop.advance(6)
        assert len(world.api.sent) >= 6, "the answers still to come from before count for nothing"

    def test_a_new_address_is_tried_at_once(self) -> None:
        world = World(account(2))
        world.api.answer = lambda *_: failure(Reason.WRONG_HOST)
        for _ in range(10):
            world.scrape()
            world.loop.advance(15)
        world.api.answer = lambda *_: reading()
        before = account(2)
        world.apply(replace(before, api=replace(before.api, url="https://other.example")))
        assert (world.view().url, world.view().failure) == ("https://other.example", None)
        scrape = world.scrape()
        world.loop.advance(9)
        assert scrape.took < 3
        assert all(task.reading and not task.failure for task in scrape.views[0].tasks)

    def test_refusals_while_the_rest_backs_off_leave_something_to_probe_with(self) -> None:
        world = World(account(3))
        world.api.answer = lambda _, task_id: failure(
            Reason.RATE_LIMITED if task_id == 3 else Reason.NOT_FOUND
        )
        for _ in range(20):
            world.scrape()
            world.loop.advance(5)
        world.apply(account(2))
        world.api.answer = lambda *_: reading()
        for _ in range(30):
            world.scrape()
            world.loop.advance(15)
        assert all(task.reading and not task.failure for task in world.view().tasks)

    def test_a_task_that_answered_once_and_is_bad_now_does_not_hog_the_probe(self) -> None:
        world = World(account(1))
        world.scrape()
        world.loop.advance(5)
        world.apply(account(5))
        world.api.answer = lambda _, task_id: failure(Reason.API_ERROR) if task_id <= 5 else reading()
        for _ in range(20):
            world.scrape()
            world.loop.advance(15)
        world.apply(account(8))
        for _ in range(20):
            world.scrape()
            world.loop.advance(15)
        assert [task.spec.id for task in world.view().tasks if not task.failure] == [6, 7, 8]
        assert world.view().up is True

    def test_an_answer_that_is_a_refusal_breaks_a_row_of_time_outs(self) -> None:
        world = World(account(9))
        answers = itertools.cycle([failure(Reason.TIMEOUT), failure(Reason.RATE_LIMITED)])
        world.api.answer = lambda *_: next(answers)
        world.scrape()
        world.loop.advance(8)
        assert world.view().failures[Reason.TIMEOUT] >= 3
        assert not world.view().backing_off

    def test_what_cannot_be_sent_is_a_failure_and_the_account_goes_on(self) -> None:
        world = World(account(3))
        world.api.starts_no_thread = True
        scrape = world.scrape()
        world.loop.advance(1.5)
        world.api.starts_no_thread = False
        for _ in range(4):
            world.scrape()
            world.loop.advance(15)
        assert scrape.took < 5
        assert all(task.reading and not task.failure for task in world.view().tasks)

    def test_a_task_that_backs_off_holds_up_no_scrape(self) -> None:
        world = World(account(3))
        world.api.answer = lambda _, task_id: failure(Reason.NOT_FOUND) if task_id == 3 else reading()
        scrapes = []
        for _ in range(40):
            scrapes.append(world.scrape())
            world.loop.advance(15)
        waited = [scrape for scrape in scrapes if scrape.took > 1.5]
        assert len(waited) <= world.api.asked().count(3) <= 8

    def test_failures_while_the_account_is_down_lengthen_no_back_off_of_tasks(self) -> None:
        world = World(account(9))
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        for _ in range(80):
            world.scrape()
            world.loop.advance(15)
        world.api.answer = lambda *_: reading()
        before = world.loop.now
        while not all(task.reading for task in world.view().tasks):
            world.scrape()
            world.loop.advance(5)
        assert world.loop.now - before < 90


class TestPlumbing:
    """An idle connection that the server closed while a request was sent on it (rule 10)."""

    def plumbing(self) -> ApiError:
        return failure(Reason.CONNECTION_ERROR, scope=Scope.CONNECTION)

    def test_the_task_stays_due_and_nothing_is_counted_or_shown(self) -> None:
        world = World(account(3))
        world.scrape()
        world.loop.advance(15)
        answers = first_then_readings(self.plumbing())
        world.api.answer = lambda *_: next(answers)
        world.api.sent.clear()
        scrape = world.scrape()
        world.loop.advance(0.5)
        view = world.view()
        assert not any(task.failure for task in view.tasks)
        assert not any(view.failures.values())
        assert (view.up, view.failure, view.backing_off) == (True, None, False)
        assert world.finished == []
        world.loop.advance(9)
        assert world.api.asked() == [1, 1, 2, 3], "it keeps its turn"
        assert min(gaps(world.api)) >= 1
        assert scrape.took == pytest.approx(3.1)

    def test_it_says_nothing_of_an_account_before_its_first_answer(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: self.plumbing()
        with capture_logs() as logs:
            for _ in range(10):
                world.scrape()
                world.loop.advance(5)
        assert world.view().up is None
        assert world.view().failure is None
        assert not logs
        assert min(gaps(world.api)) >= 1

    def test_a_probe_that_ends_so_is_sent_again_and_not_held_against_the_account(self) -> None:
        world = World(account(2))
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        world.scrape()
        world.loop.advance(1)
        answers = first_then_readings(self.plumbing())
        world.api.answer = lambda *_: next(answers)
        world.loop.advance(3.5)
        assert world.view().up is True
        assert gaps(world.api)[:2] == [2.1, 1.0]

    def test_a_wait_goes_on(self) -> None:
        world = World(account(1))
        answers: Iterator[Reading | ApiError] = iter([self.plumbing(), reading(100, 2)])
        world.api.answer = lambda *_: next(answers)
        wait = world.wait(1)
        world.loop.advance(5)
        assert wait.ended_at == pytest.approx(1.1)


class TestNoThread:
    def test_what_cannot_be_sent_breaks_no_spacing(self) -> None:
        world = World(account(5, interval=0.5))
        with capture_logs():  # tracebacks, which take long to be printed
            for step in range(200):
                world.api.starts_no_thread = step % 3 == 0
                world.scrape()
                world.loop.advance(0.37)
        attempts = sorted([*world.api.times(), *world.api.not_started])
        assert len(world.api.not_started) > 20
        assert min(b - a for a, b in itertools.pairwise(attempts)) >= 0.5 - 1e-9
        assert world.view().requests == len(attempts)


class TestKeys:
    def test_what_the_old_key_is_told_is_not_held_against_the_new_one(self) -> None:
        world = World(account(2, key="A" * 40))
        world.api.latency = lambda: 3.0
        world.api.answer = lambda key, _: failure(Reason.UNAUTHORIZED) if key[0] == "A" else reading()
        world.scrape()
        world.loop.advance(2.5)
        world.apply(account(2, key="B" * 40))
        world.loop.advance(2)
        assert world.view().up is not False
        assert not any(task.failure for task in world.view().tasks)
        world.loop.advance(10)
        assert world.view().up is True
        assert all(task.reading and not task.failure for task in world.view().tasks)

    def test_a_key_that_is_in_use_again_keeps_its_spacing_also_with_a_request_on_its_way(self) -> None:
        world = World(account(3, key="A" * 40))
        world.api.connect = lambda: 2.0
        world.scrape()
        world.loop.advance(0.5)
        world.apply(account(3, key="B" * 40, name="b"))
        world.loop.advance(0.5)
        world.apply(account(3, key="A" * 40))
        world.scrape(30)
        world.loop.advance(30)
        assert min(b - a for a, b in itertools.pairwise(world.api.times("A" * 40))) >= 1
        assert all(task.reading for task in world.view().tasks), "and is not forgotten"

    def test_a_new_key_of_the_same_account_keeps_what_is_known_of_its_tasks(self) -> None:
        world = World(account(3, key="A" * 40))
        world.scrape()
        world.loop.advance(10)
        known = [task.reading for task in world.view().tasks]
        world.apply(account([2, 3, 4], key="B" * 40))
        assert [task.reading for task in world.view().tasks] == [*known[1:], None]
        world.scrape()
        world.loop.advance(10)
        assert {sent.key for sent in world.api.sent[3:]} == {"B" * 40}
        assert all(task.reading and task.reading.taken_at > START + 10 for task in world.view().tasks)
        world.apply(account(3, key="A" * 40))
        assert [task.reading is not None for task in world.view().tasks] == [False, True, True]

    def test_another_account_in_its_place_takes_nothing_over(self) -> None:
        world = World(account(3, key="A" * 40, name="kz"))
        world.scrape()
        world.loop.advance(10)
        world.apply(account(3, key="B" * 40, name="ua"))
        assert not any(task.reading for task in world.view().tasks)
        world.apply(account(3, key="A" * 40, name="kz"), account(3, key="B" * 40, name="ua"))
        assert not any(task.reading for view in world.views() for task in view.tasks)


class TestRestored:
    def memory(self, *task_ids: int, status: int = 1) -> Memory:
        known = Remembered(Reading(40, status, START - 100), START - 200, START - 100 if status > 1 else None)
        return {fingerprint(Secret("K" * 40)): dict.fromkeys(task_ids, known)}

    def saved(self, world: World) -> set[int]:
        return {task_id for tasks in world.refresher.memory().values() for task_id in tasks}

    def test_readings_are_taken_back_and_finished_tasks_not_asked_for(self) -> None:
        world = World(account(2))
        world.refresher.restore(self.memory(1, 2, status=3))
        assert [task.state for task in world.view().tasks] == ["rejected", "rejected"]
        with capture_logs() as logs:
            world.scrape()
            world.loop.advance(30)
        assert not world.api.sent
        assert not logs

    def test_a_task_listed_a_little_later_gets_its_reading_too(self) -> None:
        world = World(account(1))
        world.refresher.restore(self.memory(1, 2, status=2))
        assert self.saved(world) == {1, 2}, "and is still saved meanwhile"
        world.loop.advance(500)
        world.apply(account(2))
        assert [task.state for task in world.view().tasks] == ["completed", "completed"]

    def test_one_listed_long_after_does_not(self) -> None:
        world = World(account(1))
        world.refresher.restore(self.memory(1, 2, status=2))
        world.loop.advance(700)
        assert self.saved(world) == {1}
        world.apply(account(2))
        assert world.view().tasks[1].reading is None

    def test_a_newer_reading_is_not_replaced(self) -> None:
        world = World(account(1))
        world.scrape()
        world.loop.advance(5)
        world.refresher.restore(self.memory(1, status=3))
        assert world.view().tasks[0].state == "in_progress"

    def test_a_restored_reading_goes_stale_by_its_age(self) -> None:
        world = World(account(1), stale_after=300.0)
        world.refresher.restore(self.memory(1))
        world.api.answer = lambda *_: failure(Reason.TIMEOUT)
        states = []
        for _ in range(16):
            world.scrape()
            world.loop.advance(15)
            states.append(world.view().tasks[0].state)
        assert states == ["in_progress"] * 13 + ["unknown"] * 3


class TestWhatIsShown:
    def test_what_has_gone_stale_is_current_again_only_with_a_new_reading(self) -> None:
        world = World(account(20), stale_after=60.0)
        for _ in range(2):
            world.scrape()
            world.loop.advance(30)
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        for _ in range(10):
            world.scrape()
            world.loop.advance(15)
        assert {task.state for task in world.view().tasks} == {"unknown"}
        down_until = world.loop.wall()
        world.api.answer = lambda *_: reading()
        for _ in range(100):
            world.scrape()
            world.loop.advance(1)
            for task in world.view().tasks:
                assert task.stale == (task.reading is None or task.reading.taken_at < down_until)
        assert {task.state for task in world.view().tasks} == {"in_progress"}

    def test_values_of_tasks_that_only_wait_for_their_turn_stay(self) -> None:
        world = World(account(40), stale_after=20.0)
        for _ in range(10):
            world.scrape()
            world.loop.advance(15)
        assert {task.state for task in world.view().tasks} == {"in_progress"}

    def test_a_wall_clock_that_steps_back_keeps_no_dead_values(self) -> None:
        world = World(account(1), stale_after=60.0)
        world.scrape()
        world.loop.advance(5)
        world.loop.wall_offset = -86400
        world.api.answer = lambda *_: failure(Reason.API_ERROR)
        for _ in range(10):
            world.scrape()
            world.loop.advance(15)
        assert world.view().tasks[0].state == "unknown"

    def test_last_values_stay_while_requests_fail_until_they_are_stale(self) -> None:
        world = World(account(1), stale_after=300.0)
        world.scrape()
        world.loop.advance(1)
        world.api.answer = lambda *_: failure(Reason.API_ERROR)
        for _ in range(19):
            world.scrape()
            world.loop.advance(15)
        assert world.view().tasks[0].state == "in_progress"
        world.loop.advance(20)
        assert world.view().tasks[0].state == "unknown"
        assert world.view().tasks[0].reading, "what it was is still known"

    def test_values_of_an_account_that_is_down_go_stale_too(self) -> None:
        world = World(account(3), stale_after=60.0)
        world.scrape()
        world.loop.advance(5)
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        world.scrape()
        world.loop.advance(70)
        assert {task.state for task in world.view().tasks} == {"unknown"}

    def test_a_task_not_found_loses_its_values_at_once(self) -> None:
        world = World(account(1))
        world.scrape()
        world.loop.advance(1)
        world.api.answer = lambda *_: failure(Reason.NOT_FOUND)
        world.scrape()
        world.loop.advance(1)
        assert world.view().tasks[0].reading is None
        assert world.view().tasks[0].state == "not_found"

    def test_final_values_never_go_stale(self) -> None:
        world = World(account(2), stale_after=60.0)
        world.api.answer = lambda _, task_id: reading(100, 2) if task_id == 1 else failure(Reason.API_ERROR)
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
        assert world.view().tasks[0].state == "completed"

    def test_a_status_outside_the_known_ones_is_not_final(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: reading(10, 7)
        with capture_logs() as logs:
            for _ in range(3):
                world.scrape()
                world.loop.advance(15)
        assert len(world.api.sent) == 3
        assert world.view().tasks[0].state == "unknown"
        assert world.view().tasks[0].reading == Reading(10, 7, START + 30.1)
        assert [entry["status"] for entry in logs if "Undocumented" in entry["event"]] == [7]

    def test_finished_tasks_leave_when_they_have_been_shown_long_enough(self) -> None:
        world = World(account(2), drop_finished_after=600.0)
        world.api.answer = lambda _, task_id: reading(100, 2) if task_id == 1 else reading()
        world.scrape()
        world.loop.advance(599)
        assert len(world.view().tasks) == 2
        world.loop.advance(2)
        assert [task.spec.id for task in world.view().tasks] == [2]

    def test_a_task_that_leaves_the_list_leaves_at_once_and_an_answer_does_not_bring_it_back(self) -> None:
        world = World(account(2))
        world.api.latency = lambda: 2.0
        world.scrape()
        world.loop.advance(0.5)
        world.apply(account([2]))
        assert [task.spec.id for task in world.view().tasks] == [2]
        world.loop.advance(5)
        assert [task.spec.id for task in world.view().tasks] == [2]
        assert world.view().requests == 2, "the request in flight counts"
        world.apply(account([1, 2]))
        assert world.view().tasks[0].reading is None

    def test_the_change_is_dated_by_the_reading_that_showed_it(self) -> None:
        world = World(account(1))
        values = iter([10, 10, 20, 20])
        world.api.answer = lambda *_: reading(next(values))
        changed = []
        for _ in range(4):
            world.scrape()
            world.loop.advance(15)
            changed.append(world.view().tasks[0].changed_at - START)
        assert changed == pytest.approx([0.1, 0.1, 30.1, 30.1])

    def test_the_time_left_follows_from_the_speed(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: reading(world.loop.now / 10)
        for _ in range(20):
            world.scrape()
            world.loop.advance(15)
        left = world.view().tasks[0].seconds_left
        assert left == pytest.approx(715, rel=0.02)

    def test_waiting_and_beginning_again_do_not_count_into_the_speed(self) -> None:
        world = World(account(1))
        values = iter([*[(0, 0)] * 20, *[(step * 3, 1) for step in range(20)], (0, 1), (3, 1), (6, 1)])
        world.api.answer = lambda *_: reading(*next(values))
        speeds = []
        for _ in range(43):
            world.scrape()
            world.loop.advance(15)
            speeds.append(world.view().tasks[0].speed)
        assert not any(speeds[:21])
        assert speeds[21] == speeds[39] == pytest.approx(0.2)
        assert speeds[40] is None
        assert speeds[41] == pytest.approx(0.2)

    def test_why_an_account_is_not_served_is_told_until_it_is(self) -> None:
        world = World(account(3))
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        world.scrape()
        world.loop.advance(10)
        assert world.view().failure == Failure(Reason.UNAUTHORIZED, "told by a test", START + 0.1)
        world.api.answer = lambda *_: reading()
        world.scrape()
        world.loop.advance(60)
        assert world.view().failure is None

    def test_a_service_that_was_never_reached_is_down(self) -> None:
        world = World(account(1))
        assert world.view().up is None
        world.api.answer = lambda *_: failure(Reason.CONNECTION_ERROR)
        world.scrape()
        world.loop.advance(1)
        assert world.view().up is False
        assert world.view().failure

    def test_an_answer_about_the_task_alone_says_that_the_account_is_served(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: failure(Reason.INVALID_RESPONSE, scope=Scope.TASK)
        for _ in range(40):
            world.scrape()
            world.loop.advance(15)
        assert world.view().up is True

    def test_while_no_task_is_active_whether_the_account_is_served_is_not_known(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: reading(100, 2)
        world.scrape()
        world.loop.advance(5)
        assert world.view().up is None
        world.apply(account(2))
        assert world.view().up is None, "until there is an answer"
        world.api.answer = lambda *_: reading()
        world.scrape()
        world.loop.advance(5)
        assert world.view().up is True

    @pytest.mark.parametrize("reason", [Reason.UNAUTHORIZED, Reason.RATE_LIMITED])
    def test_an_account_that_is_down_is_so_no_longer_when_its_last_active_task_has_left(
        self, reason: Reason
    ) -> None:
        world = World(account(2))
        world.api.answer = lambda *_: failure(reason)
        world.scrape()
        world.loop.advance(60)
        assert (world.view().up, world.view().backing_off) == (False, True)
        world.apply(account([]))
        view = world.view()
        assert (view.up, view.backing_off, view.failure) == (None, False, None)
        world.loop.advance(3600)
        world.apply(account(1))
        assert (world.view().up, world.view().failure) == (None, None)
        world.scrape()
        world.loop.advance(5)
        assert (world.view().up, world.view().backing_off) == (False, True)

    def test_a_new_key_is_not_known_to_be_served_before_its_first_answer(self) -> None:
        world = World(account(2, key="A" * 40))
        world.api.answer = lambda key, _: failure(Reason.UNAUTHORIZED) if key[0] == "A" else reading()
        world.scrape()
        world.loop.advance(5)
        assert world.view().up is False
        world.apply(account(2, key="B" * 40))
        view = world.view()
        assert (view.up, view.backing_off, view.failure) == (None, False, None)

    def test_registered_tasks_are_shown_as_long_as_the_registry_keeps_them(self) -> None:
        listed = account(2)
        registered = replace(listed.tasks[1], source=TaskSource.REGISTRY)
        world = World(replace(listed, tasks=(listed.tasks[0], registered)), drop_finished_after=60.0)
        world.api.answer = lambda *_: reading(100, 2)
        world.scrape()
        world.loop.advance(3600)
        assert [task.spec.id for task in world.view().tasks] == [2]

    def test_durations_are_counted_by_bucket(self) -> None:
        world = World(account(2))
        latencies = iter([0.05, 0.3])
        world.api.latency = lambda: next(latencies)
        world.scrape()
        world.loop.advance(9)
        durations = world.view().durations
        assert dict(zip(durations.bounds, durations.counts, strict=False))[0.05] == 1
        assert dict(zip(durations.bounds, durations.counts, strict=False))[0.5] == 1
        assert durations.seconds == pytest.approx(0.35)


class TestLogs:
    def test_a_task_that_left_is_forgotten_and_told_of_again_when_it_is_back(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: failure(Reason.NOT_FOUND)
        with capture_logs() as logs:
            for tasks in ([1], [], [1]):
                world.apply(account(tasks))
                world.scrape()
                world.loop.advance(15)
        assert [entry["event"] for entry in logs] == ["Failed to read task"] * 2

    def test_a_lone_refusal_is_not_worth_a_line(self) -> None:
        world = World(account(2))
        world.scrape()
        world.loop.advance(15)
        answers: Iterator[Reading | ApiError] = itertools.chain(
            [failure(Reason.RATE_LIMITED)], itertools.repeat(reading())
        )
        world.api.answer = lambda *_: next(answers)
        with capture_logs() as logs:
            world.scrape()
            world.loop.advance(15)
        assert not logs

    def test_a_line_for_each_change_of_state_and_none_for_progress(self) -> None:
        world = World(account(1))
        values = iter([reading(0, 0), reading(1, 1), reading(2, 1), reading(100, 2)])
        world.api.answer = lambda *_: next(values)
        with capture_logs() as logs:
            for _ in range(5):
                world.scrape()
                world.loop.advance(15)
        changes = [entry["state"] for entry in logs if entry["event"] == "Task changed state"]
        assert changes == ["waiting", "in_progress", "completed"]

    def test_a_line_when_a_failure_begins_and_one_when_it_ends(self) -> None:
        world = World(account(1))
        world.api.answer = lambda *_: failure(Reason.NOT_FOUND)
        with capture_logs() as logs:
            for _ in range(20):
                world.scrape()
                world.loop.advance(15)
            world.api.answer = lambda *_: reading()
            for _ in range(30):
                world.scrape()
                world.loop.advance(15)
        events = [entry["event"] for entry in logs]
        assert events == ["Failed to read task", "Task readable again", "Task changed state"]
        assert logs[0]["reason"] == "not_found"

    def test_an_account_that_is_down_is_one_line_and_not_one_a_task(self) -> None:
        world = World(account(9))
        world.scrape()
        world.loop.advance(15)
        world.api.answer = lambda *_: failure(Reason.UNAUTHORIZED)
        with capture_logs() as logs:
            for _ in range(20):
                world.scrape()
                world.loop.advance(15)
            world.api.answer = lambda *_: reading()
            for _ in range(10):
                world.scrape()
                world.loop.advance(15)
        assert [entry["event"] for entry in logs] == [
            "API unavailable for account",
            "API available again for account",
        ]

    def test_an_account_is_available_again_with_an_answer_that_is_about_a_task_alone(self) -> None:
        world = World(account(1))
        with capture_logs() as logs:
            for reason in (Reason.UNAUTHORIZED, Reason.NOT_FOUND):
                world.api.answer = lambda *_, reason=reason: failure(reason)
                world.scrape()
                world.loop.advance(5)
        assert [entry["event"] for entry in logs] == [
            "API unavailable for account",
            "API available again for account",
            "Failed to read task",
        ]


class TestClosing:
    def test_waiting_scrapes_are_let_go_with_what_is_known_and_nothing_more_is_sent(self) -> None:
        world = World(account(5))
        scrape = world.scrape()
        world.loop.advance(2.5)
        world.refresher.close()
        assert scrape.took == 2.5
        assert sum(task.reading is not None for task in scrape.views[0].tasks) == 3
        world.loop.advance(60)
        assert len(world.api.sent) == 3
        assert world.scrape().took == 0
