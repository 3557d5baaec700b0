"""`--probe ID`: one getStatus request, what Mobizon answers to it, and how that is understood."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from exporter.config.watch import ConfigWatch
from exporter.errors import ApiError, ConfigError
from exporter.mobizon import greenlets
from exporter.mobizon.call import Call
from exporter.mobizon.client import MAX_BODY, Client, request_url
from exporter.mobizon.masking import MASK, mask
from exporter.model import STATES, Reading, TaskSpec, TaskView
from exporter.web.translations import phrases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from exporter.mobizon.client import RawResponse
    from exporter.model import Account

MAX_SHOWN: Final = 8192  # characters of a body
HEADERS: Final = (
    *("Content-Type", "Content-Encoding", "Content-Length", "Transfer-Encoding", "Date", "Server", "Via"),
    *("Location", "Retry-After"),
)


def probe(path: Path, task_id: int, account_name: str | None) -> int:
    """Ask about one task once, and print everything about it; the exit status: 0 if it is a reading.

    Raises ConfigError for a configuration that cannot be used, or if the account is ambiguous.
    """
    account = _account(ConfigWatch(path).load().accounts, path, account_name)
    api = account.api
    client = Client(api.ca_file, api.proxy_url.reveal() if api.proxy_url else None, connections=1)
    received: list[RawResponse] = []

    def ask() -> Reading:
        try:
            call = Call(api.timeout, lambda _: None, time.monotonic)
            return client.get_status(api, task_id, call, received=received.append)
        finally:
            client.close()

    print(f"POST {request_url(api, MASK)}\nid={task_id}\n", flush=True)
    outcome: Reading | ApiError
    began = time.monotonic()
    try:
        outcome = asyncio.run(greenlets.run(ask))
    except ApiError as error:
        outcome = error
    took = time.monotonic() - began
    key = api.key.reveal()
    lines = _described(received[0], lambda text: mask(text, key)) if received else ["no answer"]
    print(*lines, f"\nafter {took:.3f} s, understood as: {_understood(outcome)}", sep="\n")
    return 0 if isinstance(outcome, Reading) else 1


def _account(accounts: tuple[Account, ...], path: Path, name: str | None) -> Account:
    names = ", ".join(account.name or "" for account in accounts)
    if name is None and len(accounts) > 1:
        raise ConfigError([f"{path}: say which account with --probe.account: {names}"])
    for account in accounts:
        if name in {None, account.name}:
            return account
    there_are = f"there are {names}" if names else "its only account has no name"
    raise ConfigError([f"{path}: no account {name!r}; {there_are}"])


def _described(response: RawResponse, masked: Callable[[str], str]) -> Iterator[str]:
    """An answer as it came, fit for a terminal."""
    yield f"HTTP status {response.status}"
    for header in HEADERS:
        if header in response.headers:
            yield f"{header}: {_visible(masked(response.headers[header]))}"
    text = _visible(masked(response.body.decode("utf-8", "backslashreplace")))
    more = f"more than {MAX_BODY}" if len(response.body) > MAX_BODY else len(response.body)
    yield ""
    yield text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}… ({more} bytes in all)"


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() or c in "\n\t" else repr(c)[1:-1] for c in text)


def _understood(outcome: Reading | ApiError) -> str:
    if isinstance(outcome, Reading):
        state = TaskView(TaskSpec(1), outcome).state
        known = state.replace("_", " ") if state in STATES[:4] else "which Mobizon does not document"
        return f"a reading: progress {outcome.progress:g} %, status {outcome.status}, {known}"
    texts = phrases("en").texts
    what, do = texts["what"][outcome.reason], texts["do"][outcome.reason]
    return f"a failure: {outcome}\n{what} {do}"
