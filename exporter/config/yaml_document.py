"""YAML and JSON documents as they are written, and errors that name file, line and path.

YAML 1.1 turns `0123` into 83, `12:30` into 750 and `no` into false. Here every scalar stays the text that
was written (an empty one and `null` are None) and the schema says what it means.
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from exporter.errors import ConfigError

ValuePath = tuple[str | int, ...]
"""Where a value stands in a document: `("tasks", 3, "id")`."""

MAX_DEPTH: Final = 50  # levels; a configuration has six, and libyaml crashes at some ten thousand
MAX_SHOWN: Final = 32  # characters; keys of Mobizon's have 40 or 70, and are pasted into wrong places

TOO_DEEP: Final = "nested too deeply"

_NULLS: Final = {"", "~", "null", "Null", "NULL"}
_TAGS: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "map", "null", "seq", "str")}
_QUOTED: Final = re.compile(rf"'.{{{MAX_SHOWN},}}'", re.DOTALL)
_NOT_IN_YAML: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")  # or taken for the end of a line
_SURROGATE_PAIR: Final = re.compile(r"(?i)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})")


class _AsWritten:
    """Makes PyYAML's loaders give nodes as they are written: tags are those written, and depth is bounded."""

    _depth = 0

    def descend_resolver(self, parent: yaml.Node | None, _index: object) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH and parent:
            raise yaml.MarkedYAMLError(problem=TOO_DEEP, problem_mark=parent.start_mark)

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def resolve(self, _kind: object, _value: object, _implicit: object) -> str:
        """The tag of what is written without one."""
        return ""


def loader(parser: type[Any]) -> Any:
    """One of PyYAML's loaders, but giving nodes as they are written."""
    return type("Loader", (_AsWritten, parser), {})


LOADER: Any = loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader))


class Document:
    """The content of one file, made of dicts, lists, texts and None, and the errors found in it."""

    def __init__(self, source: str, text: bytes) -> None:
        """Parse `text`; raises ConfigError with everything that is wrong in its form."""
        self.source = source
        try:
            decoded = text.decode("utf-8-sig")
            if source.endswith(".json"):
                decoded = _as_yaml(decoded)
            self._root = yaml.compose(decoded, Loader=LOADER)
        except UnicodeDecodeError as error:
            raise ConfigError([f"{source}: not UTF-8 at byte {error.start}"]) from None
        except yaml.MarkedYAMLError as error:
            # libyaml puts the end of a file on a line after the last one
            line = min(error.problem_mark.line, len(decoded.splitlines()) - 1) if error.problem_mark else 0
            raise ConfigError(
                [f"{source}:{max(line, 0) + 1}: {_without_quotations(error.problem)}"]
            ) from None
        except (yaml.YAMLError, RecursionError, ValueError):
            raise ConfigError([f"{source}: not YAML"]) from None
        self._errors: list[tuple[int, str]] = []
        self.data = self._plain(self._root, (), {}) if self._root else None

    def report(self, path: ValuePath, message: str) -> None:
        """Add an error at `path`: `config.yaml:14: tasks[3].id: message`."""
        node, line = self._root, 0
        for step in path:
            below = _child(node, step)
            if below is None:
                break
            line, node = below
        self._report(line, path, message)

    def check(self) -> None:
        """Raise ConfigError with everything reported, in the order of lines; nothing if there is nothing."""
        if self._errors:
            raise ConfigError(message for _, message in sorted(self._errors, key=lambda found: found[0]))

    def _report(self, line: int, path: ValuePath, message: str) -> None:
        place = _render(path)
        self._errors.append((line, f"{self.source}:{line + 1}: {place + ': ' if place else ''}{message}"))

    def _plain(self, node: yaml.Node, path: ValuePath, done: dict[int, Any]) -> Any:
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


def _child(node: yaml.Node | None, step: str | int) -> tuple[int, yaml.Node] | None:
    """The line (from 0) where a step of a path stands, and the node there; None where nothing stands."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line, node.value[step]
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == step:
                return key.start_mark.line, value
    return None


def _render(path: ValuePath) -> str:
    """`("tasks", 3, "id")` as `tasks[3].id`."""
    out = ""
    for step in path:
        out += f"[{step}]" if isinstance(step, int) else f"{'.' if out else ''}{_shorten(step)}"
    return out


def _shorten(name: str) -> str:
    """A name in a path. A long one is cut: `key:0a1b...` without a space after its colon is one, too."""
    if len(name) <= MAX_SHOWN:
        return name
    head, colon, _ = name.partition(":")
    return f"{head}:..." if colon and len(head) <= MAX_SHOWN else "..."


def _without_quotations(problem: str | None) -> str:
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
