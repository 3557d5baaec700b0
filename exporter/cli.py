"""The command line: flags and exit status."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import re
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import __version__, app, check, revision
from exporter.errors import BindError, ConfigError
from exporter.log import FORMATS, LEVELS, configure

if TYPE_CHECKING:
    from collections.abc import Sequence

_TELEMETRY_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit status: 1 for what cannot be used, 2 (by argparse) for wrong flags."""
    # Lists and snapshots are tens of thousands of objects without cycles: looking for cycles among them
    # as often as Python does by default takes longer than making them, and stops every thread meanwhile.
    # But asyncio leaves one behind for each connection, so memory would creep up if it were done rarely.
    gc.set_threshold(10_000, 20, 100)
    flags = parser().parse_args(arguments)
    configure(flags.log_level, flags.log_format)
    web_config_file = Path(flags.web_config_file) if flags.web_config_file else None
    try:
        if flags.config_check:
            return check.check(Path(flags.config_file), web_config_file)
        status = app.run(
            app.Options(
                config_file=None if flags.demo else Path(flags.config_file),
                state_file=Path(flags.state_file) if flags.state_file else None,
                listen_addresses=tuple(flags.listen or [":10117"]),
                telemetry_path=flags.telemetry_path,
                web_config_file=web_config_file,
                lifecycle=flags.lifecycle,
                timeout_offset=flags.timeout_offset,
            )
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
    except BindError as error:
        print(f"mobizon-exporter: {error}", file=sys.stderr)
    else:
        _force_exit(status)
        return status
    return 1


def _force_exit(status: int) -> None:
    """End the process now if a thread would hold it up, in the look-up of a name or a dead file system."""
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    if any(thread.is_alive() and not thread.daemon for thread in others):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def parser() -> argparse.ArgumentParser:
    """Every flag there is."""
    parser_ = argparse.ArgumentParser(
        "mobizon-exporter",
        description="Prometheus exporter for the background tasks of Mobizon's SMS platform.",
        allow_abbrev=False,
    )
    add = parser_.add_argument
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
    return parser_


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
