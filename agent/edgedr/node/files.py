"""The files of a node, read so that nothing on it can make edgedr wait, follow a link astray, or keep half a file.

Paths are absolute on the node and looked up below a root with directory descriptors; a symbolic link leads to where it
would lead if the root were ``/``. Sizes are bytes.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from edgedr.errors import ConfigurationError, SourceError
from edgedr.inventory import EntryKind
from edgedr.node.contents import Sink
from edgedr.node.seen import Seen, Skipped, Unfit, describe, refuse_unfit

MAX_FILE_BYTES = 64 << 20
"""Control-plane files are small; a larger one is a log or a database that another source should take."""
MAX_ENTRIES = 100_000
MAX_DEPTH = 64

_CHUNK = 1 << 20
_MAX_LINKS = 40  # as many as the kernel follows
_AT = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK, because a FIFO put in a file's place between two looks must not hold us.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class _Changed(Exception):
    """The file did not hold still."""


def matches(path: PurePosixPath, pattern: str) -> bool:
    """Tell whether an absolute glob names ``path`` or a directory above it; ``**`` stands for any number of parts."""
    return _match(path.parts[1:], PurePosixPath(pattern).parts[1:])


def _match(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_match(parts[skip:], pattern[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _match(parts[1:], pattern[1:])


class Files:
    """The files below ``root``. Nothing here writes, waits, or raises ``OSError``."""

    def __init__(
        self,
        root: Path,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_entries: int = MAX_ENTRIES,
        max_depth: int = MAX_DEPTH,
    ) -> None:
        self.root = root
        self.max_file_bytes = max_file_bytes
        self._max_entries = max_entries
        self._max_depth = max_depth

    def real(self, path: PurePosixPath | str) -> PurePosixPath | None:
        """Follow every link of ``path``; ``None`` if it leads to nothing."""
        real, _ = self._resolve(PurePosixPath(path))
        return None if real is None or self._lstat(real) is None else real

    def exists(self, path: PurePosixPath | str) -> bool:
        """Tell whether ``path`` leads to something, through links too."""
        return self.real(path) is not None

    def contents(self, path: PurePosixPath | str, *, limit: int = _CHUNK) -> bytes | None:
        """Read a regular file, through links too; ``None`` if there is none, or it is unreadable or over ``limit``."""
        real, _ = self._resolve(PurePosixPath(path))
        if real is None:
            return None
        content = _Memory()
        seen = self._read(real, content, limit)
        return bytes(content.data) if isinstance(seen, Seen) and seen.kind is EntryKind.FILE else None

    def text(self, path: PurePosixPath | str, *, limit: int = _CHUNK) -> str | None:
        """Read a regular file as UTF-8, as ``contents`` does; ``None`` too if it is not UTF-8."""
        content = self.contents(path, limit=limit)
        with suppress(UnicodeDecodeError):
            return None if content is None else content.decode()
        return None

    def expand(self, patterns: Iterable[str]) -> list[PurePosixPath]:
        """List what absolute paths and globs name: sorted, each once, only what is there.

        A directory stands for itself and all below it. ``*`` matches names that begin with a dot too, ``**`` any number
        of directories. A symbolic link on the way stands for itself *and* leads on, so that a link to another disk
        brings both along; links found below a directory are listed and not followed. Paths returned have no link among
        their parents. Raises ``SourceError`` beyond the limits, ``ConfigurationError`` for a relative pattern.
        """
        found: set[PurePosixPath] = set()
        for pattern in patterns:
            parts = PurePosixPath(pattern).parts
            if not pattern.startswith("/") or ".." in parts:
                raise ConfigurationError(f"{pattern!r} is not an absolute path", hint="begin it with /, without ..")
            self._expand(PurePosixPath("/"), parts[1:], found)
        found.discard(PurePosixPath("/"))
        return sorted(found, key=os.fsencode)

    def listable(self, path: PurePosixPath) -> bool:
        """Tell whether a directory shows what is in it: one that does not must not pass for an empty one."""
        return self._names(path) is not None

    def look(self, path: PurePosixPath) -> Seen | Skipped:
        """Say what ``path`` is without reading its content. No link is followed, neither the last nor one before it."""
        return self._twice(lambda: self._look(path))

    def read(self, path: PurePosixPath, sink: Sink) -> Seen | Skipped:
        """Say what ``path`` is, and pump a regular file's content into ``sink``.

        A file that changes or vanishes meanwhile is read once more, and then skipped: half a change is not a backup.
        After ``Skipped`` the sink may hold a part.
        """
        return self._read(path, sink, self.max_file_bytes)

    def _read(self, path: PurePosixPath, sink: Sink, limit: int) -> Seen | Skipped:
        return self._twice(lambda: self._pump(path, sink, limit))

    def _twice(self, attempt: Callable[[], Seen]) -> Seen | Skipped:
        reason, lost = "", False
        for _ in range(2):  # once more, at once: what is renamed into place is there by then
            try:
                return attempt()
            except Unfit as unfit:
                return Skipped(str(unfit), lost=unfit.lost)
            except FileNotFoundError:
                reason, lost = "vanished while it was being read", False
            except _Changed:
                reason, lost = "changed each time it was read", True
            except OSError as error:
                if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                    return Skipped("a symbolic link stands in its way")
                return Skipped(f"unreadable: {os.strerror(error.errno or 0).lower()}")
        return Skipped(reason, lost=lost)

    @contextmanager
    def _directory(self, path: PurePosixPath) -> Iterator[int]:
        """Walk down to a directory, one name at a time, so that a link swapped in on the way stops us."""
        at = os.open(self.root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.parts[1:]:
                below = os.open(part, _AT, dir_fd=at)
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _lstat(self, path: PurePosixPath) -> os.stat_result | None:
        try:
            with self._directory(path.parent) as parent:
                return os.stat(path.name or ".", dir_fd=parent, follow_symlinks=False)
        except OSError:
            return None

    def _names(self, path: PurePosixPath) -> list[str] | None:
        with suppress(OSError), self._directory(path) as at:
            descriptor = os.open(".", _READ | os.O_DIRECTORY, dir_fd=at)
            try:
                return sorted(os.listdir(descriptor))  # noqa: PTH208 - by descriptor
            finally:
                os.close(descriptor)
        return None

    def _resolve(self, path: PurePosixPath) -> tuple[PurePosixPath | None, list[PurePosixPath]]:
        """Follow links below the root: the real path (``None`` on a loop), and every link that was passed."""
        if "\0" in str(path):
            return None, []
        todo = [*reversed(path.parts[1:])]
        real: list[str] = []
        links: list[PurePosixPath] = []
        while todo:
            part = todo.pop()
            if part == "..":
                del real[-1:]
                continue
            here = PurePosixPath("/", *real, part)
            status = self._lstat(here)
            if status is None or not stat.S_ISLNK(status.st_mode):
                real.append(part)
                continue
            links.append(here)
            try:
                with self._directory(here.parent) as parent:
                    target = os.readlink(here.name, dir_fd=parent)
            except OSError:
                return None, links
            if len(links) > _MAX_LINKS:
                return None, links
            if target.startswith("/"):
                real.clear()
            todo.extend(name for name in reversed(target.split("/")) if name not in {"", "."})
        return PurePosixPath("/", *real), links

    def _expand(self, base: PurePosixPath, parts: tuple[str, ...], found: set[PurePosixPath]) -> None:
        real, links = self._resolve(base)
        for link in links:
            self._add(link, found)
        status = None if real is None else self._lstat(real)
        if real is None or status is None:
            return
        if not parts:
            self._add_tree(real, found)
        elif stat.S_ISDIR(status.st_mode):
            self._expand_below(real, parts, found)

    def _expand_below(self, real: PurePosixPath, parts: tuple[str, ...], found: set[PurePosixPath]) -> None:
        head, rest = parts[0], parts[1:]
        if head == "**":
            self._expand_below(real, rest, found) if rest else self._add_tree(real, found)
            for name in (self._names(real) or ()) if rest else ():
                status = self._lstat(real / name)
                if status is not None and stat.S_ISDIR(status.st_mode):
                    self._check_depth(real / name)
                    self._expand_below(real / name, parts, found)
        elif any(sign in head for sign in "*?["):
            for name in self._names(real) or ():
                if fnmatchcase(name, head):
                    self._expand(real / name, rest, found)
        else:
            self._expand(real / head, rest, found)

    def _add_tree(self, top: PurePosixPath, found: set[PurePosixPath]) -> None:
        todo = [top]
        while todo:
            path = todo.pop()
            status = self._lstat(path)
            if status is None:
                continue
            self._add(path, found)
            if stat.S_ISDIR(status.st_mode):
                self._check_depth(path)
                todo.extend(path / name for name in self._names(path) or ())

    def _add(self, path: PurePosixPath, found: set[PurePosixPath]) -> None:
        found.add(path)
        if len(found) > self._max_entries:
            raise SourceError(
                f"more than {self._max_entries} paths, the last one {path}", hint="name the paths more closely"
            )

    def _check_depth(self, path: PurePosixPath) -> None:
        if len(path.parts) > self._max_depth:
            raise SourceError(f"{path} is more than {self._max_depth} levels deep", hint="exclude that directory")

    def _look(self, path: PurePosixPath) -> Seen:
        with self._directory(path.parent) as parent:
            status = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
            refuse_unfit(status.st_mode)
            if stat.S_ISLNK(status.st_mode):
                target = os.readlink(path.name, dir_fd=parent)
                return describe(status, f"/proc/self/fd/{parent}/{path.name}", target=target)
            is_directory = stat.S_ISDIR(status.st_mode)
            descriptor = os.open(path.name, _AT if is_directory else _READ, dir_fd=parent)
            try:
                status = os.fstat(descriptor)
                refuse_unfit(status.st_mode)
                if is_directory:  # a path descriptor: its own permissions do not hide what it is
                    return describe(status, f"/proc/self/fd/{descriptor}", follow=True)
                return describe(status, descriptor)
            finally:
                os.close(descriptor)

    def _pump(self, path: PurePosixPath, sink: Sink, limit: int) -> Seen:
        sink.restart()
        seen = self._look(path)
        if seen.kind is not EntryKind.FILE:
            return seen
        if seen.size > limit:
            raise Unfit(f"huge: {seen.size} bytes, at most {limit} are taken")
        with self._directory(path.parent) as parent:
            descriptor = os.open(path.name, _READ, dir_fd=parent)
            try:
                before = os.fstat(descriptor)
                refuse_unfit(before.st_mode)
                size = _copy(descriptor, sink, limit)
                after = os.fstat(descriptor)
                seen = describe(after, descriptor, size=size)
            finally:
                os.close(descriptor)
        if _pulse(before) != _pulse(after):
            raise _Changed
        if size != after.st_size and after.st_blocks:  # without blocks: a file of /proc or /sys, whose size is a guess
            raise _Changed
        return seen


class _Memory:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def restart(self) -> None:
        self.data.clear()


def _pulse(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _copy(descriptor: int, sink: Sink, limit: int) -> int:
    size = 0
    while chunk := os.read(descriptor, _CHUNK):
        size += len(chunk)
        if size > limit:
            raise Unfit(f"huge: it grew beyond {limit} bytes while it was being read")
        sink.write(chunk)
    return size
