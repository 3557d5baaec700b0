"""What `/api/v1/tasks` answers: what the status page shows, for programs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from exporter.errors import Reason
from exporter.model import STATES

if TYPE_CHECKING:
    from exporter.model import AccountView, Failure, TaskView


def tasks_json(accounts: tuple[AccountView, ...], now: float) -> dict[str, Any]:
    """Everything that is known, ready for `json.dumps`. Fields may be added, never renamed or removed.

    `now` and all times are Unix seconds, durations seconds, progress percent; what is not known is null.
    Tasks are in the order of the configuration, each account's after the previous one's::

        {
          "now": 1767225600.0,
          "states": {"waiting": 0, "in_progress": 1, "completed": 0, "rejected": 0, "not_found": 0, ...},
          "accounts": [{
            "name": null, "url": "https://api.mobizon.kz",
            "up": true, "backing_off": false,
            "interval": 1.0, "spacing": 1.05, "full_refresh_seconds": 1.05,
            "due": 0, "active": 1, "requests": 42,
            "failures": {"not_found": 0, "rate_limited": 1, ...}
          }],
          "tasks": [{
            "id": 124, "name": "spring-sale", "labels": {"team": "crm"}, "account": null, "source": "config",
            "state": "in_progress", "progress": 40.0, "status": 1,
            "read_at": 1767225597.5, "age_seconds": 2.5, "changed_at": 1767225597.5,
            "speed_percent_per_second": 0.5, "seconds_left": 117.5, "stale": false, "finished": false,
            "error": {"reason": "rate_limited", "detail": "code 30", "since": 1767225599.0}
          }]
        }

    - `up`: null until an answer tells. `interval` is the configured spacing of requests, `spacing` the one
      in force. `failures` has every reason.
    - `states` has every state; `state` is one of them. `progress` and `status` are those of the last reading,
      also when it is `stale`: too old to be the present state, which then is `unknown`.
    - `seconds_left` counts from `now`. `error` is null unless the last request failed. `source` is where the
      task is listed: config, file or registry.
    """
    states = Counter(task.state for account in accounts for task in account.tasks)
    return {
        "now": now,
        "states": {state: states[state] for state in STATES},
        "accounts": [_account(account) for account in accounts],
        "tasks": [task_json(account.name, task, now) for account in accounts for task in account.tasks],
    }


def _account(account: AccountView) -> dict[str, Any]:
    return {
        "name": account.name,
        "url": account.url,
        "up": account.up,
        "backing_off": account.backing_off,
        "interval": account.interval,
        "spacing": account.spacing,
        "full_refresh_seconds": account.full_refresh,
        "due": account.due,
        "active": account.active,
        "requests": account.requests,
        "failures": {reason.value: account.failures.get(reason, 0) for reason in Reason},
    }


def task_json(account: str | None, task: TaskView, now: float) -> dict[str, Any]:
    """One task of an account."""
    reading = task.reading
    age = task.age(now)
    left = task.seconds_left
    return {
        "id": task.spec.id,
        "name": task.spec.name,
        "labels": dict(task.spec.labels),
        "account": account,
        "source": task.spec.source.value,
        "state": task.state,
        "progress": reading.progress if reading else None,
        "status": reading.status if reading else None,
        "read_at": reading.taken_at if reading else None,
        "age_seconds": age,
        "changed_at": task.changed_at if reading else None,
        "speed_percent_per_second": task.speed,
        "seconds_left": None if left is None or age is None else max(0.0, left - age),
        "stale": task.stale,
        "finished": reading is not None and reading.final,
        "error": failure_json(task.failure),
    }


def failure_json(failure: Failure | None) -> dict[str, Any] | None:
    """A failure, if there is one."""
    if failure is None:
        return None
    return {"reason": failure.reason.value, "detail": failure.detail, "since": failure.since}
