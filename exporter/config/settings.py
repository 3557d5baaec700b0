"""The settings of a configuration file: names, types, defaults, and how each value is checked."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NewType
from urllib.parse import urlsplit

from exporter.config.schema import Schema, ValidationErrors, describe
from exporter.model import Secret, TaskSpec

if TYPE_CHECKING:
    from exporter.config.yaml_document import ValuePath

# A value's type says what it means; SCHEMA has a check for each type.
Duration = NewType("Duration", float)
Interval = NewType("Interval", float)
Url = NewType("Url", str)
ProxyUrl = NewType("ProxyUrl", Secret)
TaskId = NewType("TaskId", int)
Labels = NewType("Labels", dict[str, str])

KEY_VARIABLE: Final = "MOBIZON_API_KEY"
RESERVED_LABELS: Final = {"account", "task_id", "name", "reason", "status", "job", "instance", "le"}

_DURATION: Final = re.compile(
    "".join(rf"(?:(\d{{1,18}}){unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms")), re.ASCII
)
_SECONDS: Final = (365 * 86400, 7 * 86400, 86400, 3600, 60, 1, 0.001)
_MAX_SECONDS: Final = 292 * 365 * 86400  # as in Prometheus; beyond it sockets refuse a timeout, too
TASK_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEY: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How one account's API is reached."""

    url: Url = field(
        metadata={
            "doc": "`https://api.mobizon.kz`, `https://api.mobizon.ua` and so on, by country of registration"
        }
    )
    key: Secret | None = field(default=None, metadata={"doc": "the API key"})
    key_file: str | None = field(
        default=None,
        metadata={"doc": f"file with the API key; without both, the environment variable `{KEY_VARIABLE}`"},
    )
    request_interval: Interval = field(
        default=Interval(1.0), metadata={"doc": "from one request's start to the next; Mobizon allows 1s"}
    )
    timeout: Interval = field(
        default=Interval(5.0),
        metadata={"doc": "for connecting, and again from first byte sent to last byte read"},
    )
    ca_file: str | None = field(
        default=None,
        metadata={
            "doc": "PEM file of authorities to trust instead of the usual ones, reread for new connections"
        },
    )
    proxy_url: ProxyUrl | None = field(
        default=None, metadata={"doc": "URL of an HTTP proxy; may hold credentials"}
    )


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """One entry of `tasks` that is more than a bare id."""

    id: TaskId = field(metadata={"doc": "`data` of Mobizon's answer with code 100"})
    name: str | None = field(default=None, metadata={"doc": "value of the label `name`"})
    labels: Labels = field(default_factory=lambda: Labels({}), metadata={"doc": "mapping of more labels"})


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """One entry of `accounts`."""

    name: str
    api: ApiSettings
    tasks: tuple[TaskSpec, ...] = ()
    task_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConfigFileSettings:
    """A configuration file as it is written."""

    api: ApiSettings | None = field(default=None, metadata={"doc": "[settings of the API](#api)"})
    tasks: tuple[TaskSpec, ...] = field(default=(), metadata={"doc": "list of [tasks](#a-task) to watch"})
    task_files: tuple[str, ...] = field(
        default=(), metadata={"doc": "list of globs of [task files](#task-files)"}
    )
    accounts: tuple[AccountSettings, ...] | None = field(
        default=None, metadata={"doc": "list of [accounts](#several-accounts), instead of the settings above"}
    )
    stale_after: Duration = field(
        default=Duration(300.0),
        metadata={"doc": "how long last values stay while requests fail; at least two full refreshes"},
    )
    drop_finished_after: Duration = field(
        default=Duration(0.0),
        metadata={"doc": "how long finished tasks stay, if not registered; `0s`: until they leave the list"},
    )


def duration(value: Any) -> Duration:
    """Seconds of a Prometheus duration such as `1h30m` (as Prometheus's configuration has them)."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if value == "0":
        return Duration(0.0)
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 5s or 1h30m, got {describe(value)}")
    seconds = sum(int(n) * unit for n, unit in zip(match.groups(), _SECONDS, strict=True) if n)
    if seconds > _MAX_SECONDS:
        raise ValueError("expected a duration of at most 292y")
    return Duration(seconds)


def secret(value: Any, source: str = "") -> Secret:
    """A key. What was given instead is never shown."""
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        nothing = ", got nothing" if value == "" else ""
        raise ValueError(f"{source}expected a key of printable ASCII characters, without spaces{nothing}")
    return Secret(value)


def interval(value: Any) -> Interval:
    """Seconds of a Prometheus duration above zero; raises ValueError."""
    seconds = duration(value)
    if seconds <= 0:
        raise ValueError("expected a duration above zero")
    return Interval(seconds)


def _is_http_url(value: Any) -> bool:
    try:
        parts = urlsplit(value if isinstance(value, str) else "")
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def _url(value: Any) -> Url:
    """An API's base URL. It is not shown in errors: people paste URLs that hold the key."""
    if not _is_http_url(value) or re.search(r"[\s?#@]", value):
        raise ValueError("expected a URL such as https://api.mobizon.kz, without user, query or fragment")
    return Url(value.rstrip("/"))


def _proxy(value: Any) -> ProxyUrl:
    if not _is_http_url(value):
        raise ValueError("expected a URL such as http://proxy.example:3128")
    return ProxyUrl(Secret(value))


def _task(value: Any) -> TaskSpec:
    """A task: its bare id, or a mapping of `id`, `name` and `labels`."""
    if isinstance(value, str):
        return TaskSpec(check_task_id(value))
    if not isinstance(value, dict):
        raise ValueError(f"expected a task id or a mapping with `id`, got {describe(value)}")
    entry = SCHEMA.convert(value, TaskSettings)
    return TaskSpec(entry.id, entry.name, entry.labels)


def check_task_id(value: Any) -> TaskId:
    """A task's id: a plain decimal positive integer; raises ValueError."""
    if not isinstance(value, str) or not TASK_ID.fullmatch(value):
        raise ValueError(f"expected a positive integer, got {describe(value)}")
    return TaskId(int(value))


def check_labels(value: Any) -> Labels:
    """Labels of a task; raises ValidationErrors."""
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of labels, got {describe(value)}")
    found: list[tuple[ValuePath, str]] = []
    for name, content in value.items():
        if not _LABEL.fullmatch(name):
            found.append(((name,), "not a label name: letters, digits and _, no digit first"))
        elif name in RESERVED_LABELS or name.startswith("__"):
            found.append(((name,), "this label is reserved"))
        elif not isinstance(content, str):
            found.append(((name,), f"expected text, got {describe(content)}"))
    if found:
        raise ValidationErrors(found)
    return Labels(value)


SCHEMA: Final = Schema(
    {
        Duration: duration,
        Interval: interval,
        Url: _url,
        ProxyUrl: _proxy,
        Secret: secret,
        TaskId: check_task_id,
        Labels: check_labels,
        TaskSpec: _task,
    }
)

TaskList: Any = tuple[TaskSpec, ...]
