"""The command line: flags and exit status.

What takes long to import is imported where it is used: flags are checked before.
"""

from __future__ import annotations

import argparse
import gc
import platform
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from exporter import __version__, output, revision
from exporter.errors import BindError, ConfigError, LimitError
from exporter.log import FORMATS, LEVELS, configure
from exporter.signals import Signals, force_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MAX_FLUSH: Final = 1.0  # seconds that the end of the process waits for a log that is not read
_TELEMETRY_PATH: Final = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)+")


def main(arguments: Sequence[str] | None = None, signals: Signals | None = None) -> int:
    """Run the command; its exit status: 1 for what cannot be used, 2 (by argparse) for wrong flags."""
    signals = signals or Signals()
    flags = parser().parse_args(arguments)
    configure(flags.log_level, flags.log_format)
    if flags.config_check or flags.probe:
        signals.restore()  # a check that is interrupted must not end with 0, as if all were well
        status = _status_of(lambda: _check(flags) if flags.config_check else _probe(flags))
        output.flush(MAX_FLUSH)
        return status
    with signals:
        status = _status_of(lambda: _serve(flags, signals))
        if not output.flush(MAX_FLUSH) or _threads_are_left():
            force_exit(status)
        return status


def _serve(flags: argparse.Namespace, signals: Signals) -> int:
    from exporter import app

    # Lists and snapshots are tens of thousands of objects without cycles: looking for cycles among them
    # as often as Python does by default takes longer than making them, and stops every thread meanwhile.
    # But asyncio leaves one behind for each connection, so memory would creep up if it were done rarely.
    gc.set_threshold(10_000, 20, 100)
    options = app.Options(
        config_file=None if flags.demo else Path(flags.config_file),
        state_file=_path_or_none(flags.state_file),
        registry_file=_path_or_none(flags.registry_file),
        keep_finished=flags.keep_finished,
        listen_addresses=tuple(flags.listen or [":10117"]),
        telemetry_path=flags.telemetry_path,
        web_config_file=_path_or_none(flags.web_config_file),
        lifecycle=flags.lifecycle,
        timeout_offset=flags.timeout_offset,
    )
    return app.run(options, signals)


def _check(flags: argparse.Namespace) -> int:
    from exporter import check

    return check.check(Path(flags.config_file), _path_or_none(flags.web_config_file))


def _probe(flags: argparse.Namespace) -> int:
    from exporter import probe

    return probe.probe(Path(flags.config_file), flags.probe, flags.probe_account)


def _status_of(command: Callable[[], int]) -> int:
    """The command's exit status; 1 and what is wrong on stderr where it cannot be run."""
    try:
        return command()
    except ConfigError as error:
        output.stderr.write(str(error))
    except (BindError, LimitError) as error:
        output.stderr.write(f"mobizon-exporter: {error}")
    return 1


def _threads_are_left() -> bool:
    """Whether a thread would hold up the end, in the look-up of a name or a dead file system."""
    return any(
        thread.is_alive() and not thread.daemon and thread is not threading.main_thread()
        for thread in threading.enumerate()
    )


def _path_or_none(value: str | None) -> Path | None:
    return Path(value) if value else None


def parser() -> argparse.ArgumentParser:
    """Every flag there is."""
    parser_ = argparse.ArgumentParser(
        "mobizon-exporter",
        description="Prometheus exporter for the background tasks of Mobizon's SMS platform.",
        allow_abbrev=False,
    )
    add = parser_.add_argument
    add(
        "--config.file",
        dest="config_file",
        metavar="PATH",
        default="config.yaml",
        help="configuration file (default %(default)s)",
    )
    add(
        "--config.check",
        dest="config_check",
        action="store_true",
        help="validate the configuration and every task file, print the errors or a summary, and exit",
    )
    add(
        "--probe",
        dest="probe",
        metavar="ID",
        type=_task_id,
        help="send one getStatus request for this task, print Mobizon's raw answer and how it is understood,"
        " and exit; the request counts against the rate limit of an exporter that runs with the same key",
    )
    add(
        "--probe.account",
        dest="probe_account",
        metavar="NAME",
        help="account that --probe asks; required if several are configured",
    )
    add(
        "--demo",
        action="store_true",
        help="run against a built-in simulated Mobizon API; needs no key and no configuration",
    )
    add(
        "--state.file",
        dest="state_file",
        metavar="PATH",
        help="file that keeps the last readings across restarts (default none)",
    )
    add(
        "--registry.file",
        dest="registry_file",
        metavar="PATH",
        help="file that keeps tasks registered over HTTP; enables their registration (default none)",
    )
    add(
        "--registry.keep-finished",
        dest="keep_finished",
        metavar="DURATION",
        type=_duration,
        default="7d",
        help="how long a registered task is kept after it has finished (default %(default)s)",
    )
    add(
        "--web.listen-address",
        dest="listen",
        metavar="ADDR",
        action="append",
        help="address to listen on, repeatable; port 0 picks a free port (default :10117)",
    )
    add(
        "--web.telemetry-path",
        dest="telemetry_path",
        metavar="PATH",
        type=_path,
        default="/metrics",
        help="path under which metrics are exposed (default %(default)s)",
    )
    add(
        "--web.config.file",
        dest="web_config_file",
        metavar="PATH",
        help="file that configures TLS, client certificates and basic auth, as for Prometheus exporters"
        " (default none)",
    )
    add(
        "--web.enable-lifecycle",
        dest="lifecycle",
        action="store_true",
        help="enable reloading the configuration by POST /-/reload",
    )
    add(
        "--scrape.timeout-offset",
        dest="timeout_offset",
        metavar="SECONDS",
        type=_seconds,
        default=0.5,
        help="seconds to subtract from Prometheus's scrape timeout (default %(default)s)",
    )
    add(
        "--log.level",
        dest="log_level",
        choices=LEVELS,
        default="info",
        help="lowest level to log (default %(default)s)",
    )
    add(
        "--log.format",
        dest="log_format",
        choices=FORMATS,
        default="logfmt",
        help="format of log lines (default %(default)s)",
    )
    add("--version", action="version", version=_version())
    return parser_


def _version() -> str:
    python = platform.python_version()
    return f"mobizon-exporter, version {__version__} (revision: {revision()}, python: {python})"


def _task_id(value: str) -> int:
    from exporter.config.settings import check_task_id

    try:
        return check_task_id(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _path(value: str) -> str:
    if not _TELEMETRY_PATH.fullmatch(value) or value.startswith(("/-/", "/api/", "/static/")):
        raise argparse.ArgumentTypeError(f"expected a path such as /metrics, got {value!r}")
    return value


def _duration(value: str) -> float:
    from exporter.config.settings import interval

    try:
        return interval(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _seconds(value: str) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"expected seconds, got {value!r}")
    return seconds
