"""The configuration as it is on disk: read when it has changed, kept when it has been broken.

The files are written by others while they are read here: half a file, a file that is gone between being
listed and being read, and links that are swapped are everyday life.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

import structlog

from exporter.config.settings import load, load_tasks
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporter.model import Account, Config, TaskSpec

log = structlog.get_logger(__name__)

# A file system's clock may tick this slowly (seconds): what was just written may be written again without
# looking any different, so it is read again until it has rested for so long.
SETTLES_AFTER: Final = 2.0
_ESCAPED: Final = re.compile(r"\[([*?[])\]")  # as glob.escape writes the folder of the configuration


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How the last looks at the files went; `reloaded_at` is Unix time."""

    reload_successful: bool = True
    reloaded_at: float = 0.0
    task_file_errors: int = 0


class ConfigWatch:
    """One configuration file and the task files it names. Not for several threads at once."""

    def __init__(
        self, path: Path, environ: Mapping[str, str] = os.environ, wall: Callable[[], float] = time.time
    ) -> None:
        self.status = WatchStatus()
        self._path = path
        self._environ = environ
        self._wall = wall
        self._files = _Files(wall)
        self._main: Config | None = None
        self._main_files: list[str] = []
        self._listing: list[list[str]] = []  # the task files there are, by account
        self._lists: dict[str, _TaskList] = {}
        self._folders: dict[str, str] = {}  # what is wrong with folders that cannot be listed
        self._told: set[str] = set()

    def load(self) -> Config:
        """The configuration as it is now; raises ConfigError if the main file cannot be used."""
        self._main, self._main_files = self._load_main()
        self._look_at_task_files(self._main, force=True)
        return self._merged(self._main)

    def problems(self) -> list[str]:
        """What is wrong with the task files as they are now."""
        told = [problem for tasks in self._lists.values() for problem in (*tasks.problems, *tasks.doubles)]
        return [*self._folders.values(), *told]

    def tell(self) -> None:
        """Log what is wrong with the task files and was not logged before."""
        problems = dict.fromkeys(self.problems())  # a file of two accounts says the same of both
        for problem in problems:
            if problem not in self._told:
                log.error("Task file is not wholly in force", problem=problem)
        if self._told and not problems:
            log.info("Task files are wholly in force again")
        self._told = set(problems)

    def check(self, *, force: bool = False) -> Config | None:
        """The new configuration, if files have changed and the main one is valid; None leaves all as it was.

        A task file that is not valid keeps its own last good tasks. Problems are logged once. With `force`
        everything is read again, and ConfigError raised if the main file cannot be used.
        """
        changed = force or any(map(self._files.changed, self._main_files))
        if changed:
            try:
                self._main, self._main_files = self._load_main()
            except ConfigError as error:
                if force:
                    raise
                changed = False
                for problem in error.problems:
                    log.error("Configuration is not valid, the last good one stays", problem=problem)  # noqa: TRY400 - a problem of the user's, no traceback
        if self._main is None:
            return None
        changed |= self._look_at_task_files(self._main, force=force)
        if not changed:
            return None
        config = self._merged(self._main)
        self.tell()
        return config

    def _load_main(self) -> tuple[Config, list[str]]:
        read: list[str] = []

        def read_and_watch(path: Path) -> bytes:
            read.append(str(path))
            return self._files.read(str(path), pipes=True)

        try:
            config = load(self._path, self._environ, read_and_watch)
        except ConfigError:
            self._main_files = read
            self.status = replace(self.status, reload_successful=False)
            raise
        self.status = replace(self.status, reload_successful=True, reloaded_at=self._wall())
        return config, read

    def _look_at_task_files(self, config: Config, *, force: bool) -> bool:
        """Read what has changed; whether anything has."""
        folders, self._folders = self._folders, {}
        self._listing = [
            list(dict.fromkeys(path for pattern in account.task_files for path in self._list(pattern)))
            for account in config.accounts
        ]
        lists = {path: self._lists.get(path) for paths in self._listing for path in paths}
        for path, known in lists.items():
            if os.path.dirname(path) in self._folders:
                continue  # what cannot be listed need not be read
            if known is None or force or self._files.changed(path):
                lists[path] = self._read_tasks(path, known)
        # one that has vanished meanwhile is as good as one that was not listed
        new = {path: tasks for path, tasks in lists.items() if tasks is not None}
        # what other files make of a list is not of the file itself
        changed = (
            new.keys() != self._lists.keys()
            or any(new[path] is not self._lists[path] for path in new)
            or folders != self._folders
        )
        if changed:
            self._files.forget_all_but({*self._main_files, *new})
        self._lists = new
        return changed

    def _list(self, pattern: str) -> list[str]:
        """The task files that fit; where their folder cannot be listed now, those of last time."""
        folder = _ESCAPED.sub(r"\1", os.path.dirname(pattern))
        try:
            os.scandir(folder).close()
        except (FileNotFoundError, NotADirectoryError):
            pass  # there may be one later, or it is a pattern itself
        except OSError as error:
            self._folders[folder] = f"{folder}: {(error.strerror or 'cannot be listed').lower()}"
            return [
                path for path in self._lists if os.path.dirname(path) == folder and fnmatch(path, pattern)
            ]
        return sorted(glob.glob(pattern))

    def _read_tasks(self, path: str, known: _TaskList | None) -> _TaskList | None:
        try:
            return _TaskList(load_tasks(path, self._files.read(path)))
        except ConfigError as error:
            if not os.path.lexists(path):
                return None
            return _TaskList(known.tasks if known else (), error.problems)

    def _merged(self, main: Config) -> Config:
        """The main file with the tasks of the task files; an id that is listed already is passed over."""
        for path, tasks in self._lists.items():
            self._lists[path] = replace(tasks, doubles=())
        accounts = tuple(map(self._with_files, main.accounts, self._listing))
        errors = sum(bool(tasks.problems or tasks.doubles) for tasks in self._lists.values())
        errors += len(self._folders)
        self.status = replace(self.status, task_file_errors=errors)
        return replace(main, accounts=accounts)

    def _with_files(self, account: Account, paths: list[str]) -> Account:
        listed = {task.id: task for task in account.tasks}
        for path in paths:
            tasks = self._lists.get(path)
            if tasks is None:  # it vanished before it could be read
                continue
            doubles = [task.id for task in tasks.tasks if task.id in listed]
            told = tuple(f"{path}: id {task_id} is listed elsewhere, too" for task_id in doubles)
            self._lists[path] = replace(tasks, doubles=tasks.doubles + told)
            for task in tasks.tasks:
                listed.setdefault(task.id, task)
        return replace(account, tasks=tuple(listed.values()))


@dataclass(frozen=True, slots=True)
class _TaskList:
    """The last good tasks of a task file, and what is wrong with its present content."""

    tasks: tuple[TaskSpec, ...]
    problems: tuple[str, ...] = ()
    doubles: tuple[str, ...] = ()


_Signature = tuple[int, ...]


class _Files:
    """Reads files, and tells which of those read have changed since."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._read: dict[str, tuple[_Signature | None, bool, int]] = {}

    def read(self, path: str, *, pipes: bool = False) -> bytes:
        """The content of a file; raises ConfigError that says why it cannot be had.

        Without `pipes` a named pipe is refused: to open one waits until somebody writes to it.
        """
        signature = _signature(path)
        try:
            if not pipes and signature and stat.S_ISFIFO(signature[-1]):
                raise OSError(errno.EINVAL, "Is a pipe")
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            self._read[path] = (signature, signature is not None and not _is_regular(signature), 0)
            raise ConfigError([f"{path}: {(error.strerror or 'cannot be read').lower()}"]) from None
        self._read[path] = (signature, self._rests(signature), hash(content))
        return content

    def forget_all_but(self, paths: set[str]) -> None:
        """Task files come and go all day; what is known of those gone is not needed any more."""
        for path in self._read.keys() - paths:
            del self._read[path]

    def changed(self, path: str) -> bool:
        """Whether the file may hold something else than what was read, or can be read only now."""
        signature, settled, content = self._read[path]
        if signature != _signature(path):
            return True
        if settled or signature is None:
            return False
        try:
            with open(path, "rb") as file:
                same = hash(file.read()) == content
        except OSError:
            return content != 0
        if same:
            self._read[path] = (signature, self._rests(signature), content)
        return not same

    def _rests(self, signature: _Signature | None) -> bool:
        """Whether a change would show in the signature; what is no regular file is not read twice."""
        if signature is None:
            return False
        return not _is_regular(signature) or self._wall() - max(signature[:2]) / 1e9 > SETTLES_AFTER


def _is_regular(signature: _Signature) -> bool:
    return stat.S_ISREG(signature[-1])


def _signature(path: str) -> _Signature | None:
    """What tells a changed file from an unchanged one without reading it; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # the latter for a NUL in the path
        return None
    if not stat.S_ISREG(found.st_mode):  # the times of a pipe change whenever somebody writes into it
        return 0, 0, found.st_ino, found.st_dev, 0, found.st_mode
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev, found.st_size, found.st_mode
