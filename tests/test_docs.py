"""The documentation: commands run, snippets are valid, tables and figures are those of the code."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
import textwrap
import threading
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from benchmarks import summary
from exporter import __version__, cli
from exporter import simulator as sim
from exporter.config import settings as config
from exporter.config.load import load_tasks
from exporter.config.watch import ConfigWatch
from exporter.errors import Reason
from exporter.mobizon.client import MAX_BODY
from exporter.mobizon.sender import FILES_PER_REQUEST, MAX_REQUESTS
from exporter.model import STATES
from exporter.refresh import backoff, pacing
from exporter.simulator import DEMO_KEY, Simulator, SimulatorThread
from exporter.web import auth, routes, server, webconfig
from exporter.web import tasks_json as api
from exporter.web.tls import TlsSettings
from tests.support import promql, promtools
from tests.support.certificates import Authority
from tests.support.fakes import START, World, account
from tests.support.processes import ROOT, ExporterProcess
from tests.support.tools import need

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

READMES = ("README.md", "README.ru.md")
DOCUMENTS = (
    *READMES,
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/RESULTS.md",
    *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))),
)
TEXTS = {name: (ROOT / name).read_text("utf-8") for name in DOCUMENTS}
ADDRESS = "localhost:10117"  # where the documentation has the exporter; the tests have it elsewhere
PASSWORD = "put-your-password-here"

NOT_RUN = {
    "docker": "no engine runs in tests: that its file is there is looked at, other tests read what is in it",
    "kubectl": "no cluster runs in tests: the same",
    "git": "a clone needs the network: the folder that it would make is made empty",
    "make": "its targets are tests, or would run for ever: `make -n` shows that the target exists",
    "pytest": "it would run the tests within a test: they are collected, so that files and names are right",
}
"""Commands in whose place something milder runs."""

INSTALLED = ("curl", "openssl")
"""Programs that most machines have; without them the blocks that need them are left out."""

SHIMS = {
    "docker": 'test "$1 $2" = "compose -f" && test -f "$3"',
    "kubectl": 'test "$1 $2" = "apply -k" && test -f "$3/kustomization.yaml"',
    "git": 'mkdir "$(basename "$2")"',
    "make": f'exec "{shutil.which("make") or "make"}" -n -C "{ROOT}" "$@"',
    "pytest": f'cd "{ROOT}" && exec "{sys.executable}" -m pytest --collect-only -q -p no:cacheprovider "$@"',
    "python": f'exec "{sys.executable}" "$@"',
    "mobizon-exporter": f'exec "{sys.executable}" "$(dirname "$0")/exporter.py" "$@"',
}

EXPORTER = '''
"""The command as it is; but a server listens on a free port, and ends once it listens."""
import signal, subprocess, sys
command = [sys.executable, "-m", "exporter", *sys.argv[1:]]
if {"--config.check", "--version", "--help"} & set(command):
    sys.exit(subprocess.call(command))
command = [word for word in command if not word.startswith("--web.listen-address")]
command.append("--web.listen-address=127.0.0.1:0")
with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
    for line in process.stderr:
        print(line, end="", file=sys.stderr)
        if "Started mobizon-exporter" in line:
            process.send_signal(signal.SIGTERM)
sys.exit(process.returncode)
'''


# What is in the documents.


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"

    @property
    def name(self) -> str:
        """The file that it is, which its first line tells."""
        found = re.match(r"# (\S+\.yaml)\n", self.text)
        assert found, f"{self}: the first line of a YAML block names its file"
        return found[1]


def _blocks() -> Iterator[Block]:
    fence = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
    for document, text in TEXTS.items():
        for found in fence.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(document, line, found[2], textwrap.dedent(found[3]))


BLOCKS = list(_blocks())


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def table(document: str, *head: str) -> list[list[str]]:
    """The rows of the table that has these column heads, as they are written."""
    lines = TEXTS[document].splitlines()
    for at, line in enumerate(lines):
        if cells(line) == list(head):
            rows = itertools.takewhile(lambda row: row.startswith("|"), lines[at + 2 :])
            return [cells(row) for row in rows]
    raise AssertionError(f"{document} has no table {head}")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def items(document: str, heading: str) -> list[str]:
    """The items of the list below this heading."""
    section = TEXTS[document].partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^- (.*)$", section, re.MULTILINE)
    assert found, f"{document} has no list {heading}"
    return found


def in_code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def reads_like(document: str) -> str:
    """A document without its line breaks."""
    return " ".join(TEXTS[document].split())


INTEGRATION = "docs/integration.md"
KINDS = {"sh", "console", "yaml", "jsonc", "promql", "text"}
"""`text` is a diagram, a formula or an output; those of outputs are compared by tests of their own."""


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_snippet_is_of_a_kind_that_is_tested(block: Block) -> None:
    assert block.language in KINDS
    if block.language == "yaml":
        assert kind_of(block.name)


# Commands.


@pytest.fixture(scope="module")
def demo() -> Iterator[ExporterProcess]:
    with ExporterProcess("--demo", "--web.enable-lifecycle") as process:
        yield process


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExporterProcess]:
    """The demo, for which a password is needed."""
    path = tmp_path_factory.mktemp("web") / "web.yaml"
    hashed = "$2b$10$wP9PrfKPqzeAO5KKMkUGK.02MG3cQr7ebnp/5f2Rhmec3.U6wa7uS"
    path.write_text(f"basic_auth_users: {{probe: {hashed}}}\n")
    with ExporterProcess("--demo", f"--web.config.file={path}") as process:
        yield process


def furnish(folder: Path) -> None:
    """What the documentation takes to be there: the repository's files, keys and certificates."""
    for name in ("alerts", "dashboards", "deploy", "tests", "config.example.yaml"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    shutil.copy(ROOT / "docs/generate.py", folder / "docs")
    shutil.copytree(ROOT / "docs/templates", folder / "docs/templates")
    (folder / "mobizon_key").write_text("mobizonkey".ljust(40, "0"))
    authority = Authority(folder, "clients")
    pair = authority.issue("web", x509.DNSName("localhost"))
    for path, name in ((pair.cert, "web.crt"), (pair.key, "web.key")):
        if path != folder / name:
            shutil.copy(path, folder / name)
    (folder / "password").write_text(PASSWORD)


def shell(folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run it as a reader would, with some commands replaced by milder ones."""
    shims = folder / "bin"
    if not shims.exists():
        shims.mkdir()
        (shims / "exporter.py").write_text(EXPORTER)
        for name, body in SHIMS.items():
            (shims / name).write_text(f"#!/bin/sh\n{body}\n")
            (shims / name).chmod(0o755)
    environment = {
        "PATH": f"{shims}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(folder),
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
        "id": "103",  # completed, in the demo
        "PROBE_PASSWORD": PASSWORD,
    }
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        input=f"{PASSWORD}\n",
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        start_new_session=True,  # no terminal to ask for passwords on
        check=False,
    )


@pytest.mark.parametrize(
    "document",
    [
        name
        for name in DOCUMENTS
        if name != INTEGRATION and {b.language for b in BLOCKS if b.document == name} & {"sh", "console"}
    ],
)
def test_the_commands_of_a_document_work_one_after_the_other(
    document: str, tmp_path: Path, demo: ExporterProcess, protected: ExporterProcess
) -> None:
    furnish(tmp_path)
    missing: set[str] = set()
    for block in (block for block in BLOCKS if block.document == document):
        lacking = {tool for tool in INSTALLED if tool in block.text.split() and not shutil.which(tool)}
        missing |= lacking
        if lacking:
            continue
        here = protected if "--user" in block.text else demo
        script = block.text.replace(ADDRESS, here.url.removeprefix("http://"))
        if block.language == "yaml":
            (tmp_path / block.name).write_text(block.text)
        elif block.language == "sh":
            done = shell(tmp_path, script)
            assert done.returncode == 0, f"{block}: {done.stdout}"
        elif block.language == "console":
            for command, expected in conversation(script):
                done = shell(tmp_path, command)
                assert (done.stdout, done.returncode) == (expected, 0), f"{block}: {command}"
    for tool in missing:  # the rest has been run
        need(tool)


def conversation(text: str) -> list[tuple[str, str]]:
    """The commands of a console, each with what it answers."""
    first, *rest = re.split(r"^\$ (.*)\n", text, flags=re.MULTILINE)
    assert not first, "a console begins with a command"
    return list(zip(rest[::2], rest[1::2], strict=True))


def test_commands_that_are_not_run_are_listed_with_their_reason() -> None:
    assert set(NOT_RUN) <= set(SHIMS)
    said = " ".join(block.text for block in of("sh", "console"))
    assert all(re.search(rf"\b{command}\b", said) for command in NOT_RUN), "a reason that nobody needs"


def test_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    assert shell(tmp_path, "mobizon-exportr --version").returncode == 127
    assert shell(tmp_path, "mobizon-exporter --config.chekc").returncode == 2
    assert shell(tmp_path, "make demonstrate").returncode == 2


def test_make_targets_named_in_the_text_exist(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document, text in TEXTS.items():
        for target in re.findall(r"`make (\w+)`", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"


# Registering a task from a script.


def registered(folder: Path) -> set[int]:
    readme = (block for block in of("yaml") if block.document == "README.md")
    (folder / "config.yaml").write_text(next(block.text for block in readme if block.name == "config.yaml"))
    watch = ConfigWatch(folder / "config.yaml", {})
    tasks = watch.load().accounts[0].tasks
    assert not watch.problems()
    return {task.id for task in tasks if task.name == "spring-sale"}


def test_two_lines_of_shell_list_a_task(tmp_path: Path) -> None:
    furnish(tmp_path)
    (tmp_path / "tasks.d").mkdir()
    (lines,) = [block.text for block in of("sh") if block.document == INTEGRATION and "mv " in block.text]
    first, second = lines.splitlines()
    assert shell(tmp_path, first).returncode == 0
    assert registered(tmp_path) == {124}, "half of it shows nothing"
    assert shell(tmp_path, second).returncode == 0
    assert registered(tmp_path) == {124, 103}


# Configurations.


def kind_of(name: str) -> str:
    """Whose configuration a file is, by its name."""
    kinds = {
        r"config\.yaml": "exporter",
        r"tasks\.d/.*\.yaml": "tasks",
        r"web(-\w+)?\.yaml": "web",
        r"prometheus(-[\w-]+)?\.yaml": "prometheus",
    }
    return next(kind for pattern, kind in kinds.items() if re.fullmatch(pattern, name))


@pytest.mark.parametrize("block", [b for b in of("yaml") if kind_of(b.name) != "prometheus"], ids=str)
def test_configurations_are_valid(block: Block, tmp_path: Path) -> None:
    furnish(tmp_path)
    path = tmp_path / block.name
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)
    match kind_of(block.name):
        case "exporter":
            watch = ConfigWatch(path, {})
            assert watch.load().accounts
            assert not watch.problems()
        case "tasks":
            assert load_tasks(block.name, block.text.encode())
        case "web":
            web = webconfig.load_web_config(path)
            assert web.tls
        case other:
            pytest.fail(f"nobody checks {other}")


def test_the_password_in_the_documents_is_what_they_say() -> None:
    import bcrypt

    hashes = {found for text in TEXTS.values() for found in re.findall(r"\$2b\$\S{56}", text)}
    assert hashes
    assert all(bcrypt.checkpw(PASSWORD.encode(), hashed.encode()) for hashed in hashes)


@pytest.mark.prometheus
@pytest.mark.parametrize("block", [b for b in of("yaml") if kind_of(b.name) == "prometheus"], ids=str)
def test_configurations_of_prometheus_are_valid(block: Block, tmp_path: Path) -> None:
    promtool = need("promtool")
    furnish(tmp_path)
    path = tmp_path / block.name
    path.write_text(block.text)
    done = subprocess.run([promtool, "check", "config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout


# PromQL.


@pytest.fixture(scope="module")
def exported(demo: ExporterProcess) -> dict[str, set[str]]:
    return promtools.exported(demo.url)


def queries() -> list[Any]:
    found = []
    for block in of("promql"):
        for at, query in enumerate(re.split(r"\n\n+", block.text.strip())):
            found.append(pytest.param(query, id=f"{block}-{at}"))
    return found


@pytest.mark.parametrize("query", queries())
def test_queries_ask_for_what_is_exported(query: str, exported: dict[str, set[str]]) -> None:
    asked = promql.selectors(query)
    assert asked
    for selector in asked:
        assert selector.metric in exported
        assert selector.labels <= exported[selector.metric], selector
    assert promql.grouping_labels(query) <= {"reason", "status", "account"}


def test_every_metric_that_is_named_exists(exported: dict[str, set[str]]) -> None:
    families = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported}
    for document, text in TEXTS.items():
        named = set(re.findall(r"\bmobizon_[a-z_]+\b", text))
        assert named <= {*exported, *families, "mobizon_key"}, document


# Links.


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    without_code = re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", without_code, re.MULTILINE)}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    text = re.sub(r"^( *)```.*?^\1```$", "", TEXTS[document], flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        assert not target.startswith("http:"), target
        path, _, anchor = target.partition("#")
        linked = (ROOT / document).parent / path if path else ROOT / document
        assert linked.exists(), target
        assert linked.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked.read_text("utf-8")), target


def test_every_document_is_linked_from_the_readme() -> None:
    for readme in READMES:
        for document in DOCUMENTS:
            if document.startswith("docs/"):
                assert f"]({document})" in TEXTS[readme], f"{readme}: {document}"


# Tables and figures.


def test_both_readmes_have_the_same_snippets() -> None:
    english, russian = (
        [(b.language, without_comments(b)) for b in BLOCKS if b.document == name and b.language != "text"]
        for name in READMES
    )
    assert english == russian


def without_comments(block: Block) -> str:
    """A comment may be translated; the name of the file in the first line may not."""
    if block.language in {"yaml", "promql"}:
        head = f"{block.name}\n" if block.language == "yaml" else ""
        return head + re.sub(r"(^|\s+)#.*", "", block.text)
    return block.text


def flags() -> dict[str, argparse.Action]:
    parser = cli.parser()
    return {action.option_strings[-1]: action for action in parser._actions}


def test_the_table_of_flags_is_that_of_the_command() -> None:
    """Each with its default, or with a placeholder in capitals where there is none."""
    expected = {}
    for flag, action in flags().items():
        default = ":10117" if flag == "--web.listen-address" else action.default
        expected[flag] = "" if action.nargs == 0 else default
    documented: dict[str, str | None] = {}
    for cell, _ in table("docs/configuration.md", "flag and default", "meaning"):
        for written in in_code(cell):
            flag, _, value = written.partition("=")
            documented[flag] = None if value.isupper() else value
    assert documented == {flag: value if value is None else str(value) for flag, value in expected.items()}
    assert '":10117"' in (ROOT / "exporter/cli.py").read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_flag_that_is_named_exists(document: str) -> None:
    for flag in re.findall(
        r"(?<![\w-])--(?:config|web|state|registry|scrape|log|demo|probe)[\w.-]*", TEXTS[document]
    ):
        assert flag.rstrip(".") in flags(), flag


@pytest.mark.parametrize("readme", READMES)
def test_the_lines_of_metrics_are_such_as_a_scrape_brings(readme: str, exported: dict[str, set[str]]) -> None:
    (lines,) = [block.text for block in of("text") if block.document == readme and "mobizon_up" in block.text]
    samples = [sample for family in text_string_to_metric_families(lines) for sample in family.samples]
    assert len(samples) == 12
    for sample in samples:
        assert sample.name in exported
        assert sample.labels.keys() <= exported[sample.name]


def test_generated_references_are_up_to_date(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs/generate.py", tmp_path], check=True, capture_output=True)
    for name in ("configuration.md", "metrics.md"):
        assert (tmp_path / name).read_text("utf-8") == TEXTS[f"docs/{name}"], "run: python docs/generate.py"


def test_the_settings_of_an_account_are_documented() -> None:
    section = TEXTS["docs/configuration.md"].partition("\n## Several accounts\n")[2].partition("\n## ")[0]
    named = set(in_code(re.sub(r"```.*?```", "", section, flags=re.DOTALL)))
    assert {field.name for field in fields(config.AccountSettings)} <= named


def test_the_reference_of_metrics_has_names_types_and_labels_as_exported(demo: ExporterProcess) -> None:
    exported = promtools.exported(demo.url)
    described = {"name", "team", "task_id", "le"}  # in words, below the table
    families = {}
    for family in text_string_to_metric_families(demo.scrape(0.6, patience=30)):
        if family.name.startswith("mobizon_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            # a task's error may be over by now
            labels = exported.get(name, set()) | exported.get(f"{name}_bucket", set())
            families[name] = family.type, labels - described
    documented = {}
    for cell, kind, _ in table("docs/metrics.md", "metric", "type", "value"):
        name, _, listed = in_code(cell)[0].removesuffix("}").partition("{")
        documented[name] = kind, set(filter(None, listed.split(",")))
    assert documented == families


def test_the_json_of_tasks_is_as_documented(demo: ExporterProcess) -> None:
    (text,) = [block.text for block in of("jsonc")]
    documented = json.loads(re.sub(r"  // .*", "", text))
    answer = requests.get(f"{demo.url}/api/v1/tasks", timeout=10).json()
    assert list(documented) == list(answer)
    assert list(documented["states"]) == list(answer["states"])
    for kind in ("accounts", "tasks"):
        assert list(documented[kind][0]) == list(answer[kind][0])
    assert documented["accounts"][0]["failures"].keys() <= answer["accounts"][0]["failures"].keys()
    assert api.tasks_json((), 0.0).keys() == answer.keys()


def test_the_paths_of_the_server_are_documented(demo: ExporterProcess) -> None:
    for path, _ in table("docs/api.md", "path", "answer"):
        method = "POST" if path == "`/-/reload`" else "GET"
        impatient = {routes.SCRAPE_TIMEOUT_HEADER: "0.6"}
        answer = requests.request(method, demo.url + path.strip("`"), headers=impatient, timeout=30)
        assert answer.status_code == 200, path


def test_every_module_has_its_place_in_the_design() -> None:
    modules = [item.partition(":")[0] for item in items("docs/design.md", "Folders")]
    named = [name for names in modules for name in in_code(names)]
    paths = [
        path
        for path in (ROOT / "exporter").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    ]
    assert sorted(named) == sorted(path.stem for path in paths if not path.stem.startswith("__"))


def test_what_the_design_points_at_is_there() -> None:
    for places in items("docs/design.md", "Where to change what"):
        files = [name for name in in_code(places) if "." in name]
        found = [path for name in files for path in (ROOT / "exporter").rglob(name)]
        found += [ROOT / name for name in files if (ROOT / name).is_file()]
        assert len(found) == len(files), places
        for name in set(in_code(places)) - set(files):
            assert any(name in path.read_text("utf-8") for path in found), name


def test_every_state_is_documented() -> None:
    _, _, text = reads_like("docs/metrics.md").partition("`mobizon_tasks` always has six: ")
    assert in_code(text.partition(".")[0]) == list(STATES)


def test_every_reason_has_a_remedy() -> None:
    rows = table("docs/metrics.md", "reason", "cause", "backs off", "what to do")
    assert [in_code(name)[0] for name, *_ in rows] == list(Reason)
    assert all(all(row) for row in rows)


def test_the_settings_of_the_web_configuration_are_documented() -> None:
    rows = table("docs/security.md", "setting", "")
    named = {name for setting, _ in rows for name in in_code(setting)}
    known = {*TlsSettings.__slots__, *webconfig.WebConfigFile.__slots__} - {"tls_server_config"}
    assert named == known
    assert all(kind in TEXTS["docs/security.md"] for kind in webconfig.AUTH_TYPES)


FIGURES = [
    ("docs/scale.md", f"open fewer than {MAX_REQUESTS * FILES_PER_REQUEST} files"),
    ("docs/security.md", f"At most {server.MAX_CONNECTIONS} connections"),
    ("docs/security.md", f"limit on open files is below {server.MAX_CONNECTIONS + server.RESERVE}."),
    ("docs/security.md", f"Below {server.MIN_FILES} the exporter does not start."),
    ("docs/security.md", f"longer than {auth.MAX_PASSWORD} bytes"),
    ("docs/metrics.md", f"over {MAX_BODY // 1024} KiB"),
    ("docs/troubleshooting.md", f"more than {auth.WAITING_CHECKS} passwords wait to be checked"),
    ("docs/scale.md", f"At most {MAX_REQUESTS} requests are under way at once"),
    ("docs/scale.md", "offset --scrape.timeout-offset, 0.5 s"),
    ("docs/design.md", f"sets it to {pacing.FIRST_MARGIN * 100:g} % of the interval"),
    ("docs/design.md", f"within {pacing.LONE_AFTER:g} intervals"),
    ("docs/design.md", f"adds {pacing.CONTENTION_STEP * 100:g} %"),
    ("docs/design.md", f"After {pacing.PROBE_AFTER:g} intervals"),
    ("docs/design.md", "every {:g} to {:g} intervals".format(*pacing.OUTAGE_SPACING)),
    ("docs/design.md", f"up to {pacing.MAX_RETRY_AFTER:g} s"),
    ("docs/metrics.md", f"{backoff.UNREACHABLE_AFTER} connection failures"),
    ("README.md", "Python 3.11 or newer"),
    ("README.ru.md", "Python 3.11 или новее"),
    ("CHANGELOG.md", __version__),
]


@pytest.mark.parametrize(("document", "figure"), FIGURES)
def test_figures_are_those_of_the_code(document: str, figure: str) -> None:
    assert figure in reads_like(document)


def test_figures_that_the_list_above_takes_for_granted() -> None:
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text()
    assert flags()["--scrape.timeout-offset"].default == 0.5
    assert routes.WAIT_WITHOUT_HEADER == 9.5
    assert backoff.MAX_ACCOUNT_DELAY == 60
    assert (pacing.OUTAGE_AFTER, pacing.STARVED_AFTER) == (16, 5)


def test_what_two_exporters_on_one_key_get_is_that_of_the_simulation() -> None:
    """The simulation's output in RESULTS.md is compared with a run of it, as every console is."""
    two = re.findall(r"2 exporters +used +([\d.]+)%.*?refused +([\d.]+)%", TEXTS["benchmarks/RESULTS.md"])
    assert len(two) == 3
    used, refused = ([float(figures[at]) for figures in two] for at in (0, 1))
    assert f"{min(used):.0f} to {max(used):.0f} % of the budget" in reads_like("docs/scale.md")
    assert f"{min(refused):.0f} to {max(refused):.0f} % of the requests" in reads_like("docs/scale.md")


@pytest.mark.parametrize("document", summary.DOCUMENTS)
def test_the_figures_of_a_summary_are_those_of_the_tables(document: str) -> None:
    figures = summary.measured(TEXTS["benchmarks/RESULTS.md"])
    assert summary.told(document, TEXTS[document], figures) == TEXTS[document], (
        "run: python -m benchmarks.summary"
    )


# Tasks and scrape intervals.


def seconds(text: str) -> float:
    return float(config.duration(text))


def scale() -> list[Any]:
    rows = [
        pytest.param(
            int(tasks),
            seconds(every),
            seconds(timeout),
            waits == "yes",
            in_seconds(age),
            id=f"{tasks}-{every}",
        )
        for tasks, every, timeout, waits, age in table(
            "docs/scale.md", "active tasks", "`scrape_interval`", "`scrape_timeout`", "waits", _AGE
        )
    ]
    tasks, timeout = re.findall(r"(\d+) active tasks fit into (\d+) s", TEXTS["README.md"])[0]
    rows.append(pytest.param(int(tasks), 30.0, float(timeout), True, float(timeout), id="readme"))
    return rows


_AGE = "oldest reading, at most"


def in_seconds(age: str) -> float:
    number, unit = age.split()
    return float(number) * {"s": 1, "min": 60}[unit]


@pytest.mark.parametrize(("tasks", "every", "timeout", "waits", "age"), scale())
def test_the_tables_of_scrape_intervals_hold(
    tasks: int, every: float, timeout: float, waits: bool, age: float
) -> None:
    """With the margin that refusals add to the spacing, and answers of 250 ms."""
    world = World(account(tasks, interval=1.04))
    world.api.latency = lambda: 0.25
    scrapes = []
    for _ in range(int(2.2 * max(tasks * 1.04, every) / every) + 3):
        scrapes.append(world.scrape(timeout - 0.5))
        world.loop.advance(every)
    for scrape in scrapes[-3:]:
        assert scrape.answered_at is not None
        taken = [
            task.reading.taken_at - START for view in scrape.views for task in view.tasks if task.reading
        ]
        assert len(taken) == tasks
        oldest = scrape.answered_at - min(taken)
        if waits:
            assert scrape.took <= timeout - 0.5
            assert min(taken) > scrape.at
        else:
            assert scrape.took == 0
            assert oldest > age / 2, "a bound that says nothing"
        assert oldest <= age


def test_asking_for_ten_tasks_at_once_gets_one_of_ten_answered() -> None:
    """What README says of an exporter that asks for every task on every scrape."""
    with SimulatorThread(Simulator({task: sim.stalled() for task in range(1, 11)})) as simulated:
        url = f"{simulated.url}/service/taskqueue/getStatus?output=json&api=v1&apiKey={DEMO_KEY}"

        def ask(task: int) -> None:
            requests.post(url, data={"id": task}, timeout=10)

        threads = [threading.Thread(target=ask, args=(task,)) for task in range(1, 11)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        codes = [request.code for request in simulated.requests]
    assert sorted(code for code in codes if code is not None) == [0] + [30] * 9
