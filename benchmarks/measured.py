"""Processes under measurement, and what the kernel says of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import requests

from tests.support.processes import ROOT, ExporterProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TICK = os.sysconf("SC_CLK_TCK")
REQUESTS = re.compile(r"^mobizon_api_requests_total(?:{[^}]*})? (\S+)$", re.MULTILINE)
FAILURES = re.compile(r"^mobizon_api_request_failures_total{[^}]*} (\S+)$", re.MULTILINE)


class Probe:
    """What a process has used: seconds of CPU, megabytes of resident memory, threads, open files."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._proc = Path(f"/proc/{pid}")

    def cpu(self) -> float:
        """Seconds, user and system."""
        fields = (self._proc / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self) -> float:
        """Resident, in MB."""
        found = re.search(r"VmRSS:\s+(\d+)", (self._proc / "status").read_text())
        assert found  # every process has it
        return int(found.group(1)) / 1000

    def threads(self) -> int:
        """How many there are."""
        return len(list((self._proc / "task").iterdir()))

    def files(self) -> int:
        """How many are open."""
        return len(list((self._proc / "fd").iterdir()))


@contextmanager
def serving(module: str, *arguments: str) -> Iterator[tuple[str, Probe]]:
    """A module of this package that prints the port of its metrics; yields their URL."""
    process = subprocess.Popen(  # noqa: S603 - modules of this package
        [sys.executable, "-m", f"benchmarks.{module}", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout  # it is a pipe
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/metrics", Probe(process.pid)
    finally:
        process.kill()
        process.communicate()


@contextmanager
def exporting(folder: Path, config: str, *flags: str) -> Iterator[tuple[ExporterProcess, Probe]]:
    """The exporter with a configuration."""
    path = folder / "config.yaml"
    path.write_text(config)
    with ExporterProcess("--config.file", str(path), *flags) as exporter:
        yield exporter, Probe(exporter.process.pid)


@contextmanager
def exporting_read(  # noqa: PLR0913 - what it is to be like afterwards, by keyword
    folder: Path, url: str, key: str, tasks: int, *, interval: float = 1.0, ca_file: Path | None = None
) -> Iterator[tuple[ExporterProcess, Probe]]:
    """The exporter with so many tasks of one account, each of which has been read once.

    They are read fast, from an API that lets it; then the limit is the usual one, or another.
    """
    listed = range(1, tasks + 1)
    fast = account(url, key, listed, 0.002, ca_file)
    with exporting(folder, fast, "--web.enable-lifecycle") as (exporter, probe):
        exporter.scrapes_until(lambda samples: len(samples.all("mobizon_task_progress")) == tasks, 240)
        (folder / "config.yaml").write_text(account(url, key, listed, interval, ca_file))
        yield exporter, probe


def scrape(
    url: str, timeout: float, patience: float | None = None, encoding: str = "gzip"
) -> tuple[str, float]:
    """What Prometheus gets with that scrape_timeout, and after how many seconds."""
    began = time.monotonic()
    headers = {"X-Prometheus-Scrape-Timeout-Seconds": f"{timeout:g}", "Accept-Encoding": encoding}
    answer = requests.get(url, headers=headers, timeout=patience or timeout)
    answer.raise_for_status()
    return answer.text, time.monotonic() - began


def account(
    url: str, key: str, tasks: Sequence[int], interval: float = 1.0, ca_file: Path | None = None
) -> str:
    """A configuration of one account."""
    api = f"url: '{url}', key: '{key}', request_interval: {round(interval * 1000)}ms{_trust(ca_file)}"
    return f"api: {{{api}}}\ntasks: {list(tasks)}\n"


def _trust(ca_file: Path | None) -> str:
    return f", ca_file: '{ca_file}'" if ca_file else ""


def accounts(
    urls: Sequence[str], keys: Sequence[str], tasks: Sequence[int], ca_file: Path | None = None
) -> str:
    """A configuration of many accounts, shared out among the URLs."""
    lines = [
        f"  - {{name: account-{at}, api: {{url: '{urls[at % len(urls)]}', key: '{key}'{_trust(ca_file)}}}, "
        f"tasks: {list(tasks)}}}"
        for at, key in enumerate(keys)
    ]
    return "\n".join(["accounts:", *lines, ""])
