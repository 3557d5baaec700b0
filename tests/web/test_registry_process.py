"""Registered tasks and waits as programs see them: killed processes, many waiters, a full registry."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import json
import random
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from exporter import simulator as sim
from exporter.cli import main
from exporter.config.registry_file import Entry, RegistryFile, parse
from exporter.model import Reading, Remembered, TaskSource, TaskSpec
from exporter.simulator import Scenario, Simulator, SimulatorThread
from tests.support.processes import ExporterProcess, write_config

ROOT = Path(__file__).resolve().parents[2]
NOWHERE = "http://127.0.0.1:9"
PATIENCE = 30.0


def flags(config: Path, registry: Path) -> tuple[str, ...]:
    return ("--config.file", str(config), "--registry.file", str(registry))


class Clients:
    """What clients know of their tasks from the answers that they got."""

    def __init__(self) -> None:
        self.known: dict[int, bool | None] = {}  # whether it is registered; None: the last answer never came
        self.answers = 0
        self.random = random.Random()

    async def run(self, exporter: ExporterProcess, clients: int, each: int, kill_after: int) -> None:
        """So many clients with so many tasks each; the process is killed after so many answers."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=clients)) as session:

            async def client(number: int) -> None:
                for task_id in range(1 + number * each, 1 + (number + 1) * each):
                    await ask("PUT", task_id, registered=True)
                    if self.random.random() < 0.3:
                        await ask("DELETE", task_id, registered=False)

            async def ask(method: str, task_id: int, *, registered: bool) -> None:
                self.known[task_id] = None
                async with session.request(method, f"{exporter.url}/api/v1/tasks/{task_id}") as answer:
                    assert answer.status in ({200, 201} if registered else {204})
                self.known[task_id] = registered
                self.answers += 1
                if self.answers == kill_after:
                    exporter.process.kill()

            for end in await asyncio.gather(*map(client, range(clients)), return_exceptions=True):
                assert end is None or isinstance(end, aiohttp.ClientError), end
        exporter.process.kill()


@pytest.mark.slow
def test_what_was_answered_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    """Five rounds of 1,000 registrations by 50 clients."""
    config, registry = write_config(tmp_path, NOWHERE, []), tmp_path / "registry.json"
    clients = Clients()
    for _ in range(5):
        with ExporterProcess(*flags(config, registry)) as exporter:
            kill_after = clients.answers + clients.random.randrange(1, 1250)
            asyncio.run(clients.run(exporter, 50, 20, kill_after))
        kept = {entry.spec.id for entry in parse(registry.read_bytes())}
        with ExporterProcess(*flags(config, registry)) as exporter:
            listed = requests.get(f"{exporter.url}/api/v1/tasks", timeout=PATIENCE).json()["tasks"]
            assert {task["id"] for task in listed} == kept
            assert exporter.stop() == 0
        for task_id, registered in clients.known.items():
            assert registered is None or (task_id in kept) is registered, task_id
    known = list(clients.known.values())
    print(f"{clients.answers} answers; {known.count(True)} registered, {known.count(None)} without an answer")
    assert known.count(True) > 100
    assert known.count(False) > 10


def threads(exporter: ExporterProcess) -> int:
    status = Path(f"/proc/{exporter.process.pid}/status").read_text()
    found = re.search(r"Threads:\s+(\d+)", status)
    assert found
    return int(found[1])


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.xdist_group("waiters")
def test_five_hundred_waiters_on_fifty_tasks_beside_scrapes(tmp_path: Path) -> None:
    """Ids up to 45 end at some time; the last five never do."""
    scenarios: dict[int, Scenario] = {
        task_id: sim.completed() if task_id % 3 == 0 else sim.growing(30 + task_id / 2)
        for task_id in range(1, 46)
    } | {task_id: sim.stalled() for task_id in range(46, 51)}
    simulator = Simulator(scenarios, latency=(0.08, 0.08))
    answered: dict[int, list[float]] = {task_id: [] for task_id in scenarios}
    statuses: dict[int, set[int]] = {task_id: set() for task_id in scenarios}

    async def wait(session: aiohttp.ClientSession, url: str, task_id: int) -> None:
        async with session.get(f"{url}/api/v1/tasks/{task_id}/wait?timeout=10m") as answer:
            await answer.read()
            answered[task_id].append(time.monotonic())
            statuses[task_id].add(answer.status)

    async def everybody(exporter: ExporterProcess) -> float:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(None)
        ) as session:
            for task_id in scenarios:
                async with session.put(f"{exporter.url}/api/v1/tasks/{task_id}") as answer:
                    assert answer.status == 201
            waiting = {
                task_id: asyncio.gather(*(wait(session, exporter.url, task_id) for _ in range(10)))
                for task_id in scenarios
            }
            headers = {"X-Prometheus-Scrape-Timeout-Seconds": "4"}
            endless = asyncio.gather(*(waiting[task_id] for task_id in range(1, 46)))
            deadline = time.monotonic() + 200
            while not endless.done():
                assert time.monotonic() < deadline
                async with session.get(f"{exporter.url}/metrics", headers=headers) as answer:
                    assert answer.status == 200
                await asyncio.wait({endless}, timeout=2)
            figures = threads(exporter), exporter.memory()
            print(f"{figures[0]} threads, {figures[1] / 2**20:.0f} MiB")
            assert figures[0] < 40
            assert figures[1] < 150 * 2**20
            assert not any(waiting[task_id].done() for task_id in range(46, 51))
            began = time.monotonic()
            exporter.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*(waiting[task_id] for task_id in range(46, 51)))
            return began

    with SimulatorThread(simulator):
        config = write_config(tmp_path, simulator.url, [])
        with ExporterProcess(*flags(config, tmp_path / "registry.json")) as exporter:
            began = asyncio.run(everybody(exporter))
            assert exporter.process.wait(PATIENCE) == 0
            assert time.monotonic() - began < 5
        asked = {task_id: [r.at for r in simulator.requests if r.task_id == task_id] for task_id in scenarios}
        refused = simulator.refused
    late = [max(answered[task_id]) - asked[task_id][-1] - 0.08 for task_id in range(1, 46)]
    times = sorted(at for some in asked.values() for at in some)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    print(f"the latest of ten waiters was answered {max(late):.3f} s after the reading; {refused} refused")
    assert max(late) < 0.2
    assert statistics.median(gaps) < 1.1
    assert refused <= len(times) * 0.02
    assert all(statuses[task_id] == {200} for task_id in range(1, 46))
    assert all(statuses[task_id] == {503} for task_id in range(46, 51))
    for task_id, at in asked.items():
        assert all(after - before < 75 for before, after in itertools.pairwise(at)), task_id


@pytest.mark.alone
@pytest.mark.xdist_group("waiters")
def test_the_end_of_a_task_is_known_to_its_waiter_soon(tmp_path: Path) -> None:
    simulator = Simulator({5: sim.growing(4)}, latency=(0.08, 0.08))
    with SimulatorThread(simulator):
        config = write_config(tmp_path, simulator.url, [])
        with ExporterProcess(*flags(config, tmp_path / "registry.json")) as exporter:
            task = f"{exporter.url}/api/v1/tasks/5"
            assert requests.put(task, timeout=PATIENCE).status_code == 201
            simulator.scenarios[5] = sim.growing(4)
            ends = time.monotonic() + 4
            answer = requests.get(f"{task}/wait", timeout=PATIENCE)
            late = time.monotonic() - ends
        assert (answer.status_code, answer.json()["state"]) == (200, "completed")
        print(f"known {late:.2f} s after it happened")
        assert -0.1 < late <= 1.2


def full_registry(path: Path, tasks: int) -> None:
    now = time.time()
    final = Remembered(Reading(100, 2, now), now, now)
    RegistryFile(path).write(
        Entry(None, TaskSpec(task_id, f"campaign-{task_id}", {"team": "crm"}, TaskSource.REGISTRY), final)
        for task_id in range(1, tasks + 1)
    )


@pytest.mark.slow
@pytest.mark.alone
def test_a_registry_of_ten_thousand_tasks_is_written_and_scraped_quickly(tmp_path: Path) -> None:
    registry = tmp_path / "registry.json"
    began = time.monotonic()
    full_registry(registry, 9_990)
    writing = time.monotonic() - began
    puts: list[float] = []
    scrapes: list[float] = []
    with ExporterProcess(*flags(write_config(tmp_path, NOWHERE, []), registry)) as exporter:
        url, session = exporter.url, requests.Session()
        for number in range(20):
            began = time.monotonic()
            task_id = 10_001 + number if number < 10 else number
            answer = session.put(
                f"{url}/api/v1/tasks/{task_id}", json={"name": f"n{number}"}, timeout=PATIENCE
            )
            puts.append(time.monotonic() - began)
            assert answer.status_code == (201 if number < 10 else 200)
            began = time.monotonic()
            # with so little time it does not wait for the new tasks
            assert exporter.scrape(0.6, PATIENCE).count("mobizon_task_progress{") == 9_990
            scrapes.append(time.monotonic() - began)
        answer = session.put(f"{url}/api/v1/tasks/20000", timeout=PATIENCE)
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    print(
        f"writing: {writing * 1000:.0f} ms; "
        f"PUT: median {statistics.median(puts) * 1000:.0f} ms, most {max(puts) * 1000:.0f} ms; "
        f"scrape: median {statistics.median(scrapes) * 1000:.0f} ms, most {max(scrapes) * 1000:.0f} ms"
    )
    assert statistics.median(puts) < writing, "which formats every entry"
    assert statistics.median(scrapes) < 1
    assert len(parse(registry.read_bytes())) == 10_000


def test_two_hundred_at_once_share_the_writes_of_a_process(tmp_path: Path) -> None:
    """Counted by the files that were put in place: each costs two syncs, of itself and of its folder."""
    registry = tmp_path / "registry.json"
    inodes: set[int] = set()

    async def attack(url: str) -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def put(task_id: int) -> int:
                async with session.put(f"{url}/api/v1/tasks/{task_id}") as answer:
                    inodes.add(registry.stat().st_ino)
                    return answer.status

            # connections are made first, so that the requests really are at once
            await asyncio.gather(*(session.get(f"{url}/-/healthy") for _ in range(200)))
            assert set(await asyncio.gather(*map(put, range(1, 201)))) == {201}

    with ExporterProcess(*flags(write_config(tmp_path, NOWHERE, []), registry)) as exporter:
        asyncio.run(attack(exporter.url))
    assert len(parse(registry.read_bytes())) == 200
    assert len(inodes) <= 10  # one or two, unless the machine is too busy to send them at once


class TestStarting:
    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    def test_a_second_process_says_that_the_registry_is_in_use(self, tmp_path: Path) -> None:
        config, registry = write_config(tmp_path, NOWHERE, []), tmp_path / "registry.json"
        with ExporterProcess(*flags(config, registry)) as exporter:
            requests.put(f"{exporter.url}/api/v1/tasks/5", timeout=PATIENCE)
            done = self.run(*flags(config, registry))
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"{registry}: another process uses this registry\n"
            assert requests.get(f"{exporter.url}/api/v1/tasks/5", timeout=PATIENCE).status_code == 200
            assert exporter.stop() == 0
        with ExporterProcess(*flags(config, registry)) as exporter:
            assert requests.get(f"{exporter.url}/api/v1/tasks/5", timeout=PATIENCE).status_code == 200

    def test_one_that_cannot_be_read_refuses_to_be_written_until_it_can(self, tmp_path: Path) -> None:
        config, registry = write_config(tmp_path, NOWHERE, []), tmp_path / "registry.json"
        full_registry(tmp_path / "kept", 3)
        registry.mkdir()
        with ExporterProcess(*flags(config, registry)) as exporter:
            exporter.wait_for_line('level=error msg="Failed to read registry')
            for method in ("PUT", "DELETE"):
                answer = requests.request(method, f"{exporter.url}/api/v1/tasks/5", timeout=PATIENCE)
                assert answer.status_code == 507
                assert answer.json() == {"error": "the registry cannot be written: is a directory"}
            assert "mobizon_tasks" in exporter.scrape()
            registry.rmdir()
            (tmp_path / "kept").rename(registry)
            assert requests.put(f"{exporter.url}/api/v1/tasks/5", timeout=PATIENCE).status_code == 201
            assert exporter.scrape(0.6, PATIENCE).count("mobizon_task_progress{") == 3
        assert {entry.spec.id for entry in parse(registry.read_bytes())} == {1, 2, 3, 5}

    def test_a_process_that_was_killed_leaves_no_lock(self, tmp_path: Path) -> None:
        config, registry = write_config(tmp_path, NOWHERE, []), tmp_path / "registry.json"
        with ExporterProcess(*flags(config, registry)) as exporter:
            assert exporter.stop(signal.SIGKILL) == -signal.SIGKILL
        with open(f"{registry}.lock", "rb") as lock:  # noqa: PTH123 - shortest
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @pytest.mark.parametrize("written", ["0s", "7", "-1d", "week", ""])
    def test_how_long_finished_tasks_are_kept_is_a_duration(
        self, written: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            main([f"--registry.keep-finished={written}"])
        assert ended.value.code == 2
        assert "argument --registry.keep-finished: expected a duration" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("address", "users", "warned"),
        [("127.0.0.1:0", False, False), ("[::1]:0", False, False), (":0", False, True), (":0", True, False)],
    )
    def test_it_warns_where_others_can_register_without_a_password(
        self, address: str, users: bool, warned: bool, tmp_path: Path
    ) -> None:
        web = tmp_path / "web.yaml"
        hashed = "$2b$10$wP9PrfKPqzeAO5KKMkUGK.02MG3cQr7ebnp/5f2Rhmec3.U6wa7uS"
        web.write_text(f"basic_auth_users: {{crm: {hashed}}}\n" if users else "")
        config = write_config(tmp_path, NOWHERE, [])
        arguments = (f"--web.listen-address={address}", f"--web.config.file={web}")
        with ExporterProcess(*flags(config, tmp_path / "registry.json"), *arguments) as exporter:
            exporter.wait_for_line("Refresh plan")
            assert exporter.stop() == 0
            assert ("Registry writable without authentication" in exporter.output()) is warned

    def test_registered_tasks_are_refreshed_kept_and_restored_without_a_state_file(
        self, tmp_path: Path
    ) -> None:
        simulator = Simulator({5: sim.completed(), 6: sim.stalled(40)}, interval=0.05)
        registry = tmp_path / "registry.json"
        with SimulatorThread(simulator):
            config = write_config(
                tmp_path, simulator.url, [6], interval="50ms", extra="drop_finished_after: 1ms\n"
            )
            arguments = (*flags(config, registry), "--registry.keep-finished=12s")
            with ExporterProcess(*arguments) as exporter:
                url = f"{exporter.url}/api/v1/tasks/5"
                assert (
                    requests.put(url, json={"labels": {"team": "crm"}}, timeout=PATIENCE).status_code == 201
                )
                assert requests.get(f"{url}/wait", timeout=PATIENCE).status_code == 200
                samples = exporter.scrapes_until(
                    lambda found: found.value("mobizon_task_status", task_id="5", team="crm") == 2
                )
                assert samples.value("mobizon_task_status", task_id="6") == 1
                finished = time.monotonic()
                while not (kept := json.loads(registry.read_text())["tasks"][0]["final"]):
                    assert time.monotonic() - finished < PATIENCE
                    time.sleep(0.1)
            asked = [r.task_id for r in simulator.requests].count(5)
            with ExporterProcess(*arguments) as exporter:
                url = f"{exporter.url}/api/v1/tasks/5"
                task: dict[str, Any] = requests.get(url, timeout=PATIENCE).json()
                assert (task["state"], task["read_at"]) == ("completed", kept["taken_at"])
                exporter.wait_for_line("Finished tasks removed from registry")
                assert requests.get(url, timeout=PATIENCE).status_code == 404
            assert [r.task_id for r in simulator.requests].count(5) == asked == 1
