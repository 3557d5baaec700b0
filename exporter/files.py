"""Replacing a file whole, so that a crash leaves the old content or the new."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, so that after a crash there is the old one or the new.

    Where OSError is raised, it is the old one.
    """
    folder = os.open(path.parent, os.O_RDONLY)  # first: afterwards there might be no descriptor left
    try:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(path), dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # not every network file system can, and the file is in place
            os.fsync(folder)  # else the rename may be lost with the power
    finally:
        os.close(folder)


def remove_leftovers(path: Path) -> None:
    """Remove what processes that were killed have left of a file; nobody else may be replacing it."""
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"
