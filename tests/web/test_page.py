"""The status page as it is rendered; what a browser makes of it is in test_browser.py."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.errors import Reason
from exporter.model import STATES, AccountView, Durations, Failure, Reading, TaskSource, TaskSpec, TaskView
from exporter.web import page
from exporter.web.translations import LANGUAGES, language_of, phrases
from tests.support.costs import cpu_seconds

ROOT = Path(__file__).resolve().parents[2]
NOW = 1_767_225_600.0
MARKUP = """"><img src=x onerror=alert(1)>'{{ 7*7 }}&amp;"""
VOID = {"meta", "link", "img", "input", "rect"}


def account(*tasks: TaskView, **changes: Any) -> AccountView:
    fields: dict[str, Any] = {
        "name": None,
        "url": "https://api.mobizon.kz",
        "up": True,
        "backing_off": False,
        "interval": 1.0,
        "spacing": 1.0,
        "due": 0,
        "active": len(tasks),
        "requests": 42,
        "failures": dict.fromkeys(Reason, 0),
        "durations": Durations((), (), 0.0),
        "tasks": tasks,
    }
    return AccountView(**fields | changes)


def task(
    task_id: int,
    status: int | None = None,
    progress: float = 0.0,
    *,
    name: str | None = None,
    reason: Reason | None = None,
    age: float = 3.0,
    unmoved: float = 0.0,
    speed: float | None = None,
    stale: bool = False,
    labels: dict[str, str] | None = None,
) -> TaskView:
    return TaskView(
        TaskSpec(task_id, name, labels or {}),
        None if status is None else Reading(progress, status, NOW - age),
        stale,
        NOW - age - unmoved,
        speed,
        Failure(reason, f"said {reason}", NOW - 90) if reason else None,
    )


def render(*accounts: AccountView, language: str = "en", query: str = "") -> str:
    return page.render(
        accounts, now=NOW, language=language, version="1.2.3", telemetry_path="/metrics", query=query
    )


class Text(HTMLParser):
    """What a page says: its elements with their attributes, and the words of each task."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tasks: dict[str, str] = {}
        self.words = ""
        self._open: list[str] = []
        self._task: tuple[str, int] | None = None
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.elements.append((tag, attributes))
        if "task" in (attributes.get("class") or "").split():
            self._task = (attributes["id"] or "").rpartition("-")[2], len(self._open)
            self.tasks[self._task[0]] = ""
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if self._task and len(self._open) == self._task[1]:
            self._task = None

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._task:
            self.tasks[self._task[0]] += data


def texts(language: str) -> dict[str, Any]:
    return tomllib.loads(
        resources.files("exporter.web").joinpath("templates", f"{language}.toml").read_text("utf-8")
    )


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


EVERYTHING = account(
    task(1, 2, 100, age=7200),
    task(2, 0),
    task(3, 1, 40, speed=0.5),
    task(4),
    task(5, 1, 37, unmoved=3600),
    task(6, 1, 10, reason=Reason.API_ERROR),
    task(7, 7, 50),
    task(8, 1, 80, stale=True, age=900),
    task(9, reason=Reason.NOT_FOUND),
    task(10, reason=Reason.INVALID_RESPONSE),
    task(11, 3, 55, age=86400),
    task(12, 1, 20, unmoved=600),
    task(13, 1, 60, reason=Reason.RATE_LIMITED),
)


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("ru", "ru"),
        ("ru-RU,ru;q=0.9,en-US;q=0.8,en;q=0.7", "ru"),
        ("RU-ru", "ru"),
        ("en,ru", "en"),
        ("ru,en", "ru"),
        ("en;q=0.5, ru;q=0.8", "ru"),
        ("uk, ru;q=0.7, en;q=0.3", "ru"),
        ("kk-KZ,kk;q=0.9,ru;q=0.8", "ru"),
        ("de, fr;q=0.9", "en"),
        ("*", "en"),
        ("de, *;q=0.5", "en"),
        ("en;q=0, *", "ru"),
        ("ru;q=0", "en"),
        ("ru;q=0, en;q=0", "en"),
        ("ru;q=0, *;q=0", "en"),
        ("en-GB;q=0.1, ru;q=0.5, en;q=0.9", "en"),
        ("ru ; q=1.000 , en;q=0.999", "ru"),
        ("ru;q=2", "en"),
        ("ru;q=nan", "en"),
        ("ru;q=-1", "en"),
        ("rus", "en"),
        (";;,,=;q", "en"),
        ("," * 5000, "en"),
    ],
)
def test_the_language_is_the_one_the_browser_likes_best(header: str | None, language: str) -> None:
    assert language_of(header) == language


def test_every_language_says_everything_and_fills_in_the_same() -> None:
    english, russian = flat(texts("en")), flat(texts("ru"))
    assert list(english) == list(russian)
    for key, text in english.items():
        assert text, key
        assert str(text).count("{}") == str(russian[key]).count("{}"), key
    untranslated = {key for key in english if english[key] == russian[key]}
    assert untranslated <= {"json"}


def test_every_text_is_used_and_every_state_and_reason_has_its_texts() -> None:
    english = texts("en")
    assert set(english["state"]) == set(STATES) == set(page.STATE_ORDER)
    assert {reason.value for reason in Reason} <= set(english["what"])
    assert set(english["what"]) == set(english["do"])
    assert set(english["group"]) == set(page.GROUPS)
    sources = [
        path.read_text("utf-8")
        for path in (
            resources.files("exporter.web").joinpath("page.py"),
            resources.files("exporter.web").joinpath("translations.py"),
            resources.files("exporter.web").joinpath("templates", "status.html"),
        )
    ]
    words = set(re.findall(r"\w+", " ".join(sources)))
    names = [key for key in english if not isinstance(english[key], dict)]
    assert {*names, *english["api"], *english["kind"]} <= words


def test_trouble_is_on_top_and_then_what_is_nearest_to_begin_with() -> None:
    order = [int(key) for key in Text(render(EVERYTHING)).tasks]
    assert order == [11, 6, 7, 8, 9, 10, 5, 3, 12, 13, 2, 4, 1]


def test_each_state_is_told_in_words() -> None:
    tasks = Text(render(EVERYTHING)).tasks
    said = {
        "1": "Completed", "2": "Waiting", "3": "In progress", "4": "Not read yet", "5": "Stalled",
        "6": "In progress", "7": "Status 7", "8": "Out of date", "9": "Not found", "10": "No reading",
        "11": "Rejected",
    }  # fmt: skip
    for key, word in said.items():
        assert word in tasks[key]


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", Reason)
def test_each_error_is_told_in_words_with_what_to_do(reason: Reason, language: str) -> None:
    said = Text(render(account(task(1, 1, 5, reason=reason)), language=language)).tasks["1"]
    assert texts(language)["what"][reason] in said
    assert texts(language)["do"][reason] in said
    assert f"said {reason}" in said
    assert "1\N{NO-BREAK SPACE}" in said  # for how long


@pytest.mark.parametrize("reason", sorted(set(Reason) - {Reason.NOT_FOUND}))
def test_what_is_wrong_with_an_account_is_advised_there_and_not_at_each_task(reason: Reason) -> None:
    html = render(
        account(
            task(1, 1, 5, reason=reason),
            task(2, 1, 6),
            up=False,
            backing_off=True,
            failure=Failure(reason, "told by a test", NOW),
        )
    )
    advice, parsed = texts("en")["do"][reason], Text(html)
    assert parsed.words.count(advice) == 1
    assert advice not in parsed.tasks["1"]
    assert "Unavailable" in parsed.words
    assert "Need attention 0" in parsed.words.replace(": ", " ")


def test_an_account_that_was_never_asked_says_so() -> None:
    assert "No request yet" in Text(render(account(up=None))).words


def test_the_spacing_and_the_time_of_a_full_refresh_are_told() -> None:
    said = Text(render(account(*map(task, range(1, 91)), spacing=1.02))).words.replace(
        "\N{NO-BREAK SPACE}", " "
    )
    assert "1.02 s" in said
    assert "1 min" in said
    slowed = Text(render(account(spacing=2.5))).words.replace("\N{NO-BREAK SPACE}", " ")
    assert "2.5 s (slowed down from 1 s)" in slowed
    assert "no active tasks" in slowed


@pytest.mark.parametrize(
    ("view", "said"),
    [
        (task(1, 1, 40, speed=0.5), "about 2 min left"),
        (task(1, 1, 40, speed=10), "about 10 s left"),
        (task(1, 1, 99, speed=1, age=60), "any moment"),
        (task(1, 1, 40, speed=0.001), "about 16 h 40 min left"),
        (task(1, 1, 40, unmoved=600), "unchanged for 10 min"),
        (task(1, 1, 40, age=0), "read just now"),
        (task(1, 1, 40, age=-60), "read just now"),
        (replace(task(1, 1, 40, age=-3500), set_back=3600), "read 1 min ago"),
        (task(1, 1, 40, age=3 * 86400 + 4 * 3600), "read 3 d 4 h ago"),
        (task(1, 1, 99.99), "99.9%"),
        (task(1, 1, 33.25), "33.2%"),
        (task(1, 1, 100), "100%"),
        (task(1, 1, 0.04), "0%"),
    ],
)
def test_numbers_and_times_are_said_as_people_say_them(view: TaskView, said: str) -> None:
    assert said in Text(render(account(view))).tasks["1"].replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("speed", [None, 0.0, -5.0, 1e-12])
def test_without_a_speed_that_leads_anywhere_there_is_no_estimate(speed: float | None) -> None:
    said = Text(render(account(task(1, 1, 40, speed=speed)))).tasks["1"]
    assert "left" not in said
    assert "any moment" not in said


def test_russian_is_russian_throughout() -> None:
    said = Text(render(EVERYTHING, language="ru")).words
    for detail in (*(f"said {reason}" for reason in Reason), *texts("ru")["alert"]):
        said = said.replace(detail, "")
    latin = set(re.findall(r"[A-Za-z_]{2,}", said))
    assert latin <= {
        *{"Mobizon", "API", "JSON", "api", "mobizon", "kz", "exporter", "timeout", "url", "DNS"},
        *{"Prometheus", "TLS", "job", "scrape_timeout", "config", "check", "unauthorized", "wrong_host"},
    }
    assert "33,2\N{NO-BREAK SPACE}%" in render(account(task(1, 1, 33.25)), language="ru")


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_to_do_about_each_alert_is_on_the_page(language: str) -> None:
    rules = yaml.safe_load((ROOT / "alerts" / "mobizon.rules.yaml").read_text("utf-8"))
    alerts = [rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule]
    parsed = Text(render(account(), language=language))
    assert list(texts(language)["alert"]) == alerts
    anchors = {attributes.get("id") for _, attributes in parsed.elements}
    for alert in alerts:
        assert alert in anchors
        assert texts(language)["alert"][alert] in parsed.words


def test_where_a_task_comes_from_is_told_unless_it_is_the_configuration() -> None:
    tasks = [TaskView(TaskSpec(number, source=source)) for number, source in enumerate(TaskSource, 1)]
    html = render(account(*tasks))
    assert html.count('<li class="source">') == 2
    assert "from a task file" in html
    assert "зарегистрирована программой" in render(account(*tasks), language="ru")
    found = render(account(*tasks), query="source:registry")
    assert "#3" in found
    assert "#2" not in found


def test_names_made_of_markup_are_text() -> None:
    view = task(1, 1, 40, name=MARKUP, labels={"a": MARKUP})
    failing = TaskView(TaskSpec(2, MARKUP), failure=Failure(Reason.API_ERROR, MARKUP, NOW))
    html = render(account(view, failing, name=MARKUP), query="40 onerror=" + MARKUP)
    assert "<img src=x" not in html
    assert Text(html).words.count("onerror") == 1  # the account's
    html = render(account(view, failing, name=MARKUP))
    assert "<img src=x" not in html
    assert MARKUP in Text(html).tasks["1"]
    assert Text(html).tasks["2"].count(MARKUP) == 3


def test_nothing_is_inline_and_nothing_comes_from_elsewhere() -> None:
    html = render(EVERYTHING, account(task(1), name="second", up=False), query="a")
    for tag, attributes in Text(html).elements:
        assert tag not in {"style", "iframe", "object", "base"}
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in {"src", "href", "action"} & set(attributes):
            address = attributes[name] or ""
            if not (tag == "a" and address == "https://github.com/mobizon-exporter/mobizon-exporter"):
                assert not re.match(r"[a-z]+:|//|/", address), (
                    address
                )  # relative: also behind a proxy's prefix
    assert re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL) == [""]
    assert "http://" not in html
    css = page.static_files()["status.css"].body.decode()
    assert "url(" not in css
    assert "@import" not in css


def test_ids_are_unique_and_all_that_is_referred_to_is_there() -> None:
    second = account(*EVERYTHING.tasks, name="second")
    elements = Text(render(EVERYTHING, second)).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {
        attributes["aria-labelledby"] for _, attributes in elements if "aria-labelledby" in attributes
    } <= set(ids)


def test_progress_has_its_number_as_text_too() -> None:
    html = render(account(task(1, 1, 37.5)))
    (bar,) = (attributes for tag, attributes in Text(html).elements if tag == "progress")
    assert (bar["value"], bar["max"]) == ("37.5", "100")
    assert Text(html).tasks["1"].count("37.5%") == 2  # inside the bar and beside it


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {"1", "2", "3"}),
        ("  ", {"1", "2", "3"}),
        ("SPRING", {"1"}),
        ("team=crm", {"2"}),
        ("sale team=", {"1"}),
        ("3", {"3"}),
        ("state:rejected", {"3"}),
        ("rejected", {"3"}),
        ("is:attention", {"3"}),
        ("state:in_progress", {"1"}),
        ("kz-account", {"1", "2", "3"}),
        ("no such thing", set()),
    ],
)
def test_the_filter_shows_what_matches_every_word(query: str, expected: set[str]) -> None:
    views = (
        task(1, 1, name="Spring-Sale", labels={"team": "sales"}),
        task(2, 0, name="import", labels={"team": "crm"}),
        task(3, 3),
    )
    text = Text(render(account(*views, name="kz-account"), query=query))
    assert set(text.tasks) == expected
    assert ("No task matches" in text.words) == (not expected)
    assert "Tasks: 3." in text.words  # the summary stays that of all


def test_the_filter_knows_states_in_the_readers_language() -> None:
    assert set(Text(render(EVERYTHING, language="ru", query="ОТКЛОНЕНА")).tasks) == {"11"}


def test_an_empty_list_and_no_account_at_all_are_told() -> None:
    assert "No tasks are listed" in render(account())
    assert "No tasks are listed" in render()


def test_it_stays_current_without_javascript() -> None:
    assert '<noscript><meta http-equiv="refresh" content="15"></noscript>' in render(EVERYTHING)


def test_200_labels_are_folded_and_all_there() -> None:
    labels = {f"label_{number}": "x" * 20 for number in range(200)}
    text = Text(render(account(task(1, labels=labels))))
    assert "194 more" in text.words
    assert all(f"{name}=" in text.tasks["1"] for name in labels)


def test_other_paths_of_metrics_are_linked() -> None:
    html = page.render(
        (account(),), now=NOW, language="en", version="1", telemetry_path="/deep/er:metrics", query=""
    )
    assert 'href="./deep/er:metrics"' in html


def test_static_files_have_types_and_addresses_that_change_with_them() -> None:
    html = render(EVERYTHING)
    for name, file in page.static_files().items():
        assert f"static/{name}?v={file.version}" in html
        assert "immutable" in file.headers["Cache-Control"]
    types = {name: file.headers["Content-Type"] for name, file in page.static_files().items()}
    assert types == {
        "status.css": "text/css; charset=utf-8",
        "status.js": "text/javascript; charset=utf-8",
        "icon.svg": "image/svg+xml; charset=utf-8",
    }


def test_the_page_may_do_nothing_but_what_it_needs() -> None:
    assert page.HEADERS["Content-Security-Policy"] == page.CSP
    assert page.CSP.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in page.CSP


def test_durations_have_at_most_two_units() -> None:
    say = phrases("en")
    said = [say.duration(value) for value in (-1, 0, 59.9, 60, 3599, 3600, 7500, 86400, 90000, 1e6)]
    assert [text.replace("\N{NO-BREAK SPACE}", "") for text in said] == [
        "0s", "0s", "59s", "1min", "59min", "1h", "2h 5min", "1d", "1d 1h", "11d 13h",
    ]  # fmt: skip


def test_ten_times_the_tasks_take_ten_times_as_long() -> None:
    views = [
        task(
            number,
            number % 4,
            number / 10,
            name=f"task number {number}",
            labels={"team": "crm", "kind": "import"},
            speed=0.1,
            reason=Reason.API_ERROR if number % 10 == 0 else None,
        )
        for number in range(1, 1001)
    ]
    few, many = cpu_seconds(*(partial(render, account(*views[:number])) for number in (100, 1000)))
    assert many < 20 * few
