"""Renderings that are shared, bounded, and dropped when nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from exporter.metrics.renderer import MAX_WAITING, BusyError, Renderer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SOON = 10.0


class Work:
    """Renderings that each wait to be let go."""

    def __init__(self) -> None:
        self.renderer = Renderer("test")
        self.begun: list[str] = []
        self.go = threading.Semaphore(0)

    def ask(self, wanted: str) -> asyncio.Task[bytes]:
        async def begin() -> Callable[[], bytes]:
            self.begun.append(wanted)
            return make

        def make() -> bytes:
            assert self.go.acquire(timeout=SOON)
            return wanted.encode()

        return asyncio.create_task(self.renderer.render(wanted, begin))


@pytest.fixture
def work() -> Iterator[Work]:
    work = Work()
    yield work
    work.go.release(100)
    work.renderer.close()


async def settled() -> None:
    for _ in range(10):  # turns of the loop, in which tasks that were made begin
        await asyncio.sleep(0)


async def test_requests_for_the_same_thing_share_it_until_it_begins(work: Work) -> None:
    first = [work.ask("a") for _ in range(5)]
    await settled()
    later = [work.ask("a") for _ in range(5)]
    await settled()
    work.go.release(2)
    assert await asyncio.gather(*first, *later) == [b"a"] * 10
    assert work.begun == ["a", "a"]


async def test_one_is_rendered_at_a_time(work: Work) -> None:
    tasks = [work.ask(name) for name in "abc"]
    await settled()
    assert work.begun == ["a"]
    work.go.release(3)
    assert await asyncio.gather(*tasks) == [b"a", b"b", b"c"]


async def test_what_nobody_waits_for_any_more_is_not_rendered(work: Work) -> None:
    running, dropped, shared, other = work.ask("a"), work.ask("b"), work.ask("c"), work.ask("c")
    await settled()
    for task in (dropped, shared):
        task.cancel()
    await settled()
    assert not other.done()
    work.go.release(2)
    assert [await running, await other] == [b"a", b"c"]
    assert work.begun == ["a", "c"]


async def test_one_that_has_begun_is_dropped_with_the_last_who_wait_for_it(work: Work) -> None:
    running, other = work.ask("a"), work.ask("a")
    await settled()
    following = work.ask("b")
    running.cancel()
    await settled()
    assert work.begun == ["a"], "somebody waits for it"
    other.cancel()
    await settled()
    assert work.begun == ["a", "b"]
    work.go.release(2)
    assert await following == b"b"


async def test_what_was_dropped_can_be_asked_for_again(work: Work) -> None:
    running, dropped = work.ask("a"), work.ask("b")
    await settled()
    dropped.cancel()
    await settled()
    again = work.ask("b")
    work.go.release(2)
    assert [await running, await again] == [b"a", b"b"]


async def test_more_different_things_than_can_be_made_soon_are_refused_at_once(work: Work) -> None:
    running = work.ask("running")
    await settled()
    waiting = [work.ask(str(number)) for number in range(MAX_WAITING)]
    await settled()
    with pytest.raises(BusyError):
        await work.ask("one more")
    shared = work.ask("0")
    work.go.release(MAX_WAITING + 1)
    assert await asyncio.gather(running, *waiting, shared)
    work.go.release()
    assert await work.ask("one more") == b"one more"


async def test_a_rendering_that_fails_fails_for_all_who_wait_and_for_no_other(work: Work) -> None:
    async def fail() -> Callable[[], bytes]:
        raise ValueError("why")

    failing = [asyncio.create_task(work.renderer.render("bad", fail)) for _ in range(3)]
    for task in failing:
        with pytest.raises(ValueError, match="why"):
            await task
    work.go.release()
    assert await work.ask("a") == b"a"
