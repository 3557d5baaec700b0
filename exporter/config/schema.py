"""Dataclasses as schemas of YAML documents, with every error in terms of the document."""

from __future__ import annotations

import difflib
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

from cattrs import Converter
from cattrs.cols import list_structure_factory
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from exporter.config.yaml_document import MAX_SHOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from exporter.config.yaml_document import Document, ValuePath

T = TypeVar("T")


class Schema:
    """Dataclasses as the schema of documents: unknown keys are refused, all errors reported at once.

    Values are checked by `hooks`, one function a type, which raise ValueError with what they expected.
    """

    def __init__(self, hooks: dict[Any, Callable[[Any], Any]]) -> None:
        self._converter = Converter(forbid_extra_keys=True)
        for fits, factory in ((is_dataclass, _mapping_hook), (_is_tuple, _list_hook)):
            self._converter.register_structure_hook_factory(fits, factory)
        for kind, check in {str: text, **hooks}.items():
            self._converter.register_structure_hook(kind, _ignore_kind(check))

    def structure(self, document: Document, kind: type[T]) -> T | None:
        """The document as a `kind`; None if something is wrong, all of which is then reported to it."""
        try:
            return self._converter.structure(document.data, kind)
        except Exception as error:  # noqa: BLE001 - cattrs raises groups of whatever the hooks raise
            for path, message in _flatten(error, ()):
                document.report(path, message)
        return None

    def convert(self, value: Any, kind: type[T]) -> T:
        """A part of a document as a `kind`, for hooks that take more than one form."""
        return self._converter.structure(value, kind)


class ValidationErrors(ValueError):  # noqa: N818 - it holds several, hence the plural
    """Several errors of one value: pairs of a path below the value, and a message."""

    def __init__(self, errors: list[tuple[ValuePath, str]]) -> None:
        super().__init__("; ".join(message for _, message in errors))
        self.errors = errors


def text(value: Any) -> str:
    """A text that is not empty, and without the character that ends texts, and so paths, in C."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected text, got {describe(value)}")
    return value


def describe(value: Any) -> str:
    """How an error shows a value: a short text as it is, anything bigger by its kind."""
    if isinstance(value, str):
        return repr(value) if len(value) <= MAX_SHOWN else "a long text"
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else "nothing"


def _ignore_kind(check: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, _kind: check(value)


def _is_tuple(kind: Any) -> bool:
    return get_origin(kind) is tuple


def _mapping_hook(kind: type[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    inner = make_dict_structure_fn(kind, converter)

    def structure(value: Any, kind: Any) -> Any:
        if not isinstance(value, dict):
            # the value is not shown: where a mapping belongs, people also paste a key
            raise ValueError(
                f"expected a mapping, got {'text' if isinstance(value, str) else describe(value)}"
            )
        return inner(value, kind)

    return structure


def _list_hook(kind: type[Any], converter: Converter) -> Callable[[Any, Any], Any]:
    listed: Any = list[get_args(kind)[0]]  # type: ignore[misc] # built at run time from tuple[X, ...]
    inner = list_structure_factory(listed, converter)

    def structure(value: Any, _kind: Any) -> Any:
        if value is None:  # `tasks:` with nothing below
            return ()
        if not isinstance(value, list):
            raise ValueError(f"expected a list, got {'text' if isinstance(value, str) else describe(value)}")
        return tuple(inner(value, listed))

    return structure


def _flatten(error: BaseException, path: ValuePath) -> Iterator[tuple[ValuePath, str]]:
    """Every single error in what cattrs raised, with the path that cattrs noted on the way up."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path = (*path, note.name)
        elif isinstance(note, IterableValidationNote):
            path = (*path, note.index)
    if isinstance(error, BaseExceptionGroup):
        for below in error.exceptions:
            yield from _flatten(below, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        for key in sorted(error.extra_fields):
            close = difflib.get_close_matches(key, known)
            yield (
                (*path, key),
                "unknown key; " + (f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"),
            )
    elif isinstance(error, ValidationErrors):
        yield from (((*path, *below), message) for below, message in error.errors)
    elif isinstance(error, KeyError):
        yield path, "required, but missing"
    else:
        yield path, str(error)
