"""Views of many accounts hold nothing up, and are all of one configuration."""

from __future__ import annotations

import asyncio

import pytest

from exporter.web import views
from exporter.web.views import views_of
from tests.support.fakes import World, account


def accounts(*names: str) -> World:
    return World(*(account(key=name * 40, name=name) for name in names))


async def test_the_loop_has_its_turn_after_each_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "SLICE", 0.0)
    taking = asyncio.create_task(views_of(accounts("a", "b", "c").refresher))
    turns = 0
    while not taking.done():
        await asyncio.sleep(0)
        turns += 1
    assert [view.name for view in taking.result()] == ["a", "b", "c"]
    assert turns >= 3


async def test_few_accounts_are_shown_at_one_go() -> None:
    taking = asyncio.create_task(views_of(accounts("a", "b").refresher))
    await asyncio.sleep(0)
    assert [view.name for view in (await asyncio.wait_for(taking, 0))] == ["a", "b"]


async def test_a_reload_meanwhile_leaves_nothing_of_the_former_accounts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(views, "SLICE", 0.0)
    world = accounts("a", "b", "c")
    taking = asyncio.create_task(views_of(world.refresher))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not taking.done()
    world.apply(*(account(key=key * 40, name=name) for key, name in ("ab", "ba", "cd")))
    assert [view.name for view in await taking] == ["b", "a", "d"]
