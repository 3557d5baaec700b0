"""Looks at the configuration: one at a time, shared by those who asked before it began."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from exporter.config.reload import Reloader
from exporter.config.watch import WatchStatus
from exporter.errors import ConfigError
from exporter.model import Account, Api, Config, Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 10.0


def config(url: str) -> Config:
    return Config((Account(None, Api(url, Secret("abc")), ()),))


class FakeSource:
    """Files whose every look waits to be let go, and finds what a test names."""

    def __init__(self) -> None:
        self.status = WatchStatus(reloaded_at=5.0)
        self.looks: list[bool] = []  # whether each was forced
        self.threads: set[int] = set()
        self.finds: Config | None = None
        self.raises: Exception | None = None
        self.free = True
        self._go = threading.Semaphore(0)
        self._news = threading.Condition()
        self.together = self.most_together = 0

    def check(self, *, force: bool = False) -> Config | None:
        with self._news:
            self.looks.append(force)
            self.threads.add(threading.get_ident())
            self.together += 1
            self.most_together = max(self.together, self.most_together)
            self._news.notify_all()
        try:
            if not self.free:
                assert self._go.acquire(timeout=SOON)
            if self.raises:
                raise self.raises
            return self.finds
        finally:
            self.together -= 1

    def let_go(self, looks: int = 1) -> None:
        self._go.release(looks)

    async def begun(self, number: int) -> None:
        """Wait until that many looks have begun."""

        def wait() -> None:
            with self._news:
                assert self._news.wait_for(lambda: len(self.looks) >= number, SOON)

        await asyncio.to_thread(wait)


class World:
    def __init__(self) -> None:
        self.source = FakeSource()
        self.applied: list[Config] = []
        self.reloader = Reloader(self.source, self.applied.append)

    async def asking(self, number: int = 1) -> list[asyncio.Task[None]]:
        """That many scrapes, each as far as it comes by itself."""
        asking = [asyncio.create_task(self.reloader.check()) for _ in range(number)]
        await settled()
        return asking


async def settled() -> None:
    for _ in range(10):  # turns of the loop, in which tasks that were made begin
        await asyncio.sleep(0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.source.let_go(100)
    world.reloader.close()


async def done(*tasks: asyncio.Task[None]) -> None:
    async with asyncio.timeout(SOON):
        await asyncio.gather(*tasks)


class TestAScrapesLook:
    async def test_what_is_new_is_put_in_force_before_the_scrape_goes_on(self, world: World) -> None:
        world.source.finds = config("new")
        await world.reloader.check()
        assert world.applied == [config("new")]
        assert world.source.looks == [False]

    async def test_where_nothing_is_new_nothing_is_put_in_force(self, world: World) -> None:
        await world.reloader.check()
        await world.reloader.check()
        assert world.applied == []
        assert len(world.source.looks) == 2, "each scrape that comes after the last look has one of its own"

    async def test_it_holds_up_no_other_work(self, world: World) -> None:
        world.source.free = False
        (asking,) = await world.asking()
        await world.source.begun(1)
        assert threading.get_ident() not in world.source.threads
        assert not asking.done()
        world.source.let_go()
        await done(asking)

    async def test_those_who_ask_before_it_begins_share_it(self, world: World) -> None:
        world.source.free = False
        first = await world.asking()
        await world.source.begun(1)
        others = await world.asking(20)
        world.source.let_go()
        await done(*first)
        assert not any(other.done() for other in others), "the first may have passed by what is new to them"
        world.source.finds = config("new")
        world.source.let_go()
        await done(*others)
        assert world.source.looks == [False, False]
        assert world.applied == [config("new")]

    async def test_twenty_at_once_share_one(self, world: World) -> None:
        await done(*[asyncio.create_task(world.reloader.check()) for _ in range(20)])
        assert world.source.looks == [False]

    async def test_looks_come_one_after_the_other(self, world: World) -> None:
        for _ in range(5):
            await done(
                asyncio.create_task(world.reloader.check()),
                asyncio.create_task(world.reloader.reload()),
                asyncio.create_task(world.reloader.check()),
            )
        assert world.source.most_together == 1
        assert len(world.source.threads) == 1

    async def test_one_who_hangs_up_does_not_take_it_from_the_others(self, world: World) -> None:
        world.source.free = False
        world.source.finds = config("new")
        one, other = await world.asking(2)
        await world.source.begun(1)
        one.cancel()
        await settled()
        assert one.cancelled()
        world.source.let_go()
        await done(other)
        assert world.applied == [config("new")]

    async def test_one_that_nobody_waits_for_any_more_is_put_in_force_all_the_same(
        self, world: World
    ) -> None:
        world.source.free = False
        world.source.finds = config("new")
        (asking,) = await world.asking()
        await world.source.begun(1)
        asking.cancel()
        await settled()
        world.source.let_go()
        world.source.free = True
        await world.reloader.reload()
        assert world.applied == [config("new")] * 2

    async def test_a_reload_under_way_is_not_taken_for_the_look_that_was_asked_for(
        self, world: World
    ) -> None:
        world.source.free = False
        first = await world.asking()
        await world.source.begun(1)
        reload = asyncio.create_task(world.reloader.reload())
        await settled()
        second = await world.asking()
        world.source.let_go()
        await world.source.begun(2)
        third = await world.asking()
        world.source.let_go(2)
        await done(*first, reload, *second, *third)
        assert world.source.looks == [False, True, False], "the third shares the one that waits"


class TestAReload:
    async def test_everything_is_read_again_and_put_in_force(self, world: World) -> None:
        world.source.finds = config("new")
        with capture_logs() as logs:
            await world.reloader.reload()
        assert world.source.looks == [True]
        assert world.applied == [config("new")]
        assert [(log["event"], log["log_level"]) for log in logs] == [("Configuration reloaded", "info")]

    async def test_what_cannot_be_used_is_raised_and_changes_nothing(self, world: World) -> None:
        world.source.finds = config("new")
        world.source.raises = ConfigError(["config.yaml:1: api: required, but missing"])
        with capture_logs() as logs, pytest.raises(ConfigError, match="required, but missing"):
            await world.reloader.reload()
        assert world.applied == []
        assert logs == []
        world.source.raises = None
        await world.reloader.reload()
        assert world.applied == [config("new")]

    async def test_those_who_ask_before_it_begins_share_it(self, world: World) -> None:
        world.source.free = False
        reloads = [asyncio.create_task(world.reloader.reload()) for _ in range(20)]
        await world.source.begun(1)
        reloads += [asyncio.create_task(world.reloader.reload()) for _ in range(20)]
        await settled()
        world.source.let_go(2)
        await done(*reloads)
        assert world.source.looks == [True, True]

    async def test_one_whose_peer_hangs_up_is_put_in_force_all_the_same(self, world: World) -> None:
        """The files have been read by then, and would pass for unchanged afterwards."""
        world.source.free = False
        world.source.finds = config("new")
        reload = asyncio.create_task(world.reloader.reload())
        await world.source.begun(1)
        reload.cancel()
        await settled()
        world.source.let_go(2)
        await world.reloader.reload()
        assert world.applied == [config("new")] * 2

    async def test_for_a_signal_all_that_is_wrong_is_logged(self, world: World) -> None:
        world.source.raises = ConfigError(["config.yaml:1: one", "config.yaml:2: two"])
        with capture_logs() as logs:
            await world.reloader.reload_or_log()
        assert [(log["log_level"], log["problem"]) for log in logs] == [
            ("error", "config.yaml:1: one"),
            ("error", "config.yaml:2: two"),
        ]
        assert world.applied == []

    async def test_for_a_signal_what_is_good_is_put_in_force(self, world: World) -> None:
        world.source.finds = config("new")
        with capture_logs() as logs:
            await world.reloader.reload_or_log()
        assert world.applied == [config("new")]
        assert [log["event"] for log in logs] == ["Configuration reloaded"]


async def test_how_looks_went_is_the_sources_to_tell(world: World) -> None:
    assert world.reloader.status == WatchStatus(reloaded_at=5.0)
    world.source.status = WatchStatus(reload_successful=False, task_file_errors=3)
    assert world.reloader.status.task_file_errors == 3
