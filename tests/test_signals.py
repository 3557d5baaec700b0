"""SIGTERM, SIGINT and SIGHUP on real processes: from the first moment on, and whatever hangs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests

from exporter import simulator as sim
from exporter.simulator import Simulator, SimulatorThread
from tests.support.processes import PATIENCE, ROOT, ExporterProcess, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WITHIN = 5.0
NUMBERS = (signal.SIGTERM, signal.SIGINT)


def hanging(folder: Path, function: str, when: str = "True") -> dict[str, str]:
    """An environment in which a function of Python's never returns once it has been called."""
    module, name = function.split(".")
    (folder / "sitecustomize.py").write_text(
        f"import {module}, threading\n"
        f"original = {module}.{name}\n"
        f"def hang(*args, **kwargs):\n"
        f"    if {when}:\n"
        f"        print('{function} hangs', flush=True)\n"
        f"        threading.Event().wait()\n"
        f"    return original(*args, **kwargs)\n"
        f"{module}.{name} = hang\n"
    )
    return {"PYTHONPATH": str(folder)}


def ends(exporter: ExporterProcess, number: signal.Signals = signal.SIGTERM) -> float:
    """The seconds that it took to end with status 0."""
    began = time.monotonic()
    assert exporter.stop(number) == 0, exporter.output()
    took = time.monotonic() - began
    print(f"ended after {took:.2f} s")
    return took


@contextlib.contextmanager
def api_that(fault: sim.Fault | None = None) -> Iterator[Simulator]:
    with SimulatorThread(Simulator({1: sim.stalled(), 2: sim.stalled()}, limit="off")) as api:
        if fault:
            api.faults[None] = fault
        yield api


@contextlib.contextmanager
def a_disk_that_hangs(folder: Path) -> Iterator[ExporterProcess]:
    with api_that() as api:
        config = write_config(folder, api.url, [1, 2], interval="20ms")
        flags = ("--config.file", str(config), "--state.file", str(folder / "state.json"))
        with ExporterProcess(*flags, environ=hanging(folder, "os.fsync")) as exporter:
            exporter.scrape()
            exporter.wait_for_line("os.fsync hangs")
            yield exporter


@contextlib.contextmanager
def names_that_are_looked_up_for_ever(folder: Path) -> Iterator[ExporterProcess]:
    config = write_config(folder, "http://api.mobizon.invalid", [1, 2], interval="20ms")
    environ = hanging(folder, "socket.getaddrinfo", "'invalid' in str(args)")
    with ExporterProcess("--config.file", str(config), environ=environ) as exporter:
        requests.get(exporter.url, timeout=10)
        exporter.wait_for_line("socket.getaddrinfo hangs")
        yield exporter


@contextlib.contextmanager
def an_api_that_drips(folder: Path) -> Iterator[ExporterProcess]:
    with api_that(sim.drip(0.2)) as api:
        config = write_config(folder, api.url, [1, 2], interval="20ms", extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config)) as exporter:
            requests.get(exporter.url, timeout=10)
            api.wait_for(lambda: len(api.requests) == 2)
            yield exporter


@contextlib.contextmanager
def fifty_scrapes_that_wait(folder: Path) -> Iterator[ExporterProcess]:
    with api_that(sim.hang()) as api:
        config = write_config(folder, api.url, [1, 2], interval="20ms", extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config)) as exporter, contextlib.ExitStack() as stack:
            peers = [stack.enter_context(socket.socket()) for _ in range(50)]
            for peer in peers:
                peer.settimeout(PATIENCE)
                peer.connect(("127.0.0.1", int(exporter.url.rpartition(":")[2])))
                peer.sendall(b"GET /metrics HTTP/1.0\r\nX-Prometheus-Scrape-Timeout-Seconds: 60\r\n\r\n")
            # connections are taken in the order in which they come
            assert requests.get(exporter.url + "/-/healthy", timeout=5).ok
            yield exporter
            assert all(peer.recv(12) == b"HTTP/1.0 200" for peer in peers)


@contextlib.contextmanager
def a_configuration_on_a_disk_that_hangs(folder: Path) -> Iterator[ExporterProcess]:
    """The main thread itself hangs, before anything is served."""
    config = write_config(folder, "http://127.0.0.1:1", [1])
    environ = hanging(folder, "builtins.open", "str(args[0]).endswith('config.yaml')")
    exporter = ExporterProcess("--config.file", str(config), environ=environ)
    exporter.wait_for_line("builtins.open hangs")
    yield exporter
    exporter.__exit__()


HANGS: tuple[Callable[[Path], contextlib.AbstractContextManager[ExporterProcess]], ...] = (
    a_disk_that_hangs,
    names_that_are_looked_up_for_ever,
    an_api_that_drips,
    fifty_scrapes_that_wait,
    a_configuration_on_a_disk_that_hangs,
)


@pytest.mark.parametrize("what", HANGS, ids=[hang.__name__ for hang in HANGS])
def test_it_ends_with_0_within_five_seconds_whatever_hangs(
    what: Callable[[Path], contextlib.AbstractContextManager[ExporterProcess]], tmp_path: Path
) -> None:
    with what(tmp_path) as exporter:
        assert ends(exporter) < WITHIN


def starts(folder: Path, stderr: int) -> subprocess.Popen[bytes]:
    config = write_config(folder, "http://127.0.0.1:1", [1], interval="20ms")
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "exporter", "--web.listen-address=127.0.0.1:0"),
            *(f"--config.file={config}", "--log.level=debug"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=stderr,
    )


def fill(pipe: int) -> None:
    """Write until it takes no more."""
    os.set_blocking(pipe, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"filler\n" * 10)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(pipe, b"\n")
    os.set_blocking(pipe, True)  # the exporter has the same one


@pytest.mark.parametrize("full", ["from the start", "later"])
def test_it_serves_and_ends_while_nobody_reads_the_log(full: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    if full == "from the start":
        fill(writing)
    process = starts(tmp_path, writing)
    try:
        if full == "later":
            with os.fdopen(os.dup(reading)) as lines:
                assert any("msg=Listening" in line for line in lines)
            fill(writing)
        url = f"http://127.0.0.1:{listening_port(process.pid)}"
        slowest = 0.0
        for _ in range(50):
            assert requests.get(f"{url}/metrics", timeout=15).ok
            began = time.monotonic()
            assert requests.get(f"{url}/-/healthy", timeout=5).ok
            slowest = max(slowest, time.monotonic() - began)
        print(f"slowest health check {slowest * 1000:.0f} ms")
        began = time.monotonic()
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert time.monotonic() - began < WITHIN
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(writing)


def listening_port(pid: int) -> int:
    """The port that a process listens on, as soon as it does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sockets = {str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in sockets:
                return int(local.rpartition(":")[2], 16)
        threading.Event().wait(0.05)
    raise AssertionError("it does not listen")


def starting(*flags: str) -> ExporterProcess:
    """An exporter at the first moment at which it is more than a Python that starts."""
    exporter = ExporterProcess(*flags)
    hangup = 1 << (signal.SIGHUP - 1)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        caught = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{exporter.process.pid}/status").read_text())
        if caught and int(caught[1], 16) & hangup:
            return exporter
    raise AssertionError("it does not catch SIGHUP")


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8])
@pytest.mark.parametrize("number", NUMBERS)
def test_it_ends_with_0_from_the_first_moment_on(number: signal.Signals, after: float) -> None:
    exporter = starting("--demo")
    try:
        threading.Event().wait(after)
        assert ends(exporter, number) < WITHIN
    finally:
        exporter.__exit__()
    assert "Traceback" not in exporter.output()


@pytest.mark.parametrize("after", [0.0, 0.05, 0.2])
def test_a_hangup_at_the_start_does_not_end_it_and_reloads_once_it_can(after: float, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", [1])
    exporter = starting(f"--config.file={config}")
    try:
        threading.Event().wait(after)
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_line("Configuration reloaded")
        assert ends(exporter) < WITHIN
    finally:
        exporter.__exit__()
    assert "Traceback" not in exporter.output()


def test_signals_that_come_again_and_again_change_nothing(tmp_path: Path) -> None:
    with a_disk_that_hangs(tmp_path) as exporter:
        while exporter.process.poll() is None:
            exporter.process.send_signal(signal.SIGTERM)
            exporter.process.send_signal(signal.SIGINT)
            threading.Event().wait(0.01)
        assert exporter.process.returncode == 0, exporter.output()


def test_little_is_imported_before_signals_are_received() -> None:
    heavy = {"argparse", "asyncio", "logging", "structlog", "aiohttp", "requests"}
    script = f"import exporter.__main__, sys; print(*{heavy!r} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not done.stdout.split()


def test_a_check_that_is_interrupted_does_not_pass_for_one_that_found_nothing(tmp_path: Path) -> None:
    write_config(tmp_path, "http://127.0.0.1:1", [1])
    environ = hanging(tmp_path, "builtins.open", "str(args[0]).endswith('config.yaml')")
    check = ExporterProcess("--config.check", f"--config.file={tmp_path / 'config.yaml'}", environ=environ)
    check.wait_for_line("builtins.open hangs")
    assert check.stop() == -signal.SIGTERM
    check.__exit__()
