"""What the panels below the first screen show, and what their queries cost."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support import grafana, recorded
from tests.support.dashboard_states import mixed
from tests.support.grafana import Screen
from tests.support.recorded import Account, Exporter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Screens = Callable[..., Screen]

pytestmark = pytest.mark.prometheus


def test_tasks_are_no_longer_listed_only_if_others_are_known_to_be(screen: Screens) -> None:
    gone = grafana.panel("mobizon-tasks", "No longer listed")
    assert [row["Task"] for row in screen("taken-off").table(gone)] == ["2"]
    assert screen("gone").table(gone) == []


def test_graphs_show_the_most_urgent_of_many_tasks(screen: Screens) -> None:
    now = screen("five-hundred")
    progress = now.lines(grafana.panel("mobizon-tasks", "Progress over time"))
    assert len(progress) == 15
    timeline = now.lines(grafana.panel("mobizon-tasks", "Status over time"))
    assert len(timeline) == 24
    assert {values[-1] for values in timeline.values()} == {1}
    shown = screen("demo").lines(grafana.panel("mobizon-tasks", "Status over time"))
    # Completed an hour ago is too long, half an hour is not; what has no status has no line.
    assert {name.split()[0] for name in shown} == {"101", "102", "104", "105", "106", "108", "109"}
    chosen = screen("five-hundred", task="7|13")
    assert set(chosen.lines(grafana.panel("mobizon-tasks", "Progress over time"))) == {
        "7 campaign-7",
        "13 campaign-13",
    }


def test_failures_are_shown_without_series_of_zeros(screen: Screens) -> None:
    failures = grafana.panel("mobizon-exporter", "Failures by reason")
    assert set(screen("one-dead").lines(failures)) == {"connection_error brazil"}
    assert screen("demo").lines(failures) == {}
    outcomes = screen("one-dead").lines(grafana.panel("mobizon-exporter", "Requests by outcome"))
    assert {name.split()[0] for name in outcomes} == {"answered", "failed"}


def test_the_queue_is_shown_by_state(screen: Screens) -> None:
    queue = screen("demo").lines(grafana.panel("mobizon-tasks", "Queue over time"))
    assert {name: values[-1] for name, values in queue.items()} == {
        "waiting": 1,
        "in_progress": 4,
        "completed": 2,
        "rejected": 1,
        "not_found": 1,
        "unknown": 0,
    }


def test_outcomes_are_shown_by_status(screen: Screens) -> None:
    now = screen("demo", __rate_interval="1h")
    finished = now.lines(grafana.panel("mobizon-tasks", "Finished per hour"))
    assert {name: round(values[-1]) for name, values in finished.items()} == {"completed": 1, "rejected": 1}
    durations = now.lines(grafana.panel("mobizon-tasks", "Duration"))
    assert set(durations) == {"p50 completed", "p50 rejected", "p95 completed", "p95 rejected"}
    # Both took between ten minutes and an hour.
    assert all(600 < values[-1] <= 3600 for values in durations.values())


def test_the_speed_of_tasks_that_move_is_shown(screen: Screens) -> None:
    speed = screen("demo").lines(grafana.panel("mobizon-tasks", "Speed"))
    now = {name.split()[0]: round(values[-1], 1) for name, values in speed.items()}
    assert (now["101"], now["102"]) == (1.5, 0.4)
    assert "106" not in now


def test_firing_alerts_of_this_product_are_listed(screen: Screens) -> None:
    rows = screen("demo").table(grafana.panel("mobizon-tasks", "Firing alerts"))
    assert [(row["Severity"], row["Alert"], row["Task"], row["Since"]) for row in rows] == [
        ("critical", "MobizonTaskRejected", "105", "01 11:50")
    ]


def test_annotations_mark_alerts_and_restarts(screen: Screens) -> None:
    now = screen("demo")
    found = {item["name"]: item for item in grafana.DASHBOARDS["mobizon-tasks"]["annotations"]["list"]}
    (alert,) = now.query(found["Firing alerts"]["expr"])
    assert alert["metric"]["alertname"] == "MobizonTaskRejected"
    (restart,) = now.query(found["Restarts of the exporter"]["expr"])
    assert found["Restarts of the exporter"]["useValueForTime"]
    assert float(restart["value"][1]) == 1000 * (recorded.END - 3600)


@pytest.mark.alone
@pytest.mark.slow
def test_every_query_of_five_hundred_tasks_over_six_hours_is_cheap(tmp_path: Path) -> None:
    samples = recorded.Samples()
    recorded.record(samples, Exporter("mobizon", [Account(mixed(500))], watched=6 * 3600))
    took = {}
    with recorded.prometheus(tmp_path, samples) as server:

        def cpu_of(query: Callable[[], object]) -> float:
            before = server.cpu_seconds()  # of the processor, which nothing else on this machine can delay
            query()
            return server.cpu_seconds() - before

        screen, began = Screen(server, recorded.END), recorded.END - 6 * 3600
        plain = partial(server.query_range, "sum(rate(mobizon_task_progress[30m]))", began, recorded.END, 30)
        peer = min(cpu_of(plain) for _ in range(5))
        for name, dashboard in grafana.DASHBOARDS.items():
            for panel in grafana.all_panels(dashboard):
                queries = len(panel["targets"])
                took[f"{name}: {panel['title']}"] = cpu_of(partial(screen.show, panel)) / queries / peer
    print({name: round(times, 1) for name, times in took.items() if times > 1})
    assert max(took.values()) < 25  # 6 to 9; ranked anew at every step a hundred
