"""Files: replacing one whole, telling whether one has changed, and putting errors into words."""

from __future__ import annotations

import contextlib
import glob
import os
import stat
import tempfile
from pathlib import Path

Signature = tuple[int, ...]


def signature(path: str | Path) -> Signature | None:
    """What tells a changed file from an unchanged one without reading it; None if there is none.

    Nanoseconds of the last change come first, the mode (as in `os.stat`) last.
    """
    try:
        found = os.stat(path)  # noqa: PTH116 - of thousands of files on a scrape, where pathlib costs more
    except (OSError, ValueError):  # the latter for a NUL in the path
        return None
    if not stat.S_ISREG(found.st_mode):  # the times of a pipe change with each write into it
        return 0, 0, found.st_ino, found.st_dev, 0, found.st_mode
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev, found.st_size, found.st_mode


def describe_error(error: OSError) -> str:
    """An error of the file system in a few words."""
    return (error.strerror or "cannot be read").lower()


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
    """Remove what processes that were killed have left of a file; no other process may be replacing it."""
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def _prefix(path: Path) -> str:
    return f".{path.name}.new-"
