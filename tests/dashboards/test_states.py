"""What the first screens say in each state, from the queries of the dashboards and a real Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.support import grafana, recorded
from tests.support.grafana import Screen
from tests.support.recorded import Account, Exporter, Task, always, failing, moving, then

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support import promtools

pytestmark = pytest.mark.prometheus

STATS: Final = ("Rejected", "Stalled", "Failing", "In progress", "Waiting", "Finished")


def _demo_tasks() -> list[Task]:
    return [
        Task(101, moving(90, 1.5), "spring-sale"),
        Task(102, moving(20, 0.4), "contacts-import"),
        Task(103, always(100, 2), "monthly-report"),
        Task(104, always(0, 0), "black-friday"),
        Task(105, then(moving(55, 2), 600, always(55, 3)), "legacy-import"),
        Task(106, always(37, 1), "loyalty"),
        Task(107, failing("not_found"), "deleted"),
        Task(108, then(moving(100, 1), 1800, always(100, 2))),
        Task(109, then(moving(40, 0.5), 60, failing("api_error")), "weekly"),
    ]


def _mixed(number: int) -> list[Task]:
    """Every tenth waits, two of ten are completed, the others move at speeds of their own."""
    kinds = {0: always(0, 0), 1: always(100, 2), 2: then(always(0, 0), 1200, moving(100, 5))}
    return [
        Task(id_, kinds.get(id_ % 10) or moving(30 + id_ % 60, 0.3 + id_ % 7 / 10), f"campaign-{id_}")
        for id_ in range(1, number + 1)
    ]


EXPORTERS: Final = [
    Exporter("demo", [Account(_demo_tasks())]),
    Exporter(
        "one-dead",
        [
            Account([Task(1, moving(50, 1)), Task(2, moving(80, 1))], "kazakhstan"),
            Account(
                [
                    Task(7001, failing("connection_error"), "black-friday"),
                    Task(7002, then(moving(60, 1), 120, lambda _: None)),
                    Task(7003, lambda _: None),
                ],
                "brazil",
                up=0,
            ),
        ],
    ),
    Exporter("all-dead", [Account([Task(1, failing("unauthorized")), Task(2, lambda _: None)], up=0)]),
    Exporter("one", [Account([Task(1, moving(50, 1), "spring-sale")])]),
    Exporter("sixty", [Account(_mixed(60))]),
    Exporter("five-hundred", [Account(_mixed(500))]),
    Exporter("none", [Account([])]),
    Exporter("finished", [Account([Task(1, always(100, 2)), Task(2, always(100, 2))])]),
    Exporter("gone", [Account(_demo_tasks())], gone=900),
    Exporter(
        "just-started",
        [Account([Task(1, always(30, 1)), *(Task(id_, lambda _: None) for id_ in range(2, 61))])],
        watched=0,
    ),
    Exporter(
        "restored",  # readings of the state file, and no answer yet
        [Account([Task(1, moving(50, 1)), Task(2, always(100, 2))], up=None)],
    ),
    Exporter("taken-off", [Account([Task(1, moving(50, 1)), Task(2, always(100, 2), listed_until=900)])]),
    Exporter("broken-file", [Account([])], settings={"task_file_errors": 1}),
]

GRAY: Final = ["no data gray"] * len(STATS)

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

# State: whether Prometheus can scrape it, accounts not served, configuration.
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[promtools.Prometheus]:
    samples = recorded.Samples()
    for exporter in EXPORTERS:
        recorded.record(samples, exporter)
    # Another job of the same Prometheus, which is down.
    samples.add("up", {"job": "node", "instance": "node:9100"}, recorded.END, 0)
    with recorded.prometheus(tmp_path_factory.mktemp("prometheus"), samples) as running:
        yield running


def _screen(server: promtools.Prometheus, job: str) -> Screen:
    return Screen(server, recorded.END, job=job)


@pytest.mark.parametrize("state", NUMBERS)
def test_the_numbers_are_right_and_none_is_green_without_knowledge(
    server: promtools.Prometheus, state: str
) -> None:
    screen = _screen(server, state)
    shown = [screen.stat(grafana.panel("mobizon-tasks", title)) for title in STATS[:5]]
    assert [cells[0] for cells in shown] == NUMBERS[state]


@pytest.mark.parametrize("state", HEALTH)
def test_the_exporter_is_healthy_or_it_is_said_what_is_wrong(
    server: promtools.Prometheus, state: str
) -> None:
    screen = _screen(server, state)
    titles = ("Exporter", "Accounts not served", "Configuration")
    shown = [screen.stat(grafana.panel("mobizon-exporter", title)) for title in titles]
    assert [cells[0] for cells in shown] == HEALTH[state]


def test_tasks_that_finished_in_the_time_shown_are_counted(server: promtools.Prometheus) -> None:
    finished = grafana.panel("mobizon-tasks", "Finished")
    assert _screen(server, "sixty").stat(finished) == ["completed: 6 green", "rejected: 0 text"]
    assert _screen(server, "demo").stat(finished) == ["completed: 1 green", "rejected: 1 red"]
    assert _screen(server, "none").stat(finished) == ["completed: 0 text", "rejected: 0 text"]
    for state in ("gone", "just-started", "nothing-of-that-name"):
        if state != "gone":
            assert _screen(server, state).stat(finished) == ["no data gray"]


def test_the_table_has_the_most_urgent_first(server: promtools.Prometheus) -> None:
    rows = _screen(server, "demo").table(grafana.panel("mobizon-tasks", "Tasks"))
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


def test_when_a_task_will_be_ready_is_shown_where_it_can_be_known(server: promtools.Prometheus) -> None:
    rows = _screen(server, "demo").table(grafana.panel("mobizon-tasks", "Tasks"))
    ready = {row["Task"]: row["Ready at"] for row in rows}
    # 10 % at 1.5 % a minute, 80 % at 0.4 %, 60 % at 0.5 %, from 12:00 on.
    assert ready.pop("101") in {"01 12:06", "01 12:07"}
    assert ready.pop("102")[:5] == "01 15"
    assert ready.pop("109")[:5] in {"01 13", "01 14"}
    assert set(ready.values()) == {"-"}


def test_tasks_of_an_account_that_is_down_are_failing_and_no_end_is_promised(
    server: promtools.Prometheus,
) -> None:
    rows = _screen(server, "one-dead").table(grafana.panel("mobizon-tasks", "Tasks"))
    assert sorted((row["Task"], row["Account"], row["Status"], row["Error"]) for row in rows[:2]) == [
        ("7001", "brazil", "not read", "connection_error"),
        ("7002", "brazil", "in progress", "account down"),
    ]
    assert [row["Ready at"] for row in rows] == ["-", "-", "01 12:20", "01 12:50"]
    (unread,) = _screen(server, "all-dead").table(grafana.panel("mobizon-tasks", "Tasks"))
    assert (unread["Status"], unread["Error"]) == ("not read", "unauthorized")


@pytest.mark.parametrize(
    ("state", "rows"),
    [("one", 1), ("sixty", 60), ("five-hundred", 500), ("none", 0), ("gone", 0), ("just-started", 1)],
)
def test_the_table_has_a_row_for_each_task(server: promtools.Prometheus, state: str, rows: int) -> None:
    table = grafana.panel("mobizon-tasks", "Tasks")
    assert len(_screen(server, state).table(table)) == rows
    assert table["fieldConfig"]["defaults"]["noValue"].startswith("No tasks listed")
    assert len(_screen(server, state).table(grafana.panel("mobizon-phone", "Tasks"))) == rows


def test_the_accounts_are_listed_the_dead_one_first(server: promtools.Prometheus) -> None:
    accounts = grafana.panel("mobizon-exporter", "Accounts")
    rows = _screen(server, "one-dead").table(accounts)
    assert [(row["Account"], row["API"], row["Full refresh"], row["Budget used"]) for row in rows] == [
        ("brazil", "down", "3", "1"),
        ("kazakhstan", "up", "2", "1"),
    ]
    (idle,) = _screen(server, "finished").table(accounts)
    assert (idle["API"], idle["Full refresh"], idle["Budget used"]) == ("not asked", "0", "0")
    assert _screen(server, "gone").table(accounts) == []


def test_tasks_are_no_longer_listed_only_if_others_are_known_to_be(server: promtools.Prometheus) -> None:
    gone = grafana.panel("mobizon-tasks", "No longer listed")
    assert [row["Task"] for row in _screen(server, "taken-off").table(gone)] == ["2"]
    assert _screen(server, "gone").table(gone) == []


def test_another_job_of_the_same_prometheus_is_not_this_exporter(server: promtools.Prometheus) -> None:
    everything = Screen(server, recorded.END)
    cells = everything.stat(grafana.panel("mobizon-exporter", "Exporter"))
    assert [cell for cell in cells if "down" in cell] == ["gone:10117: down red"]


def test_graphs_show_the_most_urgent_of_many_tasks(server: promtools.Prometheus) -> None:
    screen = _screen(server, "five-hundred")
    progress = screen.lines(grafana.panel("mobizon-tasks", "Progress over time"))
    assert len(progress) == 15
    timeline = screen.lines(grafana.panel("mobizon-tasks", "Status over time"))
    assert len(timeline) == 24
    assert {values[-1] for values in timeline.values()} == {1}
    shown = _screen(server, "demo").lines(grafana.panel("mobizon-tasks", "Status over time"))
    # Completed an hour ago is too long, half an hour is not; what has no status has no line.
    assert {name.split()[0] for name in shown} == {"101", "102", "104", "105", "106", "108", "109"}
    chosen = Screen(server, recorded.END, job="five-hundred", task="7|13")
    assert set(chosen.lines(grafana.panel("mobizon-tasks", "Progress over time"))) == {
        "7 campaign-7",
        "13 campaign-13",
    }


def test_failures_are_shown_without_series_of_zeros(server: promtools.Prometheus) -> None:
    failures = grafana.panel("mobizon-exporter", "Failures by reason")
    assert set(_screen(server, "one-dead").lines(failures)) == {"connection_error brazil"}
    assert _screen(server, "demo").lines(failures) == {}
    outcomes = _screen(server, "one-dead").lines(grafana.panel("mobizon-exporter", "Requests by outcome"))
    assert {name.split()[0] for name in outcomes} == {"answered", "failed"}


@pytest.mark.slow
def test_every_query_of_five_hundred_tasks_over_six_hours_is_cheap(tmp_path: Path) -> None:
    samples = recorded.Samples()
    recorded.record(samples, Exporter("mobizon", [Account(_mixed(500))], watched=6 * 3600))
    took = {}
    with recorded.prometheus(tmp_path, samples) as server:
        screen = Screen(server, recorded.END)
        for name, dashboard in grafana.DASHBOARDS.items():
            for panel in grafana.all_panels(dashboard):
                before = server.cpu_seconds()
                screen.show(panel)
                # Of the processor, which nothing else on this machine can delay.
                took[f"{name}: {panel['title']}"] = (server.cpu_seconds() - before) / len(panel["targets"])
    print({name: round(seconds, 3) for name, seconds in took.items() if seconds > 0.05})
    assert max(took.values()) < 1.0
