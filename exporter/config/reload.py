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
    """Runs one check of the files at a time.

    Calls made during a check share the next one, for this one may have passed what is new to them.
    """

    def __init__(self, source: Source, apply: Callable[[Config], None]) -> None:
        self._source = source
        self._apply = apply
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="config")
        self._check: asyncio.Task[None] | None = None
        self._started = False  # whether the thread has begun the last check

    @property
    def status(self) -> WatchStatus:
        """How the last checks went."""
        return self._source.status

    async def check(self) -> None:
        """Put in force what has changed, if anything has."""
        if self._check is None or self._check.done() or self._started:
            self._started = False
            self._check = asyncio.create_task(self._run_or_log())
        await asyncio.shield(self._check)

    async def reload(self) -> None:
        """Read everything again; raises ConfigError if the configuration cannot be used."""
        await self._run(force=True)

    async def reload_or_log(self) -> None:
        """Read everything again, and log what is wrong."""
        try:
            await self.reload()
        except ConfigError as error:
            for problem in error.problems:
                log.error("Configuration is not valid, the last good one stays", problem=problem)  # noqa: TRY400 - a problem of the user's, no traceback

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run_or_log(self) -> None:
        try:
            await self._run(force=False)
        except Exception:
            # whatever is odd about the files, scrapes go on with the configuration in force
            log.exception("Configuration files cannot be looked at")

    async def _run(self, *, force: bool) -> None:
        loop = asyncio.get_running_loop()
        config = await loop.run_in_executor(self._thread, self._read, force)
        if config is not None:
            self._apply(config)
            log.info("Configuration reloaded", tasks=sum(len(account.tasks) for account in config.accounts))

    def _read(self, force: bool) -> Config | None:  # noqa: FBT001 - an executor passes no names
        self._started = self._started or not force
        return self._source.check(force=force)
