"""Looks at the configuration files off the event loop, and puts what is new in force."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

import structlog

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.config.watch import WatchStatus
    from exporter.model import Config

log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where configurations come from."""

    status: WatchStatus

    def check(self, *, force: bool = False) -> Config | None:
        """The configuration if it is new; with `force`, ConfigError if it cannot be used."""


class Reloader:
    """Runs one check of the files at a time, to its end, even if its callers give up.

    Calls made during a check share the next one, for this one may have passed what is new to them.
    """

    def __init__(self, source: Source, apply: Callable[[Config], None]) -> None:
        self._source = source
        self._apply = apply
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="config")
        self._waiting: dict[bool, asyncio.Task[None]] = {}  # checks that the thread has not begun, by `force`

    @property
    def status(self) -> WatchStatus:
        """How the last checks went."""
        return self._source.status

    async def check(self) -> None:
        """Put in force what has changed, if anything has."""
        await self._share(force=False)

    async def reload(self) -> None:
        """Read everything again; raises ConfigError if the configuration cannot be used."""
        await self._share(force=True)

    async def reload_or_log(self) -> None:
        """Read everything again, and log what is wrong."""
        try:
            await self.reload()
        except ConfigError as error:
            for problem in error.problems:
                log.error("Invalid configuration, keeping the last good one", problem=problem)  # noqa: TRY400 - a problem of the user's, no traceback

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _share(self, *, force: bool) -> None:
        task = self._waiting.get(force)
        if task is None or task.done():
            task = self._waiting[force] = asyncio.create_task(self._run(force=force))
            # asyncio would report the error of a check whose callers have all given up
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(task)

    async def _run(self, *, force: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            config = await loop.run_in_executor(self._thread, self._read, force)
            if config is not None:
                self._apply(config)
                tasks = sum(len(account.tasks) for account in config.accounts)
                log.info("Configuration reloaded", tasks=tasks)
        except Exception:
            if force:
                raise
            # whatever is odd about the files, scrapes go on with the configuration in force
            log.exception("Failed to check configuration files")

    def _read(self, force: bool) -> Config | None:  # noqa: FBT001 - an executor passes no names
        self._waiting.pop(force, None)
        return self._source.check(force=force)
