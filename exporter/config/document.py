"""YAML and JSON documents as they are written, and errors that name file, line and path.

YAML 1.1 turns `0123` into 83, `12:30` into 750 and `no` into false. Here every scalar stays the text that
was written (an empty one and `null` are None) and the schema says what it means.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_origin

import yaml
from cattrs import Converter
from cattrs.cols import list_structure_factory
from cattrs.errors import AttributeValidationNote, ForbiddenExtraKeysError, IterableValidationNote
from cattrs.gen import make_dict_structure_fn

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Path = tuple[str | int, ...]

T = TypeVar("T")

DEEPEST: Final = 50  # levels; a configuration has six, and libyaml crashes at some ten thousand
LONGEST_SHOWN: Final = 32  # characters; keys of Mobizon's have 40 or 70, and are pasted into wrong places

TOO_DEEP: Final = "nested too deeply"

_NULLS: Final = {"", "~", "null", "Null", "NULL"}
_TAGS: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "map", "null", "seq", "str")}
_QUOTED: Final = re.compile(rf"'.{{{LONGEST_SHOWN},}}'", re.DOTALL)
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")  # or taken for the end of a line
_SURROGATE_PAIR: Final = re.compile(r"(?i)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


class _AsWritten:
    """Makes PyYAML's loaders give nodes as they are written: tags are those written, and depth is bounded."""

    _depth = 0

    def descend_resolver(self, parent: yaml.Node | None, _index: object) -> None:
        self._depth += 1
        if self._depth > DEEPEST and parent:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=parent.start_mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def resolve(self, _kind: object, _value: object, _implicit: object) -> str:
        """The tag of what is written without one."""
        return ""


_Loader: Any = type("_Loader", (_AsWritten, getattr(yaml, "CSafeLoader", yaml.SafeLoader)), {})


class Document:
    """The content of one file, made of dicts, lists, texts and None; and all that is found wrong with it."""

    def __init__(self, source: str, text: bytes) -> None:
        """Parse `text`; raises ConfigError with everything that is wrong in its form."""
        self.source = source
        try:
            decoded = text.decode("utf-8-sig")
            if source.endswith(".json"):
                decoded = _as_yaml(decoded)
            self._root = yaml.compose(decoded, Loader=_Loader)
        except UnicodeDecodeError as error:
            raise ConfigError([f"{source}: not UTF-8 at byte {error.start}"]) from None
        except yaml.MarkedYAMLError as error:
            # libyaml puts the end of a file on a line after the last one
            line = min(error.problem_mark.line, len(decoded.splitlines()) - 1) if error.problem_mark else 0
            raise ConfigError([f"{source}:{max(line, 0) + 1}: {_brief(error.problem)}"]) from None
        except (yaml.YAMLError, RecursionError, ValueError):
            raise ConfigError([f"{source}: not YAML"]) from None
        self._problems: list[tuple[int, str]] = []
        self.data = self._plain(self._root, (), {}) if self._root else None

    def report(self, path: Path, message: str) -> None:
        """Something is wrong at `path`: `config.yaml:14: tasks[3].id: message`."""
        node, line = self._root, 0
        for step in path:
            below = _child(node, step)
            if below is None:
                break
            line, node = below
        self._report(line, path, message)

    def check(self) -> None:
        """Raise ConfigError with all that was reported, in the order of lines, if anything was."""
        if self._problems:
            raise ConfigError(problem for _, problem in sorted(self._problems, key=lambda found: found[0]))

    def _report(self, line: int, path: Path, message: str) -> None:
        place = _render(path)
        self._problems.append((line, f"{self.source}:{line + 1}: {place + ': ' if place else ''}{message}"))

    def _plain(self, node: yaml.Node, path: Path, done: dict[int, Any]) -> Any:
        """`node` as plain data. `done` keeps shared anchors shared, and finds those that hold themselves."""
        if id(node) in done:
            if done[id(node)] is node:
                self._report(node.start_mark.line, path, "an alias that contains itself")
                return None
            return done[id(node)]
        done[id(node)] = node
        if node.tag and node.tag not in _TAGS:
            self._report(node.start_mark.line, path, "a tag (`!...`) has no meaning here")
        value: Any
        if isinstance(node, yaml.ScalarNode):
            value = None if not node.style and node.value in _NULLS else node.value
            if value is not None and not _encodable(value):
                self._report(node.start_mark.line, path, "not valid Unicode")
        elif isinstance(node, yaml.SequenceNode):
            value = [self._plain(item, (*path, at), done) for at, item in enumerate(node.value)]
        else:
            value = {}
            for key, item in node.value:
                line = key.start_mark.line
                if not isinstance(key, yaml.ScalarNode):
                    self._report(line, path, "a key must be text")
                elif key.value in value:
                    self._report(line, (*path, key.value), "duplicate key")
                else:
                    value[key.value] = self._plain(item, (*path, key.value), done)
        done[id(node)] = value
        return value


class Schema:
    """Dataclasses as the schema of documents: unknown keys are refused, all errors reported at once.

    Values are checked by `hooks`, one function a type, which raise ValueError with what they expected.
    """

    def __init__(self, hooks: dict[Any, Callable[[Any], Any]]) -> None:
        self._converter = Converter(forbid_extra_keys=True, detailed_validation=True)
        for fits, factory in ((is_dataclass, _mapping_hook), (_is_tuple, _list_hook)):
            self._converter.register_structure_hook_factory(fits, factory)
        for kind, check in {str: text, **hooks}.items():
            self._converter.register_structure_hook(kind, _ignore_kind(check))

    def structure(self, document: Document, kind: type[T]) -> T | None:
        """The document as a `kind`; None if something is wrong, all of which is then reported to it."""
        try:
            return self._converter.structure(document.data, kind)
        except Exception as error:  # noqa: BLE001 - cattrs raises groups of whatever the hooks raise
            for path, message in _leaves(error, ()):
                document.report(path, message)
        return None

    def convert(self, value: Any, kind: type[T]) -> T:
        """A part of a document as a `kind`, for hooks that take more than one form."""
        return self._converter.structure(value, kind)


class Problems(ValueError):  # noqa: N818 - several, hence the plural
    """What a hook raises that has several things to say: pairs of a path below its value, and a message."""

    def __init__(self, found: list[tuple[Path, str]]) -> None:
        super().__init__("; ".join(message for _, message in found))
        self.found = found


def text(value: Any) -> str:
    """A text that is not empty, and without the character that ends texts, and so paths, in C."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"expected text, got {describe(value)}")
    return value


def describe(value: Any) -> str:
    """How an error shows a value: a short text as it is, anything bigger by its kind."""
    if isinstance(value, str):
        return repr(value) if len(value) <= LONGEST_SHOWN else "a long text"
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


def _leaves(error: BaseException, path: Path) -> Iterator[tuple[Path, str]]:
    """Every single error in what cattrs raised, with the path that cattrs noted on the way up."""
    for note in getattr(error, "__notes__", ()):
        if isinstance(note, AttributeValidationNote):
            path = (*path, note.name)
        elif isinstance(note, IterableValidationNote):
            path = (*path, note.index)
    if isinstance(error, BaseExceptionGroup):
        for below in error.exceptions:
            yield from _leaves(below, path)
    elif isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in fields(error.cl)]
        for key in sorted(error.extra_fields):
            close = difflib.get_close_matches(key, known, n=1)
            yield (
                (*path, key),
                "unknown key; " + (f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"),
            )
    elif isinstance(error, Problems):
        yield from (((*path, *below), message) for below, message in error.found)
    elif isinstance(error, KeyError):
        yield path, "required, but missing"
    else:
        yield path, str(error)


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    """The line (from 0) where a step of a path stands, and the node there; None where nothing stands."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line, value
    return None


def _render(path: Path) -> str:
    """`("tasks", 3, "id")` as `tasks[3].id`."""
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else f"{'.' if out else ''}{_shown(step)}"
    return out


def _shown(name: str) -> str:
    """A name in a path. A long one is cut: `key:0a1b...` without a space after its colon is one, too."""
    if len(name) <= LONGEST_SHOWN:
        return name
    head, colon, _ = name.partition(":")
    return f"{head}:..." if colon and len(head) <= LONGEST_SHOWN else "..."


def _brief(problem: str | None) -> str:
    """What a YAML parser says is wrong, without the texts that it quotes."""
    if problem == "exceeded maximum nesting depth":  # libyaml's own bound, from 0.2.6 on
        return TOO_DEEP
    return _QUOTED.sub("...", (problem or "not YAML").removeprefix("but "))


def _encodable(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # an escape such as \ud800 that is half a character
        return False
    return True


def _as_yaml(json_text: str) -> str:
    """JSON is YAML but for tabs as white space, surrogate pairs, and a few characters as they are."""

    def join(pair: re.Match[str]) -> str:
        high, low = (int(half, 16) for half in pair.groups())
        return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))

    escaped = _NOT_IN_YAML.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text.replace("\t", " "))
    return _SURROGATE_PAIR.sub(join, escaped)
