"""Logs as Prometheus's components write them: logfmt or JSON lines on stderr."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS: Final = ("logfmt", "json")


def configure(level: str, form: str) -> None:
    """Write structlog's lines, and warnings of libraries, to stderr from `level` on."""
    shared: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", key="ts"),
        structlog.stdlib.add_log_level,
        _short_level,
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    renderer = structlog.processors.JSONRenderer(ensure_ascii=False) if form == "json" else _logfmt
    structlog.configure(
        processors=[*shared, _plain, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _Line(),
        cache_logger_on_first_use=False,
    )
    foreign = logging.StreamHandler(sys.stderr)
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _plain, renderer],
        )
    )
    # Of libraries only trouble is told: at lower levels they print what they are given, URLs with keys, too.
    logging.basicConfig(handlers=[foreign], level=max(LEVELS[level], logging.WARNING), force=True)


class _Line:
    """Writes lines to stderr; a full disk or a closed pipe there costs the lines and nothing else."""

    def msg(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()

    debug = info = warning = error = critical = exception = log = msg


def _short_level(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """`warn`, as the flag has it."""
    event["level"] = "warn" if event["level"] == "warning" else event["level"]
    return event


def _logfmt(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """`ts=... level=warn msg="two words" ...`, on one line whatever the values hold."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in event.items())


def _quoted(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text.isprintable() and not set(text) & set(' ="\\'):
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(text)


def _plain(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """What every line says first, and values as both formats can carry them."""
    keys = dict.fromkeys([key for key in ("ts", "level", "msg") if key in event] + list(event))
    return {key: event[key] if isinstance(event[key], int | float | str) else str(event[key]) for key in keys}
