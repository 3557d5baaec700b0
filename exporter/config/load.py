"""Reads a configuration file or a task file into the values of `model`.

What spans several values (keys, duplicates, `accounts`) is checked on what was written, so that it is
reported together with what the schema finds, however much that is.
"""

from __future__ import annotations

import glob
import ssl
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.config.settings import (
    KEY_VARIABLE,
    SCHEMA,
    TASK_ID,
    AccountSettings,
    ConfigFileSettings,
    TaskList,
    secret,
)
from exporter.config.yaml_document import Document
from exporter.errors import ConfigError
from exporter.model import Account, Api, Config, Secret, TaskSource, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from exporter.config.yaml_document import ValuePath


def load_config(path: Path, environ: Mapping[str, str], read: Callable[[Path], bytes]) -> Config:
    """The configuration at `path`, task files not yet read; raises ConfigError with everything that is wrong.

    `read` gives the content of a file, or raises ConfigError.
    """
    return ConfigLoader(path, environ, read).config()


def load_tasks(source: str, content: bytes) -> tuple[TaskSpec, ...]:
    """The tasks of one task file; raises ConfigError with everything that is wrong."""
    document = Document(source, content)
    tasks: tuple[TaskSpec, ...] | None = SCHEMA.structure(document, TaskList)
    _check_unique_ids(document, (), document.data)
    document.check()
    return tuple(replace(task, source=TaskSource.FILE) for task in tasks or ())


class ConfigLoader:
    """Loads one configuration file, once."""

    def __init__(self, path: Path, environ: Mapping[str, str], read: Callable[[Path], bytes]) -> None:
        self._path = path
        self._environ = environ
        self._read = read
        self._document = Document(str(path), read(path))
        self._problem_of_authorities = cache(_problem_of_authorities)  # many accounts may have the same file

    def config(self) -> Config:
        """The configuration; raises ConfigError with everything that is wrong."""
        document = self._document
        settings = SCHEMA.structure(document, ConfigFileSettings)
        written = document.data if isinstance(document.data, dict) else {}
        keys: list[Secret] = []
        if isinstance(written.get("accounts"), list):
            for key in ("api", "tasks", "task_files"):
                if key in written:
                    document.report((key,), "belongs into each of `accounts` when these are listed")
            if not written["accounts"]:
                document.report(("accounts",), "expected at least one account")
            listed = written["accounts"]
            keys = [self._account(("accounts", at), entry) for at, entry in enumerate(listed)]
            names = [entry.get("name") if isinstance(entry, dict) else None for entry in listed]
            self._check_unique(names, "name", "is also the name of")
            self._check_unique([key.reveal() for key in keys], "api", "has the key, and so the budget, of")
        elif isinstance(document.data, dict) and written.get("accounts") is None:
            keys = [self._account((), written)]
            if written.get("api") is None:
                document.report(("api",), "required, but missing")
        document.check()
        assert settings is not None  # noqa: S101 - else an error was reported
        entries = settings.accounts or (_single_account(settings),)
        accounts = tuple(self._build(entry, key) for entry, key in zip(entries, keys, strict=True))
        return Config(accounts, settings.stale_after, settings.drop_finished_after)

    def _account(self, where: ValuePath, entry: Any) -> Secret:
        """Check what spans several values of one account; its key."""
        if not isinstance(entry, dict):
            return Secret("")
        _check_unique_ids(self._document, (*where, "tasks"), entry.get("tasks"))
        if not isinstance(entry.get("api"), dict):
            return Secret("")
        ca_file = entry["api"].get("ca_file")
        if isinstance(ca_file, str) and (
            problem := self._problem_of_authorities(self._path.parent / ca_file)
        ):
            start = f"(a relative path starts at {self._path.parent})"
            self._document.report((*where, "api", "ca_file"), f"{problem} {start}")
        return self._key((*where, "api"), entry["api"])

    def _key(self, where: ValuePath, api: dict[str, Any]) -> Secret:
        """The account's key: from the file, a file of its own or the environment."""
        source = where
        try:
            if isinstance(api.get("key_file"), str):
                if "\0" in api["key_file"]:  # which the schema reports
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
            if api.get("key") is None or source != where:  # the schema reports a bad `key`
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

    def _check_unique(self, values: list[Any], field_name: str, what: str) -> None:
        for at, value in enumerate(values):
            first = values.index(value)
            if value and first < at:
                self._document.report(("accounts", at, field_name), f"{what} accounts[{first}]")

    def _build(self, entry: AccountSettings, key: Secret) -> Account:
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


def _single_account(settings: ConfigFileSettings) -> AccountSettings:
    """A file without `accounts` as one with a single, nameless account."""
    assert settings.api is not None  # noqa: S101 - else an error was reported
    return AccountSettings("", settings.api, settings.tasks, settings.task_files)


def _problem_of_authorities(file: Path) -> str:
    """What is wrong with it, if anything."""
    if not file.is_file():
        return "no such file"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except OSError:
        return "cannot be read as PEM certificates"
    return ""


def _check_unique_ids(document: Document, where: ValuePath, tasks: Any) -> None:
    first: dict[str, int] = {}
    for at, task in enumerate(tasks if isinstance(tasks, list) else ()):
        written: Any = task.get("id") if isinstance(task, dict) else task
        valid = isinstance(written, str) and TASK_ID.fullmatch(written)
        if valid and first.setdefault(written, at) != at:
            document.report((*where, at), f"duplicate id {written}, first listed as [{first[written]}]")
