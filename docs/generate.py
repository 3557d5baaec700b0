"""Writes the references that follow from the code: `python docs/generate.py [directory]`.

`configuration.md` comes from the schema in exporter/config/settings.py, `metrics.md` from what
exporter/metrics/exposition.py renders. A test holds what is committed against what this would write.
"""

# ruff: noqa: INP001 - a script, no package
from __future__ import annotations

import asyncio
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_type_hints

from prometheus_client.parser import text_string_to_metric_families

from exporter.config import settings as config
from exporter.config.load import load_config
from exporter.errors import ConfigError, Reason
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.model import FINAL, AccountView, Durations, Failure, Reading, TaskSpec, TaskView
from exporter.refresh import backoff, pacing, task

if TYPE_CHECKING:
    from prometheus_client.core import Metric

_MISTAKEN: Final = b"""\
api:
  url: https://api.mobizon.kz
  key: put-your-api-key-here
  timeuot: 10s
"""


def _template(name: str) -> str:
    return (Path(__file__).parent / "templates" / f"{name}.md.in").read_text("utf-8")


def configuration() -> str:
    """The text of configuration.md."""
    return _template("configuration").format(
        file=_settings(config.ConfigFileSettings),
        api=_settings(config.ApiSettings),
        task=_settings(config.TaskSettings),
        reserved=", ".join(f"`{name}`" for name in sorted(config.RESERVED_LABELS)),
        errors=_mistakes(),
    )


def _settings(kind: type[Any]) -> str:
    hints = get_type_hints(kind)
    rows: list[tuple[str, ...]] = []
    for field in fields(kind):
        required = field.default is MISSING and field.default_factory is MISSING
        setting = f"`{field.name}{'' if required else _default(field.default, hints[field.name])}`"
        rows.append((f"{setting}, **required**" if required else setting, field.metadata["doc"]))
    return _table(("setting and default", "meaning"), rows)


def _default(value: Any, hint: Any) -> str:
    if hint in {config.Duration, config.Interval}:
        return f": {_duration(value)}"
    if value in (None, (), MISSING):
        return ""
    raise NotImplementedError(f"how to write the default {value!r}")


def _duration(seconds: float) -> str:
    """As the configuration has it: `5m` for 300."""
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return "0s" if seconds == 0 else f"{seconds * 1000:g}ms"


def _mistakes() -> str:
    try:
        load_config(Path("config.yaml"), {}, lambda _: _MISTAKEN)
    except ConfigError as error:
        return str(error)
    raise AssertionError("the mistaken example is valid")


_NOTES: Final = {
    "mobizon_task_status": "Other numbers are undocumented, exported as they are, and not final",
    "mobizon_task_up": "Absent before the first request",
    "mobizon_task_error": "Absent after a reading",
    "mobizon_up": (
        "1 even after failures of one task, such as `not_found`. Absent before the first response, and while "
        "no task is active"
    ),
    "mobizon_api_request_failures": "Every reason from 0 on",
    "mobizon_api_request_duration_seconds": "Includes failed requests",
    "mobizon_api_request_interval_seconds": "Above `request_interval` after refusals",
    "mobizon_task_duration_seconds": "The state file keeps the time of the first",
}
"""What the HELP text of a metric has no room for."""

_REASONS: Final = {
    Reason.NOT_FOUND: (
        "code 2",
        "task",
        "correct or remove the id: it is mistyped, deleted, or another account's",
    ),
    Reason.RATE_LIMITED: (
        "code 30, HTTP 429: too early",
        "nothing; spacing grows",
        "nothing if rare; else see [MobizonApiRateLimited](runbooks.md#mobizonapiratelimited)",
    ),
    Reason.UNAUTHORIZED: (
        "codes 8, 9, HTTP 401, 403: key wrong, expired, or without access",
        "account",
        "[replace the key](runbooks.md#mobizonapiunauthorized)",
    ),
    Reason.WRONG_HOST: (
        "code 13: account of another country's host",
        "account",
        "set `api.url` to the host in the log",
    ),
    Reason.ACCOUNT_BLOCKED: ("code 14: account blocked or deleted", "account", "ask Mobizon"),
    Reason.API_ERROR: ("any other code", "task", "ask Mobizon if it lasts; the log has the message"),
    Reason.HTTP_ERROR: (
        "any other HTTP status but 200",
        "task",
        "check `api.url` and proxy; it may be an outage",
    ),
    Reason.INVALID_RESPONSE: (
        "no JSON, no progress within 0-100, or over 64 KiB",
        "task",
        "read the log; a proxy's login page is one cause",
    ),
    Reason.TIMEOUT: ("no whole answer within `timeout`", "task", "check the network, or raise `timeout`"),
    Reason.CONNECTION_ERROR: (
        "network, DNS, TLS or proxy",
        "task",
        "check them; trust your own authority by `ca_file`",
    ),
}


_GENERAL: Final = {"task_id", "name", "account", "team", "le"}  # labels that the text describes


def metrics() -> str:
    """The text of metrics.md."""
    families = text_string_to_metric_families(asyncio.run(_exposition()))
    return _template("metrics").format(
        metrics=_table(
            ("metric", "type", "value"),
            [_metric(family) for family in families if family.name.startswith("mobizon_")],
        ),
        task_first=f"{task.FIRST_TASK_DELAY:g}",
        task_most=f"{task.MAX_TASK_DELAY:g}",
        account_first=f"{backoff.FIRST_ACCOUNT_DELAY:g}",
        account_most=f"{backoff.MAX_ACCOUNT_DELAY:g}",
        unreachable=backoff.UNREACHABLE_AFTER,
        refused=pacing.OUTAGE_AFTER,
        failed=backoff.FAILED_AFTER,
        reasons=_table(
            ("reason", "cause", "backs off", "what to do"),
            [(f"`{reason}`", *_REASONS[reason]) for reason in Reason],
        ),
    )


def _metric(family: Metric) -> tuple[str, ...]:
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels)
    own = ",".join(label for label in labels if label not in _GENERAL)
    name = family.name + ("_total" if family.type == "counter" else "") + (f"{{{own}}}" if own else "")
    value = f"{family.documentation} {_NOTES.get(family.name, '')}".strip().removesuffix(".")
    return f"`{name}`", family.type, value


async def _exposition() -> str:
    exposition = Exposition(_sample)
    text, _ = await exposition.render("text/plain", compress=False)
    exposition.close()
    return text.decode()


async def _sample() -> Snapshot:
    """An account with everything that there can be."""
    spec = TaskSpec(124, "spring-sale", {"team": "crm"})
    failure = Failure(Reason.TIMEOUT, "", 0.0)
    task = TaskView(spec, Reading(40.0, 1, 0.0), failure=failure)
    durations = Durations((1.0,), (1, 0), 0.1)
    account = AccountView(
        name="kazakhstan",
        url="https://api.mobizon.kz",
        up=True,
        backing_off=False,
        interval=1.0,
        spacing=1.0,
        due=0,
        active=1,
        requests=1,
        failures=dict.fromkeys(Reason, 0),
        durations=durations,
        tasks=(task,),
        finished=dict.fromkeys(sorted(FINAL), 0),
        task_durations=dict.fromkeys(sorted(FINAL), durations),
    )
    return Snapshot((account,))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    first, *others = (f"| {' | '.join(line)} |" for line in (head, *rows))
    return "\n".join((first, "|---" * len(head) + "|", *others))


def main() -> int:
    """Write both files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in (("configuration.md", configuration()), ("metrics.md", metrics())):
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
