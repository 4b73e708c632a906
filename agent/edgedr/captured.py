"""What was captured of a node's files, to be read as the node's own: closure is checked on what a restore will have."""

import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from edgedr.inventory import Entry, EntryKind

_MAX_LINKS = 40
_MAX_CONTENT = 1 << 20
_ROOT = PurePosixPath("/")


class CapturedFiles:
    """Entries by path, each with where its content begins; ``read(start, size)`` returns bytes of it."""

    def __init__(self, taken: Mapping[PurePosixPath, tuple[Entry, int]], read: Callable[[int, int], bytes]) -> None:
        self._taken = taken
        self._read = read
        self._below: dict[PurePosixPath, list[PurePosixPath]] = {}
        for path in taken:
            self._below.setdefault(path.parent, []).append(path)

    def exists(self, path: PurePosixPath | str) -> bool:
        """Tell whether ``path`` was captured, with what it links to."""
        return self.real(path) is not None

    def real(self, path: PurePosixPath | str) -> PurePosixPath | None:
        """Follow every link of ``path``; ``None`` if it leads to nothing that was captured."""
        return self._resolve(PurePosixPath(path))[0]

    def contents(self, path: PurePosixPath | str) -> bytes | None:
        """Return a captured file's content, of up to 1 MiB; ``None`` if there is none."""
        real = self.real(path)
        if real is None or real == _ROOT:
            return None
        entry, start = self._taken[real]
        if entry.kind is not EntryKind.FILE or entry.size > _MAX_CONTENT:
            return None
        return self._read(start, entry.size)

    def text(self, path: PurePosixPath | str) -> str | None:
        """Return such a content as UTF-8; ``None`` too if it is not UTF-8."""
        content = self.contents(path)
        with suppress(UnicodeDecodeError):
            return None if content is None else content.decode()
        return None

    def expand(self, patterns: Iterable[str]) -> list[PurePosixPath]:
        """List what absolute paths and globs name among what was captured, through links too, as ``Files`` does."""
        found: set[PurePosixPath] = set()
        for pattern in patterns:
            self._expand(_ROOT, PurePosixPath(pattern).parts[1:], found)
        found.discard(_ROOT)
        return sorted(found, key=os.fsencode)

    def _expand(self, base: PurePosixPath, parts: tuple[str, ...], found: set[PurePosixPath]) -> None:
        real, links = self._resolve(base)
        found.update(links)
        if real is None:
            return
        if not parts:
            self._add_tree(real, found)
        elif self._is_directory(real):
            self._expand_below(real, parts, found)

    def _expand_below(self, real: PurePosixPath, parts: tuple[str, ...], found: set[PurePosixPath]) -> None:
        head, rest = parts[0], parts[1:]
        if head != "**":
            for path in self._below.get(real, ()):
                if fnmatchcase(path.name, head):
                    self._expand(path, rest, found)
        elif not rest:
            self._add_tree(real, found)
        else:
            self._expand_below(real, rest, found)
            for path in self._below.get(real, ()):
                if self._is_directory(path):
                    self._expand_below(path, parts, found)

    def _add_tree(self, top: PurePosixPath, found: set[PurePosixPath]) -> None:
        todo = [top]
        while todo:
            path = todo.pop()
            found.add(path)
            todo += self._below.get(path, ())

    def _is_directory(self, path: PurePosixPath) -> bool:
        return path == _ROOT or self._taken[path][0].kind is EntryKind.DIRECTORY

    def _resolve(self, path: PurePosixPath) -> tuple[PurePosixPath | None, list[PurePosixPath]]:
        """Follow links among what was captured: the real path, ``None`` for none; and every link that was passed."""
        todo = [*reversed(path.parts[1:])]
        real = _ROOT
        links: list[PurePosixPath] = []
        while todo:
            part = todo.pop()
            if part == "..":
                real = real.parent
                continue
            here = real / part
            if here not in self._taken:
                return None, links
            entry, _ = self._taken[here]
            if entry.kind is not EntryKind.SYMLINK:
                real = here
                continue
            links.append(here)
            if len(links) > _MAX_LINKS or entry.target is None:
                return None, links
            if entry.target.startswith("/"):
                real = _ROOT
            todo.extend(name for name in reversed(entry.target.split("/")) if name not in {"", "."})
        return real, links
