"""Ten thousand finished tasks and a hundred active ones in one configuration."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from exporter import simulator as sim
from exporter.config.watch import ConfigWatch
from exporter.model import Reading, Remembered, Secret, TaskSpec
from exporter.refresh.statefile import dump, fingerprint
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from tests.support.processes import ExporterProcess, Samples, write_config

FINISHED, ACTIVE = 10_000, 100

pytestmark = pytest.mark.alone


@pytest.mark.slow
def test_a_long_list_is_scraped_and_reloaded_quickly(tmp_path: Path) -> None:
    tasks = [TaskSpec(task_id, f"campaign-{task_id}") for task_id in range(1, FINISHED + ACTIVE + 1)]
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
            print(f"scrapes of {len(tasks)} tasks take {sorted(took)[2]:.3f} s (at most {max(took):.3f} s)")
            assert sorted(took)[2] < 1.0
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
            assert max(during) < 1.5
            assert reloaded < 2.0
            began = time.monotonic()
            assert requests.get(exporter.url + "/", timeout=10).ok
            print(f"the page takes {time.monotonic() - began:.2f} s")
            assert exporter.stop() == 0


def test_an_unchanged_configuration_is_looked_at_quickly(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", list(range(1, FINISHED + ACTIVE + 1)))
    clock = itertools.count(time.time() + 3600)
    watch = ConfigWatch(config, {}, lambda: float(next(clock)))
    began = time.perf_counter()
    watch.load()
    loading = time.perf_counter() - began
    looks = []
    for _ in range(20):
        began = time.perf_counter()
        assert watch.check() is None
        looks.append(time.perf_counter() - began)
    print(f"loading takes {loading:.2f} s, a look {sorted(looks)[10] * 1000:.2f} ms")
    assert sorted(looks)[10] < 0.02
    assert loading < 2.0
