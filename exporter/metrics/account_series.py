"""The series of accounts, as text: of a thousand accounts few values change between two scrapes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from exporter.metrics.text import header, label_text, sample
from exporter.model import STATES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.model import AccountView, Durations

    Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Family:
    """A family: `value` takes what it shows from a view, `write` makes the samples of that."""

    name: str
    kind: str
    documentation: str
    value: Callable[[AccountView], Any]
    write: Callable[[str, Labels, Any], str]


class AccountSeries:
    """Renders views of accounts; a value that is that of last time is not formatted again."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str | None, str], tuple[object, str]] = {}

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
                key, value = (account.name, family.name), family.value(account)
                known = kept.get(key)
                if known is None or known[0] != value:
                    labels = {"account": account.name} if account.name else {}
                    known = value, family.write(family.name, labels, value)
                self._kept[key] = known
                parts.append(known[1])
        return "".join(parts)


def _states(account: AccountView) -> dict[str, int]:
    counted = Counter(task.state for task in account.tasks)
    return {state: counted[state] for state in STATES}


def _gauge(name: str, labels: Labels, value: float | None) -> str:
    return "" if value is None else sample(name, label_text(labels), value)


def _counter(name: str, labels: Labels, value: float) -> str:
    return sample(f"{name}_total", label_text(labels), value)


def _by_state(name: str, labels: Labels, values: Mapping[str, int]) -> str:
    return "".join(_gauge(name, labels | {"status": state}, number) for state, number in values.items())


def _by_reason(name: str, labels: Labels, values: Mapping[str, int]) -> str:
    return "".join(_counter(name, labels | {"reason": reason}, number) for reason, number in values.items())


def _by_final_status(name: str, labels: Labels, values: Mapping[str, int]) -> str:
    return "".join(_counter(name, labels | {"status": status}, number) for status, number in values.items())


def _histogram(name: str, labels: Labels, durations: Durations) -> str:
    """Buckets are cumulative, and the last one holds everything."""
    lines, total = [], 0
    for bound, number in zip((*durations.bounds, "+Inf"), durations.counts, strict=True):
        total += number
        lines.append(sample(f"{name}_bucket", label_text(labels | {"le": str(bound)}), total))
    lines.append(sample(f"{name}_count", label_text(labels), total))
    lines.append(sample(f"{name}_sum", label_text(labels), durations.seconds))
    return "".join(lines)


def _histograms_by_final_status(name: str, labels: Labels, values: Mapping[str, Durations]) -> str:
    return "".join(_histogram(name, labels | {"status": status}, known) for status, known in values.items())


FAMILIES: Final = (
    _Family("mobizon_tasks", "gauge", "Tasks listed, by status as of the last reading.", _states, _by_state),
    _Family(
        "mobizon_up",
        "gauge",
        "Whether the API is available for the account, as of the last response.",
        lambda account: account.up,
        _gauge,
    ),
    _Family(
        "mobizon_api_requests",
        "counter",
        "Requests sent to the API.",
        lambda account: account.requests,
        _counter,
    ),
    _Family(
        "mobizon_api_request_failures",
        "counter",
        "Requests to the API that failed, by reason.",
        lambda account: {reason.value: number for reason, number in account.failures.items()},
        _by_reason,
    ),
    _Family(
        "mobizon_api_request_duration_seconds",
        "histogram",
        "Seconds from request to response.",
        lambda account: account.durations,
        _histogram,
    ),
    _Family(
        "mobizon_api_request_interval_seconds",
        "gauge",
        "Spacing of requests in force, in seconds.",
        lambda account: account.spacing,
        _gauge,
    ),
    _Family(
        "mobizon_tasks_due",
        "gauge",
        "Tasks due, whose request has yet to be sent.",
        lambda account: account.due,
        _gauge,
    ),
    _Family(
        "mobizon_tasks_finished",
        "counter",
        "Tasks seen to finish, by status; not those that were finished when first seen.",
        lambda account: {status.name.lower(): number for status, number in account.finished.items()},
        _by_final_status,
    ),
    _Family(
        "mobizon_task_duration_seconds",
        "histogram",
        "Seconds from a task's first reading to its final one, by status.",
        lambda account: {status.name.lower(): known for status, known in account.task_durations.items()},
        _histograms_by_final_status,
    ),
)
