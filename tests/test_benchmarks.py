"""The benchmarks: what they compare with is what it is said to be, and the figures are reckoned rightly."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
import socket
import ssl
import statistics
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest

import benchmarks.__main__ as command
from benchmarks import accounts, link, report, scrapes, soak, summary
from benchmarks.apis import Api, Apis
from benchmarks.measured import account, exporting, scrape, serving
from benchmarks.plain import registry, views
from exporter.metrics.task_series import TaskSeries
from exporter.model import Reading
from exporter.simulator import Simulator, SimulatorThread, stalled
from exporter.slices import at_one_go
from tests.support.certificates import Authority, ip
from tests.support.processes import ROOT, Samples

TASKS = 10


@settings(deadline=None)
@given(st.lists(st.dictionaries(st.integers(0, TASKS - 1), st.floats(0, 100)), max_size=5))
def test_the_exposition_is_that_of_generate_latest_whatever_changes_between_scrapes(
    rounds: list[dict[int, float]],
) -> None:
    series, shown = TaskSeries(), views(TASKS)
    for at, changed in enumerate([{}, *rounds]):
        for task, progress in changed.items():
            shown[task] = replace(shown[task], reading=Reading(progress, 1, 1_763_800_100.5 + at))
        text = b"".join(at_one_go(series.render(scrapes.snapshot(shown))))
        assert text == generate_latest(registry(shown))


@pytest.mark.parametrize("kind", ["in-turn", "at-once"])
def test_a_peer_that_asks_for_all_on_a_scrape_has_one_task_in_ten_answered(kind: str) -> None:
    scenarios = {task: stalled() for task in range(1, TASKS + 1)}
    with (
        SimulatorThread(Simulator(scenarios, keys=["key"], interval=0.5)) as simulator,
        serving("peers", kind, simulator.url, "key", str(TASKS)) as (url, _),
    ):
        for number in range(1, 4):
            if simulator.requests:  # until the limit allows one again
                time.sleep(max(0.0, simulator.requests[-1].at + 0.51 - time.monotonic()))
            samples = Samples(scrape(url, 10)[0])
            read = [labels["task_id"] for labels, _ in samples.all("mobizon_task_progress")]
            assert read == ["1"] if kind == "in-turn" else len(read) == 1
            assert (simulator.accepted, simulator.refused) == (number, 9 * number)


def test_a_generic_peer_sends_one_request_for_each_probe_and_trusts_whom_it_is_told(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.server().files)
    simulator = Simulator({task: stalled() for task in (1, 2)}, keys=["key"], interval=0.001, tls=tls)
    with SimulatorThread(simulator):
        with serving("peers", "generic", simulator.url, "key", "2", str(authority.cert)) as (url, _):
            samples = Samples(scrape(f"{url}?task=2", 10)[0])
        with (
            serving("peers", "generic", simulator.url, "key", "2") as (url, _),
            pytest.raises(requests.RequestException),
        ):
            scrape(f"{url}?task=2", 10)
    assert [labels["task_id"] for labels, _ in samples.all("mobizon_task_status")] == ["2"]
    assert [request.task_id for request in simulator.requests] == [2]


def test_the_plain_exporter_shows_as_many_tasks_as_it_was_told() -> None:
    with serving("plain", "25") as (url, probe):
        samples = Samples(scrape(url, 10)[0])
        assert len(samples.all("mobizon_task_progress")) == 25
        assert probe.memory() > 5
        assert probe.threads() >= 1
        assert probe.files() > 3


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.012345, "0.0123"), (1.0, "1.00"), (43.84, "43.8"), (1234.5, "1,234"), (math.inf, "inf")],
)
def test_a_figure_has_three_digits_that_count(value: float, shown: str) -> None:
    assert report.number(value) == shown


def test_a_row_tells_the_median_and_from_where_to_where_it_was_measured() -> None:
    figure = report.Figure("scrape", "10 tasks", [3.0, 1.0, 2.5], "ms", "limit 5 ms")
    assert figure.row() == "| scrape | 2.50 ms | 1.00 \N{EN DASH} 3.00 | limit 5 ms |\n"
    assert replace(figure, values=[4.0]).row() == "| scrape | 4.00 ms | | limit 5 ms |\n"


def test_rows_of_the_same_condition_stand_under_one_heading() -> None:
    figures = [report.Figure(what, under, [1.0], "s") for what, under in ("ax", "bx", "ay")]
    heads = [line for line in report.lines(figures) if "**" in line]
    assert heads == ["| **x** | | | |\n", "| **y** | | | |\n"]
    assert [line[2] for line in report.lines(figures)] == ["*", "a", "b", "*", "a"]


def test_a_percentile_is_a_value_that_so_many_percent_do_not_exceed() -> None:
    hundred = [float(value) for value in range(100, 0, -1)]
    assert [report.percentile(hundred, percent) for percent in (50, 99, 100)] == [50, 99, 100]
    assert report.percentile([7.0], 50) == 7


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_is_that_of_the_growth(power: float) -> None:
    sizes = [10.0, 100.0, 1000.0]
    assert report.exponent(sizes, [3 * size**power for size in sizes]) == pytest.approx(power)


def test_the_rows_of_a_part_take_the_place_of_its_former_ones_alone() -> None:
    page = "# Head\n<!-- pacing -->\nold\n<!-- end -->\ntext\n<!-- soak -->\nkept\n<!-- end -->\n"
    changed = command.with_rows(page, "pacing", "| new |\n")
    assert "old" not in changed
    assert changed.startswith("# Head\n<!-- pacing -->\n")
    assert changed.endswith("| new |\n<!-- end -->\ntext\n<!-- soak -->\nkept\n<!-- end -->\n")
    with pytest.raises(ValueError, match="no place for scrapes"):
        command.with_rows(page, "scrapes", "")


def test_a_summary_takes_its_figures_from_the_tables_and_keeps_their_decimals() -> None:
    text = (ROOT / "README.ru.md").read_text()
    figures = summary.measured(summary.TABLES.read_text())
    (used, _, _, generic), *_ = summary.README
    assert used
    assert generic
    assert {used, generic} <= figures.keys()
    changed = summary.told("README.ru.md", text, figures | {used: 99.44, generic: 12.6})
    (old,), (new,) = (
        [line for line in each.splitlines() if line.startswith("| использовано лимита |")]
        for each in (text, changed)
    )
    assert [new.split("|")[at] for at in (2, 5)] == [" 99,4 % ", " 13 % "]
    assert changed == text.replace(old, new)


def test_the_page_of_figures_has_a_place_for_every_part() -> None:
    page = summary.TABLES.read_text()
    for part in command.PARTS:
        assert f"<!-- {part} -->\n" in page


def test_a_part_that_this_machine_cannot_measure_is_skipped_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(link, "obstacle", lambda: "no network namespace: Operation not permitted")
    assert command.main(["--only", "netem"]) == 0
    assert "netem is skipped: no network namespace: Operation not permitted\n" in capsys.readouterr().out


async def test_a_relay_passes_packets_on_late_or_not_at_all() -> None:
    (near, sender), (far, receiver) = (
        socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) for _ in range(2)
    )
    arrived: list[tuple[int, float]] = []
    loop = asyncio.get_running_loop()
    loop.add_reader(receiver, lambda: arrived.append((int(receiver.recv(9)), time.monotonic())))
    link.Relay(link.Link(delay=0.1, loss=0.25), (near.fileno(), far.fileno())).start()
    sent = []
    for number in range(200):
        sent.append(time.monotonic())
        sender.send(b"%d" % number)
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    for end in (near, sender, far, receiver):
        loop.remove_reader(end)
        end.close()
    assert 130 <= len(arrived) <= 170
    assert arrived == sorted(arrived)
    assert all(at - sent[number] >= 0.099 for number, at in arrived)


def test_behind_a_link_the_exporter_keeps_its_spacing_and_lost_packets_are_no_failures(
    tmp_path: Path,
) -> None:
    if obstacle := link.obstacle():
        pytest.skip(obstacle)
    behind = link.Link(delay=0.03, loss=0.05, number=100 + os.getpid() % 100)
    authority = Authority(tmp_path)
    certificate = authority.issue("server", ip(behind.there)).files
    api = Api(20, ("key",), (0, 0), history=100, limited=False)
    with Apis([api], certificate, behind) as apis:
        config = account(apis.urls[0], "key", range(1, 21), 0.2, authority.cert)
        with exporting(tmp_path, config) as (exporter, _):
            samples = exporter.scrapes_until(lambda samples: len(samples.all("mobizon_task_progress")) == 20)
        assert behind.here in _addresses()
        gaps = [after - before for before, after in itertools.pairwise(at for at, _ in apis.arrivals(0))]
    assert behind.here not in _addresses()
    assert 0.19 < statistics.median(gaps) < 0.26, "with the margin that a busy machine's jitter demands"
    answered = samples.value("mobizon_api_requests_total")
    took = samples.value("mobizon_api_request_duration_seconds_sum")
    assert answered
    assert took
    assert took / answered > 0.06
    assert not any(value for _, value in samples.all("mobizon_api_request_failures_total"))


def test_requests_that_an_api_saw_together_because_it_did_not_run_are_not_close() -> None:
    arrivals = {"key": [1.0, 2.0, 3.5, 3.6, 5.0]}
    assert soak.closest(arrivals, [])[0] == pytest.approx(0.1)
    assert soak.closest(arrivals, [(2.9, 3.5)])[0] == pytest.approx(1.0)


def _addresses() -> str:
    return subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout


@pytest.mark.alone
@pytest.mark.slow
def test_a_thousand_accounts_use_their_budgets_as_far_as_one_core_goes() -> None:
    usual = accounts.usual()
    served = accounts.serve(1_000, window=8.0, warm=12.0)
    print(f"{usual:.2f} ms for a request of requests.Session, {served}")
    assert served.cpu <= 2 * usual, "with its scheduling and its part of the scrapes"
    assert served.answered >= 70 or served.cores >= 0.8  # what one core does depends on the machine
    assert served.least >= served.answered / 2
    assert served.refused <= 4
    assert served.memory <= 300
    assert served.slowest <= 10, "Prometheus's own scrape_timeout"
