"""How long a scrape may wait: until the time that is left for rendering what it gets."""

import asyncio
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request

from exporter.metrics import exposition as exposition_module
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.refresh.refresher import Refresher
from exporter.web.routes import SCRAPE_TIMEOUT_HEADER, Pages


class Answering:
    """A refresher that has every answer at once, and notes how long it was given for them."""

    def __init__(self) -> None:
        self.least: list[float] = []
        self.most: list[float] = []
        self.began = 0.0

    def refresh(self, deadline: float, done: Callable[[], None]) -> Callable[[], object]:
        self.least.append(deadline - asyncio.get_running_loop().time())
        self.most.append(deadline - self.began)
        done()
        return lambda: None


class Web:
    """The handlers of paths without what is around them."""

    def __init__(self) -> None:
        self.exposition = Exposition(lambda: Snapshot((), reloaded_at=1700000000.0))
        self.refresher = Answering()
        self.pages = Pages(
            cast(Refresher, self.refresher),
            self.exposition,
            telemetry_path="/metrics",
            timeout_offset=0.5,
            check=self._nothing,
            reload=None,
        )

    async def _nothing(self) -> None:
        pass

    async def scrape(self, within: str | None) -> None:
        headers = {} if within is None else {SCRAPE_TIMEOUT_HEADER: within}
        self.refresher.began = asyncio.get_running_loop().time()
        answer = await self.pages._metrics(make_mocked_request("GET", "/metrics", headers=headers))
        assert answer.status == 200

    def was_given(self, seconds: float) -> bool:
        """Whether the last scrape had that long, counted from when it came."""
        return bool(self.refresher.least[-1] <= seconds <= self.refresher.most[-1])

    def close(self) -> None:
        self.pages._renderer.close()
        self.exposition.close()


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("takes", "within", "seconds"),
    [
        (0.0, "10", 9.5),
        (2.0, "10", 7.5),
        (2.0, "60", 57.5),
        (2.0, None, 7.5),
        (2.4, "10", 7.125),  # a quarter, however long it took
        (30.0, "10", 7.125),
        (30.0, None, 7.125),
        (2.0, "0.2", 0.0),
    ],
)
async def test_what_rendering_takes_is_left_of_a_scrapes_time(
    web: Web, takes: float, within: str | None, seconds: float
) -> None:
    web.exposition._took.append(takes)
    await web.scrape(within)
    assert web.was_given(seconds)


async def test_a_slow_rendering_shortens_the_wait_of_the_next_scrape(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]

    def slow(body: bytes, *, compress: bool) -> bytes:
        now[0] += 3
        return body

    monkeypatch.setattr(exposition_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(exposition_module, "pack", slow)
    await web.scrape("10")
    assert web.was_given(9.5)
    await web.scrape("10")
    assert web.was_given(7.125)
