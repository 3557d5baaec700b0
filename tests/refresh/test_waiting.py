"""Who waits and who is let go, apart from the schedule that the answers follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporter.refresh.outlook import Outlook
from exporter.refresh.waits import ScrapeWaits, TaskWaits, WaitingScrape
from tests.support.fakes import FakeTimer

if TYPE_CHECKING:
    from collections.abc import Sequence


def outlook(*due: int, next_start: float | None = 10.0, in_flight: Sequence[int] = ()) -> Outlook:
    """At 10 s: tasks that have answered these asks, one request a second, each answered in half a second."""
    return Outlook(10.0, sorted(due), [(ask, ask + 1, 10.0) for ask in in_flight], next_start, 1.0, 0.5)


class Scrapes:
    """Scrapes that wait for accounts; `answered` are those let go, by their names."""

    def __init__(self) -> None:
        self.waiting: set[WaitingScrape] = set()
        self.answered: list[str] = []

    def add(self, name: str, deadline: float, *accounts: ScrapeWaits, ask: int = 1) -> WaitingScrape:
        scrape = WaitingScrape(deadline, self.waiting, lambda: self.answered.append(name))
        scrape.timer = FakeTimer()
        for account in accounts:
            scrape.wait_for(account, ask)
        return scrape


def cancelled(scrape: WaitingScrape) -> bool:
    return isinstance(scrape.timer, FakeTimer) and scrape.timer.cancelled


class TestScrapes:
    def test_one_that_waits_for_no_account_is_answered_at_once(self) -> None:
        scrapes = Scrapes()
        scrape = scrapes.add("a", 20.0)
        assert scrapes.waiting == {scrape}
        scrape.release_if_complete()
        assert scrapes.answered == ["a"]
        assert scrapes.waiting == set()
        assert cancelled(scrape)

    def test_one_that_waits_is_answered_when_the_last_account_has_answered(self) -> None:
        scrapes, first, second = Scrapes(), ScrapeWaits(), ScrapeWaits()
        scrape = scrapes.add("a", 20.0, first, second)
        scrape.release_if_complete()
        first.release_if_complete(outlook())
        assert first.asks == {}
        assert scrapes.answered == []
        second.release_if_complete(outlook())
        assert second.asks == {}
        assert scrapes.answered == ["a"]
        assert scrapes.waiting == set()

    def test_its_deadline_ends_all_its_waits(self) -> None:
        scrapes, first, second = Scrapes(), ScrapeWaits(), ScrapeWaits()
        scrape = scrapes.add("a", 20.0, first, second)
        scrape.release()
        scrape.release()
        assert scrapes.answered == ["a"]
        assert first.asks == second.asks == {}

    def test_one_that_gives_up_is_forgotten_and_not_answered(self) -> None:
        scrapes, account = Scrapes(), ScrapeWaits()
        scrape = scrapes.add("a", 20.0, account)
        scrape.give_up()
        assert scrapes.waiting == set()
        assert account.asks == {}
        assert cancelled(scrape)
        scrape.release()
        assert scrapes.answered == []

    def test_the_answers_to_earlier_asks_are_not_held_up_by_later_ones(self) -> None:
        scrapes, account = Scrapes(), ScrapeWaits()
        for ask, name in enumerate("abc", 1):
            scrapes.add(name, 20.0, account, ask=ask)
        account.release_if_complete(outlook(1))
        assert scrapes.answered == ["a"]
        account.release_if_complete(outlook(in_flight=[2]))
        assert scrapes.answered == ["a", "b"]
        account.release_if_complete(outlook())
        assert scrapes.answered == ["a", "b", "c"]
        account.release_if_complete(outlook())

    def test_those_are_let_go_whose_answers_cannot_come_in_time(self) -> None:
        scrapes, account = Scrapes(), ScrapeWaits()
        for name, deadline in (("in time", 12.5), ("just not", 12.4), ("long", 60.0)):
            scrapes.add(name, deadline, account)
        account.release_if_complete(outlook(0, 0, 0))  # the third is sent at 12 and answered at 12.5
        assert scrapes.answered == ["just not"]
        account.release_if_complete(outlook(0, next_start=None))
        assert scrapes.answered == ["just not", "in time", "long"]

    def test_each_is_judged_by_its_own_ask(self) -> None:
        scrapes, account = Scrapes(), ScrapeWaits()
        scrapes.add("early", 11.0, account, ask=1)
        scrapes.add("late", 11.0, account, ask=2)
        account.release_if_complete(outlook(0, 1, 1))
        assert scrapes.answered == ["late"]

    def test_an_answer_may_make_another_give_up(self) -> None:
        scrapes, account = Scrapes(), ScrapeWaits()
        other: list[WaitingScrape] = []
        scrape = WaitingScrape(20.0, scrapes.waiting, lambda: other.pop().give_up())
        scrape.wait_for(account, 1)
        other.append(scrapes.add("other", 20.0, account))
        account.release_if_complete(outlook())
        assert scrapes.answered == []
        assert scrapes.waiting == set()


class TestPrograms:
    def test_all_that_wait_for_a_task_are_told_its_end_once(self) -> None:
        waits, told = TaskWaits(), list[str]()
        waits.add(7, lambda: told.append("a"))
        give_up = waits.add(7, lambda: told.append("b"))
        waits.add(8, lambda: told.append("c"))
        waits.end(7)
        assert told == ["a", "b"]
        assert list(waits.by_task) == [8]
        waits.end(7)
        assert told == ["a", "b"]
        assert not give_up(), "it has ended, and others may wait by now"

    def test_the_last_one_to_give_up_is_known_and_only_once(self) -> None:
        waits, told = TaskWaits(), list[str]()
        first = waits.add(7, lambda: told.append("a"))
        second = waits.add(7, lambda: told.append("b"))
        assert [first(), first(), second(), second()] == [False, False, True, False]
        assert waits.by_task == {}
        waits.end(7)
        assert told == []

    def test_one_that_has_given_up_leaves_those_that_came_later_alone(self) -> None:
        waits, told = TaskWaits(), list[str]()
        first = waits.add(7, lambda: told.append("a"))
        first()
        waits.add(7, lambda: told.append("b"))
        assert not first()
        waits.end(7)
        assert told == ["b"]

    def test_an_end_may_make_another_give_up(self) -> None:
        waits = TaskWaits()
        others: list[bool] = []
        give_up = waits.add(7, lambda: None)
        waits.add(7, lambda: others.append(give_up()))
        waits.end(7)
        assert others == [False]
