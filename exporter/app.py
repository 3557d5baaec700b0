"""The composition root: builds every part, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from exporter import startlog
from exporter.config.registry import Registry
from exporter.config.registry_file import RegistryFile
from exporter.config.reload import Reloader, Source
from exporter.config.watch import ConfigWatch, WatchStatus
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.mobizon.sender import Sender
from exporter.model import Account, Api, Config, Secret
from exporter.refresh.refresher import Refresher
from exporter.refresh.statefile import StateFile, identity
from exporter.slices import in_slices
from exporter.web import webconfig
from exporter.web.auth import protect
from exporter.web.routes import Pages
from exporter.web.sending import abort_slow_readers
from exporter.web.server import Server
from exporter.web.task_api import TaskApi

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.config.registry import FinalReadings, PutInForce
    from exporter.signals import Signals
    from exporter.web.tls import RenewableTls
    from exporter.web.webconfig import WebConfig

log = structlog.get_logger(__name__)

CERTIFICATE_CHECK_INTERVAL: Final = 5.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line chooses; durations in seconds. Without a `config_file` it is the demo."""

    config_file: Path | None
    state_file: Path | None = None
    registry_file: Path | None = None
    keep_finished: float = 7 * 86400.0
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
    web = (
        webconfig.load_web_config(options.web_config_file)
        if options.web_config_file
        else webconfig.WebConfig()
    )
    async with contextlib.AsyncExitStack() as stack:
        source, config = await _configuration(options, stack)
        registry = _registry(options, lambda *new: _put_in_force(refresher, *new), stack)
        refresher = _refresher(registry, stack)
        apply = registry.apply if registry else refresher.apply
        apply(config)
        state = StateFile(options.state_file) if options.state_file else None
        if state:
            refresher.restore(state.read())
        reloader = Reloader(source, apply)
        stack.callback(reloader.close)
        server = _server(options, web, refresher, registry, reloader, stack)
        listening = await server.start(options.listen_addresses)
        if state:  # only now: a second process that cannot listen must not write into the file of the first
            _save_continuously(state, refresher, stack)
        stop = asyncio.Event()
        signals.on_stop(lambda: loop.call_soon_threadsafe(stop.set))
        _reload_on_hangup(signals, reloader)
        startlog.log_start(config, listening)
        if options.registry_file:
            startlog.warn_of_open_registry(web, listening)
        if options.config_file is None:
            startlog.print_demo(config, listening, options.telemetry_path)
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


def _registry(
    options: Options, put_in_force: PutInForce, stack: contextlib.AsyncExitStack
) -> Registry | None:
    """The registered tasks; those of a demo need not outlive it. Raises ConfigError if they are in use."""
    file = RegistryFile(options.registry_file) if options.registry_file else None
    if options.config_file and not file:
        return None
    registry = Registry(file, put_in_force, keep_finished=options.keep_finished)
    stack.push_async_callback(registry.close)
    registry.open()
    return registry


def _refresher(registry: Registry | None, stack: contextlib.AsyncExitStack) -> Refresher:
    """The refresher with what sends its requests; the registry learns of tasks that finish."""
    loop = asyncio.get_running_loop()
    sender = Sender(loop)
    stack.callback(sender.close)
    refresher = Refresher(
        loop,
        sender.send,
        wall=time.time,
        rng=random.Random(),  # noqa: S311 - spreads requests, keeps no secret
        finished=registry.finished if registry else None,
    )
    if registry:
        stack.callback(asyncio.create_task(registry.keep(refresher.task_view)).cancel)
    return refresher


def _put_in_force(refresher: Refresher, config: Config, final: FinalReadings) -> None:
    """Have the refresher take a configuration with registered tasks, and what the registry knows of them."""
    refresher.apply(config)
    if final:
        refresher.restore(
            {identity(account): dict(final.get(account.name, {})) for account in config.accounts}
        )


def _server(  # noqa: PLR0913, PLR0917 - the composer's table of parts
    options: Options,
    web: WebConfig,
    refresher: Refresher,
    registry: Registry | None,
    reloader: Reloader,
    stack: contextlib.AsyncExitStack,
) -> Server:
    """The HTTP side, ready to listen."""

    async def snapshot() -> Snapshot:
        accounts, status = await in_slices(refresher.views()), reloader.status
        return Snapshot(accounts, status.reload_successful, status.reloaded_at, status.task_file_errors)

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
    TaskApi(refresher, registry, reloader.check).add_to(app)
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
