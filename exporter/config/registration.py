"""What a program says of a task that it registers: the body of a PUT, checked as a task file is."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NewType

from exporter.config.schema import Schema, ValidationErrors, text
from exporter.config.settings import check_labels, check_task_id
from exporter.config.yaml_document import Document
from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from exporter.config.yaml_document import ValuePath
    from exporter.model import TaskSpec

MAX_LABELS: Final = 10
MAX_CHARACTERS: Final = 200  # of a name, a label's name, a label's value

# The source of the body in errors, and what tells the parser that it is JSON.
_SOURCE: Final = "body.json"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")

ShortText = NewType("ShortText", str)
ShortLabels = NewType("ShortLabels", dict[str, str])


@dataclass(frozen=True, slots=True)
class TaskBody:
    """The body of a PUT as it is written."""

    name: ShortText | None = None
    labels: ShortLabels | None = None
    account: ShortText | None = None


@dataclass(frozen=True, slots=True)
class Registration:
    """What a body asks for: `change` has `name` and `labels` where they are given; None clears."""

    account: str | None
    change: Mapping[str, Any]

    def applied_to(self, spec: TaskSpec) -> TaskSpec:
        """A task with this name and these labels; what is left out stays as it was."""
        change = dict(self.change)
        if "labels" in change:
            change["labels"] = change["labels"] or {}
        return replace(spec, **change)


def parse_registration(body: bytes) -> Registration:
    """The registration in a body, which may be empty; raises ConfigError with everything that is wrong."""
    if not body:
        return Registration(None, {})
    try:
        json.loads(body, parse_constant=_refuse_constant)  # YAML, which the document takes, is not JSON
    except (ValueError, RecursionError):
        raise ConfigError([f"{_SOURCE}: not JSON"]) from None
    document = Document(_SOURCE, body)
    found = _SCHEMA.structure(document, TaskBody)
    document.check()
    assert found is not None  # noqa: S101 - else an error was reported
    given: dict[str, Any] = document.data or {}
    return Registration(
        found.account, {key: getattr(found, key) for key in ("name", "labels") if key in given}
    )


def parse_task_id(written: str) -> int:
    """The task id in a URL; raises ConfigError."""
    try:
        return check_task_id(written)
    except ValueError as error:
        raise ConfigError([str(error)]) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _short_text(value: Any) -> ShortText:
    _check_characters(text(value))
    return ShortText(value)


def _short_labels(value: Any) -> ShortLabels:
    labels = check_labels(value)
    if len(labels) > MAX_LABELS:
        raise ValueError(f"expected at most {MAX_LABELS} labels")
    errors: list[tuple[ValuePath, str]] = []
    for name, content in labels.items():
        for written in (name, content):
            try:
                _check_characters(written)
            except ValueError as error:
                errors.append(((name,), str(error)))
    if errors:
        raise ValidationErrors(errors)
    return ShortLabels(labels)


def _check_characters(value: str) -> None:
    if len(value) > MAX_CHARACTERS:
        raise ValueError(f"expected at most {MAX_CHARACTERS} characters")
    if _CONTROL.search(value):
        raise ValueError("expected text without control characters")


_SCHEMA: Final = Schema({ShortText: _short_text, ShortLabels: _short_labels})
