"""Slow, silent and idle peers by the hundred, over plain HTTP and TLS, while scrapes wait."""

import asyncio
import gc
import resource
import socket
import ssl
import statistics
import time
from pathlib import Path

import pytest
import requests

from exporter import simulator as sim
from exporter.simulator import Simulator, SimulatorThread
from tests.support.certificates import Authority
from tests.support.processes import PATIENCE, ExporterProcess, write_config

pytestmark = pytest.mark.alone

SLOW, IDLE, WAITING = 500, 200, 50
REQUEST = "GET {} HTTP/1.1\r\nHost: x\r\nX-Prometheus-Scrape-Timeout-Seconds: 25\r\n\r\n"


@pytest.fixture(autouse=True)
def enough_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))


async def get(port: int, tls: ssl.SSLContext | None, path: str) -> tuple[bytes, float]:
    """The head of an answer, and the seconds it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1" if tls else None
    )
    writer.write(REQUEST.format(path).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    took = time.monotonic() - began
    writer.close()
    return head, took


async def drip(port: int, tls: ssl.SSLContext | None, number: int) -> float:
    """Sends nothing, a byte a second, or (over TLS) not even a whole hello; seconds until dropped."""
    began = time.monotonic()
    silent_hello = tls is not None and number % 3 == 2
    reader, writer = await asyncio.open_connection(
        "127.0.0.1",
        port,
        ssl=None if silent_hello else tls,
        server_hostname="127.0.0.1" if tls and not silent_hello else None,
    )
    if silent_hello:
        writer.write(b"\x16\x03\x01\x02\x00\x01")
    text = REQUEST.format("/metrics").encode()
    dropped = asyncio.ensure_future(reader.read())
    for at in range(60):
        if number % 3 == 1:
            writer.write(text[at : at + 1])
        done, _ = await asyncio.wait([dropped], timeout=1)
        if done:
            break
    dropped.cancel()
    await asyncio.gather(dropped, return_exceptions=True)
    writer.transport.abort()
    return time.monotonic() - began


async def idle(port: int, tls: ssl.SSLContext | None) -> asyncio.StreamWriter:
    """A connection that was used once and is kept open."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls, server_hostname="127.0.0.1" if tls else None
    )
    writer.write(REQUEST.format("/-/healthy").encode())
    await reader.readuntil(b"\r\n\r\n")
    return writer


async def attack(port: int, tls: ssl.SSLContext | None, quiet: int) -> dict[str, list[float]]:
    """What an exporter's peers see of it, and what those of a `quiet` one on the same machine do."""
    kept = await asyncio.gather(*(idle(port, tls) for _ in range(IDLE)))
    scrapes = [asyncio.ensure_future(get(port, tls, "/metrics")) for _ in range(WAITING)]
    drips = [asyncio.ensure_future(drip(port, tls, number)) for number in range(SLOW)]
    figures: dict[str, list[float]] = {"health": [], "quiet": []}
    while not all(scrape.done() for scrape in scrapes):
        for name, address in (("health", (port, tls)), ("quiet", (quiet, None))):
            head, took = await get(*address, "/-/healthy")
            assert head.startswith(b"HTTP/1.1 200")
            figures[name].append(took)
        await asyncio.wait(scrapes, timeout=0.2)
    for scrape in scrapes:
        assert scrape.result()[0].startswith(b"HTTP/1.1 200")
    dropped = await asyncio.gather(*drips)
    for writer in kept:
        writer.transport.abort()
    return {**figures, "scrapes": [scrape.result()[1] for scrape in scrapes], "dropped": dropped}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # peers that are dropped leave transports behind
def test_slow_silent_and_idle_peers_harm_nobody(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    (tmp_path / "web.yaml").write_text(
        f"tls_server_config: {{cert_file: {pair.cert.name}, key_file: {pair.key.name}}}\n"
    )
    web = ("--web.config.file", str(tmp_path / "web.yaml"))
    trusting = ssl.create_default_context(cafile=str(authority.cert))
    with SimulatorThread(Simulator({1: sim.stalled()})) as api:
        api.faults[1] = sim.hang()  # so that scrapes wait
        config = ("--config.file", str(write_config(tmp_path, api.url, [1], extra="  timeout: 8s\n")))
        with (
            ExporterProcess(*config) as plain,
            ExporterProcess(*config, *web) as encrypted,
            ExporterProcess(*config) as quiet,
        ):
            attacked = {"plain": plain, "tls": encrypted}
            ports = [int(one.url.rpartition(":")[2]) for one in (plain, encrypted, quiet)]
            before = {over: one.memory() for over, one in attacked.items()}

            async def attacks() -> dict[str, dict[str, list[float]]]:
                both = attack(ports[0], None, ports[2]), attack(ports[1], trusting, ports[2])
                return dict(zip(attacked, await asyncio.gather(*both), strict=True))

            results = asyncio.run(attacks())
            gc.collect()  # here, for in a later test the warnings would fail that one
            peaks = {over: one.memory("VmHWM") for over, one in attacked.items()}
            for one in attacked.values():
                assert one.stop() == 0
                assert "Traceback" not in one.output()
    for over, figures in results.items():
        health, at_rest = statistics.median(figures["health"]), statistics.median(figures["quiet"])
        print(
            f"{over}: health {health * 1000:.0f} ms ({at_rest * 1000:.0f} ms of an exporter at rest),"
            f" scrapes served within {max(figures['scrapes']):.1f} s, the last slow peer dropped after"
            f" {max(figures['dropped']):.0f} s, memory {before[over] / 1e6:.0f} to {peaks[over] / 1e6:.0f} MB"
        )
        assert len(figures["health"]) >= 10, "it is answered while scrapes wait"
        assert health < 5 * at_rest + 0.05
        assert max(figures["dropped"]) < 60
        assert peaks[over] < 200e6


def test_a_thousand_peers_that_have_hung_up_cost_nothing_any_more(tmp_path: Path) -> None:
    """The tasks stay due, and each answer is news to every scrape that waits."""
    listed = list(range(1, 401))
    with SimulatorThread(Simulator({number: sim.stalled() for number in listed}, limit="off")) as api:
        config = write_config(tmp_path, api.url, listed, interval="100ms")
        with ExporterProcess("--config.file", str(config)) as exporter:
            address = ("127.0.0.1", int(exporter.url.rpartition(":")[2]))

            def cpu_of(seconds: float) -> float:
                before = exporter.cpu_seconds()
                time.sleep(seconds)
                return exporter.cpu_seconds() - before

            assert requests.get(exporter.url + "/api/v1/tasks", timeout=5).ok  # which asks for every task
            before, files = cpu_of(2), exporter.open_files()
            for path in ("/metrics", "/", "/api/v1/tasks"):
                for _ in range(1000):
                    with socket.create_connection(address) as peer:
                        peer.sendall(
                            f"GET {path} HTTP/1.1\r\nHost: x\r\n"
                            "X-Prometheus-Scrape-Timeout-Seconds: 300\r\n\r\n".encode()
                        )
                deadline = time.monotonic() + PATIENCE
                while exporter.open_files() > files + 2:
                    assert time.monotonic() < deadline, f"{path}: connections stay open"
                    time.sleep(0.05)
                after = cpu_of(2)
                print(f"{path}: CPU in 2 s {before:.2f} s before, {after:.2f} s after")
                assert after < 2 * before + 0.1, path
                assert len({request.task_id for request in api.requests}) < len(listed), "some are still due"
            assert exporter.stop() == 0
            assert "Traceback" not in exporter.output()
