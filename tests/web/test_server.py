"""The HTTP side, on a process of its own."""

import contextlib
import gzip
import http.client
import json
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bcrypt
import pytest
import requests

from exporter import simulator as sim
from exporter.cli import main
from exporter.simulator import Simulator, SimulatorThread
from exporter.web import sending
from exporter.web.server import MIN_FILES
from tests.support.certificates import Authority
from tests.support.processes import PATIENCE, ExporterProcess, Samples, write_config


@pytest.fixture(scope="module")
def api() -> Iterator[Simulator]:
    with SimulatorThread(Simulator({1: sim.stalled(at=50), 2: sim.completed()}, limit="off")) as running:
        yield running


@pytest.fixture(scope="module")
def exporter(api: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    config = write_config(tmp_path_factory.mktemp("server"), api.url, [1, 2], interval="20ms")
    with ExporterProcess("--config.file", str(config), "--web.enable-lifecycle") as running:
        yield running
        assert running.stop() == 0


def raw(exporter: ExporterProcess, data: bytes, *, timeout: float = 15.0) -> bytes:
    """What comes back for these very bytes, until the exporter closes."""
    host, port = exporter.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as connection:
        received = b""
        try:
            connection.sendall(data)
            while chunk := connection.recv(65536):
                received += chunk
        except ConnectionError:
            pass  # closed in the face of what it had not read
        return received


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready"])
def test_health_is_answered(exporter: ExporterProcess, path: str) -> None:
    answer = requests.get(exporter.url + path, timeout=5)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path", ["/nowhere", "/metrics/", "/-/", "/-/quit", "/favicon.ico", "/static/", "//"]
)
def test_anything_else_is_404(exporter: ExporterProcess, path: str) -> None:
    connection = http.client.HTTPConnection(exporter.url.removeprefix("http://"), timeout=5)
    with contextlib.closing(connection):  # some versions of requests make one slash of two
        connection.request("GET", path)
        assert connection.getresponse().status == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/metrics", "GET"),
        ("DELETE", "/", "GET"),
        ("PUT", "/-/healthy", "GET"),
        ("GET", "/-/reload", "POST"),
    ],
)
def test_a_wrong_method_is_405_and_told_which_is_right(
    exporter: ExporterProcess, method: str, path: str, allowed: str
) -> None:
    answer = requests.request(method, exporter.url + path, timeout=5)
    assert answer.status_code == 405
    assert allowed in answer.headers["Allow"]


def test_head_is_answered_without_a_body(exporter: ExporterProcess) -> None:
    answer = requests.head(exporter.url + "/metrics", timeout=15)
    assert answer.status_code == 200
    assert answer.content == b""


def test_the_format_is_negotiated(exporter: ExporterProcess) -> None:
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    answer = requests.get(exporter.url + "/metrics", headers={"Accept": accept}, timeout=15)
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    answer = requests.get(exporter.url + "/metrics", timeout=15)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize(
    ("accepted", "packed"),
    [("gzip", True), ("deflate, gzip;q=0.8", True), ("gzip;q=0", False), ("identity", False), ("", False)],
)
def test_gzip_is_used_where_it_is_accepted(exporter: ExporterProcess, accepted: str, packed: bool) -> None:
    with requests.get(
        exporter.url + "/metrics", headers={"Accept-Encoding": accepted}, stream=True, timeout=15
    ) as answer:
        body = answer.raw.read(decode_content=False)
    assert (answer.headers.get("Content-Encoding") == "gzip") is packed
    assert b"mobizon_up 1.0" in (gzip.decompress(body) if packed else body)


@pytest.mark.parametrize("header", ["nonsense", "-3", "nan", "inf", ""])
def test_an_odd_scrape_timeout_is_as_good_as_none(exporter: ExporterProcess, header: str) -> None:
    headers = {"X-Prometheus-Scrape-Timeout-Seconds": header}
    assert requests.get(exporter.url + "/metrics", headers=headers, timeout=15).status_code == 200


def test_a_reload_by_request_takes_a_new_configuration_or_says_what_is_wrong(
    api: Simulator, tmp_path: Path
) -> None:
    config = write_config(tmp_path, api.url, [1], interval="20ms")
    with ExporterProcess("--config.file", str(config), "--web.enable-lifecycle") as exporter:
        good = config.read_text()
        config.write_text(good.replace("tasks: [1]", "tasks: [1, 2]"))
        assert requests.post(exporter.url + "/-/reload", timeout=5).status_code == 200
        assert Samples(exporter.scrape()).value("mobizon_task_progress", task_id="2") == 100
        config.write_text(good.replace("tasks: [1]", "tasks: [zwei]"))
        answer = requests.post(exporter.url + "/-/reload", timeout=5)
        assert answer.status_code == 500
        assert "config.yaml:5: tasks[0]: expected a positive integer, got 'zwei'" in answer.text
        samples = Samples(exporter.scrape())
        assert samples.value("mobizon_task_progress", task_id="2") == 100
        assert samples.value("mobizon_exporter_config_last_reload_successful") == 0
        config.write_text(good)
        assert requests.post(exporter.url + "/-/reload", timeout=5).status_code == 200
        samples = Samples(exporter.scrape())
        assert samples.value("mobizon_task_up", task_id="2") is None
        assert samples.value("mobizon_exporter_config_last_reload_successful") == 1


def test_a_reload_by_signal_does_the_same(api: Simulator, tmp_path: Path) -> None:
    config = write_config(tmp_path, api.url, [1], interval="20ms")
    with ExporterProcess("--config.file", str(config)) as exporter:
        config.write_text(config.read_text().replace("tasks: [1]", "tasks: [zwei]"))
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_line(r"level=error .*tasks\[0\]: expected a positive integer")
        config.write_text(config.read_text().replace("tasks: [zwei]", "tasks: [2]"))
        exporter.process.send_signal(signal.SIGHUP)
        exporter.wait_for_line("Configuration reloaded")
        assert Samples(exporter.scrape()).value("mobizon_task_status", task_id="2") == 2


def test_without_the_flag_a_reload_is_forbidden(api: Simulator, tmp_path: Path) -> None:
    with ExporterProcess("--config.file", str(write_config(tmp_path, api.url, [1]))) as exporter:
        assert requests.post(exporter.url + "/-/reload", timeout=5).status_code == 403


def test_a_list_that_changes_is_taken_at_the_next_scrape(api: Simulator, tmp_path: Path) -> None:
    config = write_config(tmp_path, api.url, [1], interval="20ms")
    config.write_text(config.read_text() + "task_files: ['*.json']\n")
    with ExporterProcess("--config.file", str(config)) as exporter:
        exporter.scrape()
        (tmp_path / "new.json").write_text(json.dumps([{"id": 2, "name": "dropped"}]))
        samples = exporter.scrapes_until(lambda samples: samples.all("mobizon_task_status", task_id="2"))
        assert samples.value("mobizon_task_status", task_id="2", name="dropped") == 2
        (tmp_path / "new.json").write_text("[{")
        samples = exporter.scrapes_until(lambda samples: samples.value("mobizon_exporter_task_file_errors"))
        assert samples.value("mobizon_task_status", task_id="2") == 2
        (tmp_path / "new.json").unlink()
        samples = exporter.scrapes_until(lambda samples: not samples.all("mobizon_task_status", task_id="2"))
        assert samples.value("mobizon_exporter_task_file_errors") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_waiting_scrapes_are_answered_when_it_is_told_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.stalled(), 2: sim.stalled()})) as api:
        api.faults[2] = sim.hang()
        config = write_config(tmp_path, api.url, [1, 2], extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config)) as exporter, ThreadPoolExecutor(20) as pool:
            scrapes = [pool.submit(exporter.scrape, 60.0) for _ in range(20)]
            api.wait_for(lambda: {r.task_id for r in api.requests} == {1, 2})
            began = time.monotonic()
            assert exporter.stop(number) == 0
            assert time.monotonic() - began < 5
            for scrape in scrapes:
                assert Samples(scrape.result()).value("mobizon_task_progress", task_id="1") == 50


def test_a_port_that_is_taken_is_one_clear_line_and_exit_1(exporter: ExporterProcess, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", [1])
    taken = exporter.url.removeprefix("http://")
    other = ExporterProcess("--config.file", str(config), f"--web.listen-address={taken}")
    assert other.process.wait(30) == 1
    other.__exit__()
    assert other.lines[-1] == f"mobizon-exporter: cannot listen on '{taken}': address already in use\n"
    assert "Traceback" not in other.output()


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:99999", "127.0.0.1:http", "256.256.256.256:0"])
def test_an_address_that_cannot_be_had_is_one_clear_line_and_exit_1(address: str, tmp_path: Path) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", [1])
    other = ExporterProcess("--config.file", str(config), f"--web.listen-address={address}")
    assert other.process.wait(30) == 1
    other.__exit__()
    assert f"cannot listen on '{address}'" in other.lines[-1]
    assert "Traceback" not in other.output()


def test_it_listens_at_several_addresses_and_over_both_protocols(api: Simulator, tmp_path: Path) -> None:
    config = write_config(tmp_path, api.url, [1])
    with ExporterProcess("--config.file", str(config), "--web.listen-address=:0") as exporter:
        port = exporter.wait_for_line(r"Listening address=\[::\]:(\d+)").group(1)
        for host in ("127.0.0.1", "[::1]"):
            assert requests.get(f"http://{host}:{port}/-/ready", timeout=5).ok
        assert requests.get(f"{exporter.url}/-/ready", timeout=5).ok


GARBAGE = {
    "no HTTP": b"\x16\x03\x01\x00\xff" + bytes(range(256)),
    "only line ends": b"\r\n" * 5000,
    "a header of 200 KB": b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "200 KB of headers": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 25_000 + b"\r\n",
    "a URL of 200 KB": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "two lengths": (
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"
    ),
    "length and chunks": (
        b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
    ),
    "a bad chunk": b"POST /-/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative length": b"POST /-/reload HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    "a bare line feed": b"GET /metrics HTTP/1.1\nHost: x\n\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "a space in a header's name": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a NUL": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_a_4xx_or_a_close_and_never_a_traceback(exporter: ExporterProcess, name: str) -> None:
    answer = raw(exporter, GARBAGE[name] + b"")
    statuses = re.findall(rb"^HTTP/1\.[01] (\d)", answer, re.MULTILINE)
    assert set(statuses) <= {b"4"}, answer[:300]
    assert "Traceback" not in exporter.output()
    assert requests.get(exporter.url + "/-/healthy", timeout=5).ok


def test_pipelined_requests_are_answered_in_order(exporter: ExporterProcess) -> None:
    request = b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET /-/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    answer = raw(exporter, request % b"/-/healthy" + request % b"/none" + last)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_a_body_that_is_declared_and_never_sent_holds_up_nobody(exporter: ExporterProcess) -> None:
    answer = raw(
        exporter, b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", timeout=60
    )
    assert answer.startswith(b"HTTP/1.1 405")
    assert requests.get(exporter.url + "/-/healthy", timeout=5).ok


def test_nothing_of_the_platform_is_told(exporter: ExporterProcess) -> None:
    for path in ("/", "/-/healthy", "/nowhere"):
        assert requests.get(exporter.url + path, timeout=5).headers["Server"] == "mobizon-exporter"
    assert b"Server: mobizon-exporter\r\n" in raw(exporter, b"nonsense\r\n\r\n")


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text; version=x", "text/plain; version=x.y", "text/plain; version=", ";;,,="],
)
def test_an_odd_accept_header_gets_the_text_format(exporter: ExporterProcess, accept: str) -> None:
    answer = requests.get(exporter.url + "/metrics", headers={"Accept": accept}, timeout=15)
    assert answer.status_code == 200
    assert "Traceback" not in exporter.output()


HEADERS = {
    "/": {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        "Referrer-Policy": "no-referrer",
        "Content-Language": "ru",
        "Vary": "Accept-Language, Accept-Encoding",
        "Content-Encoding": "gzip",
    },
    "/api/v1/tasks": {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding",
        "Content-Encoding": "gzip",
    },
    "/metrics": {"Vary": "Accept, Accept-Encoding", "Content-Encoding": "gzip"},
    "/static/status.css": {"Content-Type": "text/css; charset=utf-8", "Cache-Control": "no-cache"},
    "/static/status.js": {"Content-Type": "text/javascript; charset=utf-8"},
}


@pytest.mark.parametrize("path", HEADERS)
def test_answers_carry_their_headers(exporter: ExporterProcess, path: str) -> None:
    answer = requests.get(exporter.url + path, headers={"Accept-Language": "ru"}, timeout=15)
    assert answer.status_code == 200
    found = {name: answer.headers.get(name) for name in HEADERS[path]}
    assert found == HEADERS[path]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_files_of_the_page_may_be_kept_as_long_as_they_are_what_it_asked_for(
    exporter: ExporterProcess,
) -> None:
    page = requests.get(exporter.url, timeout=15).text
    for link in re.findall(r'"(static/[^"]+)"', page):
        answer = requests.get(f"{exporter.url}/{link}", timeout=5)
        assert "immutable" in answer.headers["Cache-Control"]
        other = requests.get(f"{exporter.url}/{link}0", timeout=5)
        assert other.headers["Cache-Control"] == "no-cache"


def test_the_json_holds_what_the_page_shows(exporter: ExporterProcess) -> None:
    exporter.scrape()
    tasks = requests.get(exporter.url + "/api/v1/tasks", timeout=15).json()["tasks"]
    assert [(task["id"], task["state"]) for task in tasks] == [(1, "in_progress"), (2, "completed")]


@pytest.mark.parametrize("path", ["/", "/api/v1/tasks"])
def test_a_look_asks_the_api_and_the_files_but_does_not_wait(path: str, tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.stalled(), 2: sim.stalled()}, limit="off")) as api:
        api.faults[1] = sim.hang()
        config = write_config(tmp_path, api.url, [1], extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config)) as exporter:
            began = time.monotonic()
            assert requests.get(exporter.url + path, timeout=15).ok
            assert time.monotonic() - began < 2
            api.wait_for(lambda: [r.task_id for r in api.requests] == [1])
            config.write_text(config.read_text().replace("tasks: [1]", "tasks: [1, 2]"))
            deadline = time.monotonic() + 15
            while 2 not in {r.task_id for r in api.requests}:
                assert requests.get(exporter.url + path, timeout=15).ok
                assert time.monotonic() < deadline


@pytest.mark.parametrize(
    "path", ["//x", "/a/../b", "/..", "/%6d", "metrics", "/", "/a b", "/-/x", "/api/v1/x"]
)
def test_a_telemetry_path_that_cannot_work_is_refused(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--web.telemetry-path", path])
    assert ended.value.code == 2
    assert "expected a path such as /metrics" in capsys.readouterr().err


@pytest.mark.parametrize("offset", ["abc", "", "-1", "nan", "inf"])
def test_an_offset_that_is_no_time_is_refused(offset: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--scrape.timeout-offset={offset}"])
    assert ended.value.code == 2
    assert f"expected seconds, got '{offset}'" in capsys.readouterr().err


def test_the_metrics_are_where_the_flag_says(api: Simulator, tmp_path: Path) -> None:
    config = write_config(tmp_path, api.url, [1])
    flags = ["--config.file", str(config), "--web.telemetry-path=/probe/metrics.txt"]
    with ExporterProcess(*flags) as exporter:
        assert "mobizon_up 1.0" in requests.get(exporter.url + "/probe/metrics.txt", timeout=15).text
        assert requests.get(exporter.url + "/metrics", timeout=15).status_code == 404
        assert 'href="./probe/metrics.txt"' in requests.get(exporter.url, timeout=15).text


def test_the_offset_is_taken_off_the_scrape_timeout(tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.stalled()})) as api:
        api.faults[1] = sim.hang()
        config = write_config(tmp_path, api.url, [1], extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config), "--scrape.timeout-offset=3") as exporter:
            began = time.monotonic()
            exporter.scrape(5.0)
            assert 1.5 < time.monotonic() - began < 4.0


def test_users_certificates_and_headers_of_the_web_file_are_in_force(api: Simulator, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
    web = tmp_path / "web.yaml"
    web.write_text(
        f"tls_server_config: {{cert_file: {pair.cert.name}, key_file: {pair.key.name}}}\n"
        "http_server_config: {headers: {X-Frame-Options: deny}}\n"
        f"basic_auth_users: {{prometheus: '{hashed}'}}\n"
    )
    config = write_config(tmp_path, api.url, [1], interval="20ms")
    flags = ["--config.file", str(config), "--web.config.file", str(web)]
    with ExporterProcess(*flags) as exporter:
        url = exporter.url.replace("http:", "https:")
        with requests.Session() as client:
            client.trust_env = False
            client.verify = str(authority.cert)
            for path in (
                "/",
                "/metrics",
                "/api/v1/tasks",
                "/static/status.js",
                "/-/healthy",
                "/-/ready",
                "/no",
            ):
                refused = client.get(url + path, timeout=15)
                assert refused.status_code == 401
                assert refused.headers["X-Frame-Options"] == "deny"
                answer = client.get(url + path, auth=("prometheus", "secret"), timeout=15)
                assert answer.status_code == (404 if path == "/no" else 200)
        first = ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2])))
        renewed = authority.server("renewed")
        renewed.key.replace(pair.key)
        renewed.cert.replace(pair.cert)
        exporter.wait_for_line("TLS files reloaded")
        assert ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2]))) != first


@pytest.mark.parametrize("flags", [[], ["--config.check"]])
def test_a_web_file_that_cannot_be_used_is_told_and_exit_1(
    flags: list[str], api: Simulator, tmp_path: Path
) -> None:
    config = write_config(tmp_path, api.url, [1])
    web = tmp_path / "web.yaml"
    web.write_text("tls_server_config: {cert_file: none.crt, key_file: none.key}\n")
    exporter = ExporterProcess("--config.file", str(config), "--web.config.file", str(web), *flags)
    assert exporter.process.wait(30) == 1
    exporter.__exit__()
    assert "web.yaml:1: tls_server_config.cert_file: " in exporter.output()
    assert "Traceback" not in exporter.output()


def test_it_stops_in_time_with_peers_that_do_not_read_and_idle_connections(tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.stalled()}, limit="off")) as api:
        config = write_config(tmp_path, api.url, [1], interval="20ms")
        with ExporterProcess("--config.file", str(config)) as exporter:
            host, port = exporter.url.removeprefix("http://").split(":")
            peers = []
            for _ in range(20):
                peer = socket.socket()
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                peer.connect((host, int(port)))
                peer.sendall(b"GET /static/status.css HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
                peers.append(peer)
            idle = requests.Session()
            assert idle.get(exporter.url + "/-/ready", timeout=5).ok
            began = time.monotonic()
            assert exporter.stop() == 0
            assert time.monotonic() - began < 5
            for peer in peers:
                peer.close()
            idle.close()


def test_a_peer_that_takes_no_answers_is_hung_up_on(api: Simulator, tmp_path: Path) -> None:
    """After a second in the place of thirty."""
    assert sending.SEND_TIMEOUT == 30
    program = (
        "from exporter.web import sending; sending.SEND_TIMEOUT = 1;"
        "from exporter.__main__ import main; main()"
    )
    config = write_config(tmp_path, api.url, [1])
    with (
        ExporterProcess("--config.file", str(config), program=("-c", program)) as exporter,
        socket.socket() as peer,
    ):
        host, port = exporter.url.removeprefix("http://").split(":")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        peer.connect((host, int(port)))
        peer.settimeout(60)
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            # the exporter takes requests until its answers find no room, and then waits
            peer.sendall(b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000_000)
        assert time.monotonic() - began >= 1


@pytest.mark.parametrize("files", [100, 200, MIN_FILES - 1])
def test_a_limit_of_open_files_that_is_too_low_is_one_clear_line_and_exit_1(
    files: int, tmp_path: Path
) -> None:
    config = write_config(tmp_path, "http://127.0.0.1:1", [1])
    exporter = ExporterProcess("--config.file", str(config), most_files=files)
    assert exporter.process.wait(30) == 1
    exporter.__exit__()
    assert exporter.output() == (
        f"mobizon-exporter: the limit of open files is {files}, and at least {MIN_FILES} are needed:"
        " raise it (ulimit -n, LimitNOFILE=)\n"
    )


def test_the_least_limit_of_open_files_is_enough_for_requests_and_scrapes(
    api: Simulator, tmp_path: Path
) -> None:
    with SimulatorThread(Simulator({n: sim.stalled() for n in range(1, 200)}, limit="off")) as hanging:
        hanging.faults[None] = sim.hang()
        config = write_config(
            tmp_path, hanging.url, list(range(1, 200)), interval="1ms", extra="  timeout: 60s\n"
        )
        with ExporterProcess("--config.file", str(config), most_files=MIN_FILES) as exporter:
            assert requests.get(exporter.url, timeout=5).ok  # which asks for every task
            hanging.wait_for(lambda: hanging.in_flight >= MIN_FILES // 8)
            with ThreadPoolExecutor(50) as pool:
                assert all(pool.map(exporter.scrape, [1.0] * 50, [PATIENCE] * 50))


def test_more_peers_than_there_are_files_for_are_turned_away_in_silence(
    api: Simulator, tmp_path: Path
) -> None:
    config = write_config(tmp_path, api.url, [1], interval="20ms")
    with ExporterProcess("--config.file", str(config), most_files=400) as exporter:
        host, port = exporter.url.removeprefix("http://").split(":")
        peers = [socket.create_connection((host, int(port))) for _ in range(300)]
        for peer in peers:
            peer.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(requests.RequestException):  # also a time-out, on a busy machine
                assert requests.get(exporter.url + "/-/healthy", timeout=5).ok
                break
            assert time.monotonic() < deadline
        assert "Traceback" not in exporter.output()
        assert exporter.stop() == 0
        assert len(exporter.lines) < 20


def test_health_is_instant_while_fifty_scrapes_wait(tmp_path: Path) -> None:
    with SimulatorThread(Simulator({1: sim.stalled()})) as api:
        api.faults[1] = sim.hang()
        config = write_config(tmp_path, api.url, [1], extra="  timeout: 60s\n")
        with ExporterProcess("--config.file", str(config)) as exporter, ThreadPoolExecutor(50) as pool:
            scrapes = [pool.submit(exporter.scrape, 5.0) for _ in range(50)]
            api.wait_for(lambda: len(api.requests) == 1)
            for _ in range(20):
                assert requests.get(exporter.url + "/-/healthy", timeout=5).ok
            assert not any(scrape.done() for scrape in scrapes), "they take 4.5 s"
            assert all("mobizon_up" in scrape.result() or scrape.result() for scrape in scrapes)


def test_the_demo_says_where_to_look_and_stops_cleanly() -> None:
    with ExporterProcess("--demo") as exporter:
        port = exporter.url.rpartition(":")[2]
        exporter.wait_for_line(f"status page  http://localhost:{port}/")
        exporter.wait_for_line(f"metrics      http://localhost:{port}/metrics")
        assert requests.get(exporter.url + "/-/ready", timeout=5).ok
        watcher = threading.Thread(target=lambda: requests.get(exporter.url + "/metrics", timeout=15))
        watcher.start()
        exporter.wait_for_line("Task changed state")
        assert exporter.stop() == 0
        watcher.join()
        assert "Traceback" not in exporter.output()
