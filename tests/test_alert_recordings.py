"""The alerts over hours that a real exporter recorded: no false page, and the true one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread, completed, growing, http
from tests.support.processes import ROOT, ExporterProcess, Samples
from tests.support.recording import Recording
from tests.support.tools import need_any

RULES = ROOT / "alerts" / "mobizon.rules.yaml"
TWO_HOURS = 120
NEW_KEY = "kz" + "5" * 40

pytestmark = pytest.mark.prometheus


@pytest.fixture(scope="module", autouse=True)
def _promtools() -> None:
    """Nothing is recorded where nothing can be tested."""
    need_any("promtool", "promtool-3")


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with SimulatorThread(Simulator({n: completed() for n in (1, 2, 3)}, limit="off")) as running:
        yield running


class Setup:
    """A configuration with a key file and a task file, and the recording of an exporter that uses it."""

    def __init__(self, folder: Path, url: str, *tasks: int, account: str = "") -> None:
        self.folder = folder
        self.recording = Recording()
        self.key(DEMO_KEY)
        self.tasks(*tasks)
        self.configure(url, account)
        self.flags = (f"--config.file={folder / 'config.yaml'}", "--log.level=debug")

    def configure(self, url: str, account: str = "") -> None:
        api = {"url": url, "key_file": "key", "request_interval": "20ms"}
        one: dict[str, Any] = {"api": api, "task_files": ["tasks.yaml"]}
        self._write(
            "config.yaml", yaml.safe_dump({"accounts": [{"name": account, **one}]} if account else one)
        )

    def key(self, key: str) -> None:
        self._write("key", key)

    def tasks(self, *tasks: int) -> None:
        self._write("tasks.yaml", yaml.safe_dump(list(tasks)))

    def _write(self, name: str, text: str) -> None:
        (self.folder / "draft").write_text(text)
        (self.folder / "draft").replace(self.folder / name)

    def exporter(self, *flags: str) -> ExporterProcess:
        return ExporterProcess(*self.flags, *flags)

    def until(self, exporter: ExporterProcess, **tasks: float) -> Samples:
        """Scrapes, a minute each, until so many tasks are in these states; asks for it at most an hour."""
        for _ in range(60):
            samples = self.recording.scrape(exporter)
            if all(samples.value("mobizon_tasks", status=state) == n for state, n in tasks.items()):
                return samples
        raise AssertionError(f"not within 60 scrapes: {tasks}")

    def settled(self, exporter: ExporterProcess, minutes: int = TWO_HOURS) -> None:
        """Scrapes until nothing changes any more, and takes the last scrape for so many minutes."""
        known = _gauges(self.recording.scrape(exporter))
        for _ in range(60):
            found = _gauges(self.recording.scrape(exporter))
            if found == known:
                self.recording.scrape(exporter, minutes)
                return
            known = found
        raise AssertionError("it goes on changing")


def _gauges(samples: Samples) -> list[Any]:
    return [row for row in samples.rows if row[0].startswith("mobizon_") and "_duration_" not in row[0]]


def firing(recording: Recording, folder: Path, minutes: int, alerts: set[str]) -> None:
    """Fails unless these alerts fired in the last so many minutes, and no others.

    Rules are evaluated every minute in the older Prometheus, and every 15 s in the newer, which is quicker.
    """
    fired = 'ALERTS{alertstate="firing"}'
    tools = need_any("promtool", "promtool-3")
    for promtool, step in ((tools[0], 60), (tools[-1], 15)):
        expression = {
            "expr": f"count by (alertname) (count_over_time({fired}[{minutes * 60 - 7}s]))",
            "eval_time": f"{recording.minutes - 1}m",
            "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(alerts)],
        }
        path = folder / f"recorded-{step}.yaml"
        path.write_text(yaml.safe_dump(recording.unit_test(str(RULES), step, [expression]), width=1000))
        command = [promtool, "test", "rules", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_restart_with_finished_tasks_alone_fires_nothing_for_two_hours(
    state: str, simulator: Simulator, tmp_path: Path
) -> None:
    setup = Setup(tmp_path, simulator.url, 1, 2, 3)
    flags = (f"--state.file={tmp_path / 'state.json'}",)
    with setup.exporter(*flags) as exporter:
        setup.until(exporter, completed=3)
        setup.settled(exporter, 30)
        assert exporter.stop() == 0
    setup.recording.miss(2)
    if state == "lost":
        (tmp_path / "state.json").unlink()
    asked = len(simulator.requests)
    with setup.exporter(*flags) as exporter:
        setup.until(exporter, completed=3)
        setup.settled(exporter)
    assert (len(simulator.requests) == asked) == (state == "kept")
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, set())


def test_a_rotated_key_with_finished_tasks_alone_fires_nothing_for_two_hours(
    simulator: Simulator, tmp_path: Path
) -> None:
    setup = Setup(tmp_path, simulator.url, 1, 2, 3)
    with setup.exporter() as exporter:
        setup.until(exporter, completed=3)
        setup.settled(exporter, 30)
        simulator.keys = {NEW_KEY}
        setup.key(NEW_KEY)
        setup.until(exporter, completed=3)
        setup.settled(exporter)
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, set())


def test_a_rotated_key_with_an_active_task_fires_nothing(simulator: Simulator, tmp_path: Path) -> None:
    simulator.scenarios[7] = growing(90_000)
    setup = Setup(tmp_path, simulator.url, 1, 2, 7)
    with setup.exporter() as exporter:
        setup.until(exporter, completed=2, in_progress=1)
        simulator.keys = {NEW_KEY}
        setup.key(NEW_KEY)
        exporter.scrapes_until(lambda _: any(request.key == NEW_KEY for request in simulator.requests))
        for _ in range(20):
            setup.until(exporter, completed=2, in_progress=1)
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, set())


def test_an_account_that_is_renamed_fires_nothing_for_two_hours(simulator: Simulator, tmp_path: Path) -> None:
    setup = Setup(tmp_path, simulator.url, 1, 2, 3, account="crm")
    with setup.exporter() as exporter:
        setup.until(exporter, completed=3)
        setup.settled(exporter, 30)
        setup.configure(simulator.url, "sales")
        exporter.scrapes_until(lambda samples: samples.all("mobizon_tasks", account="sales"))
        setup.until(exporter, completed=3)
        setup.settled(exporter)
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, set())


@pytest.mark.parametrize("left", [(1, 2, 3), ()], ids=["finished-ones-remain", "the-list-is-empty"])
def test_the_page_for_an_api_that_is_down_ends_when_the_active_tasks_leave_the_list(
    left: tuple[int, ...], simulator: Simulator, tmp_path: Path
) -> None:
    active = range(7, 13)  # several, so that it soon shows that not one of them is to blame
    simulator.scenarios.update(dict.fromkeys(active, growing(90_000)))
    setup = Setup(tmp_path, simulator.url, *left, *active)
    with setup.exporter() as exporter:
        setup.until(exporter, completed=len(left), in_progress=len(active))
        simulator.faults[None] = http(503)
        exporter.scrapes_until(lambda samples: samples.value("mobizon_up") == 0)
        setup.recording.scrape(exporter, 15)
        firing(setup.recording, tmp_path, 14, {"MobizonApiDown"})
        setup.tasks(*left)
        setup.until(exporter, completed=len(left), in_progress=0)
        quiet = setup.recording.minutes
        setup.settled(exporter)
    firing(setup.recording, tmp_path, setup.recording.minutes - quiet - 1, set())


def test_an_exporter_whose_tasks_all_leave_the_list_fires_nothing_for_two_hours(
    simulator: Simulator, tmp_path: Path
) -> None:
    simulator.scenarios[7] = growing(90_000)
    setup = Setup(tmp_path, simulator.url, 1, 7)
    with setup.exporter() as exporter:
        setup.until(exporter, completed=1, in_progress=1)
        setup.tasks()
        setup.until(exporter, completed=0, in_progress=0)
        setup.settled(exporter)
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, set())


def test_an_api_that_never_answered_is_a_page(simulator: Simulator, tmp_path: Path) -> None:
    simulator.faults[None] = http(503)
    setup = Setup(tmp_path, simulator.url, 1, 2, 3)
    with setup.exporter() as exporter:
        for _ in range(4):
            setup.recording.scrape(exporter)
        setup.recording.scrape(exporter, 10)
    firing(setup.recording, tmp_path, 5, {"MobizonApiDown"})


def test_an_exporter_that_is_gone_is_a_page_and_what_it_said_of_the_api_is_none(
    simulator: Simulator, tmp_path: Path
) -> None:
    simulator.scenarios[7] = growing(90_000)
    setup = Setup(tmp_path, simulator.url, 7)
    with setup.exporter() as exporter:
        setup.until(exporter, in_progress=1)
        setup.recording.scrape(exporter, 10)
    setup.recording.miss(TWO_HOURS)
    firing(setup.recording, tmp_path, setup.recording.minutes - 1, {"MobizonExporterDown"})
