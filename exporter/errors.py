"""Every error of the exporter's own: a small tree with one root.

Errors of libraries are translated into these once, where the library is called, so that nothing above
knows the libraries, and so that no foreign message, which may hold the API key, goes further.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExporterError(Exception):
    """The root: what the exporter itself raises."""


class ConfigError(ExporterError):
    """A configuration that cannot be used.

    `problems` lists everything found, one line each, as `config.yaml:14: tasks[3].id: expected ...`.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class BindError(ExporterError):
    """A listening address that cannot be had."""


class LimitError(ExporterError):
    """A limit of the system that leaves too little to work with."""


class StateError(ExporterError):
    """A file that is not a state file of this version; says why."""


class Reason(enum.StrEnum):
    """Why a request to Mobizon failed; the values of the label `reason`."""

    NOT_FOUND = "not_found"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    WRONG_HOST = "wrong_host"
    ACCOUNT_BLOCKED = "account_blocked"
    API_ERROR = "api_error"
    HTTP_ERROR = "http_error"
    INVALID_RESPONSE = "invalid_response"
    TIMEOUT = "timeout"
    CONNECTION_ERROR = "connection_error"


class Scope(enum.Enum):
    """What a failed request says something about."""

    TASK = "task"  # Mobizon served the account and answered about this task
    ACCOUNT = "account"  # the whole account: every other task would fail alike
    CONNECTION = (
        "connection"  # nothing: the server closed an idle connection while the request was sent on it
    )
    UNKNOWN = "unknown"  # the task or the service


_SCOPES = {
    Reason.NOT_FOUND: Scope.TASK,
    Reason.UNAUTHORIZED: Scope.ACCOUNT,
    Reason.WRONG_HOST: Scope.ACCOUNT,
    Reason.ACCOUNT_BLOCKED: Scope.ACCOUNT,
}


class ApiError(ExporterError):
    """One request to Mobizon that brought no reading.

    `detail` is for people and free of secrets; `retry_after` is what the server asked for, in seconds.
    `scope` follows from the reason where it is not given.
    """

    def __init__(
        self, reason: Reason, detail: str, *, scope: Scope | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.scope = scope or _SCOPES.get(reason, Scope.UNKNOWN)
        self.retry_after = retry_after
