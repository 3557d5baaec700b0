"""The tasks that programs register over HTTP: a third source of tasks, after configuration and task files."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog

from exporter.config.registry_file import Entry
from exporter.config.registry_store import RegistryStore, RegistryWriteError
from exporter.model import Config, Remembered, TaskSource, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from exporter.config.registration import Registration
    from exporter.config.registry_file import EntryKey, RegistryFile
    from exporter.config.registry_store import Draft
    from exporter.model import TaskView

log = structlog.get_logger(__name__)

MAX_SWEEP_INTERVAL: Final = 30.0  # seconds
SAVE_DELAY: Final = 1.0  # seconds until final readings are written, so that they share a write
CLOSE_TIMEOUT: Final = 0.5  # seconds for those not written yet
MAX_SHOWN: Final = 10  # ids in one line of the log


FinalReadings = Mapping[str | None, Mapping[int, Remembered]]
"""By the account's name and the task's id."""
PutInForce = Callable[[Config, FinalReadings], None]


class Registry:
    """The registered tasks, put in force together with each configuration.

    `put_in_force` gets a configuration with the registered tasks after its own, and the final readings of
    those that it has not had yet.
    `keep_finished` is how long (seconds) a task stays after it has finished, or since Mobizon has not known
    it. Without a file the tasks are kept in memory alone.
    """

    def __init__(
        self,
        file: RegistryFile | None,
        put_in_force: PutInForce,
        *,
        keep_finished: float,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._put_in_force = put_in_force
        self._keep_finished = keep_finished
        self._wall = wall
        self._store = RegistryStore(file, self._changed)
        self._config: Config | None = None  # in force, without the registered tasks
        self._specs: dict[EntryKey, TaskSpec] = {}  # of the entries put in force last
        self._finished: dict[EntryKey, Remembered] = {}  # final readings to be written
        self._saving: asyncio.Task[None] | None = None
        self._shadowed: set[EntryKey] = set()  # listed elsewhere, too: logged
        self._not_configured: set[str | None] = set()  # accounts: logged

    def open(self) -> None:
        """Read the file; raises ConfigError if another process uses it."""
        self._store.open()

    async def close(self) -> None:
        """Write what is left to be written, but do not wait for a disk that hangs."""
        if self._saving:
            self._saving.cancel()
        if self._finished:
            with contextlib.suppress(TimeoutError, RegistryWriteError):
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await self._save()
        await self._store.close()

    def apply(self, config: Config) -> None:
        """Put a configuration in force, with the registered tasks after its own."""
        self._config = config
        self._specs = {}
        self._apply()

    async def put(self, account: str | None, task_id: int, registration: Registration) -> bool:
        """Register a task, or change it; whether it is new. Raises RegistryFullError, RegistryWriteError."""

        def edit(draft: Draft) -> bool:
            known = draft.entries.get((account, task_id))
            entry = known or Entry(account, TaskSpec(task_id, source=TaskSource.REGISTRY))
            spec = registration.applied_to(entry.spec)
            if known is None or spec != known.spec:
                draft.put(replace(entry, spec=spec))
            return known is None

        return await self._store.edit(edit, (account, task_id))

    async def delete(self, account: str | None, task_id: int) -> None:
        """Forget a task, if it is registered. Raises RegistryWriteError."""
        key = account, task_id
        await self._store.edit(lambda draft: draft.discard(key), key)
        self._finished.pop(key, None)

    def finished(self, account: str | None, task_id: int, remembered: Remembered) -> None:
        """Keep the final reading of a task, if it is registered; it is written soon."""
        if (account, task_id) in self._store.entries:
            at = remembered.finished_at or self._wall()
            self._finished[account, task_id] = replace(remembered, finished_at=at)
            if self._saving is None or self._saving.done():
                self._saving = asyncio.create_task(self._save_soon())

    async def keep(self, view: Callable[[str | None, int], TaskView | None]) -> None:
        """Sweep again and again, until cancelled: `view` shows a task as it is known."""
        while True:
            await asyncio.sleep(min(MAX_SWEEP_INTERVAL, self._keep_finished / 4))
            try:
                await self.sweep(view)
            except RegistryWriteError:
                pass  # the log says so, and the next sweep tries again
            except Exception:
                log.exception("Failed to sweep registry")

    async def sweep(self, view: Callable[[str | None, int], TaskView | None]) -> None:
        """Write how tasks have ended, and drop those that have been kept for long enough."""

        def edit(draft: Draft) -> list[Entry]:
            dropped = []
            for entry in list(draft.entries.values()):
                seen = self._observed(entry, view(*entry.key))
                if self._is_over(seen):
                    draft.discard(entry.key)
                    dropped.append(seen)
                elif seen is not entry:
                    draft.put(seen, limited=False)
            return dropped

        if self._finished:
            await self._save()
        dropped = await self._store.edit(edit)
        if dropped:
            log.info("Finished tasks removed from registry", **_ids(entry.key for entry in dropped))

    async def _save_soon(self) -> None:
        await asyncio.sleep(SAVE_DELAY)
        with contextlib.suppress(RegistryWriteError):  # the log says so, and the next sweep tries again
            await self._save()

    async def _save(self) -> None:
        """Write the final readings that are not written yet."""

        def edit(draft: Draft) -> dict[EntryKey, Remembered]:
            for key, final in self._finished.items():
                if entry := draft.entries.get(key):
                    draft.put(replace(entry, final=final), limited=False)
            return dict(self._finished)

        for key, final in (await self._store.edit(edit)).items():
            if self._finished.get(key) is final:
                del self._finished[key]

    def _observed(self, entry: Entry, view: TaskView | None) -> Entry:
        """An entry with what has become of its task."""
        final, since = entry.final, entry.not_found_since
        reading = view.reading if view else None
        if view and reading and reading.final and not final:
            final = Remembered(reading, view.changed_at, view.finished_at or self._wall())
        if view and view.failure and view.state == "not_found":
            since = view.failure.since if since is None else since
        elif reading and since is not None and reading.taken_at > since:
            since = None
        if (final, since) == (entry.final, entry.not_found_since):
            return entry
        return replace(entry, final=final, not_found_since=since)

    def _is_over(self, entry: Entry) -> bool:
        ends = entry.not_found_since, entry.final.finished_at if entry.final else None
        now = self._wall()
        return any(end is not None and now - end >= self._keep_finished for end in ends)

    def _changed(self) -> None:
        entries = self._store.entries
        if entries.keys() != self._specs.keys() or any(
            entry.spec is not self._specs[key] for key, entry in entries.items()
        ):
            self._apply()

    def _apply(self) -> None:
        if self._config:
            entries, before = self._store.entries, self._specs
            self._specs = {key: entry.spec for key, entry in entries.items()}
            final: dict[str | None, dict[int, Remembered]] = defaultdict(dict)
            for account, task_id in self._specs.keys() - before.keys():
                if known := entries[account, task_id].final:
                    final[account][task_id] = known
            self._put_in_force(self._merged(self._config), final)

    def _merged(self, config: Config) -> Config:
        """The configuration with the registered tasks; an id that it lists itself is passed over."""
        registered: dict[str | None, list[TaskSpec]] = defaultdict(list)
        for (name, _), spec in self._specs.items():
            registered[name].append(spec)
        shadowed: set[EntryKey] = set()
        accounts = []
        for account in config.accounts:
            specs = registered.pop(account.name, [])
            if specs:
                listed = {task.id for task in account.tasks}
                shadowed |= {(account.name, spec.id) for spec in specs if spec.id in listed}
                tasks = *account.tasks, *(spec for spec in specs if spec.id not in listed)
                account = replace(account, tasks=tasks)  # noqa: PLW2901 - the same one with more tasks
            accounts.append(account)
        if new := shadowed - self._shadowed:
            log.warning("Registered tasks overridden by configuration or task file", **_ids(new))
        self._shadowed = shadowed
        for name in registered.keys() - self._not_configured:
            log.warning(
                "Registered tasks kept but not watched, account not configured",
                account=name or "",
                tasks=len(registered[name]),
            )
        self._not_configured = set(registered)
        return replace(config, accounts=tuple(accounts))


def _ids(keys: Iterable[EntryKey]) -> dict[str, object]:
    """Fields of a log line that names tasks; the ids are those of the first ones alone."""
    ids = [task_id for _, task_id in sorted(keys, key=lambda key: (key[0] or "", key[1]))]
    return {"tasks": len(ids), "task_ids": ",".join(map(str, ids[:MAX_SHOWN]))}
