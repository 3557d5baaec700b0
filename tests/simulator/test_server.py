"""The simulated Mobizon API, over real HTTP."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import requests

from exporter import simulator
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from exporter.simulator.scenarios import NOT_FOUND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.simulator import Fault, Limit, Scenario

PATH = "/service/taskqueue/getStatus"
QUERY = {"output": "json", "api": "v1", "apiKey": DEMO_KEY}
SOON = 5.0  # more than anything here takes, and less than waiting for it would hurt


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sim(clock: Clock) -> Iterator[Simulator]:
    with SimulatorThread(Simulator({7: simulator.stalled(50)}, limit="off", clock=clock)) as running:
        yield running


def post(sim: Simulator, task_id: object = 7, path: str = PATH, **query: str) -> requests.Response:
    return requests.post(
        sim.url + path,
        params={**QUERY, **query},
        data={"id": task_id},
        timeout=SOON,
        allow_redirects=False,
    )


def ask(sim: Simulator, task_id: object = 7, path: str = PATH, **query: str) -> dict[str, Any]:
    response = post(sim, task_id, path, **query)
    assert response.status_code == 200
    envelope = response.json()
    assert set(envelope) == {"code", "data", "message"}
    return dict(envelope)


def raw_request(sim: Simulator, task_id: int = 7) -> socket.socket:
    """A connection with a whole request sent, and nothing read."""
    url = urlsplit(sim.url)
    assert url.hostname is not None
    peer = socket.create_connection((url.hostname, url.port or 0), timeout=SOON)
    body = f"id={task_id}"
    kind = "application/x-www-form-urlencoded"
    peer.sendall(
        f"POST {PATH}?output=json&api=v1&apiKey={DEMO_KEY} HTTP/1.1\r\nHost: x\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return peer


# What is answered


def test_answers_progress_and_status_in_an_envelope(sim: Simulator) -> None:
    assert ask(sim) == {"code": 0, "data": {"progress": 50, "status": 1}, "message": ""}


@pytest.mark.parametrize("path", ["/service/Taskqueue/GetStatus", "/SERVICE/TASKQUEUE/GETSTATUS/"])
def test_the_case_of_the_path_does_not_matter(sim: Simulator, path: str) -> None:
    assert ask(sim, path=path)["code"] == 0


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("/service/queue/getStatus", {}, 4),
        ("/", {}, 4),
        ("/service/taskqueue/list", {}, 5),
        ("/service/taskqueue", {}, 5),
        (PATH, {"output": "xml"}, 6),
        (PATH, {"api": "v2"}, 6),
        (PATH, {"apiKey": "wrong"}, 8),
        (PATH, {"apiKey": ""}, 8),
    ],
)
def test_a_misdirected_request_is_told_what_is_wrong_with_it(
    sim: Simulator, path: str, query: dict[str, str], code: int
) -> None:
    envelope = ask(sim, path=path, **query)
    assert envelope["code"] == code
    assert envelope["data"] in (None, [], "", False)
    assert (sim.accepted, sim.refused) == (0, 0)


@pytest.mark.parametrize("task_id", ["", "0", "-1", "1.5", "abc", "007", "٣", "9" * 5000])
def test_an_id_that_is_no_positive_integer_is_a_wrong_parameter(sim: Simulator, task_id: str) -> None:
    assert ask(sim, task_id)["code"] == 1
    assert sim.requests[-1].task_id is None


def test_an_id_outside_the_form_body_does_not_count(sim: Simulator) -> None:
    response = requests.post(sim.url + PATH, params={**QUERY, "id": "7"}, timeout=SOON)
    assert response.json()["code"] == 1


def test_an_unknown_id_is_not_found(sim: Simulator) -> None:
    assert ask(sim, 8)["code"] == 2


def test_data_of_errors_varies_as_php_varies_it(sim: Simulator) -> None:
    seen = {json.dumps(ask(sim, 8)["data"]) for _ in range(40)}
    assert seen == {"null", "[]", '""', "false"}


# Scenarios


@pytest.mark.parametrize(
    ("scenario", "ages"),
    [
        (simulator.waiting(), {0: (0, 0), 1e6: (0, 0)}),
        (simulator.completed(), {0: (100, 2)}),
        (simulator.stalled(at=37), {0: (37, 1), 1e6: (37, 1)}),
        (simulator.missing(), {0: 2}),
        (simulator.growing(100, delay=10), {9: (0, 0), 10: (0, 1), 60: (50, 1), 109: (99, 1), 110: (100, 2)}),
        (simulator.rejected(after=40, at=50), {0: (0, 1), 20: (25, 1), 40: (50, 3), 99: (50, 3)}),
        (simulator.rejected(), {0: (0, 3)}),
        (simulator.as_strings(simulator.stalled(at=5)), {0: ("5", "1")}),
        (simulator.as_strings(simulator.missing()), {0: 2}),
        (simulator.repeating(10, simulator.growing(20)), {9: (45, 1), 10: (0, 1), 105: (25, 1)}),
        (simulator.flaky(simulator.waiting(), every=60, lasting=10), {0: (0, 0), 50: 3, 59: 3, 60: (0, 0)}),
    ],
)
def test_a_scenario_answers_what_it_promises_at_every_age(
    scenario: Scenario, ages: dict[float, object]
) -> None:
    assert {age: scenario(age) for age in ages} == ages


def test_age_counts_from_the_start(clock: Clock) -> None:
    unstarted = Simulator({1: simulator.growing(100)}, limit="off", clock=clock)
    clock.now += 500
    with SimulatorThread(unstarted) as sim:
        clock.now += 25
        assert ask(sim, 1)["data"] == {"progress": 25, "status": 1}


def test_age_counts_from_when_a_task_was_added_or_replaced(sim: Simulator, clock: Clock) -> None:
    clock.now += 500
    sim.scenarios.update({7: simulator.growing(100), 8: simulator.growing(10)})
    clock.now += 5
    assert ask(sim, 7)["data"] == {"progress": 5, "status": 1}
    assert ask(sim, 8)["data"] == {"progress": 50, "status": 1}
    del sim.scenarios[8]
    assert ask(sim, 8)["code"] == 2


def test_numbers_can_be_strings_on_the_wire(sim: Simulator) -> None:
    sim.scenarios[7] = simulator.as_strings(simulator.completed())
    assert ask(sim)["data"] == {"progress": "100", "status": "2"}


# The limit


@pytest.mark.parametrize(
    ("limit", "codes"),
    [
        # at      0.0 0.4 1.0 1.8 2.5
        ("strict", [0, 30, 30, 30, 30]),
        ("lenient", [0, 30, 0, 30, 0]),
        ("window", [0, 30, 0, 30, 0]),
        ("off", [0, 0, 0, 0, 0]),
    ],
)
def test_the_limit_refuses_what_comes_too_early(clock: Clock, limit: Limit, codes: list[int]) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, limit=limit, clock=clock)) as sim:
        answered = []
        for at in (0.0, 0.4, 1.0, 1.8, 2.5):
            clock.now = 1000.0 + at
            answered.append(ask(sim)["code"])
    assert answered == codes
    assert (sim.accepted, sim.refused) == (codes.count(0), codes.count(30))


def test_the_window_is_the_clocks_and_not_the_requests(clock: Clock) -> None:
    clock.now = 1000.9
    with SimulatorThread(Simulator({7: simulator.waiting()}, limit="window", clock=clock)) as sim:
        assert ask(sim)["code"] == 0
        clock.now = 1001.0
        assert ask(sim)["code"] == 0
        clock.now = 1001.99
        assert ask(sim)["code"] == 30


def test_each_key_has_a_limit_of_its_own(clock: Clock) -> None:
    keys = {f"key{number}" for number in range(3000)}
    with SimulatorThread(Simulator({7: simulator.waiting()}, keys=keys, clock=clock)) as sim:
        codes = [
            ask(sim, apiKey=key)["code"] for key in ("key1", "key2", "key1", "key2999", "wrong", "wrong")
        ]
    assert codes == [0, 0, 30, 0, 8, 8]


def test_a_request_for_an_unknown_task_uses_the_limit_up(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock)) as sim:
        assert [ask(sim, task)["code"] for task in (8, 7)] == [2, 30]


def test_the_limit_is_measured_before_latency_is_waited_out(clock: Clock) -> None:
    slow = Simulator({7: simulator.waiting()}, clock=clock, latency=(0.2, 0.2))
    with SimulatorThread(slow) as sim, raw_request(sim) as peer:
        sim.wait_for(lambda: len(sim.requests) == 1)
        assert sim.in_flight == 1
        clock.now += 1.0
        assert ask(sim)["code"] == 0
        assert b'"code":0' in peer.recv(65536)
    assert [request.at for request in sim.requests] == [1000.0, 1001.0]


def test_jitter_is_waited_out_before_the_limit_is_measured(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock, jitter=60.0)) as sim:
        with raw_request(sim):
            sim.wait_for(lambda: sim.in_flight == 1)
            assert not sim.requests
        sim.wait_for(lambda: sim.in_flight == 0)
        sim.jitter = 0.001
        assert ask(sim)["code"] == 0


def test_a_key_can_be_withdrawn_while_it_runs(sim: Simulator) -> None:
    sim.keys.discard(DEMO_KEY)
    assert ask(sim)["code"] == 8


def test_requests_are_recorded_up_to_a_bound(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock, history=2)) as sim:
        for task in (1, 7, 8):
            clock.now += 1
            ask(sim, task)
    assert list(sim.requests) == [
        simulator.Request(at=1002.0, key=DEMO_KEY, task_id=7, code=0),
        simulator.Request(at=1003.0, key=DEMO_KEY, task_id=8, code=2),
    ]


# Faults


def test_a_code_can_be_answered_in_place_of_the_task(sim: Simulator) -> None:
    sim.faults[7] = simulator.code(13, data={"host": "api.example.net"}, message="elsewhere")
    assert ask(sim) == {"code": 13, "data": {"host": "api.example.net"}, "message": "elsewhere"}
    assert sim.requests[-1].code == 13


def test_a_tasks_own_fault_comes_before_the_one_for_all(sim: Simulator) -> None:
    sim.faults = {7: simulator.code(3), None: simulator.code(15)}
    assert [ask(sim, task)["code"] for task in (7, 8, "abc")] == [3, 15, 15]


def test_a_fault_can_strike_a_number_of_times(sim: Simulator) -> None:
    sim.faults[None] = simulator.code(999).only(times=2)
    assert [ask(sim)["code"] for _ in range(4)] == [999, 999, 0, 0]


def test_a_fault_can_strike_now_and_then(sim: Simulator) -> None:
    sim.faults[7] = simulator.code(3).only(every=3, times=2)
    assert [ask(sim)["code"] for _ in range(10)] == [0, 0, 3, 0, 0, 3, 0, 0, 0, 0]


def test_everything_can_be_refused_between_two_moments(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock)) as sim:
        sim.faults[None] = simulator.refuse().only(since=10, until=20)
        codes = []
        for age in (9, 10, 19, 20):
            clock.now = 1000.0 + age
            codes.append(ask(sim)["code"])
    assert codes == [0, 30, 30, 0]
    assert (sim.accepted, sim.refused) == (2, 2)


@pytest.mark.parametrize(("limit", "code"), [("strict", 30), ("lenient", 0), ("window", 0)])
def test_a_refusal_by_a_fault_counts_as_a_refusal_by_the_limit(clock: Clock, limit: Limit, code: int) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, limit=limit, clock=clock)) as sim:
        sim.faults[None] = simulator.refuse().only(times=1)
        assert [ask(sim)["code"], ask(sim)["code"]] == [30, code]


def test_the_limit_sees_requests_that_meet_with_faults(clock: Clock) -> None:
    with SimulatorThread(Simulator({7: simulator.waiting()}, clock=clock)) as sim:
        sim.faults[None] = simulator.http(502)
        assert [post(sim).status_code, post(sim).status_code] == [502, 502]
    assert (sim.accepted, sim.refused) == (1, 1)
    assert [request.code for request in sim.requests] == [None, None]


def test_http_statuses_come_with_their_headers(sim: Simulator) -> None:
    sim.faults[7] = simulator.http(429, headers={"Retry-After": "17"}, body=b"slow down")
    response = post(sim)
    assert (response.status_code, response.headers["Retry-After"], response.content) == (
        429,
        "17",
        b"slow down",
    )


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b'{"code":0,"data":{"progress":NaN,"status":1}}', b"[" * 100_000, b"\xff\x00"]
)
def test_a_body_can_be_anything(sim: Simulator, content: bytes) -> None:
    sim.faults[7] = simulator.body(content)
    response = post(sim)
    assert (response.status_code, response.content) == (200, content)


def test_a_body_can_come_compressed(sim: Simulator) -> None:
    sim.faults[7] = simulator.body(gzip.compress(b" " * 1_000_000), headers={"Content-Encoding": "gzip"})
    assert len(post(sim).content) == 1_000_000


def test_a_redirect_leads_elsewhere(sim: Simulator) -> None:
    sim.faults[7] = simulator.redirect("http://127.0.0.1:9/", status=307)
    response = post(sim)
    assert (response.status_code, response.headers["Location"]) == (307, "http://127.0.0.1:9/")


def test_a_huge_body_stops_when_the_peer_leaves(sim: Simulator) -> None:
    sim.faults[7] = simulator.huge(2_000_000_000)
    with raw_request(sim) as peer:
        read = 0
        while read < 1_000_000:
            read += len(peer.recv(65536))
        assert sim.in_flight == 1
    sim.wait_for(lambda: sim.in_flight == 0)


@pytest.mark.parametrize("size", [100_000, 10])
def test_a_huge_body_is_as_long_as_asked_for(sim: Simulator, size: int) -> None:
    sim.faults[7] = simulator.huge(size)
    assert len(post(sim).content) == size


@pytest.mark.parametrize(("part", "pieces"), [("body", 50), ("headers", 120)])
def test_a_drip_brings_the_regular_answer_in_many_pieces(sim: Simulator, part: Any, pieces: int) -> None:
    sim.faults[7] = simulator.drip(0.001, part)
    received = []
    with raw_request(sim) as peer:
        while piece := peer.recv(65536):
            received.append(piece)
    # The kernel may put some bytes together, but not most of them.
    assert len(received) > pieces / 2
    head, _, body = b"".join(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert json.loads(body)["data"] == {"progress": 50, "status": 1}
    assert sim.requests[-1].code == 0


@pytest.mark.parametrize("part", ["body", "headers"])
def test_a_drip_is_valid_http(sim: Simulator, part: Any) -> None:
    sim.faults[7] = simulator.drip(0.0, part)
    assert ask(sim)["code"] == 0


def test_a_drip_ends_when_the_peer_leaves(sim: Simulator) -> None:
    sim.faults[7] = simulator.drip(0.05, "headers")
    with raw_request(sim) as peer:
        assert peer.recv(1) == b"H"
    sim.wait_for(lambda: sim.in_flight == 0)


def test_a_reset_aborts_the_connection(sim: Simulator) -> None:
    sim.faults[7] = simulator.reset()
    with raw_request(sim) as peer, pytest.raises(ConnectionResetError):
        peer.recv(1)
    sim.wait_for(lambda: sim.in_flight == 0)


def test_a_hanging_request_lasts_until_the_peer_leaves(sim: Simulator) -> None:
    sim.faults[7] = simulator.hang()
    with raw_request(sim):
        sim.wait_for(lambda: len(sim.requests) == 1)
        assert sim.in_flight == 1
    sim.wait_for(lambda: sim.in_flight == 0)
    assert sim.requests[0].code is None


@pytest.mark.parametrize(("then", "code"), [(None, 0), (simulator.code(3), 3)])
def test_a_delay_is_followed_by_an_answer(sim: Simulator, then: Fault | None, code: int) -> None:
    sim.faults[7] = simulator.delay(0.1, then)
    before = time.monotonic()
    assert ask(sim)["code"] == code
    assert time.monotonic() - before >= 0.1
    assert sim.requests[-1].code == code


def test_a_condition_that_does_not_come_true_is_a_timeout(sim: Simulator) -> None:
    with pytest.raises(TimeoutError):
        sim.wait_for(lambda: False, timeout=0.01)


# Starting and stopping


@pytest.mark.parametrize(
    "fault", [simulator.hang, lambda: simulator.drip(1.0), lambda: simulator.huge(2_000_000_000)]
)
def test_stop_is_quick_whatever_is_in_flight(fault: Callable[[], Fault]) -> None:
    peers = []
    with SimulatorThread(Simulator({7: simulator.waiting()}, limit="off")) as sim:
        sim.faults[None] = fault()
        peers = [raw_request(sim) for _ in range(20)]
        sim.wait_for(lambda: len(sim.requests) == 20)
        before = time.monotonic()
    assert time.monotonic() - before < 2.0
    assert sim.in_flight == 0
    for peer in peers:
        peer.close()


async def test_stop_does_not_wait_for_a_request_that_never_arrives_whole() -> None:
    other = Simulator({})
    await other.start()
    url = urlsplit(other.url)
    with socket.create_connection((str(url.hostname), url.port or 0), timeout=SOON) as peer:
        peer.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nid=")
        await asyncio.to_thread(other.wait_for, lambda: other.in_flight == 1)
        await asyncio.wait_for(other.stop(), 2)
    assert list(other.requests) == []


async def test_it_runs_in_a_loop_that_does_other_things_and_starts_again(clock: Clock) -> None:
    sim = Simulator({7: simulator.growing(100)}, limit="off", clock=clock)
    await sim.stop()
    await sim.start()
    port = urlsplit(sim.url).port
    assert port
    clock.now += 10
    assert (await asyncio.to_thread(ask, sim))["data"]["progress"] == 10
    await sim.stop()
    with pytest.raises(requests.ConnectionError):
        await asyncio.to_thread(ask, sim)
    await sim.start(port=port)
    clock.now += 10
    assert (await asyncio.to_thread(ask, sim))["data"]["progress"] == 20
    await sim.stop()


async def test_a_port_that_is_taken_is_an_os_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sim = Simulator({})
        with pytest.raises(OSError, match="address already in use"):
            await sim.start(port=taken.getsockname()[1])
        await sim.stop()


def test_a_thread_whose_simulator_cannot_start_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(host: str = "", port: int = 0) -> None:
        raise OSError("taken")

    unable, before = Simulator({}), set(threading.enumerate())
    monkeypatch.setattr(unable, "start", start)
    with pytest.raises(OSError, match="taken"):
        SimulatorThread(unable).__enter__()
    assert set(threading.enumerate()) <= before


async def test_an_ipv6_address_stands_in_brackets() -> None:
    sim = Simulator({})
    try:
        await sim.start("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    assert sim.url.startswith("http://[::1]:")
    await sim.stop()


def test_no_key_is_logged(sim: Simulator, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", logger="aiohttp")
    caplog.set_level("DEBUG", logger="asyncio")
    ask(sim)
    assert DEMO_KEY not in "".join(
        record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")
    )


# The demo


def _states(age: float) -> set[object]:
    said = [scenario(age) for _, scenario in simulator.demo_tasks()]
    return {answer if isinstance(answer, int) else int(answer[1]) for answer in said}


def test_the_demo_key_looks_like_one() -> None:
    assert len(DEMO_KEY) == 40
    assert DEMO_KEY.isalpha()


async def test_two_demos_have_an_address_each() -> None:
    first = await simulator.start_demo()
    second = await simulator.start_demo()
    try:
        assert first.url != second.url
        assert (await asyncio.to_thread(ask, second, 103))["data"] == {"progress": 100, "status": 2}
    finally:
        await first.stop()
        await second.stop()


def test_the_demo_has_distinct_named_tasks_some_with_labels() -> None:
    specs = [spec for spec, _ in simulator.demo_tasks()]
    assert len({spec.id for spec in specs}) == len({spec.name for spec in specs}) == len(specs) >= 10
    assert {True, False} == {bool(spec.labels) for spec in specs}


def test_the_demo_shows_every_state_within_two_minutes() -> None:
    # 2 is both "completed" and the code of a task that is not found, so the latter is looked for apart.
    assert set().union(*(_states(age) for age in range(120))) == {0, 1, 2, 3}
    at_once = [scenario(0) for _, scenario in simulator.demo_tasks()]
    assert NOT_FOUND in at_once
    assert (100, 2) in at_once
    assert any(isinstance(answer, tuple) and isinstance(answer[0], str) for answer in at_once)


@pytest.mark.parametrize("age", [0, 59, 130, 3600, 3 * 3600 + 50])
def test_the_demo_always_has_something_waiting_and_something_in_progress(age: float) -> None:
    assert {0, 1} <= _states(age)
