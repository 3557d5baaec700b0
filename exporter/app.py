"""The composition root: builds every part, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from exporter import __version__, revision
from exporter.check import full_refresh
from exporter.config.reload import Reloader, Source
from exporter.config.watch import ConfigWatch, WatchStatus
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.mobizon.threads import Workers
from exporter.model import Account, Api, Config, Secret
from exporter.refresh.refresher import Refresher
from exporter.refresh.statefile import StateFile
from exporter.web import webconfig
from exporter.web.auth import protect
from exporter.web.routes import Pages, abort_slow_readers
from exporter.web.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.web.tls import Tls

log = structlog.get_logger(__name__)

RENEWED_EVERY = 5.0  # seconds between looks at the certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line chooses; without a `config_file` it is the demo. `timeout_offset` in seconds."""

    config_file: Path | None
    state_file: Path | None = None
    listen_addresses: tuple[str, ...] = (":10117",)
    telemetry_path: str = "/metrics"
    web_config_file: Path | None = None
    lifecycle: bool = False
    timeout_offset: float = 0.5


def run(options: Options) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises ConfigError and BindError."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    return asyncio.run(_serve(options))


async def _serve(options: Options) -> int:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    web = webconfig.load(options.web_config_file) if options.web_config_file else webconfig.WebConfig()
    async with contextlib.AsyncExitStack() as stack:
        if options.config_file is None:
            source, config = await _demo(stack)
        else:
            source = watch = ConfigWatch(options.config_file)
            config = watch.load()
            watch.log_problems()
        workers = Workers(loop)
        stack.callback(workers.close)
        refresher = Refresher(loop, workers.send, wall=time.time, rng=random.Random())  # noqa: S311 - spreads requests, keeps no secret
        refresher.apply(config)
        state = StateFile(options.state_file) if options.state_file else None
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
            telemetry_path=options.telemetry_path,
            timeout_offset=options.timeout_offset,
            check=reloader.check,
            reload=reloader.reload if options.lifecycle else None,
        )
        app = pages.application()
        protect(app, web)
        app.middlewares.insert(0, abort_slow_readers)
        server = Server(app, web.tls.context if web.tls else None)
        if web.tls:
            renewing = loop.create_task(_renew(web.tls))
            stack.callback(renewing.cancel)
        listening = await server.start(options.listen_addresses)
        if state:  # only now: a second process that cannot listen must not write into the file of the first
            stack.push_async_callback(state.save, None, refresher.memory)
            stack.callback(loop.create_task(state.keep(lambda: refresher.changes, refresher.memory)).cancel)
        reloads: set[asyncio.Task[None]] = set()

        def reload() -> None:
            task = loop.create_task(reloader.reload_or_log())
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        loop.add_signal_handler(signal.SIGHUP, reload)
        _log_start(options, config, listening)
        await stop.wait()
        log.info("Stopping")
        server.close()
        refresher.close()
        await server.stop()
    return 0


def _snapshot(refresher: Refresher, reloader: Reloader) -> Snapshot:
    status = reloader.status
    return Snapshot(refresher.views(), status.reload_successful, status.reloaded_at, status.task_file_errors)


def _log_start(options: Options, config: Config, listening: list[str]) -> None:
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
            "Refreshing", **({"account": account.name} if account.name else {}), takes=full_refresh(account)
        )
        host = urlsplit(account.api.url)
        if host.scheme == "http" and not _is_loopback(host.hostname or ""):
            log.warning("The API key travels unencrypted: the URL is not https", url=account.api.url)
    if options.config_file is None:
        from exporter.simulator import DEMO_KEY

        port = listening[0].rpartition(":")[2]
        print(
            "Demo of mobizon-exporter, with a simulated Mobizon API:\n"
            f"  page     http://localhost:{port}/\n"
            f"  metrics  http://localhost:{port}{options.telemetry_path}\n"
            f"  Mobizon  {config.accounts[0].api.url}, simulated, with the key {DEMO_KEY}\n"
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
    from exporter.simulator import DEMO_KEY, demo_tasks, start_demo  # only the demo needs it

    simulator = await start_demo()
    stack.push_async_callback(simulator.stop)
    api = Api(simulator.url, Secret(DEMO_KEY))
    config = Config((Account(None, api, tuple(spec for spec, _ in demo_tasks())),))
    return _Unchanging(), config


class _Unchanging:
    """The demo's configuration, which has no file."""

    def __init__(self) -> None:
        self.status = WatchStatus(reloaded_at=time.time())

    def check(self, *, force: bool = False) -> Config | None:  # noqa: ARG002 - of the protocol
        return None


def _is_loopback(host: str) -> bool:
    return host == "localhost" or host.startswith("127.") or host == "::1"
