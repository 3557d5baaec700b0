"""Keeps registered tasks in their file: edits that arrive together share one write.

An edit is in force, and answered, when the file that holds it is on disk; until then it is not visible. All
runs on the event loop but the writing, which has a thread.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog

from exporter.errors import ConfigError, ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.config.registry_file import Entry, EntryKey, RegistryFile

T = TypeVar("T")

log = structlog.get_logger(__name__)

MAX_TASKS: Final = 10_000
MAX_BYTES: Final = 8 * 1024 * 1024
QUIET: Final = 0.005  # seconds without another edit, after which those that came are written
MAX_GATHERING: Final = 0.25  # seconds that a write waits for more edits
CLOSE_TIMEOUT: Final = 0.5  # seconds that closing waits for a write


class RegistryFullError(ExporterError):
    """No more tasks fit into the registry."""


class RegistryWriteError(ExporterError):
    """The registry cannot be written; nothing has changed."""


class Draft:
    """The entries as edits leave them; in force once they are written."""

    def __init__(self, entries: dict[EntryKey, Entry]) -> None:
        self.entries = dict(entries)
        self.changed = False
        self._bytes = sum(len(entry.line) for entry in entries.values())

    def put(self, entry: Entry, *, limited: bool = True) -> None:
        """Add or replace an entry; raises RegistryFullError if it is `limited` and does not fit."""
        known = self.entries.get(entry.key)
        added = len(entry.line) - (len(known.line) if known else 0)
        if limited and known is None and len(self.entries) >= MAX_TASKS:
            raise RegistryFullError(f"the registry is full: it has {MAX_TASKS} tasks")
        if limited and added > 0 and self._bytes + added > MAX_BYTES:
            raise RegistryFullError(f"the registry is full: it has {MAX_BYTES // 2**20} MiB")
        self.entries[entry.key] = entry
        self.changed = True
        self._bytes += added

    def discard(self, key: EntryKey) -> None:
        """Remove an entry, if it is there."""
        if known := self.entries.pop(key, None):
            self.changed = True
            self._bytes -= len(known.line)


@dataclass(frozen=True, slots=True)
class _Pending:
    """An edit that waits to be written, and whose answer waits for it."""

    edit: Callable[[Draft], Any]
    key: EntryKey | None
    answer: asyncio.Future[Any]


class RegistryStore:
    """The entries of a registry; without a file they are kept in memory alone.

    `changed` is called when new entries are in force, before the edits that made them are answered.
    """

    def __init__(self, file: RegistryFile | None, changed: Callable[[], None]) -> None:
        self.entries: dict[EntryKey, Entry] = {}  # as on disk
        self._file = file
        self._changed = changed
        self._readable = file is None
        self._failing = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="registry")
        self._pending: list[_Pending] = []
        self._writer: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Read the file. One that cannot be read is an error in the log, and tried again at each edit.

        Raises ConfigError if another process uses it.
        """
        if self._file:
            try:
                self._take(self._file.open())
                log.info("Registry loaded", path=str(self._file.path), tasks=len(self.entries))
            except OSError as error:
                self._failing = True
                log.error(  # noqa: TRY400 - the system's business, no traceback
                    "Failed to read registry, registration unavailable",
                    path=str(self._file.path),
                    error=error.strerror,
                )

    async def edit(self, edit: Callable[[Draft], T], key: EntryKey | None = None) -> T:
        """What `edit` returns, once what it has done is on disk.

        Raises what it raises (ExporterError), and RegistryWriteError where the file cannot be written, unless
        the entry of `key` is what it was.
        """
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(edit, key, answer))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())
        return await answer

    async def close(self) -> None:
        """Let a write that is under way end, but not wait for a disk that hangs."""
        if self._writer and not self._writer.done():
            await asyncio.wait({self._writer}, timeout=CLOSE_TIMEOUT)
        self._thread.shutdown(wait=False)
        if self._file and (self._writer is None or self._writer.done()):
            self._file.close()

    async def _write_all(self) -> None:
        while self._pending:
            await self._gather()
            pending, self._pending = self._pending, []
            try:
                await self._write(pending)
            except Exception as error:
                log.exception("Failed to write registry")
                for one in pending:
                    _answer(one, error)

    async def _gather(self) -> None:
        """Wait for edits that come at the same time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + MAX_GATHERING
        number = 0
        while number < len(self._pending) and loop.time() < deadline:
            number = len(self._pending)
            await asyncio.sleep(QUIET)

    async def _write(self, pending: list[_Pending]) -> None:
        failure = None
        if self._file and not self._readable:
            entries, failure = await self._in_thread(self._file.open)
            if entries is not None:
                self._take(entries)
                self._changed()
        draft = Draft(self.entries)
        results = [failure or _result_of(one.edit, draft) for one in pending]
        if self._file and draft.changed:
            content = list(draft.entries.values())
            _, failure = await self._in_thread(partial(self._file.write, content))
        if failure is None and draft.changed:
            self.entries = draft.entries
            self._changed()
        for one, result in zip(pending, results, strict=True):
            as_before = one.key and draft.entries.get(one.key) is self.entries.get(one.key)
            _answer(one, result if as_before else failure or result)

    async def _in_thread(self, work: Callable[[], T]) -> tuple[T | None, RegistryWriteError | None]:
        """What work on the file returns, or why it failed; the log says when failures begin and end."""
        assert self._file  # noqa: S101 - else there is no work; for the type checker
        path = str(self._file.path)
        try:
            done = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OSError, ConfigError) as error:
            reason = (error.strerror or "unknown error").lower() if isinstance(error, OSError) else str(error)
            if not self._failing:
                log.error("Failed to write registry", path=path, error=reason)  # noqa: TRY400 - the system's business, no traceback
            self._failing = True
            return None, RegistryWriteError(f"the registry cannot be written: {reason}")
        if self._failing:
            log.info("Registry writable again", path=path)
        self._failing = False
        return done, None

    def _take(self, entries: list[Entry]) -> None:
        self.entries = {entry.key: entry for entry in entries}
        self._readable = True


def _result_of(edit: Callable[[Draft], Any], draft: Draft) -> Any:
    try:
        return edit(draft)
    except ExporterError as error:
        return error


def _answer(one: _Pending, result: Any) -> None:
    if one.answer.done():  # the one who asked has gone
        return
    if isinstance(result, Exception):
        one.answer.set_exception(result)
    else:
        one.answer.set_result(result)
