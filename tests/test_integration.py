"""The programs of docs/examples, run against the simulated Mobizon, and exporters real and scripted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import requests

from exporter import simulator
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from tests.support.processes import ROOT, ExporterProcess, write_config
from tests.support.promtools import free_port
from tests.support.tools import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEXT = (ROOT / "docs/integration.md").read_text("utf-8")
EXAMPLES = ROOT / "docs/examples"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
PROGRAMS = {
    "campaign.sh": ("sh", ("curl", "jq")),
    "campaign.php": ("php", ("php",)),
    "campaign-plain.php": ("php", ("php",)),
    "campaign.py": (sys.executable, ()),
}
EACH_PROGRAM = pytest.mark.parametrize("program", PROGRAMS)


def test_the_page_links_to_every_program() -> None:
    assert set(re.findall(r"\]\(examples/([^)]+)\)", TEXT)) == {
        path.name for path in EXAMPLES.iterdir() if path.is_file()
    }


@dataclass
class Run:
    """What a program did."""

    status: int
    output: str
    errors: str
    sent: list[int | None]
    """The codes of the calls of campaign/send."""


@dataclass
class Workplace:
    """A folder with the programs, and the simulated Mobizon that they talk to."""

    folder: Path
    mobizon: Simulator
    key: str = DEMO_KEY
    patience: dict[str, str] = field(default_factory=lambda: {"PAUSE": "1", "TRIES": "2"})

    def start(self, program: str, exporter: str, groups: str = "7") -> subprocess.Popen[str]:
        command, tools = PROGRAMS[program]
        for tool in tools:
            need(tool)
        (self.folder / "mobizon_key").write_text(f"{self.key}\n")
        (self.folder / "vendor").mkdir(exist_ok=True)
        shutil.copy(ROOT / "tests/support/mobizon_api.php", self.folder / "vendor/autoload.php")
        shutil.copytree(EXAMPLES, self.folder, dirs_exist_ok=True)
        return subprocess.Popen(
            [command, program, "1", groups],
            cwd=self.folder,
            env={
                "PATH": os.environ["PATH"],
                "MOBIZON_API": self.mobizon.url,
                "EXPORTER": exporter,
                **self.patience,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, process: subprocess.Popen[str]) -> Run:
        output, errors = process.communicate(timeout=60)
        assert DEMO_KEY not in output + errors
        sent = [request.code for request in self.mobizon.requests if request.method == "campaign/send"]
        return Run(process.returncode, output, errors, sent)

    def run(self, program: str, exporter: str, groups: str = "7") -> Run:
        return self.finish(self.start(program, exporter, groups))


@pytest.fixture
def workplace(tmp_path: Path) -> Iterator[Workplace]:
    load = simulator.growing(1.0, delay=0.3)
    with SimulatorThread(Simulator({}, interval=0.1, limit="off", load=load)) as mobizon:
        yield Workplace(tmp_path, mobizon)


def exporter_process(workplace: Workplace, port: int = 0) -> ExporterProcess:
    config = write_config(workplace.folder, workplace.mobizon.url, "[]", interval="100ms")
    registry = workplace.folder / "registry.json"
    return ExporterProcess(f"--config.file={config}", f"--registry.file={registry}", port=port)


# The demo.


@pytest.fixture(scope="module")
def demo() -> Iterator[ExporterProcess]:
    with ExporterProcess("--demo") as process:
        yield process


@pytest.mark.parametrize(
    ("changes", "status", "state"),
    [
        ({}, 0, "completed"),
        ({"-d id=1": "-d id=2", "recipientGroups=7": "recipientGroups=13"}, 22, "rejected"),
    ],
)
def test_four_lines_of_shell_tell_completed_from_rejected_by_their_exit_status(
    changes: dict[str, str], status: int, state: str, demo: ExporterProcess
) -> None:
    for tool in ("curl", "jq"):
        need(tool)
    script = next(text for language, text in BLOCKS if language == "sh")
    assert len(script.splitlines()) == 4
    api = demo.wait_for_line(r"Mobizon +(http\S+), simulated, with the key (\w+)")
    assert api[2] in script
    for old, new in {"http://localhost:10118": api[1], "http://localhost:10117": demo.url, **changes}.items():
        assert old in script
        script = script.replace(old, new)
    for change in changes.values():
        assert f"`{change.removeprefix('-d ')}`" in TEXT
    command = ["sh", "-ec", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["state"] == state


# With a real exporter.


@EACH_PROGRAM
def test_a_campaign_is_sent_when_its_load_is_completed(program: str, workplace: Workplace) -> None:
    with exporter_process(workplace) as exporter:
        run = workplace.run(program, exporter.url)
        assert (run.status, run.output, run.errors, run.sent) == (0, "campaign 1 is sent\n", "", [0])
        (task,) = requests.get(f"{exporter.url}/api/v1/tasks", timeout=10).json()["tasks"]
        assert (task["state"], task["name"], task["source"]) == ("completed", "campaign-1", "registry")


@EACH_PROGRAM
def test_a_rejected_load_fails_sends_nothing_and_is_removed(program: str, workplace: Workplace) -> None:
    with exporter_process(workplace) as exporter:
        run = workplace.run(program, exporter.url, groups="7,13")
        assert run.status == 1
        assert re.fullmatch(r"campaign 1 is not sent: task \d+ is rejected\n", run.errors)
        assert run.sent == []
        assert requests.get(f"{exporter.url}/api/v1/tasks", timeout=10).json()["tasks"] == []


@EACH_PROGRAM
def test_an_exporter_that_is_killed_and_started_again_delays_a_campaign(
    program: str, workplace: Workplace
) -> None:
    workplace.patience["TRIES"] = "30"
    mobizon, port = workplace.mobizon, free_port()
    with exporter_process(workplace, port) as exporter:
        process = workplace.start(program, exporter.url)
        mobizon.wait_for(lambda: _asked(mobizon), timeout=30)
        (task_id,) = mobizon.scenarios
        mobizon.scenarios[task_id] = simulator.waiting()
        exporter.process.kill()
    mobizon.scenarios[task_id] = simulator.completed()
    with exporter_process(workplace, port):
        run = workplace.finish(process)
    assert (run.status, run.output) == (0, "campaign 1 is sent\n"), run.errors


def _asked(mobizon: Simulator) -> bool:
    return any(request.method == "taskqueue/getstatus" for request in mobizon.requests)


# With an exporter that answers as told.


class Scripted:
    """An exporter that answers waits with these statuses, one after the other, and the last for ever."""

    def __init__(self, *waits: int, register: int = 201) -> None:
        self.waits = list(waits)
        self.register = register
        self.seen: list[str] = []
        self.authorized: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                outer.authorized.add(self.headers.get("Authorization"))
                length = int(self.headers.get("Content-Length", 0))
                body = json.loads(self.rfile.read(length)) if length else None
                status = outer.answer(self.command, self.path, body)
                content = json.dumps({"error": f"scripted {status}", "state": "unknown"}).encode()
                self.send_response(status)
                if status in {429, 503}:
                    self.send_header("Retry-After", "1")
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if status != 204:
                    self.wfile.write(content)

            do_GET = do_PUT = do_DELETE = handle_any  # noqa: N815 - names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, method: str, path: str, body: object) -> int:
        self.seen.append(method)
        assert re.fullmatch(r"/api/v1/tasks/1001(/wait)?", path)
        if method == "PUT":
            assert body == {"name": "campaign-1"}
            return self.register
        if method == "DELETE":
            return 204
        assert path.endswith("/wait")
        return self.waits.pop(0) if len(self.waits) > 1 else self.waits[0]

    @contextlib.contextmanager
    def serving(self) -> Iterator[Scripted]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Workplace]:
    """Mobizon loads at once, so that a campaign can be sent at any moment."""
    load = simulator.completed()
    with SimulatorThread(Simulator({}, limit="off", load=load)) as mobizon:
        yield Workplace(tmp_path, mobizon)


@EACH_PROGRAM
def test_waits_go_on_until_the_task_is_finished(program: str, loaded: Workplace) -> None:
    with Scripted(504, 504, 503, 504, 502, 200, register=200).serving() as exporter:
        run = loaded.run(program, exporter.url)
    assert (run.status, run.sent) == (0, [0]), run.errors
    assert exporter.seen == ["PUT", *["GET"] * 6]


@EACH_PROGRAM
def test_a_password_in_the_address_is_used_and_not_shown(program: str, loaded: Workplace) -> None:
    with Scripted(504, 409).serving() as exporter:
        run = loaded.run(program, exporter.url.replace("://", "://script:s3cret@"))
    assert exporter.seen == ["PUT", "GET", "GET", "DELETE"]
    assert exporter.authorized == {"Basic c2NyaXB0OnMzY3JldA=="}
    assert (run.status, run.errors) == (1, "campaign 1 is not sent: task 1001 is rejected\n")


@EACH_PROGRAM
@pytest.mark.parametrize("wait", [404, 400, 401])
def test_an_answer_that_will_not_change_fails_at_once(program: str, wait: int, loaded: Workplace) -> None:
    with Scripted(504, wait).serving() as exporter:
        run = loaded.run(program, exporter.url)
    assert (run.status, run.sent) == (1, [])
    assert f"scripted {wait}" in run.errors
    assert exporter.seen == ["PUT", "GET", "GET"]


@EACH_PROGRAM
def test_an_exporter_that_stays_out_of_order_fails_in_the_end(program: str, loaded: Workplace) -> None:
    with Scripted(504, 503).serving() as exporter:
        run = loaded.run(program, exporter.url)
    assert (run.status, run.sent) == (1, [])
    assert "the exporter does not answer" in run.errors
    assert exporter.seen == ["PUT", "GET", "GET", "GET"]


@EACH_PROGRAM
def test_an_exporter_that_is_down_fails_in_the_end(program: str, loaded: Workplace) -> None:
    run = loaded.run(program, f"http://127.0.0.1:{free_port()}")
    assert (run.status, run.sent) == (1, [])
    assert run.errors.splitlines()[-1].startswith("campaign 1 is not sent: ")


@EACH_PROGRAM
@pytest.mark.parametrize("register", [400, 403, 409, 507])
def test_a_registration_that_is_refused_fails(program: str, register: int, loaded: Workplace) -> None:
    with Scripted(200, register=register).serving() as exporter:
        run = loaded.run(program, exporter.url)
    assert (run.status, run.sent) == (1, [])
    assert f"scripted {register}" in run.errors
    assert "GET" not in exporter.seen


@EACH_PROGRAM
def test_a_call_that_starts_no_task_registers_nothing(program: str, loaded: Workplace) -> None:
    with Scripted(200).serving() as exporter:
        run = loaded.run(program, exporter.url, groups="")
        assert (run.status, run.sent, exporter.seen) == (1, [], [])
        assert "no load was started" in run.errors


@EACH_PROGRAM
def test_a_wrong_key_fails_and_is_not_shown(program: str, loaded: Workplace) -> None:
    loaded.key = "WrongKey" * 5
    with Scripted(200).serving() as exporter:
        run = loaded.run(program, exporter.url)
    assert (run.status, run.sent, exporter.seen) == (1, [], [])
    assert loaded.key not in run.output + run.errors


@EACH_PROGRAM
def test_a_mobizon_that_is_down_fails_without_showing_the_key(program: str, loaded: Workplace) -> None:
    loaded.mobizon.url = f"http://127.0.0.1:{free_port()}"
    run = loaded.run(program, "http://127.0.0.1:9")
    assert (run.status, run.sent) == (1, [])
    assert run.errors.splitlines()[-1].startswith("campaign 1 is not sent: ")


@EACH_PROGRAM
def test_a_campaign_that_mobizon_does_not_send_fails(program: str, tmp_path: Path) -> None:
    unfinished = Simulator({}, limit="off", load=simulator.waiting())
    with SimulatorThread(unfinished) as mobizon, Scripted(200).serving() as exporter:
        run = Workplace(tmp_path, mobizon).run(program, exporter.url)
    assert (run.status, run.sent) == (1, [10])
    assert "campaign 1 is not sent: " in run.errors


# Laravel.


@pytest.mark.parametrize("wait", [200, 504, 503, 409, 404, 500])
def test_the_job_does_with_each_answer_what_it_should(wait: int, loaded: Workplace) -> None:
    php = need("php")
    job = EXAMPLES / "SendCampaign.php"
    subprocess.run([php, "-l", str(job)], check=True, capture_output=True)
    url = f"{loaded.mobizon.url}/service/campaign/addRecipients?output=json&api=v1&apiKey={DEMO_KEY}"
    requests.post(url, data={"id": 1, "recipientGroups": 7}, timeout=10)
    with Scripted(wait).serving() as exporter:
        done = subprocess.run(
            [php, str(ROOT / "tests/support/laravel.php"), str(job), exporter.url],
            env={"PATH": os.environ["PATH"], "MOBIZON_API": loaded.mobizon.url, "MOBIZON_KEY": DEMO_KEY},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    outcome = json.loads(done.stdout)
    sent = [request.code for request in loaded.mobizon.requests if request.method == "campaign/send"]
    assert exporter.seen == ["PUT", "GET", *(["DELETE"] if wait == 409 else [])]
    assert sent == ([0] if wait == 200 else [])
    match wait:
        case 200:
            assert outcome == []
        case 504:
            assert outcome == ["released", 0]
        case 503:
            assert outcome == ["released", 1], "as Retry-After says"
        case 409 | 404:
            assert outcome[0] == "failed"
        case _:
            assert outcome[0] == "thrown", "the queue tries again"
