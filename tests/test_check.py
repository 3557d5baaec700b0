"""`--config.check`: everything that is wrong, or what a full refresh takes; and nothing is sent."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "0a1b2c3d4e5f60718293a4b5c6d7e8f9MarkerKey"
WAITS = "scrapes wait for it"
IN_VAIN = "scrapes cannot wait for it, values will be up to"


@dataclass(frozen=True)
class Outcome:
    status: int
    out: list[str]
    err: list[str]


class Check:
    """Runs it on a configuration in a folder of its own."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str], url: str) -> None:
        self.folder = folder
        self.url = url
        self.path = folder / "config.yaml"
        self._captured = captured

    def write(self, text: str) -> None:
        self.path.write_text(text.replace("URL", self.url))

    def __call__(self, text: str | None = None, *flags: str) -> Outcome:
        if text is not None:
            self.write(text)
        status = main(["--config.check", f"--config.file={self.path}", *flags])
        found = self._captured.readouterr()
        assert KEY not in found.out + found.err
        return Outcome(status, self._lines(found.out), self._lines(found.err))

    def _lines(self, text: str) -> list[str]:
        return [line.removeprefix(f"{self.folder}/") for line in text.splitlines()]


@pytest.fixture
def check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Check]:
    """With an API that must not be asked."""
    monkeypatch.delenv("MOBIZON_API_KEY", raising=False)
    (tmp_path / "tasks.d").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Check(tmp_path, capsys, f"http://127.0.0.1:{server.getsockname()[1]}")
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


MAIN = f"api: {{url: URL, key: {KEY}}}\ntask_files: [tasks.d/*]\n"


@pytest.mark.parametrize(
    ("number", "interval", "summary"),
    [
        (0, "1s", f"0 active tasks at 1 request/s: a full refresh takes 0 s; {WAITS}"),
        (1, "1s", f"1 active task at 1 request/s: a full refresh takes 1 s; {WAITS}"),
        (10, "1s", f"10 active tasks at 1 request/s: a full refresh takes 10 s; {WAITS}"),
        (
            24,
            "1s",
            f"24 active tasks at 1 request/s: a full refresh takes 24 s; {IN_VAIN} 24 s old",
        ),
        (4, "500ms", f"4 active tasks at 2 requests/s: a full refresh takes 2 s; {WAITS}"),
        (
            6,
            "2s",
            f"6 active tasks at 0.5 requests/s: a full refresh takes 12 s; {IN_VAIN} 12 s old",
        ),
    ],
)
def test_a_good_one_is_a_line_with_the_time_of_a_full_refresh(
    check: Check, number: int, interval: str, summary: str
) -> None:
    tasks = list(range(1, number + 1))
    found = check(f"api: {{url: URL, key: {KEY}, request_interval: {interval}}}\ntasks: {tasks}\n")
    assert found == Outcome(0, [f"config.yaml: {summary}"], [])


def test_the_tasks_of_task_files_count(check: Check) -> None:
    (check.folder / "tasks.d" / "a.yaml").write_text("- 2\n- 3\n")
    (check.folder / "tasks.d" / "b.json").write_text('[{"id": 4}]')
    found = check(MAIN + "tasks: [1]\n")
    assert found.out == [f"config.yaml: 4 active tasks at 1 request/s: a full refresh takes 4 s; {WAITS}"]
    assert (found.status, found.err) == (0, [])


def test_each_account_has_a_line_of_its_own(check: Check) -> None:
    found = check(
        "accounts:\n"
        f"  - {{name: kz, api: {{url: URL, key: {KEY}}}, tasks: [1, 2]}}\n"
        "  - {name: br, api: {url: URL, key: abc, request_interval: 2s}, tasks: [1]}\n"
    )
    assert found == Outcome(
        0,
        [
            f"config.yaml: kz: 2 active tasks at 1 request/s: a full refresh takes 2 s; {WAITS}",
            f"config.yaml: br: 1 active task at 0.5 requests/s: a full refresh takes 2 s; {WAITS}",
        ],
        [],
    )


def test_all_that_is_wrong_is_printed_and_the_status_is_1(check: Check) -> None:
    found = check("stale_after: soon\napi: {url: URL, keey: abc}\ntasks: [0123, 5, 5]\n")
    assert found == Outcome(
        1,
        [],
        [
            "config.yaml:1: stale_after: expected a duration such as 500ms, 5s or 1h30m, got 'soon'",
            "config.yaml:2: api.keey: unknown key; did you mean 'key'?",
            "config.yaml:2: api: no API key: give `key_file` or `key`, or set MOBIZON_API_KEY",
            "config.yaml:3: tasks[0]: expected a positive integer, got '0123'",
            "config.yaml:3: tasks[2]: duplicate id 5, first listed as [1]",
        ],
    )


def test_what_is_wrong_with_any_task_file_is_printed_once_and_the_status_is_1(check: Check) -> None:
    for name, content in (
        ("a.yaml", "- x\n- 0\n"),
        ("b.json", "["),
        ("c.yaml", "- 1\n- 7\n"),
        ("d.yaml", "- 7\n"),
    ):
        (check.folder / "tasks.d" / name).write_text(content)
    (check.folder / "tasks.d" / "e.yaml").mkdir()
    found = check(MAIN + "tasks: [1]\n")
    assert (found.status, found.out) == (1, [])
    assert found.err == [
        "tasks.d/a.yaml:1: [0]: expected a positive integer, got 'x'",
        "tasks.d/a.yaml:2: [1]: expected a positive integer, got '0'",
        "tasks.d/b.json:1: did not find expected node content",
        "tasks.d/c.yaml: id 1 is listed elsewhere, too",
        "tasks.d/d.yaml: id 7 is listed elsewhere, too",
        "tasks.d/e.yaml: is a directory",
    ]


def test_a_task_file_of_two_accounts_is_printed_once(check: Check) -> None:
    (check.folder / "tasks.d" / "a.yaml").write_text("- x\n")
    (check.folder / "tasks.d" / "b.yaml").write_text("- 5\n")
    found = check(
        "accounts:\n"
        f"  - {{name: kz, api: {{url: URL, key: {KEY}}}, tasks: [5], task_files: [tasks.d/*]}}\n"
        "  - {name: br, api: {url: URL, key: abc}, tasks: [5], task_files: [tasks.d/*]}\n"
    )
    assert found == Outcome(
        1,
        [],
        [
            "tasks.d/a.yaml:1: [0]: expected a positive integer, got 'x'",
            "tasks.d/b.yaml: id 5 is listed elsewhere, too",
        ],
    )


def test_a_configuration_that_is_missing_is_one_line(check: Check) -> None:
    assert check() == Outcome(1, [], ["config.yaml: no such file or directory"])


def test_a_web_configuration_is_checked_too(check: Check) -> None:
    found = check(MAIN, f"--web.config.file={check.folder}/web.yaml")
    assert (found.status, found.out) == (1, [])
    assert found.err == ["web.yaml: no such file or directory"]


def test_the_key_may_stand_in_the_environment(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("api: {url: URL}\n").status == 1
    monkeypatch.setenv("MOBIZON_API_KEY", KEY)
    assert check().status == 0


def test_without_the_flag_the_configuration_is_that_of_the_working_folder(
    check: Check, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check.write(MAIN)
    monkeypatch.chdir(check.folder)
    assert main(["--config.check"]) == 0
    assert capsys.readouterr().out.startswith("config.yaml: 0 active tasks ")


def test_the_example_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert main(["--config.check", "--config.file", "config.example.yaml"]) == 0
    found = capsys.readouterr()
    assert found.err == ""
    assert found.out == (
        f"config.example.yaml: 2 active tasks at 1 request/s: a full refresh takes 2 s; {WAITS}\n"
    )
