"""`--probe`: one request, shown as it went and as it was understood, without the key."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
import responses

from exporter import simulator
from exporter.cli import main
from exporter.simulator import Simulator, SimulatorThread
from tests.support.peers import Peer, Visit, head_of, sending

KEY = "0a1b2c3d4e5f60718293a4b5c6d7e8f9MarkerKey"
URL = "https://api.mobizon.example"
PATH = "/service/taskqueue/getStatus"


class Outcome(NamedTuple):
    status: int
    out: str
    err: str


class Probe:
    """Runs it with a configuration of one account, or of another text."""

    def __init__(self, folder: Path, captured: pytest.CaptureFixture[str]) -> None:
        self.path = folder / "config.yaml"
        self._captured = captured

    def __call__(self, url: str, *flags: str, text: str = "") -> Outcome:
        self.path.write_text(text or f"api: {{url: '{url}', key: {KEY}, timeout: 1s}}\ntasks: [7]\n")
        status = main([f"--config.file={self.path}", *(flags or ("--probe", "7"))])
        found = self._captured.readouterr()
        assert KEY not in found.out + found.err
        return Outcome(status, found.out, found.err)


@pytest.fixture
def probe(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Probe:
    monkeypatch.delenv("MOBIZON_API_KEY", raising=False)
    return Probe(tmp_path, capsys)


def test_a_reading_is_shown_with_its_request_and_answer(probe: Probe) -> None:
    with SimulatorThread(Simulator({7: simulator.stalled(37)}, keys=[KEY])) as sim:
        outcome = probe(sim.url)
        assert len(sim.requests) == 1
        assert sim.requests[0].task_id == 7
    assert outcome.status == 0
    assert f"POST {sim.url}{PATH}?output=json&api=v1&apiKey=***\nid=7\n" in outcome.out
    assert "HTTP status 200\nContent-Type: application/json\n" in outcome.out
    assert '{"code":0,"data":{"progress":37,"status":1},"message":""}' in outcome.out
    assert " s, understood as: a reading: progress 37 %, status 1, in progress\n" in outcome.out


def test_a_status_that_is_not_documented_is_a_reading(probe: Probe) -> None:
    with responses.RequestsMock() as mobizon:
        mobizon.post(URL + PATH, json={"code": "0", "data": {"progress": "5", "status": "9"}})
        outcome = probe(URL)
    assert outcome.status == 0
    assert "progress 5 %, status 9, which Mobizon does not document" in outcome.out


def test_a_failure_is_shown_with_what_to_do_about_it(probe: Probe) -> None:
    with responses.RequestsMock() as mobizon:
        mobizon.post(
            URL + PATH, json={"code": 8, "data": [], "message": "Wrong key"}, headers={"Server": "x"}
        )
        outcome = probe(URL)
    assert outcome.status == 1
    assert "Server: x" in outcome.out
    assert "understood as: a failure: unauthorized: code 8: Wrong key\n" in outcome.out
    assert "Mobizon does not accept the API key. Check that the key is complete" in outcome.out


def test_the_key_is_hidden_in_any_spelling_of_body_and_headers(probe: Probe) -> None:
    spelled = "".join(f"\\u{ord(c):04x}" for c in KEY)

    def echo(visit: Visit) -> None:
        head, _ = visit.request()
        target = head.split(b" ")[1].decode()
        percent = "".join(f"%{ord(c):02X}" for c in KEY)
        body = f'{{"code":15,"message":"{KEY} {spelled} {percent} {target} \x1b[31m"}}'
        visit.answer(body.encode(), f"Location: {target}")

    with Peer(echo) as peer:
        outcome = probe(peer.url)
    assert outcome.status == 1
    assert '"message":"*** *** *** /service/taskqueue/getStatus?output=json&api=v1&apiKey=***' in outcome.out
    assert "Location: /service/taskqueue/getStatus?output=json&api=v1&apiKey=***" in outcome.out
    assert spelled not in outcome.out
    assert "\x1b" not in outcome.out
    assert "\\x1b[31m" in outcome.out


def test_a_long_body_is_cut(probe: Probe) -> None:
    with Peer(sending(head_of("Content-Length: 200000") + b"x" * 200_000)) as peer:
        outcome = probe(peer.url)
    assert outcome.status == 1
    assert "… (more than 65536 bytes in all)" in outcome.out
    assert len(outcome.out) < 10_000


def test_what_is_no_answer_is_a_failure(probe: Probe) -> None:
    with Peer(lambda visit: None) as peer:
        outcome = probe(peer.url)
    assert outcome.status == 1
    assert "no answer\n" in outcome.out
    assert "a failure: connection_error: " in outcome.out


ACCOUNTS = f"""
accounts:
  - {{name: main, api: {{url: {URL}, key: {KEY}}}, tasks: [1]}}
  - {{name: shop, api: {{url: {URL}, key: {KEY[::-1]}}}, tasks: [2]}}
"""


def test_one_of_several_accounts_is_named(probe: Probe) -> None:
    outcome = probe(URL, text=ACCOUNTS)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err == f"{probe.path}: say which account with --probe.account: main, shop\n"
    outcome = probe(URL, "--probe=7", "--probe.account=nobody", text=ACCOUNTS)
    assert outcome.err == f"{probe.path}: no account 'nobody'; there are main, shop\n"
    with responses.RequestsMock() as mobizon:
        mobizon.post(URL + PATH, json={"code": 0, "data": {"progress": 100, "status": 2}})
        assert probe(URL, "--probe=7", "--probe.account=shop", text=ACCOUNTS).status == 0
        assert KEY[::-1] in str(mobizon.calls[0].request.url)


def test_the_only_account_has_no_name(probe: Probe) -> None:
    outcome = probe(URL, "--probe=7", "--probe.account=main")
    assert outcome.err == f"{probe.path}: no account 'main'; its only account has no name\n"


@pytest.mark.parametrize("task_id", ["0", "abc", "-1", "1_000", "0123", "1,2", ""])
def test_an_id_that_is_none_is_a_wrong_flag(probe: Probe, task_id: str) -> None:
    with pytest.raises(SystemExit) as caught:
        probe(URL, f"--probe={task_id}")
    assert caught.value.code == 2


def test_an_id_has_as_many_digits_as_in_a_configuration(probe: Probe) -> None:
    with SimulatorThread(Simulator({10**19 - 1: simulator.stalled(50)}, keys=[KEY])) as sim:
        assert probe(sim.url, f"--probe={10**19 - 1}").status == 0


def test_a_configuration_that_cannot_be_used_is_told(probe: Probe) -> None:
    outcome = probe(URL, text="api: {}\n")
    assert (outcome.status, outcome.out) == (1, "")
    assert "api.url" in outcome.err
