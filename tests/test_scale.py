"""Ten thousand finished tasks and a hundred active ones in one configuration."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml

from exporter import simulator as sim
from exporter.config.watch import ConfigWatch
from exporter.model import Reading, Remembered, Secret, TaskSpec
from exporter.refresh.statefile import dump, fingerprint
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from tests.support.costs import cpu_seconds
from tests.support.processes import ExporterProcess, Samples, write_config

FINISHED, ACTIVE = 10_000, 100
TASKS = FINISHED + ACTIVE

pytestmark = pytest.mark.alone


def read(config: Path) -> None:
    """What no reload can do without: a measure of the machine."""
    yaml.load(config.read_text(), yaml.CSafeLoader)


@pytest.mark.slow
def test_a_long_list_is_scraped_and_reloaded_quickly(tmp_path: Path) -> None:
    tasks = [TaskSpec(task_id, f"campaign-{task_id}") for task_id in range(1, TASKS + 1)]
    listed = "".join(f"\n  - {{id: {task.id}, name: {task.name}, labels: {{team: crm}}}}" for task in tasks)
    done = {
        task.id: Remembered(Reading(100, 2, 1.7e9), 1.7e9, 1.7e9) for task in tasks if task.id <= FINISHED
    }
    state = tmp_path / "state.json"
    state.write_bytes(dump({fingerprint(Secret(DEMO_KEY)): done}))
    active = {task.id: sim.stalled() for task in tasks if task.id > FINISHED}
    with SimulatorThread(Simulator(active, limit="off")) as api:
        config = write_config(tmp_path, api.url, listed, interval="20ms")
        with ExporterProcess("--config.file", str(config), "--state.file", str(state)) as exporter:
            text = exporter.scrape(10)
            assert Samples(text).value("mobizon_tasks", status="completed") == FINISHED
            took = []
            for _ in range(5):
                began = time.monotonic()
                exporter.scrape(0.6, patience=30)  # it cannot wait for a hundred answers
                took.append(time.monotonic() - began)
            began = time.monotonic()
            read(config)
            plain = time.monotonic() - began
            print(f"scrapes of {TASKS} tasks take {sorted(took)[2]:.3f} s, plain YAML {plain:.2f} s")
            assert sorted(took)[2] < plain / 4
            config.write_text(config.read_text().replace("team: crm", "team: sales"))
            began = time.monotonic()
            during = []
            with ThreadPoolExecutor(1) as pool:
                while True:
                    at = time.monotonic()
                    text = pool.submit(exporter.scrape, 0.6, 30).result()
                    during.append(time.monotonic() - at)
                    if 'team="sales"' in text:
                        break
            reloaded = time.monotonic() - began
            print(f"a reload takes {reloaded:.2f} s; scrapes meanwhile at most {max(during):.3f} s")
            assert max(during) < 2 * plain
            assert reloaded < 3 * plain
            began = time.monotonic()
            assert requests.get(exporter.url + "/", timeout=10).ok
            print(f"the page takes {time.monotonic() - began:.2f} s")
            assert exporter.stop() == 0


def test_an_unchanged_configuration_is_looked_at_quickly(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", list(range(1, TASKS + 1)))
    clock = itertools.count(time.time() + 3600)
    watch = ConfigWatch(config, {}, lambda: float(next(clock)))
    plain, loading, look = cpu_seconds(lambda: read(config), watch.load, watch.check)
    print(f"loading takes {loading:.2f} s, a look {look * 1000:.2f} ms; plain YAML {plain:.2f} s")
    assert watch.check() is None
    assert look < plain / 10
    assert loading < 3 * plain
