"""Long work on the loop lets others have their turn."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from exporter import slices
from exporter.slices import Steps, at_one_go, in_slices

if TYPE_CHECKING:
    from collections.abc import Callable


def counted(number: int, done: list[int]) -> Steps[str]:
    for at in range(number):
        done.append(at)
        yield
    return "result"


def of_a_millisecond(monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], Callable[[], Steps[None]]]:
    """The clock that slices are measured by, and work of a hundred steps of a millisecond each."""
    now = [0.0]
    monkeypatch.setattr(slices, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def steps() -> Steps[None]:
        for _ in range(100):
            now[0] += 0.001
            yield

    return now, steps


async def test_others_have_a_turn_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE", 0.0)
    monkeypatch.setattr(slices, "MAX_SLICE", 0.0)
    done: list[int] = []
    work = asyncio.create_task(in_slices(counted(20, done)))
    seen = []
    while not work.done():
        await asyncio.sleep(0)
        seen.append(len(done))
    assert seen[:20] == list(range(1, 21)), "one step at a time"
    assert work.result() == "result"


async def test_what_takes_less_than_a_slice_is_done_at_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE", 60.0)
    done: list[int] = []
    work = asyncio.create_task(in_slices(counted(20, done)))
    await asyncio.sleep(0)
    assert work.done()
    assert len(done) == 20


async def test_a_slice_is_longer_where_others_take_longer_but_not_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, steps = of_a_millisecond(monkeypatch)
    for _ in range(3):
        await in_slices(steps())  # which shares no time any more
    work, taken = asyncio.create_task(in_slices(steps())), []
    for others_take in (0.0, 0.008, 0.016, 5.0, 0.0):
        began = now[0]
        await asyncio.sleep(0)
        taken.append(round(1000 * (now[0] - began)))
        now[0] += others_take
    assert taken == [1, 1, 2, 4, 10]
    work.cancel()


async def test_many_at_once_do_not_make_each_others_slices_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now, steps = of_a_millisecond(monkeypatch)
    works, turns = [asyncio.create_task(in_slices(steps())) for _ in range(8)], []
    for _ in range(6):
        began = now[0]
        await asyncio.sleep(0)
        turns.append(round(1000 * (now[0] - began)))
    assert turns == [8] * 6
    for work in works:
        work.cancel()


async def test_an_error_reaches_those_who_wait() -> None:
    def failing() -> Steps[None]:
        yield
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        await in_slices(failing())


def test_without_a_loop_all_is_done_at_one_go() -> None:
    done: list[int] = []
    assert at_one_go(counted(3, done)) == "result"
    assert done == [0, 1, 2]
