"""What reading files needs, whoever holds them: a node, or the spool of what was captured of one."""

import hashlib
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Protocol


class Sink(Protocol):
    """Takes the content of a file, and can forget what it took of a reading that failed."""

    def write(self, data: bytes) -> int:
        """Take all of ``data``."""

    def restart(self) -> None:
        """Forget this file's content so far."""


class Digest:
    """A sink that keeps nothing of a file but its SHA-256."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin again."""
        self._hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        """Take all of ``data``."""
        self._hash.update(data)
        return len(data)

    @property
    def hex(self) -> str:
        """The SHA-256 so far."""
        return self._hash.hexdigest()


class Contents(Protocol):
    """Files that can be looked up and read: those of a node, or those captured of it. Paths as in ``Files``."""

    def real(self, path: PurePosixPath | str) -> PurePosixPath | None:
        """Follow every link of ``path``; ``None`` if it leads to nothing."""

    def exists(self, path: PurePosixPath | str) -> bool:
        """Tell whether ``path`` leads to something, through links too."""

    def contents(self, path: PurePosixPath | str) -> bytes | None:
        """Read a regular file of up to 1 MiB, through links too; ``None`` if there is none, or it is unreadable."""

    def text(self, path: PurePosixPath | str) -> str | None:
        """Read such a file as UTF-8; ``None`` too if it is not UTF-8."""

    def expand(self, patterns: Iterable[str]) -> list[PurePosixPath]:
        """List what absolute paths and globs name: sorted, each once; a directory stands for all below it too."""
