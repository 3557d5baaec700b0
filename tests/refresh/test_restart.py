"""What survives the end of the process, however it comes."""

import json
import signal
import time
from pathlib import Path

import pytest
import requests

from exporter import simulator as sim
from exporter.model import Secret
from exporter.refresh.statefile import fingerprint
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from tests.support.processes import ExporterProcess, Samples, write_config

SUCCESS = "mobizon_task_last_success_timestamp_seconds"


def scenarios(count: int) -> dict[int, sim.Scenario]:
    return {
        task_id: sim.completed() if task_id % 5 == 0 else sim.growing(3600) for task_id in range(1, count + 1)
    }


def readings(text: str) -> dict[str, tuple[float, float | None, float | None]]:
    samples = Samples(text)
    return {
        labels["task_id"]: (
            taken,
            samples.value("mobizon_task_progress", task_id=labels["task_id"]),
            samples.value("mobizon_task_last_change_timestamp_seconds", task_id=labels["task_id"]),
        )
        for labels, taken in samples.all(SUCCESS)
    }


@pytest.mark.slow
def test_after_a_kill_the_first_scrape_has_every_reading_that_was_older_than_five_seconds(
    tmp_path: Path,
) -> None:
    with SimulatorThread(Simulator(scenarios(200), limit="off")) as api:
        config = write_config(tmp_path, api.url, list(range(1, 201)), interval="50ms")
        flags = ["--config.file", str(config), "--state.file", str(tmp_path / "state.json")]
        with ExporterProcess(*flags) as exporter:
            # the one ask: a task a request, and the next 10 s are taken by that
            exporter.scrape(0.6, patience=30)
            while len(api.requests) < 195:
                time.sleep(0.05)
            before = readings(exporter.scrape(0.6, patience=30))
            killed_at = time.time()
            assert exporter.stop(signal.SIGKILL) == -signal.SIGKILL
        api.faults[None] = sim.hang()
        asked = len(api.requests)
        with ExporterProcess(*flags) as exporter:
            after = readings(exporter.scrape(0.6, patience=30))
        old = {task_id for task_id, (taken, _, _) in before.items() if taken < killed_at - 5}
        assert len(old) >= 80, "or it shows nothing"
        for task_id in old:
            # it may have been read once more before the kill; what is there is never older
            assert after[task_id][0] >= before[task_id][0]
            if after[task_id][0] == before[task_id][0]:
                assert after[task_id] == before[task_id]
        finished = {task_id for task_id in old if int(task_id) % 5 == 0}
        assert {after[task_id] for task_id in finished} == {before[task_id] for task_id in finished}
        assert finished
        assert not {request.task_id for request in list(api.requests)[asked:]} & set(map(int, finished))
    content = (tmp_path / "state.json").read_text()
    assert DEMO_KEY not in content
    assert json.loads(content)["version"] == 2


def test_after_a_regular_stop_nothing_is_lost(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(5), limit="off")) as api:
        config = write_config(tmp_path, api.url, [1, 2, 3, 4, 5], interval="20ms")
        flags = ["--config.file", str(config), "--state.file", str(tmp_path / "state.json")]
        with ExporterProcess(*flags) as exporter:
            before = readings(exporter.scrape())
            assert exporter.stop() == 0
        api.faults[None] = sim.hang()
        with ExporterProcess(*flags) as exporter:
            assert readings(exporter.scrape(1.0)) == before


def test_readings_outlive_a_key_that_is_replaced_while_the_exporter_is_down(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(2), limit="off", keys=[DEMO_KEY, "Z" * 40])) as api:
        config = write_config(tmp_path, api.url, [1, 2], interval="20ms")
        flags = ["--config.file", str(config), "--state.file", str(tmp_path / "state.json")]
        with ExporterProcess(*flags) as exporter:
            before = readings(exporter.scrape())
            assert exporter.stop() == 0
        assert len(before) == 2
        api.faults[None] = sim.hang()
        config.write_text(config.read_text().replace(DEMO_KEY, "Z" * 40))
        with ExporterProcess(*flags) as exporter:
            assert readings(exporter.scrape(1.0)) == before


def test_another_accounts_readings_are_not_taken_back(tmp_path: Path) -> None:
    with (
        SimulatorThread(Simulator(scenarios(2), limit="off")) as api,
        SimulatorThread(Simulator(scenarios(2), limit="off", keys=["Z" * 40])) as other,
    ):
        config = write_config(tmp_path, api.url, [1, 2], interval="20ms")
        flags = ["--config.file", str(config), "--state.file", str(tmp_path / "state.json")]
        with ExporterProcess(*flags) as exporter:
            exporter.scrape()
            assert exporter.stop() == 0
        other.faults[None] = sim.hang()
        config.write_text(config.read_text().replace(DEMO_KEY, "Z" * 40).replace(api.url, other.url))
        with ExporterProcess(*flags) as exporter:
            assert readings(exporter.scrape(1.0)) == {}


def test_finished_tasks_leave_in_time_also_across_restarts(tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.completed(), 2: sim.waiting()}, limit="off")) as api:
        config = write_config(tmp_path, api.url, [1, 2], interval="20ms")
        config.write_text(config.read_text() + "drop_finished_after: 1h\n")
        state = tmp_path / "state.json"
        flags = ["--config.file", str(config), "--state.file", str(state)]
        with ExporterProcess(*flags) as exporter:
            assert Samples(exporter.scrape()).value("mobizon_task_status", task_id="1") == 2
            assert exporter.stop() == 0
        saved = json.loads(state.read_text())
        tasks = next(iter(saved["accounts"].values()))
        tasks["1"]["finished_at"] -= 3601
        state.write_text(json.dumps(saved))
        with ExporterProcess(*flags) as exporter:
            samples = Samples(exporter.scrape())
            assert samples.value("mobizon_task_status", task_id="1") is None
            assert samples.value("mobizon_task_status", task_id="2") == 0
            assert samples.value("mobizon_tasks", status="completed") == 0
    assert [request.task_id for request in api.requests].count(1) == 1, "it was not asked for again"


@pytest.mark.parametrize("content", [b'{"version": 1, "acc', b"[]", b'{"version": 99}', b"\x00" * 100, b""])
def test_a_state_file_that_cannot_be_used_is_put_aside(content: bytes, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_bytes(content)
    with SimulatorThread(Simulator(scenarios(1), limit="off")) as api:
        config = write_config(tmp_path, api.url, [1])
        with ExporterProcess("--config.file", str(config), "--state.file", str(state)) as exporter:
            exporter.wait_for_line("level=warn msg=.Invalid state file, starting without it")
            assert Samples(exporter.scrape()).value("mobizon_task_up", task_id="1") == 1
            assert exporter.stop() == 0
    aside = list(tmp_path.glob("state.json.unusable-*"))
    assert [path.read_bytes() for path in aside] == [content]
    assert json.loads(state.read_text())["version"] == 2


def test_single_odd_entries_of_the_state_file_are_left_out_and_harm_nothing(tmp_path: Path) -> None:
    now = time.time()
    good = {"progress": 100, "status": 2, "taken_at": now, "changed_at": now, "finished_at": now}
    times = ("taken_at", "changed_at", "finished_at")
    odd: list[tuple[str, object]] = [
        *(("status", 10**400), ("status", 2.5), ("progress", -1), ("progress", [1])),
        *(("finished_at", value) for value in (None, 32503680000, "never")),
        *((name, value) for name in times for value in (1.7e308, -1.7e308)),
    ]
    entries = {1: good} | {number: {**good, name: value} for number, (name, value) in enumerate(odd, 2)}
    listed = sorted(entries)
    state = tmp_path / "state.json"
    account = fingerprint(Secret(DEMO_KEY))
    state.write_text(json.dumps({"version": 2, "accounts": {account: entries}}))
    with SimulatorThread(Simulator(scenarios(0), limit="off")) as api:
        api.faults[None] = sim.hang()
        config = write_config(tmp_path, api.url, listed, interval="20ms")
        with ExporterProcess("--config.file", str(config), "--state.file", str(state)) as exporter:
            exporter.wait_for_line(f"State file has invalid entries, ignoring them.* entries={len(odd)}")
            samples = Samples(exporter.scrape(1.0))
            assert [labels["task_id"] for labels, _ in samples.all("mobizon_task_status")] == ["1"]
            for path in ("/", "/api/v1/tasks"):
                assert requests.get(exporter.url + path, timeout=5).status_code == 200
            assert exporter.stop() == 0
            assert exporter.output().count("State file") == 1


def test_a_state_file_that_cannot_be_written_is_told_once_and_harms_nothing(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(2), limit="off")) as api:
        config = write_config(tmp_path, api.url, [1, 2], interval="20ms")
        missing = tmp_path / "missing" / "state.json"
        with ExporterProcess("--config.file", str(config), "--state.file", str(missing)) as exporter:
            exporter.scrape()
            exporter.wait_for_line("Failed to write state file")
            assert exporter.stop() == 0
            assert exporter.output().count("Failed to write state file") == 1


def test_a_process_that_cannot_listen_leaves_the_state_file_of_another_alone(tmp_path: Path) -> None:
    with SimulatorThread(Simulator(scenarios(2), limit="off")) as api:
        config = write_config(tmp_path, api.url, [1, 2], interval="20ms")
        state = tmp_path / "state.json"
        with ExporterProcess("--config.file", str(config), "--state.file", str(state)) as exporter:
            exporter.scrape()
            assert exporter.stop() == 0
        saved = state.read_bytes()
        with ExporterProcess("--config.file", str(config)) as taken:
            other = tmp_path / "other"
            other.mkdir()
            elsewhere = write_config(other, api.url, [7])
            address = f"--web.listen-address={taken.url.removeprefix('http://')}"
            second = ExporterProcess("--config.file", str(elsewhere), "--state.file", str(state), address)
            assert second.process.wait(30) == 1
            second.__exit__()
        assert state.read_bytes() == saved


def test_a_look_up_that_does_not_end_is_a_time_out_and_holds_up_no_exit(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "look_up = socket.getaddrinfo\n"
        "def slow(host, *rest, **more):\n"
        "    if host == 'slow.invalid':\n"
        "        time.sleep(60)\n"
        "    return look_up(host, *rest, **more)\n"
        "socket.getaddrinfo = slow\n"
    )
    config = write_config(tmp_path, "http://slow.invalid", [1], extra="  timeout: 300ms\n")
    with ExporterProcess("--config.file", str(config), environ={"PYTHONPATH": str(tmp_path)}) as exporter:
        samples = exporter.scrapes_until(lambda samples: samples.all("mobizon_task_error", task_id="1"))
        assert samples.value("mobizon_task_error", task_id="1", reason="timeout") == 1
        assert samples.value("mobizon_up") == 0
        began = time.monotonic()
        assert exporter.stop() == 0
        assert time.monotonic() - began < 5
