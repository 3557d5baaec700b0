"""Reads files, and tells which of them have changed since, mostly without reading them again."""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING, Final

from exporter.errors import ConfigError
from exporter.files import Signature, describe_error, signature

if TYPE_CHECKING:
    from collections.abc import Callable

# A file system's clock may tick this slowly (seconds): what was just written may be written again without
# looking any different, so it is read again until it has not changed for so long.
SETTLES_AFTER: Final = 2.0


class WatchedFiles:
    """The files read so far, each with its signature. Not for several threads at once."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._read: dict[str, tuple[Signature | None, bool, int]] = {}

    def read(self, path: str, *, pipes: bool = False) -> bytes:
        """The content of a file; raises ConfigError that says why it cannot be had.

        Without `pipes` a named pipe is refused: opening one blocks until a process writes to it.
        """
        found = signature(path)
        try:
            if not pipes and found and stat.S_ISFIFO(found[-1]):
                raise OSError(errno.EINVAL, "Is a pipe")
            with open(path, "rb") as file:
                content = file.read()
        except OSError as error:
            self._read[path] = (found, found is not None and not _is_regular(found), 0)
            raise ConfigError([f"{path}: {describe_error(error)}"]) from None
        self._read[path] = (found, self._is_settled(found), hash(content))
        return content

    def forget_all_but(self, paths: set[str]) -> None:
        """Forget what is known of other files: task files come and go all day."""
        for path in self._read.keys() - paths:
            del self._read[path]

    def changed(self, path: str) -> bool:
        """Whether the file may hold something else than what was read, or can be read only now."""
        known, settled, content = self._read[path]
        if known != signature(path):
            return True
        if settled or known is None:
            return False
        try:
            with open(path, "rb") as file:
                same = hash(file.read()) == content
        except OSError:
            return content != 0
        if same:
            self._read[path] = (known, self._is_settled(known), content)
        return not same

    def _is_settled(self, found: Signature | None) -> bool:
        """Whether a change would show in the signature; what is no regular file is not read twice."""
        if found is None:
            return False
        return not _is_regular(found) or self._wall() - max(found[:2]) / 1e9 > SETTLES_AFTER


def _is_regular(found: Signature) -> bool:
    return stat.S_ISREG(found[-1])
