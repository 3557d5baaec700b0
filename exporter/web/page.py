"""The status page: what is known of every task, for people, complete without JavaScript.

All of its words are in `templates/*.toml`; how a task's state becomes a place on the page is decided here.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from exporter.errors import Reason
from exporter.web.translations import phrases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import jinja2

    from exporter.model import AccountView, TaskView
    from exporter.web.translations import Phrases

CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": CSP,
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}
"""Headers to send the page with, in addition to `Content-Language`."""

# Trouble is on top; a test sees to it that no state is left out.
STATE_ORDER: Final = ("rejected", "not_found", "unknown", "in_progress", "waiting", "completed")
GROUPS: Final = ("attention", "in_progress", "waiting", "unread", "completed")
STALLED_AFTER: Final = 1800.0  # seconds without progress, as the alert MobizonTaskStalled has it
UNCHANGED_AFTER: Final = 300.0  # from when on the page says that a task does not move
MAX_ESTIMATE: Final = 60 * 86400.0  # an estimate beyond is not shown
JUST_NOW: Final = 2.0  # seconds that need no number
SLOWED: Final = 1.25  # times the configured spacing; less is jitter that needs no words
_RANKS: Final = {"rejected": 0, "not_found": 1, "stale": 1, "odd": 1, "failing": 1, "stalled": 2}
_UNTROUBLED: Final = 3
_TYPES: Final = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Static:
    """A file that the page needs, and the headers to send it with. Links to it carry its `version`."""

    body: bytes
    headers: Mapping[str, str]
    version: str


@functools.cache
def static_files() -> Mapping[str, Static]:
    """What is to be served under `/static/`, by name: `status.css`, `status.js` and `icon.svg`."""
    files = {}
    for name in ("status.css", "status.js", "icon.svg"):
        body = resources.files("exporter.web").joinpath("static", name).read_bytes()
        version = hashlib.sha256(body).hexdigest()[:16]
        headers = {
            "Content-Type": f"{_TYPES[name.rpartition('.')[2]]}; charset=utf-8",
            "Cache-Control": "max-age=31536000, immutable",
        }
        files[name] = Static(body, headers, version)
    return files


@dataclass(frozen=True, slots=True)
class Note:
    """What is wrong and what to do about it, in words; `detail` is what the API or the network said."""

    what: str
    do: str
    detail: str = ""
    since: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A task on the page. `kind` refines its state, `word` is its text; `rank` puts trouble first."""

    key: str
    view: TaskView
    account: str | None
    kind: str
    word: str
    group: str
    rank: int
    progress: str | None
    times: tuple[str, ...]
    notes: tuple[Note, ...]

    def matches(self, words: list[str]) -> bool:
        """Whether each of the words, in lower case, is part of what the task is known by."""
        spec = self.view.spec
        labels = " ".join(f"{name}={value}" for name, value in spec.labels.items())
        tokens = f"state:{self.view.state} is:{self.group} source:{spec.source}"
        text = f"{spec.id} {spec.name or ''} {labels} {self.account or ''} {self.word} {tokens}".casefold()
        return all(word in text for word in words)


@dataclass(frozen=True, slots=True)
class Panel:
    """An account on the page; `state` is up, down or unasked."""

    view: AccountView
    host: str
    state: str
    spacing: str
    full_refresh: str
    failures: tuple[tuple[str, int], ...]
    note: Note | None


def render(  # noqa: PLR0913 - all but the first are keywords
    accounts: tuple[AccountView, ...],
    *,
    now: float,
    language: str,
    version: str,
    telemetry_path: str,
    query: str = "",
) -> str:
    """The page as of `now` (Unix seconds), with the tasks that match `query`; ready to be sent with HEADERS.

    A task matches if each word of the query is part of its id, name, `label=value`, account or state.
    """
    say = phrases(language)
    rows = [
        _row(f"task-{number}-{view.spec.id}", account, view, now, say)
        for number, account in enumerate(accounts)
        for view in account.tasks
    ]
    words = list(dict.fromkeys(query.casefold().split()))
    shown = sorted((row for row in rows if row.matches(words)) if words else rows, key=lambda row: row.rank)
    states = Counter(row.view.state for row in rows)
    return _template().render(
        t=say.texts,
        language=language,
        panels=[_panel(account, say) for account in accounts],
        total=len(rows),
        shown=len(shown),
        groups=[(group, [row for row in shown if row.group == group]) for group in GROUPS],
        attention=sum(row.group == "attention" for row in rows),
        states=[(state, states[state]) for state in STATE_ORDER],
        query=query.strip(),
        static=static_files(),
        version=version,
        metrics=telemetry_path.lstrip("/"),
    )


@functools.cache
def _template() -> jinja2.Template:
    # Imported here because a command that serves nothing need not wait for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("exporter.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("status.html")


def _row(key: str, account: AccountView, view: TaskView, now: float, say: Phrases) -> Row:
    failure, reading, t = view.failure, view.reading, say.texts
    # What concerns the whole account is shown there; a rate limit is no failure of a task.
    failing = failure is not None and failure.reason is not Reason.RATE_LIMITED and _available(account)
    kind = _kind(view, failing=failing)
    rank = min(_RANKS.get(kind, _UNTROUBLED), 1 if failing else _UNTROUBLED)
    return Row(
        key=key,
        view=view,
        account=account.name,
        kind=kind,
        word=t["kind"][kind].format(reading and reading.status) if kind in t["kind"] else t["state"][kind],
        group=kind if rank == _UNTROUBLED else "attention",
        rank=rank,
        progress=say.percent(reading.progress) if reading else None,
        times=tuple(_times(view, kind, now, say)),
        notes=tuple(_notes(account, view, kind, now, say)),
    )


def _kind(view: TaskView, *, failing: bool) -> str:
    if view.state != "unknown":
        return "stalled" if view.state == "in_progress" and _unmoved(view) >= STALLED_AFTER else view.state
    if view.reading:
        return "stale" if view.stale else "odd"
    return "failing" if failing else "unread"


def _unmoved(view: TaskView) -> float:
    """For how long readings have been the same, in seconds."""
    return view.reading.taken_at - view.changed_at if view.reading else 0.0


def _times(view: TaskView, kind: str, now: float, say: Phrases) -> Iterator[str]:
    """When it will be done, since when it has not moved, and how old all that is."""
    age, t = view.age(now), say.texts
    if age is None:
        return
    if view.seconds_left is not None and kind == "in_progress" and view.seconds_left < MAX_ESTIMATE:
        left = view.seconds_left - age
        # Rounded up to ten seconds: more precision than that would only flicker.
        yield t["left"].format(say.duration(-(-left // 10) * 10)) if left > 0 else t["any_moment"]
    if kind == "in_progress" and _unmoved(view) >= UNCHANGED_AFTER:
        yield t["unchanged"].format(say.duration(_unmoved(view)))
    yield t["read_ago"].format(say.duration(age)) if age >= JUST_NOW else t["read_now"]


def _notes(account: AccountView, view: TaskView, kind: str, now: float, say: Phrases) -> Iterator[Note]:
    """What is wrong with a task, and what to do about it."""
    what, do = say.texts["what"], say.texts["do"]
    failure = view.failure
    if kind in {"rejected", "stale", "odd", "stalled"}:
        yield Note(what[kind].format(say.duration(_unmoved(view))), do[kind])
    if failure:
        since = say.texts["failing_for"].format(say.duration(now - failure.since))
        advised = failure.reason is Reason.NOT_FOUND or _available(account)
        yield Note(what[failure.reason], do[failure.reason] if advised else "", failure.detail, since)


def _panel(account: AccountView, say: Phrases) -> Panel:
    t, note = say.texts["api"], None
    state = "down" if not _available(account) else "up" if account.up else "unasked"
    if failure := account.failure:
        what, do = say.texts["what"][failure.reason], say.texts["do"][failure.reason]
        note = Note(what, f"{do} {t['retried']}", failure.detail)
    spacing = say.seconds(account.spacing)
    if account.spacing > SLOWED * account.interval:
        spacing = t["slowed"].format(spacing, say.seconds(account.interval))
    return Panel(
        view=account,
        host=urlsplit(account.url).netloc,
        state=state,
        spacing=spacing,
        full_refresh=say.duration(math.ceil(account.full_refresh)) if account.active else t["nothing"],
        failures=tuple((reason.value, count) for reason, count in account.failures.items() if count),
        note=note,
    )


def _available(account: AccountView) -> bool:
    """Whether nothing is known to be wrong with the account."""
    return account.up is not False and not account.backing_off
