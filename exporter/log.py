"""Logs as Prometheus's components write them: logfmt or JSON lines on stderr."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from exporter import output

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
    """Write structlog's lines and the warnings of libraries to stderr, from `level` on; never blocks."""
    import structlog  # takes longer than all that has to be done before

    shared: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", key="ts"),
        structlog.stdlib.add_log_level,
        _short_level,
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    render = structlog.processors.JSONRenderer(ensure_ascii=False) if form == "json" else _logfmt
    structlog.configure(
        processors=[*shared, _order_fields, render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _StderrLogger(),
        cache_logger_on_first_use=False,
    )
    foreign = _StderrHandler()
    foreign.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _order_fields, render],
        )
    )
    # Libraries are heard from warnings on: at lower levels they print URLs with keys.
    logging.basicConfig(handlers=[foreign], level=max(LEVELS[level], logging.WARNING), force=True)

    def describe_loss(lines: int) -> str:
        event: Any = {"event": "Log lines dropped, stderr not read", "lines": lines}
        for processor in (*shared, _order_fields, render):
            event = processor(None, "warning", event)
        return str(event)

    output.stderr.describe_loss = describe_loss


class _StderrLogger:
    """The end of structlog's chain."""

    def msg(self, line: str) -> None:
        output.stderr.write(line)

    debug = info = warning = error = critical = exception = log = msg


class _StderrHandler(logging.Handler):
    """The end of logging's chain."""

    def emit(self, record: logging.LogRecord) -> None:
        output.stderr.write(self.format(record))


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


def _order_fields(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """`ts`, `level` and `msg` first, and values as both formats can carry them."""
    keys = dict.fromkeys([key for key in ("ts", "level", "msg") if key in event] + list(event))
    return {key: event[key] if isinstance(event[key], int | float | str) else str(event[key]) for key in keys}
