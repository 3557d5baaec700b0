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
from exporter.config.load import load
from exporter.errors import ConfigError, Reason
from exporter.metrics.exposition import Exposition
from exporter.metrics.families import Snapshot
from exporter.model import FINAL, STATES, AccountView, Durations, Failure, Reading, Secret, TaskSpec, TaskView
from exporter.refresh import backoff, task

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# How a value of each type is written. A type that is missing here fails the test, and so asks to be told.
_WRITTEN: Final[dict[Any, str]] = {
    config.Url: "URL",
    config.Duration: "duration",
    config.Interval: "duration above zero",
    config.ProxyUrl | None: "URL",
    Secret | None: "text without spaces",
    str | None: "text",
    str: "text",
    config.TaskId: "task id",
    config.Labels: "mapping of label names to texts",
    tuple[str, ...]: "list of globs",
    tuple[TaskSpec, ...]: "list of task ids and [tasks](#a-task)",
    config.ApiSettings: "[`api`](#api)",
    config.ApiSettings | None: "[`api`](#api)",
    tuple[config.AccountSettings, ...] | None: "list of [accounts](#an-account)",
}

_CONFIGURATION: Final = """\
# Configuration

<!-- Written by `python docs/generate.py` from exporter/config/settings.py: change it there. -->

One YAML file, `--config.file`, by default `config.yaml`. [config.example.yaml](../config.example.yaml) has
every setting with a comment. To know whether a file is good before the exporter has to:

```sh
mobizon-exporter --config.check --config.file=config.example.yaml
```

It reads the file and every task file, sends nothing, and prints every mistake with its file, line and path,
or how long a full refresh takes. The exit status is 0 or 1.

## The file

{file}

## `api`

{api}

`url` and one way to the key are all that is needed. The key comes from `key`, or from the file that
`key_file` names, or, with neither, from the environment variable `{variable}`. A key file that changes is
read again, as the configuration is.

## A task

{task}

A task that needs neither name nor labels is written as its bare id.

## An account

{account}

With `accounts`, the settings `api`, `tasks` and `task_files` do not stand at the top level. Every series of
an account carries the label `account`. Two accounts may not share a key, because the budget of requests is
the key's.

## Task files

Each file that a glob of `task_files` finds holds a list like `tasks`, in YAML or JSON. A file with a mistake
keeps its own last good tasks and holds up no other; an id that is already listed is passed over. Either shows
in the log, and in `mobizon_exporter_task_file_errors`. Write a file beside, under a name that no glob finds,
and rename it into place.

## Values

- **Durations** are those of Prometheus: `500ms`, `5s`, `1h30m`, `2d`.
- **Task ids** are positive decimal numbers as written. `0123`, `1_000` and `12:30` are errors, not other
  numbers.
- **Label names** are letters, digits and `_`, and do not begin with a digit. Reserved:
  {reserved},
  and names that begin with `__`.
- **Paths and globs** are relative to the configuration file.
- **Unknown keys, duplicate keys and duplicate ids** are errors.

All mistakes are told at once. This file

```yaml
# mistaken.yaml
{mistaken}```

is answered with

```text
{told}
```

## When it is read

The file, the key files and the task files are looked at with every scrape and read again when they have
changed; on SIGHUP, and on `POST /-/reload` where `--web.enable-lifecycle` allows it, always. A file that is
not valid changes nothing: the last good configuration stays in force, the log says why, and
`mobizon_exporter_config_last_reload_successful` is 0. A reload keeps what is known of the tasks that stay,
and the spacing of requests.
"""

_MISTAKEN: Final = """\
api:
  url: https://api.mobizon.kz
  key_fil: mobizon_key
tasks:
  - 0123
  - {id: 124, labels: {job: crm}}
stale_after: 5 minutes
"""


def configuration() -> str:
    """The text of configuration.md."""
    return _CONFIGURATION.format(
        file=_settings(config.ConfigFileSettings),
        api=_settings(config.ApiSettings),
        task=_settings(config.TaskSettings),
        account=_settings(config.AccountSettings),
        variable=config.KEY_VARIABLE,
        reserved=", ".join(f"`{name}`" for name in sorted(config.RESERVED_LABELS)),
        mistaken=_MISTAKEN,
        told=_mistakes(),
    )


def _settings(kind: type[Any]) -> str:
    hints = get_type_hints(kind)
    rows: list[tuple[str, ...]] = []
    for field in fields(kind):
        required = field.default is MISSING and field.default_factory is MISSING
        default = "**required**" if required else _default(field.default, hints[field.name])
        rows.append((f"`{field.name}`", _WRITTEN[hints[field.name]], default, field.metadata["doc"]))
    return _table(("setting", "value", "default", "meaning"), rows)


def _default(value: Any, hint: Any) -> str:
    if hint in {config.Duration, config.Interval}:
        return f"`{_duration(value)}`"
    if value in (None, (), MISSING):
        return "none"
    raise NotImplementedError(f"how to write the default {value!r}")


def _duration(seconds: float) -> str:
    """As the configuration has it: `5m` for 300."""
    for unit, length in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= length and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return "0s" if seconds == 0 else f"{seconds * 1000:g}ms"


def _mistakes() -> str:
    try:
        load(Path("mistaken.yaml"), {}, lambda _: b"# mistaken.yaml\n" + _MISTAKEN.encode())
    except ConfigError as error:
        return str(error)
    raise AssertionError("the mistaken example is valid")


_METRICS: Final = """\
# Metrics

<!-- Written by `python docs/generate.py` from what the exporter answers: change it there. -->

What `/metrics` answers, in Prometheus's text format or OpenMetrics, gzipped where the client takes it. Beside
these there are `process_*` and `python_info`, as prometheus_client has them.

{metrics}## Labels

A task's series carry `task_id`; then `name` and the labels of
[its entry in the list](configuration.md#a-task), where given. With `accounts` in the configuration every
series but those of the exporter itself carries `account`. Prometheus adds `job` and `instance`.

## Status

`mobizon_task_status` and the states of `mobizon_tasks`:

{states}

Every account has all six series of `mobizon_tasks`, at 0 where there is no such task.

## Reasons

The label `reason` of `mobizon_task_error` and `mobizon_api_request_failures_total`. "Backs off" says what is
left alone after such a failure: the task ({task_first} s, doubling up to {task_most} s), or the whole account
({account_first} s, doubling up to {account_most} s, with one probing request at a time).

{reasons}

The account backs off, too, after {unreachable} connection failures or time-outs in a row, or {failed}
failures in a row of any kind but `not_found` and `rate_limited`.
"""

_EVER: Final = "always"
_ONCE_READ: Final = "from the first good reading on"
_WHEN: Final = {
    "mobizon_task_progress": (
        "from the first good reading on. While requests for the task fail, or its account is in back-off, it "
        "stays until that has lasted for `stale_after` or two full refreshes, whichever is longer; where the "
        "reading was old by then, not as long. A task that is not found loses it at once. Final values never "
        "go stale"
    ),
    "mobizon_task_status": (
        "as `mobizon_task_progress`. A status that Mobizon does not document is exported as it is"
    ),
    "mobizon_task_up": "from the first answer or failure on. 1: a reading; 0: none",
    "mobizon_task_error": "only while the last request for the task has failed",
    "mobizon_task_last_success_timestamp_seconds": _ONCE_READ,
    "mobizon_task_last_change_timestamp_seconds": _ONCE_READ,
    "mobizon_tasks": _EVER,
    "mobizon_up": (
        "from the first answer or failure on, while a task is active: with none nothing is asked, so nothing "
        "is known. 1: served; 0: not. An answer that speaks of one task alone, such as `not_found`, proves "
        "that the account is served"
    ),
    "mobizon_api_requests": (
        "always; counted from the start of the process, whatever happens to the account's key and list"
    ),
    "mobizon_api_request_failures": "always, with every reason",
    "mobizon_api_request_duration_seconds": "always; failed requests count, too",
    "mobizon_api_request_interval_seconds": "always: `request_interval`, plus what refusals have added",
    "mobizon_tasks_due": _EVER,
    "mobizon_tasks_finished": (
        "always, for `completed` and `rejected`. A task counts if it had been read while it was unfinished"
    ),
    "mobizon_task_duration_seconds": (
        "always, for `completed` and `rejected`. The time of the first reading is in the state file"
    ),
    "mobizon_exporter_build_info": _EVER,
    "mobizon_exporter_config_last_reload_successful": _EVER,
    "mobizon_exporter_config_last_reload_success_timestamp_seconds": _EVER,
    "mobizon_exporter_task_file_errors": _EVER,
}

_STATES: Final = {
    "waiting": ("0", "not begun yet"),
    "in_progress": ("1", "begun"),
    "completed": ("2", "done; final, not asked for again"),
    "rejected": ("3", "Mobizon will not carry it out; final, not asked for again"),
    "not_found": ("none", "Mobizon knows no such task"),
    "unknown": ("none, or another number", "not read yet, too old, or a status that is not documented"),
}

_REASONS: Final = {
    Reason.NOT_FOUND: ("code 2", "the task", "deleted, mistyped, or another account's"),
    Reason.RATE_LIMITED: (
        "code 30, HTTP 429",
        "nothing",
        "the request came too early: the spacing grows, and the task stays due",
    ),
    Reason.UNAUTHORIZED: (
        "codes 8, 9, HTTP 401, 403",
        "the account",
        "the key is wrong, has expired, or has no access to the method",
    ),
    Reason.WRONG_HOST: (
        "code 13",
        "the account",
        "another country's host serves the account; the log names it",
    ),
    Reason.ACCOUNT_BLOCKED: ("code 14", "the account", "blocked or deleted"),
    Reason.API_ERROR: ("any other code", "the task", "an error on Mobizon's side; the log has its message"),
    Reason.HTTP_ERROR: ("any other HTTP status but 200", "the task", "often a proxy or an outage"),
    Reason.INVALID_RESPONSE: (
        "HTTP 200",
        "the task",
        "no JSON, no progress, progress outside 0-100, or more than 64 KiB",
    ),
    Reason.TIMEOUT: ("none", "the task", "no whole answer within `timeout`"),
    Reason.CONNECTION_ERROR: ("none", "the task", "network, DNS, TLS or proxy"),
}


_OPTIONAL: Final = {"name": "`name`", "account": "`account`", "team": "labels of your own"}


def metrics() -> str:
    """The text of metrics.md."""
    families = text_string_to_metric_families(asyncio.run(_exposition()))
    return _METRICS.format(
        metrics="".join(_metric(family) for family in families if family.name.startswith("mobizon_")),
        states=_table(
            ("state", "`mobizon_task_status`", "meaning"),
            [(f"`{state}`", *_STATES[state]) for state in STATES],
        ),
        task_first=f"{task.FIRST_TASK_DELAY:g}",
        task_most=f"{task.MAX_TASK_DELAY:g}",
        account_first=f"{backoff.FIRST_ACCOUNT_DELAY:g}",
        account_most=f"{backoff.MAX_ACCOUNT_DELAY:g}",
        unreachable=backoff.UNREACHABLE_AFTER,
        failed=backoff.FAILED_AFTER,
        reasons=_table(
            ("reason", "answer", "backs off", "meaning"),
            [(f"`{reason}`", *_REASONS[reason]) for reason in Reason],
        ),
    )


def _metric(family: Metric) -> str:
    labels = dict.fromkeys(label for sample in family.samples for label in sample.labels)
    always = [f"`{label}`" for label in labels if label not in _OPTIONAL] or ["none"]
    given = [_OPTIONAL[label] for label in labels if label in _OPTIONAL]
    name = family.name + ("_total" if family.type == "counter" else "")
    return (
        f"## `{name}`\n\n{family.documentation}\n\n"
        f"- Type: {family.type}\n"
        f"- Labels: {', '.join(always)}{'; where given ' + ', '.join(given) if given else ''}\n"
        f"- There: {_WHEN[family.name]}\n\n"
    )


async def _exposition() -> str:
    exposition = Exposition(_sample)
    text, _ = await exposition.render("text/plain", compress=False)
    exposition.close()
    return text.decode()


def _sample() -> Snapshot:
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
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> int:
    """Write both files."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in (("configuration.md", configuration()), ("metrics.md", metrics())):
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{folder / name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
