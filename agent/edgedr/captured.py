"""What was captured of a node's files, to be read as the node's own: closure is checked on what a restore will have."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import PurePosixPath

from edgedr.inventory import Entry, EntryKind
from edgedr.node.files import matches

_MAX_LINKS = 40
_MAX_CONTENT = 1 << 20


class CapturedFiles:
    """Entries by path, each with where its content begins; ``read(start, size)`` returns bytes of it."""

    def __init__(self, taken: Mapping[PurePosixPath, tuple[Entry, int]], read: Callable[[int, int], bytes]) -> None:
        self._taken = taken
        self._read = read

    def exists(self, path: PurePosixPath | str) -> bool:
        """Tell whether ``path`` was captured, with what it links to."""
        return self._real(PurePosixPath(path)) is not None

    def contents(self, path: PurePosixPath | str) -> bytes | None:
        """Return a captured file's content, of up to 1 MiB; ``None`` if there is none."""
        real = self._real(PurePosixPath(path))
        if real is None:
            return None
        entry, start = self._taken[real]
        if entry.kind not in {EntryKind.FILE, EntryKind.HARDLINK} or entry.size > _MAX_CONTENT:
            return None
        return self._read(start, entry.size)

    def text(self, path: PurePosixPath | str) -> str | None:
        """Return such a content as UTF-8; ``None`` too if it is not UTF-8."""
        content = self.contents(path)
        with suppress(UnicodeDecodeError):
            return None if content is None else content.decode()
        return None

    def expand(self, patterns: Iterable[str]) -> list[PurePosixPath]:
        """List what absolute paths and globs name among what was captured."""
        wanted = tuple(patterns)
        found = {path for path in self._taken if any(matches(path, pattern) for pattern in wanted)}
        return sorted(found, key=os.fsencode)

    def _real(self, path: PurePosixPath) -> PurePosixPath | None:
        """Follow links among what was captured."""
        todo = [*reversed(path.parts[1:])]
        real = PurePosixPath("/")
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                real = real.parent
                continue
            here = real / part
            if here not in self._taken:
                return None
            entry, _ = self._taken[here]
            if entry.kind is not EntryKind.SYMLINK:
                real = here
                continue
            links += 1
            if links > _MAX_LINKS or entry.target is None:
                return None
            if entry.target.startswith("/"):
                real = PurePosixPath("/")
            todo.extend(name for name in reversed(entry.target.split("/")) if name not in {"", "."})
        return real
