"""The PromQL of tasks that several panels share.

Functions take the modifier `at`: empty for the moment that is evaluated, ` @ end()` in queries over a range
for the end of what is shown.
"""

from __future__ import annotations

from typing import Final

# Selectors. `account` may match nothing, for with one account there is no such label.
TARGET: Final = 'job=~"$job", instance=~"$instance"'
ACCOUNT: Final = f'{TARGET}, account=~"$account"'
TASK: Final = f'{ACCOUNT}, task_id=~"$task"'

# Two instances may show the same task for a while; labels of the user would split rows.
BY: Final = "account, task_id, name"
BY_ACCOUNT: Final = "job, instance, account"

BUILD: Final = f"mobizon_exporter_build_info{{{TARGET}}}"
# `$job` may stand for every job of Prometheus: those count that have been this exporter in the time shown.
EXPORTERS: Final = f"(up{{{TARGET}}} and on (job, instance) last_over_time({BUILD}[$__range]))"

TASKS: Final = f"mobizon_tasks{{{ACCOUNT}}}"
ACTIVE: Final = f'sum by ({BY_ACCOUNT}) (mobizon_tasks{{{ACCOUNT}, status!~"completed|rejected"}})'
UP: Final = f"mobizon_up{{{ACCOUNT}}}"
NOT_AVAILABLE: Final = f"({ACTIVE} > 0 unless on ({BY_ACCOUNT}) {UP} == 1)"
UNREAD: Final = f'sum(mobizon_tasks{{{ACCOUNT}, status="unknown"}})'
# Zero where every task has been read and every account with active tasks is available, else nothing.
ZERO: Final = f"({UNREAD} == 0 unless count({NOT_AVAILABLE} or {EXPORTERS} == 0))"

NONE_KNOWN: Final = -1
EXPORTER_DOWN: Final = -2
NONE_KNOWN_VALUE: Final = f"(0 * max({TASKS}) - 1)"

STALLED_AFTER: Final = 1800


def metric(name: str, at: str = "") -> str:
    """A metric of tasks, without the labels that would split rows."""
    return f"max by ({BY}) (mobizon_task_{name}{{{TASK}}}{at})"


def stalled(at: str = "") -> str:
    """In progress, and read with the same progress for half an hour."""
    changed, read = metric("last_change_timestamp_seconds", at), metric("last_success_timestamp_seconds", at)
    return f"({read} - {changed} >= {STALLED_AFTER} and {metric('status', at)} == 1)"


def failing(at: str = "") -> str:
    """The last request failed, or the API is unavailable for the account."""
    error = f"mobizon_task_error{{{TASK}}}{at}"
    return f"max by ({BY}) ({error} or {_of_unavailable_account(at)})"


def status_or_unread() -> str:
    """The status, and -1 for tasks that fail without one: a column without any value would be left out."""
    return f"{metric('status')} or on ({BY}) 0 * {failing()} - 1"


def error() -> str:
    """The same with the reason, which is the account's where there is no other."""
    of_account = f"max by ({BY}) ({_of_unavailable_account()})"
    return (
        f"max by ({BY}, reason) (mobizon_task_error{{{TASK}}})"
        f' or on ({BY}) label_replace({of_account}, "reason", "API unavailable", "", "")'
    )


def _of_unavailable_account(at: str = "") -> str:
    return f"(mobizon_task_status{{{TASK}}}{at} < 2 and on ({BY_ACCOUNT}) {UP}{at} == 0)"


# While a task waits its progress is zero, which says nothing of its speed.
_RUNNING: Final = f"(mobizon_task_progress{{{TASK}}} and mobizon_task_status{{{TASK}}} == 1)"


def speed(at: str = "") -> str:
    """Percent a second over the last hour, of tasks that have been seen to move three times in it.

    Not `rate`: progress is a gauge. Not half an hour: with an hour the median error of the time left
    is a tenth to a third less, for tasks pause and change their speed (tests/dashboards/test_estimates.py).
    """
    moved = f"{_RUNNING}[1h:30s]{at}"
    return (
        f"(deriv({moved}) > 0 and changes({moved}) >= 3 and mobizon_task_status{{{TASK}}}{at} == 1"
        f" unless on ({BY_ACCOUNT}) {UP}{at} == 0)"
    )


def time_left(at: str = "") -> str:
    """Seconds from the last reading; nothing for what waits, stands still, or has moved too little."""
    left = f"max by ({BY}) ((100 - mobizon_task_progress{{{TASK}}}{at}) / {speed(at)})"
    return f"({left} unless {stalled(at)})"


def ready_at() -> str:
    """When the task will be done, in milliseconds, rounded to the minute."""
    done = f"{metric('last_success_timestamp_seconds')} + {time_left()}"
    return f"60000 * round(({done}) / 60)"


def age() -> str:
    """Age of the reading. Finished tasks are no longer polled, so theirs says nothing."""
    unfinished = f"{metric('last_success_timestamp_seconds')} unless {metric('status')} >= 2 <= 3"
    return f"clamp_min(time() - ({unfinished}), 0)"


def urgency(at: str = "") -> str:
    """5 rejected, 4 stalled, 3 failing, 2 to 3 in progress (soonest done highest), 1 waiting, 0 completed."""
    status = metric("status", at)
    return (
        f"(0 * ({status} == 3) + 5) or (0 * {stalled(at)} + 4) or (0 * {failing(at)} + 3)"
        f" or (2 + 0.9 / (1 + {time_left(at)} / 3600)) or (0 * ({status} == 1) + 2)"
        f" or (0 * ({status} == 0) + 1) or 0 * {status}"
    )


def most_urgent(number: int, series: str, *, but: str = "") -> str:
    """Over a range, those of the series that are of the tasks most urgent at its end; `but` leaves tasks out.

    The series are restricted before they are aggregated, which takes half of the time with 500 tasks.
    """
    left_out = f" unless {but}" if but else ""
    chosen = f"topk({number}, ({urgency(' @ end()')}){left_out})"
    return f"max by ({BY}) ({series} and on (account, task_id) {chosen})"


# Completed more than an hour before the end of what is shown.
LONG_COMPLETED: Final = (
    f"({metric('status', ' @ end()')} == 2"
    f" and {metric('last_change_timestamp_seconds', ' @ end()')} < $__to / 1000 - 3600)"
)


def count_of(condition: str, zero: str = ZERO) -> str:
    """How many; -1 where none is known but not all is known, and nothing where nothing is."""
    return f"count({condition}) or {zero} or {NONE_KNOWN_VALUE}"


def count_of_stalled() -> str:
    """None is stalled only if each task in progress has been seen to move, or long enough not to."""
    changed = f"mobizon_task_last_change_timestamp_seconds{{{TASK}}}"
    unmoved = f"mobizon_task_status{{{TASK}}} == 1 and {changed} == min_over_time({changed}[30m])"
    return count_of(stalled(), f"({ZERO} unless count({unmoved}))")


def count_of_failing() -> str:
    """Tasks whose last request failed, all active ones of unavailable accounts; -2: the exporter is down."""
    of_accounts = (
        f"{ACTIVE} and on ({BY_ACCOUNT}) {UP} == 0 or count by ({BY_ACCOUNT}) (mobizon_task_error{{{TASK}}})"
    )
    return f"sum({of_accounts}) or {ZERO} or (min({EXPORTERS}) == 0) - 2 or {NONE_KNOWN_VALUE}"
