"""The API key gets out with the request and nowhere else: not when all goes wrong, at debug level neither."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import socket
import ssl
import traceback
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus, unquote_plus

import pytest
import requests

from exporter import output, simulator
from exporter.cli import main
from exporter.errors import ApiError, Reason
from exporter.log import FORMATS, configure
from exporter.mobizon.adapter import BoundedAdapter
from exporter.mobizon.client import PATH
from exporter.mobizon.response import parse
from exporter.model import Secret
from exporter.simulator import Simulator, SimulatorThread
from tests.support.asking import Sent, api, working
from tests.support.certificates import Authority
from tests.support.peers import (
    BROKEN,
    GIB,
    GOOD,
    SOON,
    Peer,
    Visit,
    after_request,
    head_of,
    sending,
    streaming,
)
from tests.support.processes import PATIENCE, ExporterProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PLAIN = "MarkerQ7Zk3VbN9xT1LwR5yPc8HdJ2mFs6GaEu4Kt0"
ODD = "Marker+Q7Zk/3VbN=9xT&1Lw%R5?yPc#8HdJ'2mF\"s6\\Ga"
KEYS = pytest.mark.parametrize("key", [PLAIN, ODD], ids=["plain", "odd"])
TIMEOUT = 1.0


def spellings(key: str) -> set[str]:
    """How a key may stand in a text: as it is, as URLs and JSON have it, and the ends of each."""
    whole = {key, quote(key, safe=""), quote_plus(key), quote(key), requests.utils.requote_uri(key)}
    whole |= {text.lower() for text in whole} | {key.replace("/", "\\/"), repr(key)[1:-1]}
    whole |= {key.replace("\\", "\\\\"), key.replace('"', '\\"')}
    # whoever cuts a text short may leave half a key
    return {part for text in whole for part in (text[:14], text[-14:])}


def assert_hidden(key: str, *texts: str) -> None:
    for text in texts:
        found = [spelling for spelling in spellings(key) if spelling in text]
        assert not found, text


def everything_printed(error: BaseException) -> list[str]:
    """All that printing an error, or what it was raised from, could show."""
    printed: list[str] = ["".join(traceback.format_exception(error))]
    seen: set[int] = set()
    links = [error]
    while links:
        link = links.pop()
        if id(link) not in seen:
            seen.add(id(link))
            printed += [
                str(link),
                repr(link),
                repr(link.args),
                repr(vars(link)),
                *getattr(link, "__notes__", []),
            ]
            links += [below for below in (link.__cause__, link.__context__) if below is not None]
    return printed


def status(line: str, *headers: str) -> Callable[[Visit], None]:
    return sending(head_of("Content-Length: 0", *headers, status=line))


def asked(visit: Visit) -> tuple[str, str]:
    """The next request's target, and the key in it."""
    head, _ = visit.request()
    target = head.decode().split(" ")[1]
    return target, unquote_plus(target.partition("apiKey=")[2])


def envelope(code: int, message: str, data: object = None) -> bytes:
    return json.dumps({"code": code, "data": data, "message": message}).encode()


def echoing(visit: Visit) -> None:
    """Answers an error whose message holds the request's URL, as it came and decoded."""
    target, key = asked(visit)
    text = "wrong: " * 18 + f"{key} {target} {quote(key, safe='').lower()} {'x' * 100} {key}"
    visit.answer(envelope(8, text))


def echoing_cut(visit: Visit) -> None:
    """Answers an error in which the key stands where a long message is cut."""
    _, key = asked(visit)
    visit.answer(envelope(13, "y" * 178 + " " + key, {"host": f"{key}.example"}))


def echoing_headers(visit: Visit) -> None:
    """Answers with the request's URL in places of the head."""
    target, _ = asked(visit)
    visit.answer(b"", f"Location: {target}", f"Retry-After: {target}", status=f"302 {target}")


def echoing_badly(visit: Visit) -> None:
    """Answers with the request's URL where the status line belongs."""
    target, _ = asked(visit)
    visit.send(f"POST {target} HTTP/1.1\r\n\r\n".encode())


def odd_headers(visit: Visit) -> None:
    """Answers with headers that urllib3 warns about, together with the whole URL."""
    visit.request()
    visit.send(head_of("X: 1", "no colon here", "Y: 2") + GOOD[:5])


PEERS: dict[str, Callable[[Visit], None]] = {
    **BROKEN,
    "status 401": status("401 Unauthorized"),
    "status 429": status("429 Too Many Requests", "Retry-After: 7"),
    "status 503": status("503 Unavailable"),
    "redirect": status("302 Found", "Location: http://127.0.0.1:1/"),
    "redirect to nowhere": status("302 Found", "Location: http://["),
    "not JSON": sending(head_of("Content-Length: 6") + b"<html>"),
    "brackets": sending(head_of("Content-Length: 60000") + b"[" * 60_000),
    "code": sending(head_of() + b'{"code":15,"data":null,"message":"x"}'),
    "echo in a message": echoing,
    "echo where a message is cut": echoing_cut,
    "echo in headers": echoing_headers,
    "echo as a status line": echoing_badly,
    "headers that cannot be parsed": odd_headers,
    "compressed": sending(head_of("Content-Encoding: gzip") + b"\x1f\x8b\x08"),
    "two gigabytes": streaming(head_of(f"Content-Length: {2 * GIB}")),
    "time-out before the answer": after_request(),
    "time-out within the answer": after_request(head_of("Connection: close", "Content-Length: 99"), GOOD[:9]),
}


@pytest.fixture(autouse=True)
def no_handlers_of_others() -> None:
    logging.getLogger().handlers = []


class Everything:
    """What one request printed, by whatever way: its outcome, log lines, and stderr and stdout."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def of(self, settings: Any, form: str = "logfmt") -> tuple[ApiError, str]:
        configure("debug", form)

        async def send() -> ApiError:
            asyncio.get_running_loop().set_debug(True)
            async with working() as threads:
                return await Sent(threads, settings).failure()

        error = asyncio.run(send())
        assert output.flush(PATIENCE)
        written = "".join(self._capsys.readouterr())
        assert "Request ended" in written  # so that something has been looked at
        return error, written


@pytest.fixture
def everything(capsys: pytest.CaptureFixture[str]) -> Everything:
    return Everything(capsys)


@KEYS
@pytest.mark.parametrize("kind", PEERS)
def test_a_failing_request_tells_nothing_of_the_key(everything: Everything, key: str, kind: str) -> None:
    slow = kind.startswith("time-out")

    def treat(visit: Visit) -> None:
        PEERS[kind](visit)
        if slow:
            visit.wait_until_gone()

    with Peer(treat) as peer:
        error, written = everything.of(api(peer.url, key, TIMEOUT if slow else SOON))
        if kind != "closed before the request":
            assert quote_plus(key).encode() in peer.heads[0]  # it did travel
    assert (error.reason is Reason.TIMEOUT) == slow
    assert_hidden(key, *everything_printed(error), written)


@KEYS
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_hidden_in_a_message_leaves_the_rest_of_it(
    everything: Everything, key: str, form: str
) -> None:
    def treat(visit: Visit) -> None:
        target, _ = asked(visit)
        visit.answer(envelope(8, f"cannot serve {target}, key {key}."))

    with Peer(treat) as peer:
        error, written = everything.of(api(peer.url, key), form)
    expected = f"code 8: cannot serve {PATH}?output=json&api=v1&apiKey=***, key ***."
    assert error.detail == expected
    assert expected in written


@KEYS
def test_failing_connections_tell_nothing_of_the_key(
    everything: Everything, key: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.server().files)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with ExitStack() as stack:
        secure = stack.enter_context(Peer(after_request(), tls=context))
        silent = stack.enter_context(Peer(lambda visit: visit.wait_until_gone()))
        refusing = stack.enter_context(Peer(status("407 Who are you")))
        password = PLAIN[::-1]
        proxy = Secret(refusing.url.replace("//", f"//somebody:{password}@"))
        cases = [
            api(dead, key),
            api(dead.replace("http", "https"), key),
            api(secure.url, key),
            api(silent.url.replace("http", "https"), key, TIMEOUT),
            api("https://127.0.0.1:1", key, proxy_url=proxy),
            api("http://127.0.0.1:1", key, proxy_url=proxy),
            api("http://127.0.0.1:1", key, proxy_url=Secret(dead)),
            api("https://127.0.0.1:1", key, ca_file=str(tmp_path / "missing.pem")),
            api("http://exa mple", key),
            api("http://" + "a" * 70 + ".example", key),
        ]
        for settings in cases:
            error, written = everything.of(settings)
            assert_hidden(key, *everything_printed(error), written)
            assert_hidden(password, *everything_printed(error), written)


@KEYS
def test_whatever_a_library_raises_is_translated_without_its_text(
    everything: Everything, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even an error that nobody thought of, and one while another is handled."""

    def fail(_: BoundedAdapter, request: requests.PreparedRequest, **how: Any) -> None:
        try:
            raise OSError(f"{request.url} {how} {key}")
        except OSError as error:
            raise RuntimeError(f"{request.url} {quote(key, safe='')}", key) from error

    monkeypatch.setattr(BoundedAdapter, "send", fail)
    error, written = everything.of(api("http://127.0.0.1:1", key))
    assert error.reason is Reason.CONNECTION_ERROR
    assert error.detail == "failed with RuntimeError"
    assert_hidden(key, *everything_printed(error), written)


def test_half_a_key_is_not_left_where_a_message_is_cut() -> None:
    with pytest.raises(ApiError) as caught:
        parse(envelope(3, "x" * 190 + PLAIN), 0.0, PLAIN)
    assert_hidden(PLAIN, caught.value.detail)
    assert caught.value.detail.endswith("***")


# Values that hold the key


@KEYS
def test_a_secret_shows_itself_only_when_asked(key: str) -> None:
    secret = Secret(key)
    settings = api("https://api.mobizon.example", key, proxy_url=Secret(f"http://u:{key}@proxy.example"))
    texts = [repr(secret), str(secret), f"{secret}", f"{secret!r:>5}", "%s" % secret, repr(settings)]  # noqa: UP031 - one more way
    texts += [repr(settings.key), str([secret]), str({"key": secret}), ascii(secret)]
    assert_hidden(key, *texts)
    assert secret.reveal() == key
    with pytest.raises(TypeError):
        pickle.dumps(secret)


# The whole program


def faults(key: str) -> dict[int | None, simulator.Fault]:
    """One kind of failure for each task; every message and header tries to bring the key along."""
    url = f"http://127.0.0.1:1{PATH}?output=json&api=v1&apiKey={quote_plus(key)}"
    return {
        1: simulator.code(3, message=f"{'x' * 185} {key}"),
        3: simulator.code(15, message=f"cannot serve {url}"),
        5: simulator.code(1, data={"apiKey": key}, message=f"\n{key}\r\n"),
        7: simulator.redirect(url),
        9: simulator.redirect("http://["),
        11: simulator.reset(),
        13: simulator.hang(),
        15: simulator.body(b"\x00<html>" + key.encode()),
        17: simulator.huge(2 * GIB),
        19: simulator.http(500, body=key.encode()),
        21: simulator.http(429, headers={"Retry-After": quote_plus(key)}),
        23: simulator.drip(0.05, "headers"),
        25: simulator.code(30, message=key),
        27: simulator.body(b'{"code":0,"data":{"progress":"' + PLAIN.encode() + b'","status":9}}'),
    }


@contextmanager
def started(form: str, *flags: str, environ: dict[str, str] | None = None) -> Iterator[ExporterProcess]:
    """The exporter, with logs of either format at debug level."""
    running = ExporterProcess("--log.level=debug", f"--log.format={form}", *flags, environ=environ)
    try:
        address = running.wait_for_line(r'address"?[=:] ?"?(127\.0\.0\.1:\d+)')
        running.url = f"http://{address[1]}"
        yield running
    finally:
        running.__exit__()


@pytest.mark.parametrize("form", FORMATS)
@KEYS
def test_nothing_that_leaves_a_running_exporter_holds_the_key(tmp_path: Path, key: str, form: str) -> None:
    key_file, config, state = tmp_path / "key", tmp_path / "config.yaml", tmp_path / "state.json"
    key_file.write_text(f"{key}\n")
    # a good task after each bad one, so that the account is not given up
    scenarios = {task_id: simulator.stalled(10) for task_id in range(2, 29, 2)}
    registry = tmp_path / "registry.json"
    printed: list[str] = []
    with SimulatorThread(Simulator(scenarios, keys=[key], limit="off")) as sim:
        sim.faults.update(faults(key))
        config.write_text(
            f"api: {{url: '{sim.url}', key_file: key, request_interval: 30ms, timeout: 300ms}}\n"
            f"tasks: {list(range(1, 29))}\n"
        )
        flags = (f"--config.file={config}", f"--state.file={state}", f"--registry.file={registry}")
        with started(form, *flags) as running:
            for task_id in (1, 2, 3, 40):
                assert requests.put(f"{running.url}/api/v1/tasks/{task_id}", timeout=PATIENCE).ok
            scrape_until_all_are_met(sim, running, printed)
            sim.faults[None] = simulator.code(8, message=f"wrong key {key}")
            tasks = [
                f"/api/v1/tasks/{task_id}{wait}"
                for task_id in (1, 40)
                for wait in ("", "/wait?timeout=200ms")
            ]
            for path in ("/metrics", "/", "/api/v1/tasks", *tasks, "/-/healthy", "/nowhere?apiKey=x"):
                answer = requests.get(running.url + path, timeout=PATIENCE)
                printed += [answer.text, str(answer.headers)]
            assert running.stop() == 0
        printed += [running.output(), state.read_text() if state.exists() else "", registry.read_text()]
    outcomes = "".join(printed)
    for reason in ("api_error", "http_error", "connection_error", "timeout", "invalid_response"):
        assert f'reason="{reason}"' in outcomes
    assert running.output().count("Request ended") >= len(scenarios)
    assert "***" in running.output()  # where a message held it
    assert {request.key for request in sim.requests} == {key}
    assert_hidden(key, *printed)


def scrape_until_all_are_met(sim: Simulator, running: ExporterProcess, printed: list[str]) -> None:
    """Scrape until every kind of failure has been met, and once more."""
    wanted = set(faults(""))
    met: set[int | None] = set()
    for _ in range(200):
        printed.append(running.scrape(timeout=2))
        if met >= wanted:
            return
        met |= {request.task_id for request in sim.requests}
    raise AssertionError(f"not asked for: {wanted - met}")


@KEYS
def test_a_key_that_cannot_be_used_is_not_shown(
    tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither when the exporter refuses to start, nor by a check of the configuration."""
    config = tmp_path / "config.yaml"
    twice, url = json.dumps(f"{key} {key}"), "https://api.mobizon.example"
    for written in (
        f"api: {{url: '{url}?apiKey={PLAIN}', key: x}}\ntasks: [1]\n",
        f"api:\n  url: {url}\n  key: {twice}\ntasks: [1]\n",
        f"api:\n  url: {url}\n  key: [{json.dumps(key)}]\ntasks: [1]\n",
    ):
        config.write_text(written)
        flags = [f"--config.file={config}", "--log.level=debug"]
        running = ExporterProcess(*flags)
        assert running.process.wait(PATIENCE) == 1
        running.__exit__()
        assert main([*flags, "--config.check"]) == 1
        checked = capsys.readouterr()
        for printed in (running.output(), checked.out + checked.err):
            assert "config.yaml:" in printed
            assert_hidden(key, printed)
            assert_hidden(PLAIN, printed)


def test_a_key_of_the_environment_does_not_show_either(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    with SimulatorThread(Simulator({1: simulator.stalled()}, keys=[PLAIN])) as sim:
        config.write_text(f"api: {{url: '{sim.url}'}}\ntasks: [1, 2]\n")
        with started("logfmt", f"--config.file={config}", environ={"MOBIZON_API_KEY": PLAIN}) as running:
            printed = running.scrape()
            assert running.stop() == 0
        assert sim.requests[0].key == PLAIN
    assert_hidden(PLAIN, printed, running.output())
