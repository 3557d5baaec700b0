"""The composition root: builds every part, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import structlog

from exporter import __version__, output, revision
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
from exporter.web.routes import Pages
from exporter.web.sending import abort_slow_readers
from exporter.web.server import Server

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.signals import Signals
    from exporter.web.tls import RenewableTls
    from exporter.web.webconfig import WebConfig

log = structlog.get_logger(__name__)

CERTIFICATE_CHECK_INTERVAL: Final = 5.0  # seconds


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


def run(options: Options, signals: Signals) -> int:
    """Serve until SIGTERM or SIGINT; the exit status. Raises ConfigError, BindError and LimitError."""
    asyncio.run(_serve(options, signals))
    return 0


async def _serve(options: Options, signals: Signals) -> None:
    """Build everything, serve, and take it apart in the opposite order."""
    loop = asyncio.get_running_loop()
    web = webconfig.load(options.web_config_file) if options.web_config_file else webconfig.WebConfig()
    async with contextlib.AsyncExitStack() as stack:
        source, config = await _configuration(options, stack)
        refresher = _refresher(config, stack)
        state = StateFile(options.state_file) if options.state_file else None
        if state:
            refresher.restore(state.read())
        reloader = Reloader(source, refresher.apply)
        stack.callback(reloader.close)
        server = _server(options, web, refresher, reloader, stack)
        listening = await server.start(options.listen_addresses)
        if state:  # only now: a second process that cannot listen must not write into the file of the first
            _save_continuously(state, refresher, stack)
        stop = asyncio.Event()
        signals.on_stop(lambda: loop.call_soon_threadsafe(stop.set))
        _reload_on_hangup(signals, reloader)
        _log_start(options, config, listening)
        await stop.wait()
        log.info("Stopping")
        server.close()
        refresher.close()
        await server.stop()


async def _configuration(options: Options, stack: contextlib.AsyncExitStack) -> tuple[Source, Config]:
    """Where configurations come from, and the first one."""
    if options.config_file is None:
        return await _demo(stack)
    watch = ConfigWatch(options.config_file)
    config = watch.load()
    watch.log_problems()
    return watch, config


def _refresher(config: Config, stack: contextlib.AsyncExitStack) -> Refresher:
    """The refresher with its threads, and the configuration in force."""
    loop = asyncio.get_running_loop()
    workers = Workers(loop)
    stack.callback(workers.close)
    refresher = Refresher(loop, workers.send, wall=time.time, rng=random.Random())  # noqa: S311 - spreads requests, keeps no secret
    refresher.apply(config)
    return refresher


def _server(
    options: Options,
    web: WebConfig,
    refresher: Refresher,
    reloader: Reloader,
    stack: contextlib.AsyncExitStack,
) -> Server:
    """The HTTP side, ready to listen."""

    def snapshot() -> Snapshot:
        status = reloader.status
        return Snapshot(
            refresher.views(), status.reload_successful, status.reloaded_at, status.task_file_errors
        )

    exposition = Exposition(snapshot)
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
    if web.tls:
        threads = ThreadPoolExecutor(1, thread_name_prefix="tls")
        stack.callback(threads.shutdown, wait=False, cancel_futures=True)
        stack.callback(asyncio.create_task(_renew(web.tls, threads)).cancel)
    return Server(app, web.tls.context if web.tls else None)


async def _renew(tls: RenewableTls, threads: ThreadPoolExecutor) -> None:
    """Take certificates that have been renewed, until cancelled."""
    while True:
        await asyncio.sleep(CERTIFICATE_CHECK_INTERVAL)
        await asyncio.get_running_loop().run_in_executor(threads, tls.renew)


def _save_continuously(state: StateFile, refresher: Refresher, stack: contextlib.AsyncExitStack) -> None:
    """Save what changes from now on, and all of it at the end."""
    stack.callback(state.close)
    stack.push_async_callback(state.save_finally, refresher.memory)
    stack.callback(asyncio.create_task(state.keep(lambda: refresher.changes, refresher.memory)).cancel)


def _reload_on_hangup(signals: Signals, reloader: Reloader) -> None:
    loop = asyncio.get_running_loop()
    reloads: set[asyncio.Task[None]] = set()  # the loop itself would not keep them alive

    def reload() -> None:
        task = loop.create_task(reloader.reload_or_log())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    signals.on_hangup(lambda: loop.call_soon_threadsafe(reload))


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
        output.stdout.write(
            "Demo of mobizon-exporter, with a simulated Mobizon API:\n"
            f"  page     http://localhost:{port}/\n"
            f"  metrics  http://localhost:{port}{options.telemetry_path}\n"
            f"  Mobizon  {config.accounts[0].api.url}, simulated, with the key {DEMO_KEY}\n"
            "Within two minutes they have been in every state. Ctrl-C ends it."
        )


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
