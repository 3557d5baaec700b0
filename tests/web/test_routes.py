"""How long a scrape may wait, and what becomes of one whose peer has gone."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from aiohttp.test_utils import make_mocked_request

from exporter.metrics.exposition import Exposition
from exporter.refresh.refresher import Refresher
from exporter.slices import Steps
from exporter.web.routes import SCRAPE_TIMEOUT_HEADER, Pages


class FakeRefresher:
    """Has every answer at once unless `silent`, and notes how long it was given for them."""

    def __init__(self) -> None:
        self.least: list[float] = []
        self.most: list[float] = []
        self.began = 0.0
        self.silent = False
        self.waiting = 0

    def refresh(self, deadline: float, done: Callable[[], None]) -> tuple[Steps[None], Callable[[], object]]:
        self.least.append(deadline - asyncio.get_running_loop().time())
        self.most.append(deadline - self.began)
        self.waiting += 1
        if not self.silent:
            done()

        def give_up() -> None:
            self.waiting -= 1

        return nobody_to_ask(), give_up


def nobody_to_ask() -> Steps[None]:
    yield


class FakeExposition:
    def __init__(self) -> None:
        self.render_seconds = 0.0
        self.rendered = 0

    async def render(self, accept: str, *, compress: bool) -> tuple[bytes, str]:
        self.rendered += 1
        return b"", "text/plain"


class Web:
    """The handlers of paths without what is around them."""

    def __init__(self) -> None:
        self.exposition = FakeExposition()
        self.refresher = FakeRefresher()
        self.hanging_check: asyncio.Event | None = None
        self.app = Pages(
            cast(Refresher, self.refresher),
            cast(Exposition, self.exposition),
            telemetry_path="/metrics",
            timeout_offset=0.5,
            check=self._check,
            reload=None,
        ).application()

    async def _check(self) -> None:
        if self.hanging_check:
            await self.hanging_check.wait()

    async def scrape(self, within: str | None) -> None:
        headers = {} if within is None else {SCRAPE_TIMEOUT_HEADER: within}
        self.refresher.began = asyncio.get_running_loop().time()
        request = make_mocked_request("GET", "/metrics", headers=headers)
        answer = await (await self.app.router.resolve(request)).handler(request)
        assert answer.status == 200

    def was_given(self, seconds: float) -> bool:
        """Whether the last scrape had that long, counted from when it came."""
        return bool(self.refresher.least[-1] <= seconds <= self.refresher.most[-1])


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.mark.parametrize(
    ("render_seconds", "within", "seconds"),
    [
        (0.0, "10", 9.5),
        (2.0, "10", 7.5),
        (2.0, "60", 57.5),
        (2.0, None, 7.5),
        (2.4, "10", 7.125),  # a quarter, however long it took
        (30.0, "10", 7.125),
        (30.0, None, 7.125),
        (2.0, "0.2", 0.0),
        (0.0, "300", 299.5),
        (0.0, "301", 299.5),  # nobody waits longer than five minutes
        (0.0, "1e300", 299.5),
    ],
)
async def test_what_rendering_takes_is_left_of_a_scrapes_time(
    web: Web, render_seconds: float, within: str | None, seconds: float
) -> None:
    web.exposition.render_seconds = render_seconds
    await web.scrape(within)
    assert web.was_given(seconds)


async def test_a_scrape_whose_peer_hangs_up_stops_waiting_and_renders_nothing(web: Web) -> None:
    web.refresher.silent = True
    scrapes = [asyncio.create_task(web.scrape("300")) for _ in range(10)]
    for _ in range(10):  # turns of the loop, in which the scrapes come as far as they can
        await asyncio.sleep(0)
    assert web.refresher.waiting == 10
    for scrape in scrapes:
        scrape.cancel()
    await asyncio.gather(*scrapes, return_exceptions=True)
    assert web.refresher.waiting == 0
    assert web.exposition.rendered == 0


async def test_scrapes_that_have_passed_a_hanging_disk_by_leave_nothing_behind(web: Web) -> None:
    web.hanging_check = asyncio.Event()
    before = len(asyncio.all_tasks())
    await asyncio.gather(*(web.scrape("10") for _ in range(10)))
    assert len(asyncio.all_tasks()) == before
