"""The series of accounts, as text: of a thousand accounts few values change between two scrapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Final

from exporter.metrics.text import header, sample, series
from exporter.model import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from exporter.model import AccountView, Durations

    Labels = dict[str, str]
    Values = tuple[float, ...]
    Kept = tuple[Values, list[str], str]  # values, the series that they are of, and both as lines


@dataclass(frozen=True, slots=True)
class _Family:
    """A family: `values` are those of an account, `series` the series that they are of, in the same order.

    Which series an account has never changes; as long as there are no values, they are not shown.
    """

    name: str
    kind: str
    documentation: str
    values: Callable[[AccountView], Values]
    series: Callable[[str, Labels, AccountView], list[str]]


class AccountSeries:
    """Renders views of accounts; values that are those of last time are not formatted again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, str], Kept] = {}

    def render(self, accounts: tuple[AccountView, ...], *, openmetrics: bool) -> str:
        """Every family with its series, such as these.

        # HELP mobizon_api_requests_total Requests sent to the API.
        # TYPE mobizon_api_requests_total counter
        mobizon_api_requests_total{account="kz"} 1234.0
        mobizon_api_requests_total{account="ua"} 56.0
        """
        kept, self._kept = self._kept, {}
        parts: list[str] = []
        for family in FAMILIES:
            parts.append(header(family.name, family.kind, family.documentation, openmetrics=openmetrics))
            for account in accounts:
                key = account.name, family.name
                known = self._kept[key] = _rendered(family, account, kept.get(key))
                parts.append(known[2])
        return "".join(parts)


def _rendered(family: _Family, account: AccountView, kept: Kept | None) -> Kept:
    values = family.values(account)
    if kept and kept[0] == values:
        return kept
    labels = {"account": account.name} if account.name else {}
    names = kept[1] if kept else family.series(family.name, labels, account)
    return values, names, "".join(map(sample, names, values))


def _gauge(name: str, labels: Labels, _: AccountView) -> list[str]:
    return [series(name, labels)]


def _counter(name: str, labels: Labels, _: AccountView) -> list[str]:
    return [series(f"{name}_total", labels)]


def _by_state(name: str, labels: Labels, _: AccountView) -> list[str]:
    return [series(name, labels | {"status": state}) for state in STATES]


def _by_reason(name: str, labels: Labels, account: AccountView) -> list[str]:
    return [series(f"{name}_total", labels | {"reason": reason.value}) for reason in account.failures]


def _by_final_status(name: str, labels: Labels, account: AccountView) -> list[str]:
    return [series(f"{name}_total", labels | {"status": status.name.lower()}) for status in account.finished]


def _histogram(name: str, labels: Labels, account: AccountView) -> list[str]:
    return _of_histogram(name, labels, account.durations)


def _histograms_by_final_status(name: str, labels: Labels, account: AccountView) -> list[str]:
    return [
        one
        for status, known in account.task_durations.items()
        for one in _of_histogram(name, labels | {"status": status.name.lower()}, known)
    ]


def _of_histogram(name: str, labels: Labels, durations: Durations) -> list[str]:
    buckets = [series(f"{name}_bucket", labels | {"le": str(le)}) for le in (*durations.bounds, "+Inf")]
    return [*buckets, series(f"{name}_count", labels), series(f"{name}_sum", labels)]


def _observed(durations: Durations) -> Iterable[float]:
    """Buckets are cumulative, and the last one holds everything."""
    buckets = tuple(accumulate(durations.counts))
    return (*buckets, buckets[-1], durations.seconds)


def _tasks_by_state(account: AccountView) -> Values:
    counted = Counter(task.state for task in account.tasks)
    return tuple(counted[state] for state in STATES)


FAMILIES: Final = (
    _Family(
        "mobizon_tasks",
        "gauge",
        "Tasks listed, by status as of the last reading.",
        _tasks_by_state,
        _by_state,
    ),
    _Family(
        "mobizon_up",
        "gauge",
        "Whether the API is available for the account, as of the last response.",
        lambda account: () if account.up is None else (account.up,),
        _gauge,
    ),
    _Family(
        "mobizon_api_requests",
        "counter",
        "Requests sent to the API.",
        lambda account: (account.requests,),
        _counter,
    ),
    _Family(
        "mobizon_api_request_failures",
        "counter",
        "Requests to the API that failed, by reason.",
        lambda account: tuple(account.failures.values()),
        _by_reason,
    ),
    _Family(
        "mobizon_api_request_duration_seconds",
        "histogram",
        "Seconds from request to response.",
        lambda account: tuple(_observed(account.durations)),
        _histogram,
    ),
    _Family(
        "mobizon_api_request_interval_seconds",
        "gauge",
        "Spacing of requests in force, in seconds.",
        lambda account: (account.spacing,),
        _gauge,
    ),
    _Family(
        "mobizon_tasks_due",
        "gauge",
        "Tasks due, whose request has yet to be sent.",
        lambda account: (account.due,),
        _gauge,
    ),
    _Family(
        "mobizon_tasks_finished",
        "counter",
        "Tasks seen to finish, by status; not those that were finished when first seen.",
        lambda account: tuple(account.finished.values()),
        _by_final_status,
    ),
    _Family(
        "mobizon_task_duration_seconds",
        "histogram",
        "Seconds from a task's first reading to its final one, by status.",
        lambda account: tuple(chain.from_iterable(map(_observed, account.task_durations.values()))),
        _histograms_by_final_status,
    ),
)
