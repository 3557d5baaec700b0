"""How the package is cut: who imports whom, what decides is pure, nothing starts by being imported."""

from __future__ import annotations

import ast
import graphlib
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAX_LINES = 260

# What each folder may import besides itself and BASE. The files at the top see everything below them.
BASE = {"__init__", "model", "errors", "log", "files", "output", "signals", "slices"}
ALLOWED = {
    **dict.fromkeys(("config", "mobizon", "refresh", "metrics", "simulator"), BASE),
    "web": BASE | {"config", "refresh", "metrics"},
    "check": BASE | {"config", "mobizon", "web"},
    "probe": BASE | {"config", "mobizon", "web"},
    "startlog": BASE | {"check", "web", "simulator"},
    "app": BASE | {"config", "mobizon", "refresh", "metrics", "web", "simulator", "startlog"},
    "cli": BASE | {"app", "check", "config", "probe"},
    "__main__": {"cli", "signals"},
    **dict.fromkeys(BASE, BASE),
}
LIBRARIES = {
    "requests": {"mobizon"},
    "urllib3": {"mobizon"},
    "greenlet": {"mobizon"},
    "aiohttp": {"web", "simulator"},
}
WAITS = {"time", "socket", "threading", "asyncio", "concurrent", "selectors", "subprocess"}
PURE = (
    *("model", "errors", "mobizon/response"),
    *(
        f"refresh/{name}"
        for name in ("pacing", "backoff", "schedule", "turns", "outlook", "task", "clock", "counters")
    ),
)

FILES = {
    path.relative_to(ROOT / "exporter").with_suffix("").as_posix(): path
    for path in sorted((ROOT / "exporter").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in FILES.items()}


def imported(name: str, *, typing: bool = True) -> set[str]:
    """The dotted names that a file imports; without `typing`, at run time alone."""
    skipped = {
        id(node)
        for guard in ast.walk(TREES[name])
        if isinstance(guard, ast.If) and "TYPE_CHECKING" in ast.unparse(guard.test) and not typing
        for node in ast.walk(guard)
    }
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import) and id(node) not in skipped:
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and id(node) not in skipped:
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def ours(name: str, *, typing: bool = True) -> set[str]:
    """The files of the package that a file imports, as FILES names them."""
    found = set()
    for dotted in imported(name, typing=typing):
        if dotted.split(".")[0] == "exporter":
            path = "/".join(dotted.split(".")[1:])
            outer = path.rpartition("/")[0]
            candidates = (path, f"{path}/__init__", outer, f"{outer}/__init__" if outer else "__init__")
            found.add(next(candidate for candidate in candidates if candidate in FILES))
    return found - {name}


def foreign(name: str) -> set[str]:
    return {dotted.split(".")[0] for dotted in imported(name, typing=False)} - {"exporter"}


def folder(name: str) -> str:
    return name.split("/", maxsplit=1)[0]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_imports_only_what_it_may(name: str) -> None:
    assert {folder(other) for other in ours(name)} - {folder(name)} <= ALLOWED[folder(name)]


@pytest.mark.parametrize("name", FILES)
def test_a_library_is_known_where_it_belongs_alone(name: str) -> None:
    assert all(folder(name) in LIBRARIES.get(library, {folder(name)}) for library in foreign(name))


def test_imports_run_never_in_a_circle() -> None:
    graphlib.TopologicalSorter({name: ours(name) for name in FILES}).prepare()


@pytest.mark.parametrize("name", PURE)
def test_what_decides_stands_on_nothing_that_waits(name: str) -> None:
    """Neither by what it imports itself, nor by way of other files of the package."""
    seen, todo = {name}, [name]
    while todo:
        file = todo.pop()
        assert not foreign(file) & (WAITS | LIBRARIES.keys()), f"{name} by way of {file}"
        todo += sorted(ours(file, typing=False) - seen)
        seen |= ours(file, typing=False)


@pytest.mark.parametrize("name", FILES)
def test_no_file_is_too_long(name: str) -> None:
    assert len(FILES[name].read_text("utf-8").splitlines()) <= MAX_LINES


def private(name: object) -> bool:
    return isinstance(name, str) and name.startswith("_") and not name.endswith("__")


def names_in(cls: type) -> set[str]:
    """The names that a class defines, also those that its methods give to `self`."""
    try:
        source = inspect.getsource(cls)
    except (OSError, TypeError):  # of C
        source = ""
    set_by_python = {"_abc_impl", "_is_protocol"}
    return set(vars(cls)) - set_by_python | set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", source))


@pytest.mark.parametrize("name", FILES)
def test_no_class_has_a_private_name_of_a_librarys_class(name: str) -> None:
    module = importlib.import_module("exporter." + name.replace("/", ".").removesuffix(".__init__"))
    for cls in [cls for cls in vars(module).values() if inspect.isclass(cls)]:
        if cls.__module__ == module.__name__:
            for base in cls.__mro__:
                if base is not object and base.__module__.split(".")[0] not in {"exporter", "enum", "typing"}:
                    assert not set(filter(private, names_in(cls) & names_in(base))), (cls, base)


@pytest.mark.parametrize("name", FILES)
def test_no_private_name_of_another_object_is_reached(name: str) -> None:
    """But those of the same file's classes, by which a class compares itself with another of its kind.

    `_replace` is a public method of every named tuple.
    """
    own = {
        node.attr
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "cls"}
    }
    for node in ast.walk(TREES[name]):
        if (
            isinstance(node, ast.Attribute)
            and private(node.attr)
            and node.attr != "_replace"
            and ast.unparse(node) != "os._exit"
        ):
            assert node.attr in own or ast.unparse(node.value) in {"self", "cls"}, ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func) in {
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
        }:
            assert not any(isinstance(a, ast.Constant) and private(a.value) for a in node.args), ast.unparse(
                node
            )


@pytest.mark.parametrize("name", [name for name in FILES if folder(name) == "mobizon"])
def test_requests_are_made_by_public_means_which_types_prove(name: str) -> None:
    text = FILES[name].read_text("utf-8")
    assert "type: ignore" not in text
    assert "threading.local" not in text


# urllib3 binds a socket and closes it again, to see whether there is IPv6: what counts is what is left.
_WATCHED = """
import os, stat, sys, threading
seen = []
watched = ("socket.connect", "socket.getaddrinfo", "_thread.start", "subprocess.", "os.fork")
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith(watched) else None)
import exporter.cli, exporter.simulator
assert threading.active_count() == 1, threading.enumerate()
def is_socket(number):
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False
print(*sorted(set(seen)), *(f"open:{number}" for number in range(256) if is_socket(number)))
"""


def test_importing_starts_no_thread_and_leaves_no_socket_open() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stdout.split()
