"""Callbacks from threads arrive on the loop: all, in order, and at the price of one waking."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from exporter.mobizon import callbacks as callbacks_module
from exporter.mobizon.callbacks import TICK, LoopCallbacks
from tests.support.asking import until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Wakings:
    """Counts how often the loop is woken from other threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self._loop = asyncio.get_running_loop()
        self._wake = self._loop.call_soon_threadsafe
        monkeypatch.setattr(self._loop, "call_soon_threadsafe", self._counted)

    def _counted(self, *arguments: Any, **named: Any) -> asyncio.Handle:
        self.number += 1
        return self._wake(*arguments, **named)


def while_the_loop_is_busy(function: Callable[..., None], *arguments: Any) -> None:
    """Runs it in a thread, and blocks the loop until it has ended."""
    thread = threading.Thread(target=function, args=arguments, name="reporting")
    thread.start()
    thread.join()


async def test_whatever_is_reported_while_the_loop_is_busy_wakes_it_once_and_comes_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived: list[int] = []
    callbacks = LoopCallbacks(asyncio.get_running_loop())

    def reporting(first: int) -> None:
        for number in range(first, first + 500):
            callbacks.post(arrived.append, number)

    wakings = Wakings(monkeypatch)
    for wave in range(3):
        while_the_loop_is_busy(reporting, 500 * wave)
        assert (wakings.number, len(arrived)) == (wave + 1, 500 * wave)
        await until(lambda: len(arrived) == 500 * wakings.number)
        await asyncio.sleep(2 * TICK)  # it has looked again by then, in vain
    assert arrived == list(range(1500))


async def test_what_is_reported_soon_after_other_reports_arrives_without_another_waking(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(callbacks_module, "TICK", 0.2)
    arrived: list[int] = []
    callbacks = LoopCallbacks(asyncio.get_running_loop())
    wakings = Wakings(monkeypatch)
    while_the_loop_is_busy(callbacks.post, arrived.append, 1)
    await until(lambda: arrived == [1])
    while_the_loop_is_busy(callbacks.post, arrived.append, 2)
    await until(lambda: arrived == [1, 2])
    assert wakings.number == 1


async def test_reports_of_many_threads_all_arrive_each_threads_in_order() -> None:
    arrived: list[tuple[int, int]] = []
    number, each = 8, 2000
    callbacks = LoopCallbacks(asyncio.get_running_loop())

    def reporting(thread: int) -> None:
        for n in range(each):
            callbacks.post(arrived.append, (thread, n))

    threads = [threading.Thread(target=reporting, args=(at,)) for at in range(number)]
    for thread in threads:
        thread.start()
    await until(lambda: len(arrived) == number * each)  # while the loop and they take turns
    for thread in threads:
        thread.join()
    for at in range(number):
        assert [n for thread, n in arrived if thread == at] == list(range(each))


async def test_what_is_posted_while_others_are_delivered_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived: list[str] = []
    loop = asyncio.get_running_loop()
    callbacks = LoopCallbacks(loop)
    call_soon = loop.call_soon

    def another_comes(callback: Callable[..., Any], *values: Any, **context: Any) -> asyncio.Handle:
        if values == ("one",):
            while_the_loop_is_busy(callbacks.post, arrived.append, "another")
        return call_soon(callback, *values, **context)

    monkeypatch.setattr(loop, "call_soon", another_comes)
    while_the_loop_is_busy(callbacks.post, arrived.append, "one")
    await until(lambda: arrived == ["one", "another"])


async def test_a_callback_that_raises_loses_no_other_report() -> None:
    raised: list[object] = []
    arrived: list[int] = []

    def failing(number: int) -> None:
        raise ValueError(number)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
    callbacks = LoopCallbacks(asyncio.get_running_loop())

    def reporting() -> None:
        for number in range(10):
            callbacks.post(failing if number % 3 == 0 else arrived.append, number)

    while_the_loop_is_busy(reporting)
    await until(lambda: len(raised) + len(arrived) == 10)
    while_the_loop_is_busy(callbacks.post, arrived.append, 10)
    await until(lambda: 10 in arrived)
    assert arrived == [1, 2, 4, 5, 7, 8, 10]
    assert [str(error) for error in raised] == ["0", "3", "6", "9"]
