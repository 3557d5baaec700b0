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

LOGGING_COLLECTIONS = """
import gc, sys
from exporter.cli import main
gc.callbacks.append(lambda phase, _: print("collection", phase, flush=True))
sys.exit(main())
"""


def read(config: Path) -> None:
    """What no reload can do without: a measure of the machine."""
    yaml.load(config.read_text(), yaml.CSafeLoader)


def finished_tasks(folder: Path) -> Path:
    """A state file."""
    done = {at: Remembered(Reading(100, 2, 1.7e9), 1.7e9, 1.7e9) for at in range(1, FINISHED + 1)}
    state = folder / "state.json"
    state.write_bytes(dump({fingerprint(Secret(DEMO_KEY)): done}))
    return state


@pytest.mark.slow
def test_a_long_list_is_scraped_and_reloaded_quickly(tmp_path: Path) -> None:
    tasks = [TaskSpec(task_id, f"campaign-{task_id}") for task_id in range(1, TASKS + 1)]
    listed = "".join(f"\n  - {{id: {task.id}, name: {task.name}, labels: {{team: crm}}}}" for task in tasks)
    state = finished_tasks(tmp_path)
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


def test_rendering_ten_thousand_changed_tasks_is_not_interrupted_by_garbage_collection(
    tmp_path: Path,
) -> None:
    tasks = "".join(f"\n  - {{id: {at}, name: summer}}" for at in range(1, FINISHED + 1))
    config = write_config(tmp_path, "http://127.0.0.1:1", tasks)
    flags = ("--config.file", str(config), "--state.file", str(finished_tasks(tmp_path)))
    with ExporterProcess(*flags, "--web.enable-lifecycle", program=("-c", LOGGING_COLLECTIONS)) as exporter:
        exporter.scrape(10)
        assert "collection start\n" in exporter.lines
        collections = 0
        for name, new in (
            ("summer", "autumn"),
            ("autumn", "winter"),
            ("winter", "spring"),
            ("spring", "summer"),
        ):
            config.write_text(config.read_text().replace(name, new))
            requests.post(f"{exporter.url}/-/reload", timeout=30).raise_for_status()
            before = exporter.lines.count("collection start\n")
            assert f'name="{new}"' in exporter.scrape(10)
            collections += exporter.lines.count("collection start\n") - before
    assert collections <= 2  # those that were due for what came before


def test_an_unchanged_configuration_is_looked_at_quickly(tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", list(range(1, TASKS + 1)))
    clock = itertools.count(time.time() + 3600)
    watch = ConfigWatch(config, {}, lambda: float(next(clock)))
    plain, loading, look = cpu_seconds(lambda: read(config), watch.load, watch.check)
    print(f"loading takes {loading:.2f} s, a look {look * 1000:.2f} ms; plain YAML {plain:.2f} s")
    assert watch.check() is None
    assert look < plain / 10
    assert loading < 3 * plain
