"""Mutation testing of what decides: changes one thing at a time, and runs the unit tests of its module.

Run it: `make mutants`, or `python tests/support/mutants.py [module ...]`. It fails where less than
MIN_SCORE percent of a module's mutants are killed, and where tests/mutants-equivalent.toml lists one that
does not survive.

Not mutated are the words of errors and log lines, which are tested where a user meets them, and what is
computed at import: constants, and defaults that are calls.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
WORK: Final = ROOT / ".mutants"
EQUIVALENT: Final = ROOT / "tests/mutants-equivalent.toml"
MIN_SCORE: Final = 90.0
KILLED: Final = {"killed", "timeout", "segfault"}

REGISTRY: Final = ("config/test_registry.py",)
TESTS: Final = {  # of each module
    "refresh/pacing": ("refresh/test_pacing.py",),
    "refresh/backoff": ("refresh/test_backoff.py",),
    "refresh/waits": ("refresh/test_waiting.py",),
    "refresh/turns": ("refresh/test_turns.py",),
    "refresh/schedule": ("refresh/test_schedule.py",),
    "refresh/account": tuple(
        f"refresh/test_{name}.py" for name in ("refresher", "ages", "counters", "views", "waits")
    ),
    "slices": ("test_slices.py",),
    "mobizon/response": ("mobizon/test_response.py",),
    "mobizon/call": ("mobizon/test_call.py",),
    "mobizon/greenlets": ("mobizon/test_greenlets.py",),
    "config/registration": ("config/test_registration.py",),
    "config/registry": REGISTRY,
    "config/registry_file": REGISTRY,
    "config/registry_store": REGISTRY,
    "config/schema": ("config/test_schema.py",),
}

SETTINGS: Final = r"""
[mutmut]
source_paths = exporter
only_mutate = exporter/{module}.py
do_not_mutate_patterns =
    ^\s*raise \w+\(.*f?["']
    \blog\.(info|warning|error|exception)\(
pytest_add_cli_args =
    --hypothesis-profile=mutants
    -k
    not Durability
pytest_add_cli_args_test_selection =
    {tests}
timeout_multiplier = 4
timeout_constant = 5.0
use_git_change_detection = false
"""

CONFTEST: Final = """
import signal
from hypothesis import HealthCheck, Phase, settings
from structlog.testing import capture_logs
settings.register_profile(
    "mutants",
    derandomize=True,
    deadline=None,
    max_examples=30,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)

@pytest.fixture(autouse=True)
def ends_in_time():
    def hangs(*_):
        raise TimeoutError
    signal.signal(signal.SIGPROF, hangs)
    signal.setitimer(signal.ITIMER_PROF, 8)  # of CPU: the machine may be busy
    with capture_logs():  # the tool brings rich, whose tracebacks take long
        yield
    signal.setitimer(signal.ITIMER_PROF, 0)
"""


def plain_properties(code: str) -> str:
    """The same code without decorators of properties, for the tool passes over functions that have one."""
    lines = code.splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef) and node.decorator_list and node.end_lineno:
            kind = ast.unparse(node.decorator_list[0])
            if kind in {"property", "cached_property"}:
                lines[node.decorator_list[0].lineno - 1] = ""
                lines[node.end_lineno - 1] += f"\n    {node.name} = {kind}({node.name})"
    return "\n".join(lines) + "\n"


def mutmut(folder: Path, *arguments: str) -> str:
    """What the tool prints."""
    command = [str(Path(sys.executable).parent / "mutmut"), *arguments]
    done = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def statuses(module: str, workers: int) -> dict[str, str]:
    """What has become of each mutant of a module, by its name."""
    folder = WORK / module.replace("/", ".")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("exporter", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    file = folder / "exporter" / f"{module}.py"
    file.write_text(plain_properties(file.read_text("utf-8")), "utf-8")
    with (folder / "tests/conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(CONFTEST)
    tests = "\n    ".join(f"tests/{test}" for test in TESTS[module])
    (folder / "setup.cfg").write_text(SETTINGS.format(module=module, tests=tests), "utf-8")
    mutmut(folder, "run", "--max-children", str(workers))
    rows = (line.strip().split(": ") for line in mutmut(folder, "results", "--all", "true").splitlines())
    return {row[0]: row[1] for row in rows}


def change(module: str, name: str) -> str:
    """What a mutant changes: the lines without and with it."""
    shown = mutmut(WORK / module.replace("/", "."), "show", name).splitlines()
    changed = (line for line in shown if line[:1] in "+-" and not line.startswith(("---", "+++")))
    return "\n".join(line[0] + line[1:].strip() for line in changed if line)


def main() -> int:
    """Print a line a module, and the mutants that survive."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"one of {', '.join(TESTS)}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    equivalent = tomllib.loads(EQUIVALENT.read_text("utf-8"))
    total, wrong = Counter[str](), False
    print(f"{'module':24} {'mutants':>8} {'killed':>8} {'equivalent':>11} {'score':>8} {'seconds':>8}")
    for module in options.modules or TESTS:
        began = time.monotonic()
        found = statuses(module, options.workers)
        listed = {entry["change"].strip(): entry["why"] for entry in equivalent.get(module, ())}
        survivors = {name: change(module, name) for name, status in found.items() if status not in KILLED}
        spared = sum(text in listed for text in survivors.values())
        killed = len(found) - len(survivors)
        score = 100 * killed / (len(found) - spared)
        total += Counter(mutants=len(found), killed=killed, equivalent=spared)
        took = time.monotonic() - began
        print(f"{module:24} {len(found):8} {killed:8} {spared:11} {score:7.1f}% {took:8.0f}", flush=True)
        for name, text in survivors.items():
            if text not in listed:
                print(f"\n{found[name]}: {name}\n{text}")
        stale = listed.keys() - survivors.values()
        for text in stale:
            print(f"\nlisted as equivalent, but does not survive:\n{text}")
        wrong |= score < MIN_SCORE or bool(stale)
    score = 100 * total["killed"] / (total["mutants"] - total["equivalent"])
    print(f"{'total':24} {total['mutants']:8} {total['killed']:8} {total['equivalent']:11} {score:7.1f}%")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
