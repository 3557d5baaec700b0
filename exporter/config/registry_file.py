"""The file of registered tasks: JSON with a task a line, replaced whole, locked while in use."""

from __future__ import annotations

import fcntl
import itertools
import json
import math
import os
import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import structlog

from exporter.config.settings import check_labels, check_task_id
from exporter.errors import ConfigError
from exporter.files import remove_leftovers, replace_file
from exporter.model import Reading, Remembered, TaskSource, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

log = structlog.get_logger(__name__)

VERSION: Final = 1
_HEAD: Final = b'{"version": 1, "tasks": [\n'
_TAIL: Final = b"\n]}\n"

EntryKey = tuple[str | None, int]
"""The name of the account and the task's id."""


@dataclass(frozen=True)
class Entry:
    """A registered task.

    `final` is its final reading, if there is one; `not_found_since` (Unix seconds) is when Mobizon was
    first seen not to know it, if it has not known it since.
    """

    account: str | None
    spec: TaskSpec
    final: Remembered | None = None
    not_found_since: float | None = None

    @property
    def key(self) -> EntryKey:
        """What tells entries apart."""
        return self.account, self.spec.id

    @cached_property
    def line(self) -> bytes:
        """The entry in the file."""
        plain: dict[str, Any] = {"id": self.spec.id, "account": self.account, "name": self.spec.name}
        plain |= {"labels": dict(self.spec.labels), "not_found_since": self.not_found_since, "final": None}
        if self.final:
            plain["final"] = {
                "progress": self.final.reading.progress,
                "status": self.final.reading.status,
                "taken_at": self.final.reading.taken_at,
                "changed_at": self.final.changed_at,
                "finished_at": self.final.finished_at,
            }
        return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode()


class RegistryFile:
    """The file at `path`, which one process uses at a time: a lock on `path` with `.lock` added says so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def open(self) -> list[Entry]:
        """The entries of the file, which from now on is locked.

        A file that cannot be used is put aside with a warning. Raises OSError if it cannot be locked, read
        or put aside, and ConfigError if another process uses it.
        """
        if self._lock is None:
            self._lock = self._locked()
            remove_leftovers(self.path)
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            return parse(content)
        except ValueError as error:
            aside = self._put_aside()
            log.warning(
                "Invalid registry, starting without it",
                path=str(self.path),
                error=str(error),
                kept_as=str(aside),
            )
        return []

    def write(self, entries: Iterable[Entry]) -> None:
        """Replace the file; what it holds then survives a crash and a power cut. Raises OSError."""
        replace_file(self.path, _HEAD + b",\n".join(entry.line for entry in entries) + _TAIL)

    def close(self) -> None:
        """Let another process use the file."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _locked(self) -> int:
        # a file of its own, for the registry itself is replaced; it stays, since deleting it would be a race
        name = f"{self.path}.lock"
        try:
            lock = os.open(name, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError as error:
            raise FileNotFoundError(error.errno, "its folder does not exist") from None
        except OSError as error:
            try:  # what is on a read-only disk can be locked and read, and its tasks are watched
                lock = os.open(name, os.O_RDONLY)
            except OSError:
                raise error from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException as error:
            os.close(lock)
            if isinstance(error, BlockingIOError):
                raise ConfigError([f"{self.path}: another process uses this registry"]) from None
            raise
        return lock

    def _put_aside(self) -> Path:
        stem = f"{self.path.name}.unusable-{int(time.time())}"
        names = (f"{stem}-{number}" if number else stem for number in itertools.count())
        aside = next(path for path in map(self.path.with_name, names) if not path.exists())
        self.path.rename(aside)
        return aside


def parse(content: bytes) -> list[Entry]:
    """The entries in a file's content; raises ValueError with the reason why it cannot be used."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is torn, or not JSON") from None
    if not isinstance(data, dict) or "version" not in data:
        raise ValueError("it is not a registry")
    if data["version"] != VERSION:
        raise ValueError(f"its version is {data['version']!r}, and only {VERSION} is understood")
    try:
        entries = [_entry(plain) for plain in data["tasks"]]
        for entry in entries:
            entry.line  # noqa: B018 - made now, for a text that is not valid Unicode is found here
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise ValueError("its content is not that of a registry") from None
    if len({entry.key for entry in entries}) < len(entries):
        raise ValueError("it holds a task twice")
    return entries


def _entry(plain: dict[str, Any]) -> Entry:
    account, name, final = plain["account"], plain["name"], plain["final"]
    if not all(value is None or (isinstance(value, str) and value) for value in (account, name)):
        raise ValueError("a name that is none")
    spec = TaskSpec(check_task_id(str(plain["id"])), name, check_labels(plain["labels"]), TaskSource.REGISTRY)
    since = plain["not_found_since"]
    return Entry(
        account,
        spec,
        None if final is None else _final(final),
        None if since is None else _time(since),
    )


def _final(plain: dict[str, Any]) -> Remembered:
    reading = Reading(float(plain["progress"]), int(plain["status"]), _time(plain["taken_at"]))
    if not reading.final or not 0 <= reading.progress <= 100:  # noqa: PLR2004 - percent
        raise ValueError("a final reading that is none")
    return Remembered(reading, _time(plain["changed_at"]), _time(plain["finished_at"]))


def _time(plain: Any) -> float:
    if not math.isfinite(value := float(plain)):
        raise ValueError("a time that is none")
    return value
