"""The configuration: its schema, its defaults, and what a valid one must hold."""

from __future__ import annotations

import glob
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NewType
from urllib.parse import urlsplit

from exporter.config.document import Document, Problems, Schema, describe, text
from exporter.errors import ConfigError
from exporter.model import Account, Api, Config, Secret, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# what a value of the file means is told by its type; `_schema` below has a check for each
Duration = NewType("Duration", float)
Interval = NewType("Interval", float)
Url = NewType("Url", str)
ProxyUrl = NewType("ProxyUrl", Secret)
TaskId = NewType("TaskId", int)
Labels = NewType("Labels", dict[str, str])
Path_ = tuple[str | int, ...]

KEY_VARIABLE: Final = "MOBIZON_API_KEY"
RESERVED_LABELS: Final = {"account", "task_id", "name", "reason", "status", "job", "instance", "le"}

_DURATION: Final = re.compile(
    "".join(rf"(?:(\d{{1,18}}){unit})?" for unit in ("y", "w", "d", "h", "m", "s", "ms")), re.ASCII
)
_SECONDS: Final = (365 * 86400, 7 * 86400, 86400, 3600, 60, 1, 0.001)
_LONGEST: Final = 292 * 365 * 86400  # as in Prometheus; beyond it sockets refuse a timeout, too
_TASK_ID: Final = re.compile(r"[1-9][0-9]{0,18}")
_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_KEY: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """How one account's API is reached."""

    url: Url = field(
        metadata={"doc": "base URL of the API; the host depends on the account's country of registration"}
    )
    key: Secret | None = field(
        default=None, metadata={"doc": f"the API key; or `key_file`, or the environment's `{KEY_VARIABLE}`"}
    )
    key_file: str | None = field(
        default=None, metadata={"doc": "file that holds the API key, relative to this file"}
    )
    request_interval: Interval = field(
        default=Interval(1.0), metadata={"doc": "spacing of requests, start to start; Mobizon allows 1s"}
    )
    timeout: Interval = field(
        default=Interval(5.0), metadata={"doc": "for a whole request, first byte sent to last byte read"}
    )
    ca_file: str | None = field(
        default=None, metadata={"doc": "PEM file of the authorities to trust instead of the usual ones"}
    )
    proxy_url: ProxyUrl | None = field(
        default=None, metadata={"doc": "HTTP proxy for the requests; may hold credentials"}
    )


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """One entry of `tasks` that is more than a bare id."""

    id: TaskId = field(metadata={"doc": "the id that Mobizon gave in `data` when it answered code 100"})
    name: str | None = field(default=None, metadata={"doc": "becomes the label `name`"})
    labels: Labels = field(
        default_factory=lambda: Labels({}), metadata={"doc": "become labels of the task's series"}
    )


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """One entry of `accounts`."""

    name: str = field(metadata={"doc": "becomes the label `account` of all its series"})
    api: ApiSettings = field(metadata={"doc": "how its API is reached"})
    tasks: tuple[TaskSpec, ...] = field(default=(), metadata={"doc": "the tasks to watch"})
    task_files: tuple[str, ...] = field(default=(), metadata={"doc": "globs of files with more tasks"})


@dataclass(frozen=True, slots=True)
class FileSettings:
    """A configuration file as it is written."""

    api: ApiSettings | None = field(default=None, metadata={"doc": "how the API is reached"})
    tasks: tuple[TaskSpec, ...] = field(default=(), metadata={"doc": "the tasks to watch"})
    task_files: tuple[str, ...] = field(
        default=(), metadata={"doc": "globs, relative to this file, of YAML or JSON files like `tasks`"}
    )
    accounts: tuple[AccountSettings, ...] | None = field(
        default=None, metadata={"doc": "several accounts, instead of `api`, `tasks` and `task_files`"}
    )
    stale_after: Duration = field(
        default=Duration(300.0), metadata={"doc": "how long last values stay while requests fail"}
    )
    drop_finished_after: Duration = field(
        default=Duration(0.0), metadata={"doc": "how long finished tasks stay listed; `0s`: for ever"}
    )


def load(path: Path, environ: Mapping[str, str], read: Callable[[Path], bytes]) -> Config:
    """The configuration at `path`, task files not yet read; raises ConfigError with all that is wrong.

    `read` gives the content of a file, or raises ConfigError.
    """
    return _Build(path, environ, read).config()


def load_tasks(source: str, content: bytes) -> tuple[TaskSpec, ...]:
    """The tasks of one task file; raises ConfigError with all that is wrong."""
    document = Document(source, content)
    tasks: tuple[TaskSpec, ...] | None = _schema.structure(document, TaskList)
    _refuse_duplicate_ids(document, (), document.data)
    document.check()
    return tasks or ()


TaskList: Any = tuple[TaskSpec, ...]


def duration(value: Any) -> Duration:
    """Seconds of a Prometheus duration such as `1h30m` (as Prometheus's configuration has them)."""
    match = _DURATION.fullmatch(value) if isinstance(value, str) and value else None
    if value == "0":
        return Duration(0.0)
    if match is None:
        raise ValueError(f"expected a duration such as 500ms, 5s or 1h30m, got {describe(value)}")
    seconds = sum(int(n) * unit for n, unit in zip(match.groups(), _SECONDS, strict=True) if n)
    if seconds > _LONGEST:
        raise ValueError("expected a duration of at most 292y")
    return Duration(seconds)


def secret(value: Any, source: str = "") -> Secret:
    """A key. What was given instead is never shown."""
    if not isinstance(value, str) or not _KEY.fullmatch(value):
        raise ValueError(f"{source}expected a key of letters and digits, without spaces")
    return Secret(value)


def _interval(value: Any) -> Interval:
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
    try:
        parts = urlsplit(text(value))
        valid = (
            parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        valid = False
    if not valid or re.search(r"[\s?#@]", value):
        raise ValueError("expected a URL such as https://api.mobizon.kz, without user, query or fragment")
    return Url(value.rstrip("/"))


def _proxy(value: Any) -> ProxyUrl:
    if not _is_http_url(value):
        raise ValueError("expected a URL such as http://proxy.example:3128")
    return ProxyUrl(Secret(value))


def _task(value: Any) -> TaskSpec:
    """A task: its bare id, or a mapping of `id`, `name` and `labels`."""
    if isinstance(value, str):
        return TaskSpec(_task_id(value))
    if not isinstance(value, dict):
        raise ValueError(f"expected a task id or a mapping with `id`, got {describe(value)}")
    entry = _schema.convert(value, TaskSettings)
    return TaskSpec(entry.id, entry.name, entry.labels)


def _task_id(value: Any) -> TaskId:
    if not isinstance(value, str) or not _TASK_ID.fullmatch(value):
        raise ValueError(f"expected a positive integer, got {describe(value)}")
    return TaskId(int(value))


def _labels(value: Any) -> Labels:
    if not isinstance(value, dict):
        raise ValueError(f"expected a mapping of labels, got {describe(value)}")
    found: list[tuple[Path_, str]] = []
    for name, content in value.items():
        if not _LABEL.fullmatch(name):
            found.append(((name,), "not a label name: letters, digits and _, no digit first"))
        elif name in RESERVED_LABELS or name.startswith("__"):
            found.append(((name,), "this label is reserved"))
        elif not isinstance(content, str):
            found.append(((name,), f"expected text, got {describe(content)}"))
    if found:
        raise Problems(found)
    return Labels(value)


_schema: Final = Schema(
    {
        Duration: duration,
        Interval: _interval,
        Url: _url,
        ProxyUrl: _proxy,
        Secret: secret,
        TaskId: _task_id,
        Labels: _labels,
        TaskSpec: _task,
    }
)


class _Build:
    """One reading of a configuration file.

    What spans several values is checked on what was written, so that it is reported together with what
    the schema finds, however much that is.
    """

    def __init__(self, path: Path, environ: Mapping[str, str], read: Callable[[Path], bytes]) -> None:
        self._path = path
        self._environ = environ
        self._read = read
        self._document = Document(str(path), read(path))

    def config(self) -> Config:
        document = self._document
        settings = _schema.structure(document, FileSettings)
        written = document.data if isinstance(document.data, dict) else {}
        keys: list[Secret] = []
        if isinstance(written.get("accounts"), list):
            for key in ("api", "tasks", "task_files"):
                if key in written:
                    document.report((key,), "belongs into each of `accounts` when these are listed")
            if not written["accounts"]:
                document.report(("accounts",), "expected at least one account")
            entries = written["accounts"]
            keys = [self._account(("accounts", at), entry) for at, entry in enumerate(entries)]
            names = [entry.get("name") if isinstance(entry, dict) else None for entry in entries]
            self._refuse_twins(names, "name", "is also the name of")
            self._refuse_twins([key.reveal() for key in keys], "api", "has the key, and so the budget, of")
        elif isinstance(document.data, dict) and written.get("accounts") is None:
            keys = [self._account((), written)]
            if written.get("api") is None:
                document.report(("api",), "required, but missing")
        document.check()
        assert settings is not None  # noqa: S101 - else there was something to report
        entered = settings.accounts or (_only(settings),)
        accounts = tuple(self._ready(entry, key) for entry, key in zip(entered, keys, strict=True))
        return Config(accounts, settings.stale_after, settings.drop_finished_after)

    def _account(self, where: Path_, entry: Any) -> Secret:
        """Check what spans several values of one account; its key."""
        if not isinstance(entry, dict):
            return Secret("")
        _refuse_duplicate_ids(self._document, (*where, "tasks"), entry.get("tasks"))
        if not isinstance(entry.get("api"), dict):
            return Secret("")
        ca_file = entry["api"].get("ca_file")
        if isinstance(ca_file, str) and not (self._path.parent / ca_file).is_file():
            self._document.report(
                (*where, "api", "ca_file"), f"no such file (a relative path starts at {self._path.parent})"
            )
        return self._key((*where, "api"), entry["api"])

    def _key(self, where: Path_, api: dict[str, Any]) -> Secret:
        """The account's key: from the file, a file of its own or the environment."""
        source = where
        try:
            if isinstance(api.get("key_file"), str):
                if "\0" in api["key_file"]:  # which the document has told of
                    return Secret("")
                source = (*where, "key_file")
                if api.get("key"):
                    raise ValueError("give either `key` or `key_file`, not both")
                return self._key_in(self._path.parent / api["key_file"])
            if api.get("key") is not None:  # an empty one is none
                return secret(api["key"])
            if self._environ.get(KEY_VARIABLE):
                return secret(self._environ[KEY_VARIABLE].strip(), f"{KEY_VARIABLE}: ")
            raise ValueError(f"no API key: give `key_file` or `key`, or set {KEY_VARIABLE}")
        except ValueError as error:
            if api.get("key") is None or source != where:  # the schema has told of a bad `key`
                self._document.report(source, str(error))
        return Secret("")

    def _key_in(self, file: Path) -> Secret:
        """The key in a file, which errors do not name: people also paste the key where its file belongs."""
        try:
            content = self._read(file)
        except ConfigError as error:
            reason = error.problems[0].removeprefix(f"{file}: ")
            raise ValueError(f"{reason} (a relative path starts at {self._path.parent})") from None
        return secret(content.decode("ascii", "replace").strip(), "in the file: ")

    def _refuse_twins(self, values: list[Any], field_name: str, what: str) -> None:
        for at, value in enumerate(values):
            first = values.index(value)
            if value and first < at:
                self._document.report(("accounts", at, field_name), f"{what} accounts[{first}]")

    def _ready(self, entry: AccountSettings, key: Secret) -> Account:
        folder, api = self._path.parent, entry.api
        return Account(
            entry.name or None,
            Api(
                api.url,
                key,
                api.request_interval,
                api.timeout,
                str(folder / api.ca_file) if api.ca_file else None,
                api.proxy_url,
            ),
            entry.tasks,
            tuple(str(Path(glob.escape(str(folder))) / pattern) for pattern in entry.task_files),
        )


def _only(settings: FileSettings) -> AccountSettings:
    """A file without `accounts` as one with a single, nameless account."""
    assert settings.api is not None  # noqa: S101 - the check of the file has seen to it
    return AccountSettings("", settings.api, settings.tasks, settings.task_files)


def _refuse_duplicate_ids(document: Document, where: Path_, tasks: Any) -> None:
    first: dict[str, int] = {}
    for at, task in enumerate(tasks if isinstance(tasks, list) else ()):
        written: Any = task.get("id") if isinstance(task, dict) else task
        valid = isinstance(written, str) and _TASK_ID.fullmatch(written)
        if valid and first.setdefault(written, at) != at:
            document.report((*where, at), f"duplicate id {written}, first listed as [{first[written]}]")
