"""The command: flags, and the one place where everything is put together."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import platform
import random
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from exporter import __version__, revision
from exporter.config.reload import Reloader, Source
from exporter.config.settings import Account, Api, Config
from exporter.config.watch import ConfigWatch, WatchStatus
from exporter.errors import BindError, ConfigError
from exporter.log import FORMATS, LEVELS, configure
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.mobizon.threads import Workers
from exporter.model import Secret
from exporter.refresh.refresher import Refresher
from exporter.refresh.statefile import StateFile
from exporter.web import webconfig
from exporter.web.auth import protect
from exporter.web.routes import WAIT_WITHOUT_HEADER, Pages, hang_up_on_who_does_not_read
from exporter.web.server import Server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from exporter.web.tls import Tls

log = structlog.get_logger(__name__)

_TELEMETRY_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")
RENEWED_EVERY = 5.0  # seconds between looks at the certificates


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 1 for what cannot be used, 2 (by argparse) for wrong flags."""
    # Lists and snapshots are tens of thousands of objects without cycles: looking for cycles among them
    # as often as Python does by default takes longer than making them, and stops every thread meanwhile.
    # But asyncio leaves one behind for each connection, so memory would creep up if it were done rarely.
    gc.set_threshold(10_000, 20, 100)
    flags = _parser().parse_args(arguments)
    configure(flags.log_level, flags.log_format)
    try:
        if flags.config_check:
            if flags.web_config_file:
                webconfig.load(Path(flags.web_config_file))
            return _check(Path(flags.config_file))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
        status = asyncio.run(_run(flags))
    except ConfigError as error:
        print(error, file=sys.stderr)
    except BindError as error:
        print(f"mobizon-exporter: {error}", file=sys.stderr)
    else:
        _leave(status)
        return status
    return 1


def _leave(status: int) -> None:
    """End the process now if a thread would hold it up, in the look-up of a name or a dead file system."""
    waiting = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(thread.is_alive() and not thread.daemon for thread in waiting):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "mobizon-exporter",
        description="Prometheus exporter for the background tasks of Mobizon's SMS platform.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config.file", dest="config_file", metavar="PATH", default="config.yaml", help="the configuration")
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="validate the configuration and every task file, print what is wrong or a summary, and exit",
    )
    add("--demo", action="store_true", help="run against a built-in simulated Mobizon API")
    add("--state.file", dest="state_file", metavar="PATH", help="keep the last readings here across restarts")
    add(
        "--web.listen-address",
        dest="listen",
        metavar="ADDR",
        action="append",
        help="where to listen (repeatable; default :10117; port 0 picks a free one)",
    )
    add(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        type=_path,
        default="/metrics",
        help="where the metrics are",
    )
    add(
        "--web.config.file",
        dest="web_config_file",
        metavar="PATH",
        help="TLS, client certificates and basic auth, in the format of Prometheus's exporter-toolkit",
    )
    add("--web.enable-lifecycle", dest="lifecycle", action="store_true", help="allow POST /-/reload")
    add(
        "--scrape.timeout-offset",
        dest="timeout_offset",
        metavar="SECONDS",
        type=_seconds,
        default=0.5,
        help="taken off Prometheus's scrape timeout",
    )
    add("--log.level", dest="log_level", choices=LEVELS, default="info", help="least level logged")
    add("--log.format", dest="log_format", choices=FORMATS, default="logfmt", help="format of log lines")
    add("--version", action="version", version=_version())
    return parser


def _version() -> str:
    python = platform.python_version()
    return f"mobizon-exporter, version {__version__} (revision: {revision()}, python: {python})"


def _path(value: str) -> str:
    if not _TELEMETRY_PATH.fullmatch(value) or value.startswith(("/-/", "/api/", "/static/")):
        raise argparse.ArgumentTypeError(f"expected a path such as /metrics, got {value!r}")
    return value


def _seconds(value: str) -> float:
    seconds = float(value)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, got {value!r}")
    return seconds


def _check(path: Path) -> int:
    """Validate, and print all problems or what a full refresh takes."""
    watch = ConfigWatch(path)
    config = watch.load()
    problems = dict.fromkeys(watch.problems())  # a file of two accounts says the same of both
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    for account in config.accounts:
        print(f"{path}: {account.name + ': ' if account.name else ''}{_full_refresh(account)}")
    return 0


def _full_refresh(account: Account) -> str:
    """`24 tasks at 1 request/s: a full refresh takes 24 s; ...`."""
    interval, number = account.api.request_interval, len(account.tasks)
    takes = interval * number
    waits = (
        f"scrapes cannot wait for it, values will be up to {takes:g} s old"
        if takes - interval > WAIT_WITHOUT_HEADER
        else "scrapes wait for it"
    )
    return (
        f"{number} active task{'s' * (number != 1)} at {1 / interval:.3g} request{'s' * (interval != 1)}/s: "
        f"a full refresh takes {takes:g} s; {waits}"
    )


async def _run(flags: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    web = webconfig.load(Path(flags.web_config_file)) if flags.web_config_file else webconfig.WebConfig()
    async with contextlib.AsyncExitStack() as stack:
        if flags.demo:
            source, config = await _demo(stack)
        else:
            source = watch = ConfigWatch(Path(flags.config_file))
            config = watch.load()
            watch.tell()
        workers = Workers(loop)
        stack.callback(workers.close)
        refresher = Refresher(loop, workers.send, wall=time.time, rng=random.Random())  # noqa: S311 - spreads requests, keeps no secret
        refresher.apply(config)
        state = StateFile(Path(flags.state_file)) if flags.state_file else None
        if state:
            stack.callback(state.close)
            refresher.restore(state.read())
        reloader = Reloader(source, refresher.apply)
        stack.callback(reloader.close)
        exposition = Exposition(lambda: _snapshot(refresher, reloader))
        stack.callback(exposition.close)
        pages = Pages(
            refresher,
            exposition,
            telemetry_path=flags.telemetry_path,
            timeout_offset=flags.timeout_offset,
            check=reloader.check,
            reload=reloader.reload if flags.lifecycle else None,
        )
        app = pages.application()
        protect(app, web)
        app.middlewares.insert(0, hang_up_on_who_does_not_read)
        server = Server(app, web.tls.context if web.tls else None)
        if web.tls:
            renewing = loop.create_task(_renew(web.tls))
            stack.callback(renewing.cancel)
        listening = await server.start(flags.listen or [":10117"])
        if state:  # only now: a second process that cannot listen must not write into the file of the first
            stack.push_async_callback(state.save, None, refresher.memory)
            stack.callback(loop.create_task(state.keep(lambda: refresher.changes, refresher.memory)).cancel)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(reloader.reload_or_log())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        _tell_start(flags, config, listening)
        await stop.wait()
        log.info("Stopping")
        server.close()
        refresher.close()
        await server.stop()
    return 0


def _snapshot(refresher: Refresher, reloader: Reloader) -> Snapshot:
    status = reloader.status
    return Snapshot(refresher.views(), status.reload_successful, status.reloaded_at, status.task_file_errors)


def _tell_start(flags: argparse.Namespace, config: Config, listening: list[str]) -> None:
    for address in listening:
        log.info("Listening", address=address)
    log.info(
        "Started mobizon-exporter",
        version=__version__,
        revision=revision(),
        python=platform.python_version(),
        accounts=len(config.accounts),
        tasks=sum(len(account.tasks) for account in config.accounts),
    )
    for account in config.accounts:
        log.info(
            "Refreshing", **({"account": account.name} if account.name else {}), takes=_full_refresh(account)
        )
        host = urlsplit(account.api.url)
        if host.scheme == "http" and not _is_loopback(host.hostname or ""):
            log.warning("The API key travels unencrypted: the URL is not https", url=account.api.url)
    if flags.demo:
        port = listening[0].rpartition(":")[2]
        print(
            "Demo of mobizon-exporter, with a simulated Mobizon API:\n"
            f"  page     http://localhost:{port}/\n"
            f"  metrics  http://localhost:{port}{flags.telemetry_path}\n"
            "Within two minutes they have been in every state. Ctrl-C ends it.",
            flush=True,
        )


async def _renew(tls: Tls) -> None:
    """Take certificates that have been renewed, until cancelled."""
    while True:
        await asyncio.sleep(RENEWED_EVERY)
        await asyncio.to_thread(tls.renew)


async def _demo(stack: contextlib.AsyncExitStack) -> tuple[Source, Config]:
    """A simulated API with tasks in every state, and a configuration for it."""
    from exporter.simulator import DEMO_KEY, Simulator, demo_lives  # only the demo needs it

    tasks = demo_lives()
    simulator = Simulator({spec.id: life for spec, life in tasks}, latency=(0.05, 0.25))
    await simulator.start()
    stack.push_async_callback(simulator.stop)
    api = Api(simulator.url, Secret(DEMO_KEY))
    config = Config((Account(None, api, tuple(spec for spec, _ in tasks)),))
    return _Unchanging(), config


class _Unchanging:
    """The demo's configuration, which has no file."""

    def __init__(self) -> None:
        self.status = WatchStatus(reloaded_at=time.time())

    def check(self, *, force: bool = False) -> Config | None:  # noqa: ARG002 - of the protocol
        return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
