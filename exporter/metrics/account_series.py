"""The series of accounts, as text: of a thousand accounts few values change between two scrapes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, chain
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from exporter.metrics.text import header, sample, series
from exporter.model import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from exporter.model import AccountView, Durations, TaskView
    from exporter.slices import Steps

    Labels = dict[str, str]
    Values = tuple[float, ...]
    Kept = tuple[Any, list[str], bytes]  # the source of values, the series that they are of, and their lines


@dataclass(frozen=True, slots=True)
class _Family:
    """A family: `values` are made of what `source` is of an account, for the series that `series` names.

    Which series an account has never changes; as long as there are no values, they are not shown.
    """

    name: str
    kind: str
    documentation: str
    source: Callable[[AccountView], Any]
    values: Callable[[Any], Values]
    series: Callable[[str, Labels, AccountView], list[str]]


class AccountSeries:
    """Renders views of accounts; values that are those of last time are not formatted again."""

    def __init__(self) -> None:
        self._kept: dict[str | None, list[Kept]] = {}

    def render(self, accounts: tuple[AccountView, ...], *, openmetrics: bool) -> Steps[list[bytes]]:
        """Every family with its series, in pieces, such as these.

        # HELP mobizon_api_requests_total Requests sent to the API.
        # TYPE mobizon_api_requests_total counter
        mobizon_api_requests_total{account="kz"} 1234.0
        mobizon_api_requests_total{account="ua"} 56.0
        """
        kept, self._kept = self._kept, {}
        families = [
            [header(family.name, family.kind, family.documentation, openmetrics=openmetrics).encode()]
            for family in FAMILIES
        ]
        for account in accounts:
            before = kept.get(account.name, _NOTHING)
            now = self._kept[account.name] = [
                _rendered(family, account, known) for family, known in zip(FAMILIES, before, strict=True)
            ]
            for pieces, (_, _, piece) in zip(families, now, strict=True):
                pieces.append(piece)
            yield
        return list(chain.from_iterable(families))


def _rendered(family: _Family, account: AccountView, kept: Kept | None) -> Kept:
    source = family.source(account)
    if kept and (kept[0] is source or kept[0] == source):
        return source, kept[1], kept[2]  # the present source: the same one is compared at once
    if kept:
        names = kept[1]
    else:
        names = family.series(family.name, {"account": account.name} if account.name else {}, account)
    return source, names, "".join(map(sample, names, family.values(source))).encode()


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


def _as_is(value: float) -> Values:
    return (value,)


def _if_known(up: bool | None) -> Values:  # noqa: FBT001 - three values
    return () if up is None else (up,)


def _observed(durations: Durations) -> Values:
    """Buckets are cumulative, and the last one holds everything."""
    buckets = tuple(accumulate(durations.counts))
    return (*buckets, buckets[-1], durations.seconds)


def _all(by_kind: Mapping[Any, float]) -> Values:
    return tuple(by_kind.values())


def _all_observed(by_status: Mapping[Any, Durations]) -> Values:
    return tuple(chain.from_iterable(map(_observed, by_status.values())))


def _tasks_by_state(tasks: Iterable[TaskView]) -> Values:
    states = [task.state for task in tasks]
    return tuple(map(states.count, STATES))


FAMILIES: Final = (
    _Family(
        "mobizon_tasks",
        "gauge",
        "Tasks listed, by status as of the last reading.",
        attrgetter("tasks"),
        _tasks_by_state,
        _by_state,
    ),
    _Family(
        "mobizon_up",
        "gauge",
        "Whether the API is available for the account, as of the last response.",
        attrgetter("up"),
        _if_known,
        _gauge,
    ),
    _Family(
        "mobizon_api_requests",
        "counter",
        "Requests sent to the API.",
        attrgetter("requests"),
        _as_is,
        _counter,
    ),
    _Family(
        "mobizon_api_request_failures",
        "counter",
        "Requests to the API that failed, by reason.",
        attrgetter("failures"),
        _all,
        _by_reason,
    ),
    _Family(
        "mobizon_api_request_duration_seconds",
        "histogram",
        "Seconds from request to response.",
        attrgetter("durations"),
        _observed,
        _histogram,
    ),
    _Family(
        "mobizon_api_request_interval_seconds",
        "gauge",
        "Spacing of requests in force, in seconds.",
        attrgetter("spacing"),
        _as_is,
        _gauge,
    ),
    _Family(
        "mobizon_tasks_due",
        "gauge",
        "Tasks due, whose request has yet to be sent.",
        attrgetter("due"),
        _as_is,
        _gauge,
    ),
    _Family(
        "mobizon_tasks_finished",
        "counter",
        "Tasks seen to finish, by status; not those that were finished when first seen.",
        attrgetter("finished"),
        _all,
        _by_final_status,
    ),
    _Family(
        "mobizon_task_duration_seconds",
        "histogram",
        "Seconds from a task's first reading to its final one, by status.",
        attrgetter("task_durations"),
        _all_observed,
        _histograms_by_final_status,
    ),
)
_NOTHING: Final = [None] * len(FAMILIES)
