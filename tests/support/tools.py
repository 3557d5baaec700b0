"""The programs that tests need besides Python's."""

from __future__ import annotations

import os
import shutil

import pytest

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
    for name in _NAMES.get(tool, (tool,)):
        path = shutil.which(name)
        if path is not None:
            return path
    hint = f"{tool} is missing: apt-get install {_PACKAGES.get(tool, tool)}"
    if os.environ.get("CI") == "true":
        pytest.fail(hint)
    pytest.skip(hint)
