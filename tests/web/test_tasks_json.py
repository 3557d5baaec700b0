"""`/api/v1/tasks`: field names and values that programs may rely on."""

from __future__ import annotations

import json
from typing import Any

from exporter.errors import Reason
from exporter.model import STATES, AccountView, Durations, Failure, Reading, TaskSpec, TaskView
from exporter.web.tasks_json import tasks_json

NOW = 1_767_225_600.0


def account(*tasks: TaskView, name: str | None = None) -> AccountView:
    return AccountView(
        name=name,
        url="https://api.mobizon.kz",
        up=True,
        backing_off=False,
        interval=1.0,
        spacing=1.5,
        due=2,
        active=4,
        requests=42,
        failures={Reason.TIMEOUT: 3},
        durations=Durations((), (), 0.0),
        tasks=tasks,
    )


def only_task(view: TaskView) -> dict[str, Any]:
    (task,) = tasks_json((account(view),), NOW)["tasks"]
    return dict(task)


def test_a_task_in_progress_has_exactly_these_fields() -> None:
    view = TaskView(
        TaskSpec(124, "spring-sale", {"team": "crm"}),
        reading=Reading(40.5, 1, NOW - 2.5),
        changed_at=NOW - 7.5,
        speed=0.5,
        failure=Failure(Reason.RATE_LIMITED, "code 30", NOW - 1),
    )
    assert only_task(view) == {
        "id": 124,
        "name": "spring-sale",
        "labels": {"team": "crm"},
        "account": None,
        "source": "config",
        "state": "in_progress",
        "progress": 40.5,
        "status": 1,
        "read_at": NOW - 2.5,
        "age_seconds": 2.5,
        "changed_at": NOW - 7.5,
        "speed_percent_per_second": 0.5,
        "seconds_left": 116.5,
        "stale": False,
        "finished": False,
        "error": {"reason": "rate_limited", "detail": "code 30", "since": NOW - 1},
    }


def test_what_is_not_known_of_a_task_is_null() -> None:
    task = only_task(TaskView(TaskSpec(1)))
    assert task.pop("id") == 1
    assert task.pop("state") == "unknown"
    assert task.pop("stale") is False
    assert task.pop("finished") is False
    assert task.pop("source") == "config"
    assert task.pop("labels") == {}
    assert set(task) == {
        "name", "account", "progress", "status", "read_at", "age_seconds", "changed_at",
        "speed_percent_per_second", "seconds_left", "error",
    }  # fmt: skip
    assert set(task.values()) == {None}


def test_an_account_has_exactly_these_fields() -> None:
    (answer,) = tasks_json((account(name="kz"),), NOW)["accounts"]
    assert answer == {
        "name": "kz",
        "url": "https://api.mobizon.kz",
        "up": True,
        "backing_off": False,
        "interval": 1.0,
        "spacing": 1.5,
        "full_refresh_seconds": 6.0,
        "due": 2,
        "active": 4,
        "requests": 42,
        "failures": {reason.value: 3 if reason is Reason.TIMEOUT else 0 for reason in Reason},
    }


def test_every_state_is_counted_and_no_other() -> None:
    views = [TaskView(TaskSpec(n), Reading(0, status, NOW)) for n, status in enumerate((0, 1, 1, 2, 3, 7), 1)]
    views.append(TaskView(TaskSpec(99), failure=Failure(Reason.NOT_FOUND, "code 2", NOW)))
    answer = tasks_json((account(*views[:3]), account(*views[3:], name="ua")), NOW)
    assert tuple(answer) == ("now", "states", "accounts", "tasks")
    assert tuple(answer["states"]) == STATES
    assert list(answer["states"].values()) == [1, 2, 1, 1, 1, 1]
    assert [task["account"] for task in answer["tasks"]] == [None] * 3 + ["ua"] * 4
    assert {task["state"] for task in answer["tasks"]} == set(STATES)


def test_a_stale_task_is_unknown_but_shows_its_last_reading() -> None:
    task = only_task(TaskView(TaskSpec(1), Reading(37, 1, NOW - 900), stale=True, changed_at=1.0, speed=1.0))
    assert (task["state"], task["stale"], task["progress"], task["age_seconds"]) == ("unknown", True, 37, 900)
    assert task["seconds_left"] is None


def test_a_task_that_goes_backwards_has_no_estimate() -> None:
    task = only_task(TaskView(TaskSpec(1), Reading(0, 1, NOW), changed_at=NOW, speed=-2.0))
    assert task["seconds_left"] is None
    assert task["speed_percent_per_second"] == -2.0


def test_an_overdue_task_is_due_now_and_a_reading_from_the_future_is_new() -> None:
    late = only_task(TaskView(TaskSpec(1), Reading(99, 1, NOW - 60), changed_at=NOW - 60, speed=1.0))
    assert late["seconds_left"] == 0.0
    early = only_task(TaskView(TaskSpec(1), Reading(99, 1, NOW + 60), changed_at=NOW + 60))
    assert early["age_seconds"] == 0.0


def test_it_is_strict_json_whatever_the_names_are() -> None:
    name = '</script>"\u2028\\'
    answer = tasks_json((account(TaskView(TaskSpec(1, name, {"a": name}))),), NOW)
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer


def test_the_age_counts_what_the_clock_has_been_set_back_by() -> None:
    view = TaskView(TaskSpec(1), reading=Reading(100, 2, NOW + 3540), set_back=3600)
    assert only_task(view)["age_seconds"] == 60
