"""`--config.check`: everything that is wrong with a configuration, or what a full refresh takes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from exporter.config.watch import ConfigWatch
from exporter.web import webconfig
from exporter.web.routes import WAIT_WITHOUT_HEADER

if TYPE_CHECKING:
    from pathlib import Path

    from exporter.model import Account


def check(path: Path, web_config_file: Path | None) -> int:
    """Validate, and print all problems or what a full refresh takes; the exit status. Sends nothing.

    Raises ConfigError for a configuration that cannot be used at all.
    """
    if web_config_file:
        webconfig.load_web_config(web_config_file)
    watch = ConfigWatch(path)
    config = watch.load()
    problems = dict.fromkeys(watch.problems())  # a file of two accounts says the same of both
    if problems:
        print("\n".join(problems), file=sys.stderr)
        return 1
    for account in config.accounts:
        print(f"{path}: {account.name + ': ' if account.name else ''}{full_refresh(account)}")
    return 0


def full_refresh_seconds(account: Account) -> float:
    """How long it takes to ask once for each task, if all are active."""
    return round(account.api.request_interval * len(account.tasks), 3)


def full_refresh(account: Account) -> str:
    """`24 tasks at 1 request/s: a full refresh takes 24 s; ...`."""
    interval, number = account.api.request_interval, len(account.tasks)
    takes = full_refresh_seconds(account)
    waits = (
        f"scrapes cannot wait for it, values will be up to {takes:g} s old"
        if takes - interval > WAIT_WITHOUT_HEADER
        else "scrapes wait for it"
    )
    return (
        f"{number} active task{'s' * (number != 1)} at {1 / interval:.3g} request{'s' * (interval != 1)}/s: "
        f"a full refresh takes {takes:g} s; {waits}"
    )
