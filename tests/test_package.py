"""The package: what is in the wheel and in the sdist, that PyPI would take both, and that the wheel runs."""

from __future__ import annotations

import email
import email.message
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest
import requests

from exporter import __version__
from tests.support.processes import ROOT, Samples
from tests.support.tools import need

LINK = "https://github.com/mobizon-exporter/mobizon-exporter"
RAW = "https://raw.githubusercontent.com/mobizon-exporter/mobizon-exporter"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NAME = f"mobizon_exporter-{__version__}"
LEFT_BEHIND = {"__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis", ".venv", ".git"}


@dataclass(frozen=True)
class Dist:
    """The paths of both files, and of what is in them."""

    wheel: Path
    sdist: Path
    in_wheel: set[str]
    in_sdist: set[str]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Dist:
    """Built as a release is built: the wheel from the sdist. Without isolation, so without the network."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    wheel, sdist = out / f"{NAME}-py3-none-any.whl", out / f"{NAME}.tar.gz"
    assert {wheel, sdist} == set(out.iterdir())
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as tar:
        in_sdist = {
            member.name.removeprefix(f"{NAME}/")
            for member in tar.getmembers()
            if member.isfile() or member.issym()
        }
        return Dist(wheel, sdist, set(archive.namelist()), in_sdist)


@pytest.fixture(scope="module")
def metadata(dist: Dist) -> email.message.Message:
    with zipfile.ZipFile(dist.wheel) as archive:
        return email.message_from_string(archive.read(f"{NAME}.dist-info/METADATA").decode())


def files_below(folder: Path) -> set[str]:
    return {
        str(path.relative_to(ROOT))
        for path in folder.rglob("*")
        if path.is_file() and not LEFT_BEHIND & set(path.parts)
    }


def test_the_wheel_holds_the_package_and_nothing_else(dist: Dist) -> None:
    package = {name for name in dist.in_wheel if not name.startswith(f"{NAME}.dist-info/")}
    assert package == files_below(ROOT / "exporter")
    assert {
        "exporter/py.typed",
        "exporter/web/static/status.css",
        "exporter/web/templates/status.html",
    } <= package


def test_the_wheel_carries_the_licence_and_one_command_named_like_the_package(dist: Dist) -> None:
    with zipfile.ZipFile(dist.wheel) as archive:
        licence = archive.read(f"{NAME}.dist-info/licenses/LICENSE")
        commands = archive.read(f"{NAME}.dist-info/entry_points.txt").decode()
    assert licence == (ROOT / "LICENSE").read_bytes()
    # `pipx run mobizon-exporter` looks for a command of that name.
    assert commands.split() == ["[console_scripts]", "mobizon-exporter", "=", "exporter.__main__:main"]


@pytest.mark.parametrize("folder", ["exporter", "tests", "dashboards", "alerts", "deploy", "docs", ".github"])
def test_the_sdist_holds_every_folder_whole(dist: Dist, folder: str) -> None:
    assert {name for name in dist.in_sdist if name.startswith(f"{folder}/")} == files_below(ROOT / folder)


def test_the_sdist_holds_what_git_holds(dist: Dist) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository")
    listed = subprocess.run(
        [need("git"), "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    assert tracked <= dist.in_sdist


def test_the_sdist_holds_nothing_that_lies_about(dist: Dist) -> None:
    only = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["only-include"])
    made = {"PKG-INFO", ".gitignore", "pyproject.toml"}  # hatchling adds them by itself
    for name in dist.in_sdist - made:
        parts = PurePosixPath(name).parts
        assert parts[0] in only or name in only, name
        assert not LEFT_BEHIND & set(parts), name
        assert (ROOT / name).is_file(), name


def test_the_metadata_are_complete(metadata: email.message.Message) -> None:
    assert metadata["Name"] == "mobizon-exporter"
    assert metadata["Version"] == __version__
    assert metadata["Summary"]
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    links = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Source", "Changelog", "Issues"} == set(links)
    assert all(link.startswith(LINK) for link in links.values())
    for link in links.values():
        assert "/main/" not in link or (ROOT / link.partition("/main/")[2]).exists(), link


def test_the_description_is_the_readme_with_links_that_lead_there_from_pypi(
    metadata: email.message.Message,
) -> None:
    description, readme = str(metadata.get_payload()), (ROOT / "README.md").read_text("utf-8")
    assert description.splitlines()[0] == readme.splitlines()[0]
    assert len(description.splitlines()) == len(readme.splitlines())
    links = re.findall(r"\]\(([^)]+)\)", description)
    assert links
    for link in links:
        assert link.startswith(("https://", "#")), link
        inside = re.match(rf"({LINK}/blob|{RAW})/main/([^#]+)", link)
        assert not inside or (ROOT / inside[2]).exists(), link


def test_the_classifiers_name_the_pythons_that_ci_runs(metadata: email.message.Message) -> None:
    classifiers = metadata.get_all("Classifier", [])
    named = [re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", line) for line in classifiers]
    assert tuple(found[1] for found in named if found) == PYTHONS
    assert "Typing :: Typed" in classifiers


def test_pypi_would_take_both(dist: Dist) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", str(dist.wheel), str(dist.sdist)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def python(version: str) -> str | None:
    """The path of a Python of that version, if there is one; CI on GitHub has them all."""
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    question = "import sys, ensurepip; print('{}.{}'.format(*sys.version_info))"
    # What is found may be a shim, or lack what a virtual environment is made of.
    if found:
        result = subprocess.run([found, "-c", question], capture_output=True, text=True, check=False)
        if result.stdout.strip() == version:
            return found
    return None


@pytest.mark.slow
@pytest.mark.parametrize("version", [version for version in PYTHONS if python(version)])
def test_the_wheel_installs_by_itself_and_serves_the_demo(dist: Dist, tmp_path: Path, version: str) -> None:
    interpreter = python(version)
    assert interpreter
    environ = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL"))
    }
    subprocess.run(
        [interpreter, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True, env=environ
    )
    pip = [sys.executable, "-m", "pip", "--python", str(tmp_path / "venv/bin/python"), "--quiet"]
    installed = subprocess.run(
        [*pip, "install", str(dist.wheel)], capture_output=True, text=True, check=False, env=environ
    )
    assert installed.returncode == 0, installed.stderr
    command = [str(tmp_path / "venv/bin/mobizon-exporter"), "--demo", "--web.listen-address=127.0.0.1:0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout
            line = next((line for line in process.stdout if "msg=Listening" in line), "")
            url = f"http://{line.split('address=')[1].split()[0]}"
            samples = Samples(requests.get(f"{url}/metrics", timeout=20).text)
            assert samples.all("mobizon_exporter_build_info", version=__version__)
            assert samples.all("mobizon_task_progress")
            assert "<html" in requests.get(f"{url}/", timeout=20).text
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
