"""How the package is cut: imports run downwards, what decides is pure, nothing starts by being imported."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "exporter"
LONGEST = 500  # lines

SENDS = {"requests", "urllib3"}
SERVES = {"aiohttp"}
WAITS = {"time", "socket", "threading", "asyncio", "concurrent", "selectors", "subprocess"}
SENDERS = {"client", "connection"}
SERVERS = {"server", "routes", "auth", "simulator"}
PURE = {"pacing", "health", "scheduler", "answer", "collector", "series", "model", "errors", "api"}


def _dotted(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {_dotted(path): path for path in sorted((ROOT / PACKAGE).rglob("*.py"))}


@dataclass
class Module:
    name: str
    lines: int
    runtime: set[str] = field(default_factory=set)
    typing: set[str] = field(default_factory=set)
    """What is imported for type checkers alone."""

    def ours(self, names: set[str]) -> set[str]:
        """The modules of the package among what is imported, without its name."""
        return {name.removeprefix(f"{PACKAGE}.") for name in names if name.startswith(f"{PACKAGE}.")}

    def foreign(self) -> set[str]:
        return {name.split(".")[0] for name in self.runtime} - {PACKAGE}


def _imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        module = node.module or ""
        # `from exporter import page` is a module, `from exporter import __version__` is not
        inner = {f"{module}.{alias.name}" for alias in node.names}
        return {module} | {name for name in inner if name in NAMES}
    return set()


def _collect(node: ast.AST, module: Module, *, typing: bool) -> None:
    (module.typing if typing else module.runtime).update(_imported(node))
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for guarded in node.body:
            _collect(guarded, module, typing=True)
        for otherwise in node.orelse:
            _collect(otherwise, module, typing=typing)
        return
    for child in ast.iter_child_nodes(node):
        _collect(child, module, typing=typing)


def _read() -> dict[str, Module]:
    modules = {}
    for dotted, path in NAMES.items():
        source = path.read_text("utf-8")
        name = dotted.removeprefix(f"{PACKAGE}.")
        module = modules[name] = Module(name, len(source.splitlines()))
        _collect(ast.parse(source), module, typing=False)
    return modules


MODULES = _read()


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle in a graph; nothing if there is none."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        found: list[str] = error.args[1]
        return found
    return []


def importers(library: set[str]) -> set[str]:
    return {name for name, module in MODULES.items() if module.foreign() & library}


def test_a_circle_would_be_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})
    assert not circle({"a": {"b", "c"}, "b": {"c"}})


def test_imports_run_never_in_a_circle() -> None:
    assert not circle({name: module.ours(module.runtime) for name, module in MODULES.items()})


def test_nor_do_those_that_only_name_types() -> None:
    assert not circle({name: module.ours(module.runtime | module.typing) for name, module in MODULES.items()})


def test_only_the_client_knows_the_libraries_that_send() -> None:
    assert importers(SENDS) == SENDERS


def test_nothing_sends_past_the_workers() -> None:
    using = {name for name, module in MODULES.items() if module.ours(module.runtime) & SENDERS}
    assert using - SENDERS == {"workers"}


def test_only_what_serves_knows_the_library_that_serves() -> None:
    assert {name.partition(".")[0] for name in importers(SERVES)} == SERVERS


def test_nothing_imports_the_command_but_its_entry() -> None:
    using = {name for name, module in MODULES.items() if "cli" in module.ours(module.runtime | module.typing)}
    assert using == {"__main__"}


def test_the_simulator_is_loaded_by_the_command_alone() -> None:
    using = {
        name
        for name, module in MODULES.items()
        if any(used.split(".")[0] == "simulator" for used in module.ours(module.runtime))
    }
    assert {name for name in using if name.split(".")[0] != "simulator"} == {"cli"}


@pytest.mark.parametrize("name", sorted(PURE))
def test_what_decides_stands_on_nothing_that_waits(name: str) -> None:
    """Neither by what it imports itself, nor by way of other modules of the package."""
    seen, todo = {name}, [name]
    while todo:
        module = MODULES[todo.pop()]
        assert not module.foreign() & (WAITS | SENDS | SERVES), f"{name} by way of {module.name}"
        new = module.ours(module.runtime) - seen
        seen |= new
        todo += sorted(new)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_module_is_too_long(name: str) -> None:
    assert MODULES[name].lines <= LONGEST


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
