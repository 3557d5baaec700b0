"""What the exporter has to show, measured on a process of its own against the simulated API."""

import itertools
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml

from exporter import simulator as sim
from exporter.simulator import DEMO_KEY, Scenario, Simulator, SimulatorThread
from tests.support.certificates import Authority
from tests.support.peers import tls_context
from tests.support.processes import ExporterProcess, Samples, write_config


def scenarios(count: int) -> dict[int, Scenario]:
    return {task_id: sim.stalled(at=50) for task_id in range(1, count + 1)}


def ids(count: int) -> list[int]:
    return list(range(1, count + 1))


class Scraping:
    """A Prometheus: a scrape every few seconds, each with its deadline."""

    def __init__(self, exporter: ExporterProcess, every: float, timeout: float = 10.0) -> None:
        self.took: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(exporter, every, timeout))
        self._thread.start()

    def _run(self, exporter: ExporterProcess, every: float, timeout: float) -> None:
        at = time.monotonic()
        while not self._stop.is_set():
            began = time.monotonic()
            exporter.scrape(timeout)
            self.took.append(time.monotonic() - began)
            at += every
            self._stop.wait(max(0.0, at - time.monotonic()))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.xdist_group("budget")
def test_the_budget_is_used_to_the_full_with_quick_and_with_slow_answers(tmp_path: Path) -> None:
    seconds = 75.0
    quick = Simulator(scenarios(40), latency=(0.06, 0.1))
    slow = Simulator(scenarios(40), latency=(2.0, 2.0))
    (tmp_path / "quick").mkdir()
    (tmp_path / "slow").mkdir()
    with SimulatorThread(quick), SimulatorThread(slow):
        configs = [
            write_config(tmp_path / name, simulator.url, ids(40))
            for name, simulator in (("quick", quick), ("slow", slow))
        ]
        with (
            ExporterProcess("--config.file", str(configs[0])) as first,
            ExporterProcess("--config.file", str(configs[1])) as second,
        ):
            began = time.monotonic()
            scraping = [Scraping(first, 15), Scraping(second, 15)]
            quick.wait_for(lambda: len({r.task_id for r in quick.requests if r.code == 0}) == 40, 100)
            all_read = time.monotonic() - began
            threading.Event().wait(seconds - all_read)
            for one in scraping:
                one.stop()
    figures = {}
    for name, simulator in (("quick", quick), ("slow", slow)):
        requests_in_time = [r for r in simulator.requests if r.at <= began + seconds]
        answered = sum(r.code == 0 for r in requests_in_time)
        refused = sum(r.code == 30 for r in requests_in_time)
        figures[name] = answered / seconds, refused / len(requests_in_time)
        print(f"{name}: {answered / seconds:.1%} of the budget answered, {figures[name][1]:.1%} refused")
    took = [max(one.took) for one in scraping]
    print(f"all read after {all_read:.1f} s; the longest scrape took {max(took):.3f} s")
    # The second scrape finds the first 15 due again: new tasks then get every second start.
    assert all_read <= 75
    assert max(took) < 9.6
    # One refusal teaches the pacing its margin, and one answer may be on its way at the end.
    once = 1 / seconds
    assert figures["quick"][0] >= 0.95 - 2 * once
    assert figures["quick"][1] <= 0.02 + once
    assert figures["slow"][0] >= 0.90


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.xdist_group("two exporters")
def test_two_exporters_on_one_key_share_it(tmp_path: Path) -> None:
    """Ten times as fast as Mobizon allows, so that half a minute shows what five would.

    How well they share varies widely within so short a time: the simulation of the pacing tells that.
    """
    shared = Simulator(scenarios(80), interval=0.1, latency=(0.006, 0.01))
    seconds = 30.0
    with SimulatorThread(shared):
        folders = [tmp_path / name for name in ("a", "b")]
        for at, folder in enumerate(folders):
            folder.mkdir()
            write_config(folder, shared.url, ids(80)[40 * at : 40 * at + 40], interval="100ms")
        with (
            ExporterProcess("--config.file", str(folders[0] / "config.yaml")) as first,
            ExporterProcess("--config.file", str(folders[1] / "config.yaml")) as second,
        ):
            scraping = [Scraping(first, 2), Scraping(second, 2)]
            threading.Event().wait(10)  # until they have found out about each other
            began = time.monotonic()
            threading.Event().wait(seconds)
            ended = time.monotonic()
            for one in scraping:
                one.stop()
    counted = [r for r in shared.requests if began < r.at <= ended]
    answered = [r for r in counted if r.code == 0]
    shares = [sum(low < (r.task_id or 0) <= low + 40 for r in answered) for low in (0, 40)]
    used, refused = len(answered) * 0.1 / (ended - began), 1 - len(answered) / len(counted)
    print(f"together {used:.1%} of the budget, {refused:.1%} refused, shares {shares}")
    assert used >= 0.4
    assert refused <= 0.5
    assert min(shares) > 0


def test_twenty_scrapes_at_once_cost_what_one_or_two_do(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(5), interval=0.5, latency=(0.06, 0.1))) as api:
        config = write_config(tmp_path, api.url, ids(5), interval="500ms")
        with ExporterProcess("--config.file", str(config)) as exporter, ThreadPoolExecutor(20) as pool:
            texts = list(pool.map(lambda _: exporter.scrape(), range(20)))
            assert len(api.requests) <= 10
    assert all(len(Samples(text).all("mobizon_task_progress")) == 5 for text in texts)


def test_without_a_scrape_there_is_no_request_and_health_costs_none(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(5), limit="off")) as api:
        config = write_config(tmp_path, api.url, ids(5), interval="200ms")
        with ExporterProcess("--config.file", str(config)) as exporter:
            for path in ("/-/healthy", "/-/ready") * 5:
                assert requests.get(exporter.url + path, timeout=5).status_code == 200
            threading.Event().wait(1.5)
            assert not api.requests
            exporter.scrape()
            assert len(api.requests) == 5


NONSENSE = {
    "not JSON": (sim.body(b"<html>"), "invalid_response"),
    "an empty body": (sim.body(b""), "invalid_response"),
    "NaN": (sim.body(b'{"code":0,"data":{"progress":NaN,"status":1}}'), "invalid_response"),
    "a progress of 101": (sim.body(b'{"code":0,"data":{"progress":101,"status":1}}'), "invalid_response"),
    "deep nesting": (sim.body(b"[" * 60_000), "invalid_response"),
    "2 GB": (sim.huge(2 * 1024**3), "invalid_response"),
    "a drip": (sim.drip(0.2), "timeout"),
    "a drip of headers": (sim.drip(0.2, "headers"), "timeout"),
    "silence": (sim.hang(), "timeout"),
    "a reset": (sim.reset(), "connection_error"),
    "HTTP 500": (sim.http(500), "http_error"),
    "a redirect": (sim.redirect("http://127.0.0.1:9/"), "http_error"),
    "code 3": (sim.code(3), "api_error"),
    "code 2": (sim.code(2), "not_found"),
}


def test_nonsense_about_one_task_does_not_touch_the_others(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(4), interval=0.05, limit="off")) as api:
        config = write_config(tmp_path, api.url, ids(4), interval="50ms", extra="  timeout: 1s\n")
        with ExporterProcess("--config.file", str(config)) as exporter:
            listed, unlisted = config.read_text(), config.read_text().replace(", 4]", "]")
            for name, (fault, reason) in NONSENSE.items():
                api.faults[4] = fault
                config.write_text(listed)
                exporter.scrapes_until(lambda samples: samples.all("mobizon_task_error", task_id="4"))
                began = time.time()
                samples = Samples(exporter.scrape())
                assert samples.value("mobizon_task_error", task_id="4", reason=reason) == 1, name
                assert samples.value("mobizon_task_up", task_id="4") == 0, name
                assert samples.value("mobizon_task_progress", task_id="4") is None, name
                for good in "123":
                    taken = samples.value("mobizon_task_last_success_timestamp_seconds", task_id=good)
                    assert taken, name
                    assert taken >= began - 0.01, name
                assert samples.value("mobizon_up") == 1, name
                config.write_text(unlisted)  # the task's back-off is forgotten with it
                exporter.scrapes_until(lambda samples: not samples.all("mobizon_task_up", task_id="4"))
            peak = exporter.memory("VmHWM")
            print(f"peak memory {peak / 1e6:.0f} MB")
            assert peak < 120e6


@pytest.mark.parametrize(
    "fault",
    [sim.code(8), sim.code(14), sim.refuse(), sim.hang(), sim.reset()],
    ids=["wrong key", "blocked", "refused", "silent", "reset"],
)
def test_a_dead_account_is_probed_gently_and_recovers_by_itself(tmp_path: Path, fault: sim.Fault) -> None:
    """A twentieth of a second in the place of a second."""
    with SimulatorThread(Simulator(scenarios(5), limit="off")) as api:
        api.faults[None] = fault
        config = write_config(tmp_path, api.url, ids(5), interval="50ms", extra="  timeout: 300ms\n")
        with ExporterProcess("--config.file", str(config)) as exporter:
            exporter.refreshes_until(r"API unavailable for account")
            api.wait_for(lambda: api.in_flight <= 1)
            most = 0
            for _ in range(20):
                began = time.monotonic()
                exporter.scrape()
                assert time.monotonic() - began < 1.0
                most = max(most, api.in_flight)
            assert most <= 1
            api.faults.clear()
            exporter.scrapes_until(
                lambda samples: (
                    samples.value("mobizon_up") == 1 and len(samples.all("mobizon_task_progress")) == 5
                ),
                timeout=60,
            )


@pytest.mark.alone
@pytest.mark.xdist_group("two exporters")
def test_the_first_scrape_is_answered_soon_after_the_libraries_are_imported(tmp_path: Path) -> None:
    libraries = "import aiohttp.web, prometheus_client, requests, structlog, yaml"
    with SimulatorThread(Simulator(scenarios(1), limit="off")) as api:
        config = write_config(tmp_path, api.url, ids(1))
        times, imports = [], []
        for _ in range(5):
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", libraries], check=True)
            imports.append(time.monotonic() - began)
            with ExporterProcess("--config.file", str(config)) as exporter:
                text = exporter.scrape()
                times.append(time.monotonic() - exporter.started_at)
                assert Samples(text).value("mobizon_task_progress") == 50
    print(f"start to first scrape: {min(times):.2f} s, the libraries {min(imports):.2f} s")
    assert min(times) < 2 * min(imports)


@pytest.mark.alone
@pytest.mark.xdist_group("two exporters")
def test_a_hundred_tasks_need_less_than_60_mb(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(100), limit="off")) as api:
        config = write_config(tmp_path, api.url, ids(100), interval="10ms")
        with ExporterProcess("--config.file", str(config)) as exporter:
            for _ in range(10):
                text = exporter.scrape()
            assert len(Samples(text).all("mobizon_task_progress")) == 100
            print(f"resident memory {exporter.memory() / 1e6:.1f} MB")
            assert exporter.memory() < 60e6


def test_accounts_share_the_authorities_that_the_world_trusts(tmp_path: Path) -> None:
    """Which take 0.7 MB, and 20 ms to be read."""
    authority, accounts = Authority(tmp_path), 60
    keys = [f"{at:040d}" for at in range(accounts)]
    with SimulatorThread(Simulator(scenarios(1), keys=keys, limit="off", tls=tls_context(authority))) as api:
        trusted = str(authority.beside_usual_ones())
        config = tmp_path / "config.yaml"
        apis = [{"url": api.url, "key": key, "ca_file": trusted} for key in keys]
        listed = [{"name": one["key"], "api": one, "tasks": [1]} for one in apis]
        config.write_text(yaml.safe_dump({"accounts": listed}))
        with ExporterProcess("--config.file", str(config)) as exporter:
            exporter.scrapes_until(lambda samples: len(samples.all("mobizon_task_progress")) == accounts)
            print(f"resident memory {exporter.memory() / 1e6:.1f} MB")
            assert exporter.memory() < 70e6


@pytest.mark.alone
@pytest.mark.xdist_group("two exporters")
def test_requests_are_spaced_as_configured_on_the_wire(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(30), limit="off", latency=(0.0, 0.4))) as api:
        config = write_config(tmp_path, api.url, ids(30), interval="100ms")
        with ExporterProcess("--config.file", str(config)) as exporter:
            for _ in range(3):
                exporter.scrape()
            api.wait_for(lambda: len(api.requests) >= 60, 30)
        at = [request.at for request in api.requests]
        gaps = sorted(b - a for a, b in itertools.pairwise(at))
    print(f"least gap on arrival {gaps[0] * 1000:.1f} ms, median {gaps[len(gaps) // 2] * 1000:.1f} ms")
    assert gaps[3] > 0.09, "what arrives is spaced as what is sent, but for the machine's own delays"
    assert all(request.key == DEMO_KEY for request in api.requests)
