"""What the first screens say in each state, from the queries of the dashboards and a real Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import grafana

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.grafana import Screen

    Screens = Callable[..., Screen]

pytestmark = pytest.mark.prometheus

STATS: Final = ("Rejected", "Stalled", "Failing", "In progress", "Waiting", "Finished")

# State: what each number says, and its colour.
NUMBERS: Final = {
    "demo": ["1 red", "1 orange", "2 orange", "4 dark-yellow", "1 blue"],
    "one-dead": ["none known gray", "none known gray", "3 orange", "3 dark-yellow", "none known gray"],
    "all-dead": ["none known gray", "none known gray", "2 orange", "none known gray", "none known gray"],
    "one": ["0 green", "0 green", "0 green", "1 dark-yellow", "0 text"],
    "sixty": ["0 green", "0 green", "0 green", "42 dark-yellow", "6 blue"],
    "five-hundred": ["0 green", "0 green", "0 green", "350 dark-yellow", "50 blue"],
    "none": ["0 green", "0 green", "0 green", "0 text", "0 text"],
    "finished": ["0 green", "0 green", "0 green", "0 text", "0 text"],
    "gone": ["no data gray", "no data gray", "exporter down red", "no data gray", "no data gray"],
    "just-started": [
        "none known gray",
        "none known gray",
        "none known gray",
        "1 dark-yellow",
        "none known gray",
    ],
    "restored": ["none known gray", "none known gray", "none known gray", "1 dark-yellow", "none known gray"],
    "nothing-of-that-name": ["no data gray"] * 5,
}

# State: whether Prometheus can scrape it, accounts unavailable, configuration.
HEALTH: Final = {
    "demo": ["up green", "0 green", "valid green"],
    "one-dead": ["up green", "1 red", "valid green"],
    "all-dead": ["up green", "1 red", "valid green"],
    "five-hundred": ["up green", "0 green", "valid green"],
    "none": ["up green", "none known gray", "valid green"],
    "finished": ["up green", "none known gray", "valid green"],
    "gone": ["down red", "no data gray", "no data gray"],
    "just-started": ["up green", "0 green", "valid green"],
    "restored": ["up green", "none known gray", "valid green"],
    "broken-file": ["up green", "none known gray", "invalid red"],
    "nothing-of-that-name": ["no data gray"] * 3,
}


@pytest.mark.parametrize("state", NUMBERS)
def test_the_numbers_are_right_and_none_is_green_without_knowledge(screen: Screens, state: str) -> None:
    shown_now = screen(state)
    shown = [shown_now.stat(grafana.panel("mobizon-tasks", title)) for title in STATS[:5]]
    assert [cells[0] for cells in shown] == NUMBERS[state]


@pytest.mark.parametrize("state", HEALTH)
def test_the_exporter_is_healthy_or_it_is_said_what_is_wrong(screen: Screens, state: str) -> None:
    shown_now = screen(state)
    titles = ("Exporter", "Accounts unavailable", "Configuration")
    shown = [shown_now.stat(grafana.panel("mobizon-exporter", title)) for title in titles]
    assert [cells[0] for cells in shown] == HEALTH[state]


def test_tasks_that_finished_in_the_time_shown_are_counted(screen: Screens) -> None:
    finished = grafana.panel("mobizon-tasks", "Finished")
    assert screen("sixty").stat(finished) == ["completed: 6 green", "rejected: 0 text"]
    assert screen("demo").stat(finished) == ["completed: 1 green", "rejected: 1 red"]
    assert screen("none").stat(finished) == ["completed: 0 text", "rejected: 0 text"]
    for state in ("gone", "just-started", "nothing-of-that-name"):
        if state != "gone":
            assert screen(state).stat(finished) == ["no data gray"]


def test_the_table_has_the_most_urgent_first(screen: Screens) -> None:
    rows = screen("demo").table(grafana.panel("mobizon-tasks", "Tasks"))
    shown = [(row["Task"], row["Status"], row["Error"]) for row in rows]
    # Those of one urgency stand in no order that is promised.
    assert shown[:2] + sorted(shown[2:4]) + shown[4:7] + sorted(shown[7:]) == [
        ("105", "rejected", ""),
        ("106", "in progress", ""),  # stalled
        ("107", "not read", "not_found"),
        ("109", "in progress", "api_error"),
        ("101", "in progress", ""),
        ("102", "in progress", ""),
        ("104", "waiting", ""),
        ("103", "completed", ""),
        ("108", "completed", ""),
    ]
    assert [row["Name"] for row in rows if row["Task"] in {"101", "108"}] == ["spring-sale", "-"]


def test_when_a_task_will_be_ready_is_shown_where_it_can_be_known(screen: Screens) -> None:
    rows = screen("demo").table(grafana.panel("mobizon-tasks", "Tasks"))
    ready = {row["Task"]: row["Ready at"] for row in rows}
    # 10 % at 1.5 % a minute, 80 % at 0.4 %, 60 % at 0.5 %, from 12:00 on.
    assert ready.pop("101") in {"01 12:06", "01 12:07"}
    assert ready.pop("102")[:5] == "01 15"
    assert ready.pop("109")[:5] in {"01 13", "01 14"}
    assert set(ready.values()) == {"-"}


def test_tasks_of_an_account_that_is_unavailable_are_failing_and_no_end_is_promised(screen: Screens) -> None:
    rows = screen("one-dead").table(grafana.panel("mobizon-tasks", "Tasks"))
    assert sorted((row["Task"], row["Account"], row["Status"], row["Error"]) for row in rows[:2]) == [
        ("7001", "brazil", "not read", "connection_error"),
        ("7002", "brazil", "in progress", "API unavailable"),
    ]
    assert [row["Ready at"] for row in rows] == ["-", "-", "01 12:20", "01 12:50"]
    (unread,) = screen("all-dead").table(grafana.panel("mobizon-tasks", "Tasks"))
    assert (unread["Status"], unread["Error"]) == ("not read", "unauthorized")


@pytest.mark.parametrize(
    ("state", "rows"),
    [("one", 1), ("sixty", 60), ("five-hundred", 500), ("none", 0), ("gone", 0), ("just-started", 1)],
)
def test_the_table_has_a_row_for_each_task(screen: Screens, state: str, rows: int) -> None:
    table = grafana.panel("mobizon-tasks", "Tasks")
    assert len(screen(state).table(table)) == rows
    assert table["fieldConfig"]["defaults"]["noValue"].startswith("No tasks listed")
    assert len(screen(state).table(grafana.panel("mobizon-phone", "Tasks"))) == rows


def test_the_accounts_are_listed_the_dead_one_first(screen: Screens) -> None:
    accounts = grafana.panel("mobizon-exporter", "Accounts")
    rows = screen("one-dead").table(accounts)
    assert [(row["Account"], row["API"], row["Full refresh"], row["Budget used"]) for row in rows] == [
        ("brazil", "unavailable", "3", "1"),
        ("kazakhstan", "available", "2", "1"),
    ]
    (idle,) = screen("finished").table(accounts)
    assert (idle["API"], idle["Full refresh"], idle["Budget used"]) == ("not asked", "0", "0")
    assert screen("gone").table(accounts) == []


def test_another_job_of_the_same_prometheus_is_not_this_exporter(screen: Screens) -> None:
    everything = screen()
    cells = everything.stat(grafana.panel("mobizon-exporter", "Exporter"))
    assert [cell for cell in cells if "down" in cell] == ["gone:10117: down red"]
