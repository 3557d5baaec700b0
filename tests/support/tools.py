"""The programs that tests need besides Python's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[2]
# What `make tools` builds, where.
_BUILT = {"promtool-3": ".tools/promtool", "helm": ".tools/helm"}
_PACKAGES = {
    "promtool": "prometheus",
    "prometheus": "prometheus",
    "amtool": "prometheus-alertmanager",
    "alertmanager": "prometheus-alertmanager",
    "systemd-analyze": "systemd",
    "git": "git",
    "php": "php-cli",
}
# Debian's name for it.
_NAMES = {"alertmanager": ("alertmanager", "prometheus-alertmanager")}


def need(tool: str) -> str:
    """The path of a program; where it is missing the test is skipped, or fails under CI=true."""
    path = _path(tool)
    if path is not None:
        return path
    source = "make tools" if tool in _BUILT else f"apt-get install {_PACKAGES.get(tool, tool)}"
    hint = f"{tool} is missing: {source}"
    if os.environ.get("CI") == "true":
        pytest.fail(hint)
    pytest.skip(hint)


def need_any(*tools: str) -> list[str]:
    """The paths of those of the programs that are there, at least one; of all under CI=true."""
    found = [tool for tool in tools if _path(tool) is not None]
    wanted = tools if os.environ.get("CI") == "true" or not found else found
    return [need(tool) for tool in wanted]


def _path(tool: str) -> str | None:
    if tool in _BUILT:
        built = _ROOT / _BUILT[tool]
        return str(built) if built.exists() else None
    return next(filter(None, map(shutil.which, _NAMES.get(tool, (tool,)))), None)
