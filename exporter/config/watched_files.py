"""Reads files, and tells which of them have changed since, mostly without reading them again."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final

from exporter.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

# A file system's clock may tick this slowly (seconds): what was just written may be written again without
# looking any different, so it is read again until it has not changed for so long.
SETTLES_AFTER: Final = 2.0

Signature = tuple[int, ...]


class WatchedFiles:
    """The files read so far, each with its signature. Not for several threads at once."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._read: dict[str, tuple[Signature | None, bool, int]] = {}

    def read(self, path: str, *, pipes: bool = False) -> bytes:
        """The content of a file; raises ConfigError that says why it cannot be had.

        Without `pipes` a named pipe is refused: to open one waits until somebody writes to it.
        """
        signature = _signature(path)
        try:
            if not pipes and signature and stat.S_ISFIFO(signature[-1]):
                raise OSError(errno.EINVAL, "Is a pipe")
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            self._read[path] = (signature, signature is not None and not _is_regular(signature), 0)
            raise ConfigError([f"{path}: {(error.strerror or 'cannot be read').lower()}"]) from None
        self._read[path] = (signature, self._is_settled(signature), hash(content))
        return content

    def forget_all_but(self, paths: set[str]) -> None:
        """Forget what is known of other files: task files come and go all day."""
        for path in self._read.keys() - paths:
            del self._read[path]

    def changed(self, path: str) -> bool:
        """Whether the file may hold something else than what was read, or can be read only now."""
        signature, settled, content = self._read[path]
        if signature != _signature(path):
            return True
        if settled or signature is None:
            return False
        try:
            with open(path, "rb") as file:
                same = hash(file.read()) == content
        except OSError:
            return content != 0
        if same:
            self._read[path] = (signature, self._is_settled(signature), content)
        return not same

    def _is_settled(self, signature: Signature | None) -> bool:
        """Whether a change would show in the signature; what is no regular file is not read twice."""
        if signature is None:
            return False
        return not _is_regular(signature) or self._wall() - max(signature[:2]) / 1e9 > SETTLES_AFTER


def _is_regular(signature: Signature) -> bool:
    return stat.S_ISREG(signature[-1])


def _signature(path: str) -> Signature | None:
    """What tells a changed file from an unchanged one without reading it; None if there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # the latter for a NUL in the path
        return None
    if not stat.S_ISREG(found.st_mode):  # the times of a pipe change whenever somebody writes into it
        return 0, 0, found.st_ino, found.st_dev, 0, found.st_mode
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev, found.st_size, found.st_mode
