"""What Prometheus gets, byte for byte, and how it is shared."""

import asyncio
import gzip
import platform
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import Collector

from exporter import __version__, slices
from exporter.errors import Reason
from exporter.metrics import account_series, task_series
from exporter.metrics import exposition as exposition_module
from exporter.metrics.account_series import AccountSeries
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot, SnapshotCollector
from exporter.metrics.task_series import TaskSeries
from exporter.metrics.text import sample
from exporter.model import AccountView, Durations, Failure, Reading, Status, TaskSpec, TaskView
from exporter.slices import Steps, at_one_go
from tests.support.tools import need

GOLDEN = Path(__file__).parent / "golden"
NAUGHTY = 'a "quoted" \\ name\nwith <b>markup</b> и кириллица'


def account(*tasks: TaskView, name: str | None = None, up: bool | None = True) -> AccountView:
    return AccountView(
        name=name,
        url="https://api.example",
        up=up,
        backing_off=False,
        interval=1.0,
        spacing=1.03,
        due=2,
        active=len(tasks),
        requests=13,
        failures=dict.fromkeys(Reason, 0) | {Reason.TIMEOUT: 2},
        durations=Durations((0.1, 1.0), (10, 2, 1), 7.5),
        tasks=tasks,
        finished={Status.COMPLETED: 3, Status.REJECTED: 0},
        task_durations={
            Status.COMPLETED: Durations((10.0, 60.0), (1, 1, 1), 100.5),
            Status.REJECTED: Durations((10.0, 60.0), (0, 0, 0), 0.0),
        },
    )


TASKS = (
    TaskView(TaskSpec(1), Reading(0, 0, 1700000000.25), changed_at=1700000000.25),
    TaskView(TaskSpec(2, "sale", {"team": "crm"}), Reading(45.5, 1, 1700000001.0), changed_at=1699999000.0),
    TaskView(TaskSpec(3), Reading(100, 2, 1690000000.0), changed_at=1690000000.0),
    TaskView(
        TaskSpec(4), Reading(50, 3, 1690000000.0), changed_at=1.0, failure=Failure(Reason.TIMEOUT, "", 1.0)
    ),
    TaskView(TaskSpec(5), failure=Failure(Reason.NOT_FOUND, "code 2", 1700000000.0)),
    TaskView(TaskSpec(6)),
    TaskView(TaskSpec(7), Reading(5, 7, 1700000000.0), changed_at=1700000000.0),
    TaskView(
        TaskSpec(8, NAUGHTY, {"note": NAUGHTY}),
        Reading(1, 1, 1600000000.0),
        stale=True,
        changed_at=1600000000.0,
        failure=Failure(Reason.HTTP_ERROR, "HTTP status 500", 1600000000.0),
    ),
)
SNAPSHOTS = {
    "one_account": Snapshot((account(*TASKS),), reloaded_at=1700000000.0),
    "two_accounts": Snapshot(
        (account(*TASKS[:2], name="kz"), account(*TASKS[1:3], name="ua", up=False)),
        reload_successful=False,
        reloaded_at=1700000000.0,
        task_file_errors=3,
    ),
    "nothing_yet": Snapshot((account(TaskView(TaskSpec(1)), up=None),), reloaded_at=1700000000.0),
    "no_tasks": Snapshot((account(),), reloaded_at=1700000000.0),
}


async def one_account() -> Snapshot:
    return SNAPSHOTS["one_account"]


def rendered(steps: Steps[list[bytes]]) -> str:
    return b"".join(at_one_go(steps)).decode()


def exposed(snapshot: Snapshot, generate: Callable[[CollectorRegistry], bytes] = generate_latest) -> str:
    collector, registry = SnapshotCollector(), CollectorRegistry(auto_describe=False)
    collector.snapshot = snapshot
    registry.register(collector)
    text = rendered(TaskSeries().render(snapshot.accounts))
    text += rendered(AccountSeries().render(snapshot.accounts, openmetrics=generate is generate_openmetrics))
    text += generate(registry).decode()
    return text.replace(platform.python_version(), "3.x").replace(f'version="{__version__}"', 'version="x"')


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_the_exposition_is_as_promised(name: str, request: pytest.FixtureRequest) -> None:
    golden = GOLDEN / f"{name}.txt"
    assert exposed(SNAPSHOTS[name]) == golden.read_text(), f"regenerate with python {__file__} if meant"


def test_every_metric_that_is_promised_is_there() -> None:
    text = exposed(SNAPSHOTS["one_account"])
    assert set(re.findall(r"^# TYPE (\S+) (\S+)", text, re.MULTILINE)) == {
        ("mobizon_task_progress", "gauge"),
        ("mobizon_task_status", "gauge"),
        ("mobizon_task_up", "gauge"),
        ("mobizon_task_error", "gauge"),
        ("mobizon_task_last_success_timestamp_seconds", "gauge"),
        ("mobizon_task_last_change_timestamp_seconds", "gauge"),
        ("mobizon_tasks", "gauge"),
        ("mobizon_up", "gauge"),
        ("mobizon_api_requests_total", "counter"),
        ("mobizon_api_request_failures_total", "counter"),
        ("mobizon_api_request_duration_seconds", "histogram"),
        ("mobizon_api_request_interval_seconds", "gauge"),
        ("mobizon_tasks_due", "gauge"),
        ("mobizon_tasks_finished_total", "counter"),
        ("mobizon_task_duration_seconds", "histogram"),
        ("mobizon_exporter_build_info", "gauge"),
        ("mobizon_exporter_config_last_reload_successful", "gauge"),
        ("mobizon_exporter_config_last_reload_success_timestamp_seconds", "gauge"),
        ("mobizon_exporter_task_file_errors", "gauge"),
    }


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_promtool_finds_nothing_to_complain_of(name: str) -> None:
    promtool = need("promtool")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=exposed(SNAPSHOTS[name]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


async def test_both_formats_are_negotiated_and_compressed() -> None:
    exposition = Exposition(one_account)
    plain, plain_type = await exposition.render("text/plain", compress=False)
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert b"mobizon_up 1.0" in plain
    assert b"process_resident_memory_bytes" in plain
    assert b"python_info" in plain
    metrics, metrics_type = await exposition.render(
        "application/openmetrics-text; version=1.0.0", compress=False
    )
    assert metrics_type.startswith("application/openmetrics-text")
    assert metrics.endswith(b"# EOF\n")
    packed, _ = await exposition.render("text/plain", compress=True)
    assert b"mobizon_up 1.0" in gzip.decompress(packed)
    exposition.close()


class Parsed(Collector):
    """What a parser finds in an exposition, as plain families."""

    def __init__(self, text: str, parse: Callable[[str], Iterable[Metric]]) -> None:
        self._families = list(parse(text))

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        return self._families


@pytest.mark.parametrize("name", SNAPSHOTS)
@pytest.mark.parametrize(
    ("parse", "generate"),
    [(parse_text, generate_latest), (parse_openmetrics, generate_openmetrics)],
    ids=["text", "openmetrics"],
)
def test_kept_lines_are_what_the_library_makes_of_plain_families(
    name: str,
    parse: Callable[[str], Iterable[Metric]],
    generate: Callable[[CollectorRegistry], bytes],
) -> None:
    text = exposed(SNAPSHOTS[name], generate)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Parsed(text, parse))
    assert text.encode() == generate(registry)


def samples_made(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[str]:
    """The samples that a module has formatted, from now on."""
    made: list[str] = []

    def counted(series: str, value: float) -> str:
        made.append(series)
        return sample(series, value)

    monkeypatch.setattr(module, "sample", counted)
    return made


def test_a_view_that_is_the_same_is_not_formatted_again_and_one_that_left_is_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = samples_made(monkeypatch, task_series)
    series = TaskSeries()
    first = rendered(series.render((account(*TASKS),)))
    assert len(made) == first.count("task_id=")
    assert rendered(series.render((account(*TASKS),))) == first
    assert len(made) == first.count("task_id=")
    made.clear()
    changed = replace(TASKS[1], reading=Reading(46, 1, 1700000002.0))
    text = rendered(series.render((account(TASKS[0], changed),)))
    assert "} 46.0" in text
    assert 'task_id="3"' not in text
    assert sorted(made) == [
        'mobizon_task_last_success_timestamp_seconds{name="sale",task_id="2",team="crm"}',
        'mobizon_task_progress{name="sale",task_id="2",team="crm"}',
    ]
    made.clear()
    rendered(series.render((account(*TASKS[:3]),)))
    assert any('task_id="3"' in name for name in made), "it had been forgotten"


def test_what_has_not_changed_of_an_account_is_not_formatted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made = samples_made(monkeypatch, account_series)
    series, view = AccountSeries(), account(*TASKS)
    first = rendered(series.render((view,), openmetrics=False))
    made.clear()
    assert rendered(series.render((account(*TASKS),), openmetrics=False)) == first
    assert not made
    busier = replace(view, requests=14, failures={**view.failures, Reason.TIMEOUT: 3})
    again = rendered(series.render((busier,), openmetrics=False))
    assert 'mobizon_api_request_failures_total{reason="timeout"} 3.0' in again
    assert len(made) == 1 + len(Reason)
    assert rendered(series.render((), openmetrics=False)).count("mobizon_up") == 2


async def test_after_a_reload_views_that_are_no_other_than_before_are_compared_once() -> None:
    compared = 0

    class Labels(dict[str, str]):
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

        __hash__ = None

    async def snapshot() -> Snapshot:
        return Snapshot((account(view),))

    exposition = Exposition(snapshot)
    for _ in range(2):
        view = TaskView(TaskSpec(1, labels=Labels(team="crm")))
        await exposition.render("text/plain", compress=False)
    assert compared
    compared = 0
    await exposition.render("text/plain", compress=False)
    assert not compared
    exposition.close()


@pytest.mark.parametrize("shape", [(1, 10_000), (1000, 10)], ids=["tasks", "accounts"])
def test_rendering_stops_every_few_lines(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the loop, on which it is done, can send requests in between."""
    number, tasks = shape
    read = [TaskView(TaskSpec(at), Reading(at % 100, 1, 1.7e9 + at), changed_at=1.7e9) for at in range(tasks)]
    accounts = tuple(account(*read, name=f"account-{at}") for at in range(number))
    for module, steps in (
        (task_series, TaskSeries().render(accounts)),
        (account_series, AccountSeries().render(accounts, openmetrics=False)),
    ):
        made = samples_made(monkeypatch, module)
        longest = total = 0
        for _ in steps:
            longest, total = max(longest, len(made)), total + len(made)
            made.clear()
        assert total > 100 * longest or total < 300
        assert longest <= 300


async def test_others_have_their_turn_while_all_is_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE", 0.0)
    monkeypatch.setattr(slices, "MAX_SLICE", 0.0)
    finished = asyncio.Event()
    turns_before_packing: list[int] = []
    turns = 0

    def packed(body: bytes, *, compress: bool) -> bytes:
        turns_before_packing.append(turns)
        return body

    async def snapshot() -> Snapshot:
        return Snapshot(tuple(account(*TASKS, name=f"account-{at}") for at in range(100)))

    monkeypatch.setattr(exposition_module, "pack", packed)
    exposition = Exposition(snapshot)
    rendering = asyncio.create_task(exposition.render("text/plain", compress=False))
    rendering.add_done_callback(lambda _: finished.set())
    while not finished.is_set():
        await asyncio.sleep(0)
        turns += 1
    assert turns_before_packing[0] >= 200, "one for each account's tasks, and one for each account"
    assert (await rendering)[0].count(b"mobizon_up{") == 100
    exposition.close()


async def test_whoever_asks_at_the_same_time_shares_one_rendering() -> None:
    taken = 0

    async def snapshot() -> Snapshot:
        nonlocal taken
        taken += 1
        return SNAPSHOTS["one_account"]

    exposition = Exposition(snapshot)
    answers = await asyncio.gather(*(exposition.render("text/plain", compress=False) for _ in range(50)))
    assert taken == 1
    assert len({body for body, _ in answers}) == 1
    await exposition.render("text/plain", compress=False)
    assert taken == 2, "a later scrape gets its own"
    exposition.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Seconds that the next renderings take, by the clock that they are timed by; none when it is empty."""
    now, seconds = [100.0], list[float]()

    def packed(body: bytes, *, compress: bool) -> bytes:
        now[0] += seconds.pop(0) if seconds else 0.0
        return body

    monkeypatch.setattr(exposition_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(exposition_module, "pack", packed)
    yield seconds
    assert not seconds


async def test_how_long_rendering_takes_is_known_from_the_slow_ones_of_late_but_for_one(
    slow: list[float],
) -> None:
    exposition = Exposition(one_account)
    assert exposition.render_seconds == 0
    known = []
    for seconds in (0.5, 20.0, 0.1, 0.5, 0.4, 2.0, 3.0, *[0.2] * 4):
        slow.append(seconds)
        await exposition.render("text/plain", compress=False)
        known.append(exposition.render_seconds)
    assert known == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 2.0, 2.0, 2.0, 2.0, 0.2])
    exposition.close()


async def test_waiting_for_another_rendering_is_not_part_of_how_long_it_takes(slow: list[float]) -> None:
    exposition = Exposition(one_account)
    slow += [1.0, 1.0]
    accepted = ("text/plain", "application/openmetrics-text; version=1.0.0")
    await asyncio.gather(*(exposition.render(accept, compress=False) for accept in accepted))
    assert exposition.render_seconds == pytest.approx(1.0)
    exposition.close()


def test_registering_collects_nothing() -> None:
    class Counting(SnapshotCollector):
        collected = 0

        def collect(self) -> list[object]:  # type: ignore[override] # only counts
            Counting.collected += 1
            return []

    CollectorRegistry(auto_describe=True).register(Counting())
    assert Counting.collected == 0


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, snapshot in SNAPSHOTS.items():
        (GOLDEN / f"{name}.txt").write_text(exposed(snapshot))
