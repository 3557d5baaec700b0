"""Views of all accounts, taken on the event loop without holding it up."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from exporter.model import AccountView
    from exporter.refresh.refresher import Refresher

SLICE: Final = 0.03  # seconds, after which others have their turn


async def views_of(refresher: Refresher) -> tuple[AccountView, ...]:
    """Everything that is known under one configuration: taken anew, at one go, if another comes meanwhile."""
    views: list[AccountView] = []
    for seconds in (SLICE, math.inf):
        config, views, slice_ends = refresher.config, [], time.monotonic() + seconds
        for view in refresher.views():
            views.append(view)
            if time.monotonic() >= slice_ends:
                await asyncio.sleep(0)
                slice_ends = time.monotonic() + seconds
            if refresher.config is not config:
                break
        else:
            break
    return tuple(views)
