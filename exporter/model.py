"""The plain values that travel between the layers; all of them immutable."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from exporter.errors import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping


class Secret:
    """A text that prints as asterisks, so that no log line, error or traceback can carry it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself; asked for where it is sent or compared, nowhere else."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not serialised")


class Status(enum.IntEnum):
    """The statuses that Mobizon documents for a background task (taskqueue/getStatus)."""

    WAITING = 0
    IN_PROGRESS = 1
    COMPLETED = 2
    REJECTED = 3


FINAL: Final = frozenset({Status.COMPLETED, Status.REJECTED})
STATES: Final = ("waiting", "in_progress", "completed", "rejected", "not_found", "unknown")
_STATES: Final = {status.value: state for status, state in zip(Status, STATES, strict=False)}


class TaskSource(enum.StrEnum):
    """Where a task is listed."""

    CONFIG = "config"
    FILE = "file"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task as it is listed."""

    id: int
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    source: TaskSource = TaskSource.CONFIG


@dataclass(frozen=True, slots=True)
class Api:
    """How one account's API is reached, ready for use; durations in seconds."""

    url: str
    key: Secret
    request_interval: float = 1.0
    timeout: float = 5.0
    ca_file: str | None = None
    proxy_url: Secret | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """An account with its tasks; `name` is None for the only one."""

    name: str | None
    api: Api
    tasks: tuple[TaskSpec, ...]
    task_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that can be used; durations in seconds."""

    accounts: tuple[Account, ...]
    stale_after: float = 300.0
    drop_finished_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What Mobizon said of a task: `progress` in percent, `status` as it came, `taken_at` in Unix seconds."""

    progress: float
    status: int
    taken_at: float

    @property
    def final(self) -> bool:
        """Whether Mobizon will never say anything else of this task."""
        return self.status in FINAL


@dataclass(frozen=True, slots=True)
class Remembered:
    """What outlives a restart of one task; times are Unix seconds.

    `finished_at` is when it was first seen finished, `first_read_at` when its first reading was taken, where
    that is known.
    """

    reading: Reading
    changed_at: float
    finished_at: float | None
    first_read_at: float | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last request for a task brought no reading; `since` (Unix seconds) is the first of the row."""

    reason: Reason
    detail: str
    since: float


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task as it is shown: its last known reading, and what became of its last request.

    Times are Unix seconds, `speed` percent a second. `stale` means that the reading is too old to be
    shown as the present state. `state` is one of STATES.
    """

    spec: TaskSpec
    reading: Reading | None = None
    stale: bool = False
    changed_at: float = 0.0
    speed: float | None = None
    failure: Failure | None = None
    finished_at: float | None = None  # when it was first seen finished
    set_back: float = 0.0  # seconds that the clock has been set back by since the reading was taken
    state: str = field(init=False, compare=False)  # found once: every scrape counts states

    def __post_init__(self) -> None:
        object.__setattr__(self, "state", self._state())

    def age(self, now: float) -> float | None:
        """Seconds since its reading was taken, at `now` (Unix seconds)."""
        return max(0.0, now - self.reading.taken_at + self.set_back) if self.reading else None

    def _state(self) -> str:
        if self.failure and self.failure.reason is Reason.NOT_FOUND:
            return "not_found"
        if self.reading is None or self.stale or self.reading.status not in _STATES:
            return "unknown"
        return _STATES[self.reading.status]

    @property
    def seconds_left(self) -> float | None:
        """Seconds from its reading until it is done, if it goes on as it did; None without an estimate."""
        if self.state != "in_progress" or self.reading is None or not self.speed or self.speed <= 0:
            return None
        return (100 - self.reading.progress) / self.speed


@dataclass(frozen=True, slots=True)
class AccountView:
    """An account as it is shown: its tasks, what its requests came to, and its budget in force (seconds).

    `up` is whether the API serves it, None while that is not known: before the first answer, and while no
    task is active. `finished` and `task_durations` count the tasks that were seen to finish, by status.
    """

    name: str | None
    url: str
    up: bool | None
    backing_off: bool
    interval: float
    spacing: float
    due: int
    active: int
    requests: int
    failures: Mapping[Reason, int]
    durations: Durations
    tasks: tuple[TaskView, ...]
    failure: Failure | None = None  # why the API is unavailable for the account
    finished: Mapping[Status, int] = field(default_factory=dict)
    task_durations: Mapping[Status, Durations] = field(default_factory=dict)

    @property
    def full_refresh(self) -> float:
        """Seconds that asking once about every active task takes."""
        return self.active * self.spacing


@dataclass(frozen=True, slots=True)
class Durations:
    """A histogram: the upper bounds of its buckets in seconds, how many in each and above, and their sum."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    seconds: float
