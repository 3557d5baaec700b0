"""The configuration as it is on disk: read when it has changed, kept when it has been broken.

The files are written by others while they are read here: half a file, a file that is gone between being
listed and being read, and links that are swapped are normal.
"""

from __future__ import annotations

import glob
import os
import re
import time
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

import structlog

from exporter.config.load import load_config, load_tasks
from exporter.config.watched_files import WatchedFiles
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from exporter.model import Account, Config, TaskSpec

log = structlog.get_logger(__name__)

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
        self._files = WatchedFiles(wall)
        self._main: Config | None = None
        self._main_files: list[str] = []
        self._listing: list[list[str]] = []  # the task files there are, by account
        self._lists: dict[str, _TaskList] = {}
        self._folders: dict[str, str] = {}  # what is wrong with folders that cannot be listed
        self._logged: set[str] = set()

    def load(self) -> Config:
        """The configuration as it is now; raises ConfigError if the main file cannot be used."""
        self._main, self._main_files = self._load_main()
        self._read_task_files(self._main, force=True)
        return self._merge(self._main)

    def problems(self) -> list[str]:
        """What is wrong with the task files as they are now."""
        problems = [
            problem for tasks in self._lists.values() for problem in (*tasks.problems, *tasks.duplicates)
        ]
        return [*self._folders.values(), *problems]

    def log_problems(self) -> None:
        """Log each problem of the task files once, and the end of the last one."""
        problems = dict.fromkeys(self.problems())  # a file of two accounts says the same of both
        for problem in problems:
            if problem not in self._logged:
                log.error("Task file not fully loaded", problem=problem)
        if self._logged and not problems:
            log.info("Task files fully loaded again")
        self._logged = set(problems)

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
                    log.error("Invalid configuration, keeping the last good one", problem=problem)  # noqa: TRY400 - a problem of the user's, no traceback
        if self._main is None:
            return None
        changed |= self._read_task_files(self._main, force=force)
        if not changed:
            return None
        config = self._merge(self._main)
        self.log_problems()
        return config

    def _load_main(self) -> tuple[Config, list[str]]:
        read: list[str] = []

        def read_and_watch(path: Path) -> bytes:
            read.append(str(path))
            return self._files.read(str(path), pipes=True)

        try:
            config = load_config(self._path, self._environ, read_and_watch)
        except ConfigError:
            self._main_files = read
            self.status = replace(self.status, reload_successful=False)
            raise
        self.status = replace(self.status, reload_successful=True, reloaded_at=self._wall())
        return config, read

    def _read_task_files(self, config: Config, *, force: bool) -> bool:
        """Read what has changed; whether anything has."""
        folders, self._folders = self._folders, {}
        self._listing = [
            list(dict.fromkeys(path for pattern in account.task_files for path in self._matching(pattern)))
            for account in config.accounts
        ]
        lists = {path: self._lists.get(path) for paths in self._listing for path in paths}
        for path, known in lists.items():
            if os.path.dirname(path) in self._folders:
                continue  # what cannot be listed need not be read
            if known is None or force or self._files.changed(path):
                lists[path] = self._read_task_file(path, known)
        # one that has vanished meanwhile is as good as one that was not listed
        new = {path: tasks for path, tasks in lists.items() if tasks is not None}
        # compared by identity: duplicates depend on other files, and are no change of this one
        changed = (
            new.keys() != self._lists.keys()
            or any(new[path] is not self._lists[path] for path in new)
            or folders != self._folders
        )
        if changed:
            self._files.forget_all_but({*self._main_files, *new})
        self._lists = new
        return changed

    def _matching(self, pattern: str) -> list[str]:
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

    def _read_task_file(self, path: str, known: _TaskList | None) -> _TaskList | None:
        try:
            return _TaskList(load_tasks(path, self._files.read(path)))
        except ConfigError as error:
            if not os.path.lexists(path):
                return None
            return _TaskList(known.tasks if known else (), error.problems)

    def _merge(self, main: Config) -> Config:
        """The main file with the tasks of the task files; an id that is listed already is passed over."""
        for path, tasks in self._lists.items():
            self._lists[path] = replace(tasks, duplicates=())
        accounts = tuple(map(self._merge_account, main.accounts, self._listing))
        errors = sum(bool(tasks.problems or tasks.duplicates) for tasks in self._lists.values())
        errors += len(self._folders)
        self.status = replace(self.status, task_file_errors=errors)
        return replace(main, accounts=accounts)

    def _merge_account(self, account: Account, paths: list[str]) -> Account:
        listed = {task.id: task for task in account.tasks}
        for path in paths:
            tasks = self._lists.get(path)
            if tasks is None:  # it vanished before it could be read
                continue
            duplicates = [task.id for task in tasks.tasks if task.id in listed]
            problems = tuple(f"{path}: id {task_id} is listed elsewhere, too" for task_id in duplicates)
            self._lists[path] = replace(tasks, duplicates=tasks.duplicates + problems)
            for task in tasks.tasks:
                listed.setdefault(task.id, task)
        return replace(account, tasks=tuple(listed.values()))


@dataclass(frozen=True, slots=True)
class _TaskList:
    """The last good tasks of a task file, and what is wrong with its present content."""

    tasks: tuple[TaskSpec, ...]
    problems: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()
