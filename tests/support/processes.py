"""The exporter as its users run it: a process of its own, over real HTTP."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import requests
from prometheus_client.parser import text_string_to_metric_families

from exporter.simulator import DEMO_KEY

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30.0  # seconds; generous, since the machine may be busy and a wait ends as soon as it can


class ExporterProcess:
    """`python -m exporter` with the flags given, listening on 127.0.0.1, on a free port unless given."""

    def __init__(
        self,
        *flags: str,
        port: int = 0,
        environ: dict[str, str] | None = None,
        most_files: int | None = None,
        program: tuple[str, ...] = ("-m", "exporter"),
    ) -> None:
        self.lines: list[str] = []
        self.url = ""
        self._news = threading.Condition()
        self.started_at = time.monotonic()
        limit = ["prlimit", f"--nofile={most_files}"] if most_files else []
        self.process = subprocess.Popen(
            [*limit, sys.executable, *program, f"--web.listen-address=127.0.0.1:{port}", *flags],
            cwd=ROOT,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout
        self._reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, output: IO[str]) -> None:
        for line in output:
            with self._news:
                self.lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> Self:
        try:
            line = self.wait_for_line(r"msg=Listening address=(\S+)")
        except BaseException:
            self.__exit__()
            raise
        self.url = f"http://{line.group(1)}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        assert self.process.stdout
        self.process.stdout.close()

    def wait_for_line(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """The first line that matches, there already or still to come."""
        deadline = time.monotonic() + timeout
        at = 0
        with self._news:
            while True:
                for line in self.lines[at:]:
                    if found := re.search(pattern, line):
                        return found
                at = len(self.lines)
                left = deadline - time.monotonic()
                assert left > 0, f"no line {pattern!r} within {timeout} s: {self.output()}"
                assert self._news.wait(left) or self._reader.is_alive(), self.output()
                assert self._reader.is_alive() or self.lines[at:], (
                    f"ended without {pattern!r}: {self.output()}"
                )

    def output(self) -> str:
        return "".join(self.lines)

    def scrape(self, timeout: float = 10.0, patience: float | None = None) -> str:
        """The exposition, as Prometheus with that scrape_timeout gets it; or with more `patience`."""
        headers = {"X-Prometheus-Scrape-Timeout-Seconds": str(timeout)}
        answer = requests.get(f"{self.url}/metrics", headers=headers, timeout=patience or timeout)
        assert answer.status_code == 200, answer.text
        return answer.text

    def refreshes_until(self, pattern: str, timeout: float = PATIENCE) -> re.Match[str]:
        """Scrape until a line is logged."""
        deadline = time.monotonic() + timeout
        while not (found := re.search(pattern, self.output())):
            assert time.monotonic() < deadline, f"no line {pattern!r} within {timeout} s: {self.output()}"
            self.scrape()
        return found

    def scrapes_until(self, condition: Callable[[Samples], object], timeout: float = PATIENCE) -> Samples:
        """Scrape until the samples are as wanted; they are returned."""
        deadline = time.monotonic() + timeout
        while not condition(samples := Samples(self.scrape())):
            assert time.monotonic() < deadline, f"not within {timeout} s"
        return samples

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """The exit status after a signal."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)

    def cpu_seconds(self) -> float:
        """The processor time that it has had."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def open_files(self) -> int:
        """How many files and connections it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def memory(self, field: str = "VmRSS") -> int:
        """Bytes of resident memory; `VmHWM` is the most there has been."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{field}:\s+(\d+) kB", status)
        assert found
        return int(found.group(1)) * 1024


class Samples:
    """An exposition, to be asked for values."""

    def __init__(self, text: str) -> None:
        self.rows = [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def all(self, name: str, /, **labels: str) -> list[tuple[dict[str, str], float]]:
        return [
            (found, value)
            for sample, found, value in self.rows
            if sample == name and labels.items() <= found.items()
        ]

    def value(self, name: str, /, **labels: str) -> float | None:
        found = self.all(name, **labels)
        assert len(found) < 2, found
        return found[0][1] if found else None


def write_config(folder: Path, url: str, tasks: Any, *, interval: str = "1s", extra: str = "") -> Path:
    """A configuration file for the simulated API; `tasks` as they stand in YAML."""
    path = folder / "config.yaml"
    path.write_text(
        f"api:\n  url: {url}\n  key: {DEMO_KEY}\n  request_interval: {interval}\n{extra}tasks: {tasks}\n"
    )
    return path
