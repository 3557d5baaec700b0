"""The status page in a real browser, served by the real command with its demo."""

from __future__ import annotations

import re
import time
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect, sync_playwright

from exporter.errors import Reason
from exporter.model import AccountView, Durations, Failure, Reading, TaskSpec, TaskView
from exporter.web import page as status
from tests.support.processes import ExporterProcess
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, BrowserContext, Page, Request, Route

pytestmark = pytest.mark.browser

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # it cannot be had in most containers, and nothing but our own page is opened
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"width": 360, "height": 740}
MARKUP = """"><img src=x onerror=alert(1)>'{{ 7*7 }}&amp;"""
PERIOD = 5000  # milliseconds from an update to the next, as status.js has it
RELOADS = '<meta http-equiv="refresh" content="15">'
MOVES = 30_000  # milliseconds in which something of the demo surely moves


@pytest.fixture(scope="module")
def demo() -> Iterator[str]:
    """The address of a demo that has just begun."""
    with ExporterProcess("--demo") as process:
        yield process.url + "/"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    path = need("chromium")
    expect.set_options(timeout=3 * PERIOD)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """Opens pages and remembers what went wrong in them, and whom they asked."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.url = url
        self.complaints: list[str] = []
        self.requests: list[Request] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []

    def __call__(
        self, path: str = "", accounts: Callable[[], tuple[AccountView, ...]] | None = None, **options: Any
    ) -> Page:
        """Open the demo's page, or the page of other accounts in its place."""
        context = self._browser.new_context(**{"locale": "en-US"} | options)
        self._contexts.append(context)
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self._complain("error", str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request))  # noqa: PLW0108 - it needs a function
        if accounts:

            def answer(route: Route) -> None:
                html = status.render(
                    accounts(), now=time.time(), language="en", version="1", telemetry_path="/metrics"
                )
                route.fulfill(body=html, headers=dict(status.HEADERS))

            page.route(lambda url: urlsplit(url).path == "/", answer)
        page.goto(self.url + path)
        return page

    def _complain(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.complaints.append(text)

    def close(self) -> None:
        for context in self._contexts:
            context.close()


@pytest.fixture
def visit(chromium: Browser, demo: str) -> Iterator[Visit]:
    """Opens pages; in the end none of them may have complained or asked another host."""
    visit = Visit(chromium, demo)
    yield visit
    visit.close()
    assert visit.complaints == []
    assert {urlsplit(request.url).netloc for request in visit.requests} == {urlsplit(demo).netloc}


def account(*tasks: TaskView, name: str = "main", up: bool = True) -> AccountView:
    return AccountView(
        name=name,
        url="https://api.mobizon.kz",
        up=up,
        backing_off=not up,
        interval=1.0,
        spacing=2.0,
        due=0,
        active=len(tasks),
        requests=1,
        failures={Reason.TIMEOUT: 1, Reason.WRONG_HOST: 2},
        durations=Durations((), (), 0.0),
        tasks=tasks,
    )


def every_trouble() -> tuple[AccountView, ...]:
    """What the demo does not show: every error, every odd value."""
    now = time.time()
    failing = [
        TaskView(TaskSpec(number), Reading(5.5, 1, now), False, now, None, Failure(reason, "detail", now))
        for number, reason in enumerate(Reason, 1)
    ]
    labels = {f"label_{number}": "x" * 30 for number in range(200)}
    odd = [
        TaskView(TaskSpec(21, "w" * 300, labels), Reading(33.333, 1, now), False, now - 10, 0.01),
        TaskView(TaskSpec(22, MARKUP, {"a": MARKUP}), Reading(50, 7, now)),
        TaskView(TaskSpec(23), Reading(50, 1, now - 900), True, now - 900),
        TaskView(TaskSpec(24), Reading(50, 1, now), False, now - 7200),
        TaskView(TaskSpec(25), Reading(50, 3, now), False, now - 7200),
        TaskView(TaskSpec(26)),
    ]
    return account(*failing, *odd), account(*failing[2:4], name="unserved", up=False)


def accessibility_violations(page: Page) -> list[str]:
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
    page.evaluate(axe + "; undefined")
    found = page.evaluate("axe.run()")["violations"]
    return [
        f"{each['id']}: {node['html']}: {node['failureSummary']}" for each in found for node in each["nodes"]
    ]


def reload_soon(route: Route) -> None:
    """The page, with a second in the place of fifteen."""
    answer = route.fetch()
    assert RELOADS in answer.text()
    route.fulfill(response=answer, body=answer.text().replace(RELOADS, RELOADS.replace("15", "1")))


def update(page: Page) -> None:
    """Has the page ask now, as one does that is seen again."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def width(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth"))


def test_a_task_is_seen_moving_without_a_reload(visit: Visit) -> None:
    page = visit()
    page.evaluate("window.notReloaded = true")
    bar = page.locator("#task-0-105 progress")
    expect(bar).to_have_attribute("value", re.compile("^[1-9]"), timeout=MOVES)  # it has begun
    value = bar.get_attribute("value")
    assert value
    expect(bar).not_to_have_attribute("value", value, timeout=MOVES)
    assert page.evaluate("window.notReloaded")


def test_the_page_comes_with_its_policy_and_all_it_needs(visit: Visit) -> None:
    page = visit()
    answers = {request.url.removeprefix(visit.url): request.response() for request in visit.requests}
    document = answers.pop("")
    assert document
    assert document.headers["content-security-policy"] == status.CSP
    names = {path.partition("?")[0] for path in answers}
    assert {"static/status.css", "static/status.js", "static/icon.svg"} <= names
    assert {answer.status for answer in answers.values() if answer} == {200}
    for link in page.locator("nav a:not([href^=https])").all():
        answer = page.request.get(
            visit.url + str(link.get_attribute("href")), headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"}
        )
        assert answer.ok, answer.url


def test_the_filter_finds_tasks_and_stays_over_updates(visit: Visit) -> None:
    page = visit()
    tasks, box = page.locator(".task"), page.get_by_role("searchbox")
    expect(tasks).to_have_count(10)
    box.press_sequentially("team=crm")
    expect(tasks).to_have_count(3)
    assert page.url.endswith("?q=team%3Dcrm")
    with page.expect_response(lambda response: "q=team" in response.url):
        pass  # the next update
    expect(box).to_have_value("team=crm")
    expect(box).to_be_focused()
    expect(tasks).to_have_count(3)
    page.get_by_role("link", name="Show all").click()
    expect(tasks).to_have_count(10)
    page.get_by_role("link", name="Waiting").click()
    expect(page.locator(".task.waiting")).not_to_have_count(0)
    expect(page.locator(".task:not(.waiting)")).to_have_count(0)


def test_it_is_russian_for_russians(visit: Visit) -> None:
    page = visit(locale="ru-RU", viewport=PHONE)
    expect(page.get_by_role("heading", level=1)).to_have_text("Задачи Mobizon")
    expect(page.locator("html")).to_have_attribute("lang", "ru")
    expect(page.get_by_role("searchbox", name="Фильтр")).to_be_visible()
    assert width(page) == PHONE["width"]


def test_it_is_dark_where_that_is_preferred(visit: Visit) -> None:
    def brightness(scheme: str) -> int:
        page = visit(color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3]))

    assert brightness("light") > 3 * 0xE0
    assert brightness("dark") < 3 * 0x20


def test_it_is_complete_and_current_without_javascript(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    assert "<noscript>" + RELOADS in page.content()
    page.route(lambda url: urlsplit(url).path == "/", reload_soon)
    expect(page.locator(".task")).to_have_count(10)
    page.get_by_role("searchbox").fill("monthly")
    page.get_by_role("button", name="Apply").click()
    expect(page.locator(".task")).to_have_count(1)
    with page.expect_event("framenavigated", timeout=MOVES):
        pass  # the page has loaded itself anew
    expect(page.locator(".task")).to_have_count(1)


def test_a_phone_shows_anything_without_scrolling_sideways(visit: Visit) -> None:
    assert width(visit(viewport=PHONE)) == PHONE["width"]
    page = visit(viewport=PHONE, accounts=every_trouble)
    expect(page.locator(".task")).to_have_count(18)
    page.get_by_text("194 more").click()
    expect(page.get_by_text("label_199=")).to_be_visible()
    assert width(page) == PHONE["width"]


def test_names_made_of_markup_are_text(visit: Visit) -> None:
    page = visit(accounts=every_trouble)
    expect(page.locator("#task-0-22 h3")).to_have_text(MARKUP)
    expect(page.locator("#task-0-22 img")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_to_complain_of(visit: Visit, scheme: str) -> None:
    assert accessibility_violations(visit(color_scheme=scheme)) == []
    page = visit("?q=", color_scheme=scheme, viewport=PHONE, accounts=every_trouble)
    assert accessibility_violations(page) == []


def test_the_keyboard_gets_to_the_tasks_at_once(visit: Visit) -> None:
    page = visit()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the tasks")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the tasks")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.locator("#tasks")).to_be_focused()


def test_updates_keep_focus_and_what_is_unfolded_and_move_what_has_moved(visit: Visit) -> None:
    now, labels = time.time(), {f"label_{number}": "x" for number in range(20)}
    spec, other = (
        TaskSpec(1, "moving", labels),
        TaskView(TaskSpec(2, "other"), Reading(9, 1, now), False, now),
    )
    views = [TaskView(spec, Reading(5, 1, now), False, now)]
    page = visit(accounts=lambda: (account(*views, other),))
    page.evaluate("document.getElementById('task-0-1').sameElement = true")
    unfold = page.get_by_text("14 more")
    unfold.click()
    views[0] = TaskView(spec, Reading(6, 3, now), False, now)
    update(page)
    expect(page.locator("#group-attention #task-0-1")).to_contain_text("Rejected")
    assert page.evaluate("document.getElementById('task-0-1').sameElement")
    expect(page.get_by_text("label_19=x")).to_be_visible()
    expect(unfold).to_be_focused()
    expect(page.locator("#news")).to_contain_text("Rejected: 1.")  # a polite live region
    expect(page).to_have_title("(1) Mobizon tasks")
    views.clear()
    update(page)
    expect(page.locator(".task")).to_have_count(1)


def test_a_hidden_page_asks_nothing_and_a_page_seen_again_asks_at_once(visit: Visit) -> None:
    page = visit()
    page.clock.install()
    page.reload()
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    announce = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide % "true" + announce)
    page.clock.run_for(20 * PERIOD)
    assert "fetch" not in {request.resource_type for request in visit.requests}
    with page.expect_response(lambda response: response.url == page.url):
        page.evaluate(hide % "false" + announce)
    expect(page.locator("#lost")).to_be_empty()


def test_a_lost_connection_is_told_and_so_is_its_return(visit: Visit) -> None:
    page = visit()
    expect(page.locator("#lost")).to_be_empty()
    page.context.set_offline(True)
    update(page)
    expect(page.locator("#lost")).to_contain_text("Connection to the exporter lost")
    expect(page.locator(".task")).to_have_count(10)
    page.context.set_offline(False)
    expect(page.locator("#lost")).to_be_empty()
    assert visit.complaints  # the browser's own, of the failed request
    visit.complaints.clear()


def test_a_rejected_task_comes_to_the_top(visit: Visit) -> None:
    page = visit()
    first = page.locator(".task").first
    expect(first).to_have_id("task-0-105", timeout=60_000)
    expect(first).to_contain_text("Rejected")
    expect(first).to_contain_text("start it again")
    expect(page.get_by_role("link", name="Rejected")).to_contain_text("1")
    assert accessibility_violations(page) == []
