"""The directory that an archive is extracted into: new names only, by directory descriptors, never through a link."""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from edgedr import durable
from edgedr.archive import OWN
from edgedr.errors import Damaged, EdgedrError, RestoreStopped
from edgedr.inventory import Entry
from edgedr.members import Member
from edgedr.model import Finding, Severity

_HOLE = 4096
_AT = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Target:
    """The new directory: takes only new names, and takes them all away again unless its block ends well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._made: dict[str, None] = {}  # in order
        self._is_root = os.geteuid() == 0
        self._owners_lost = 0
        self.findings: list[Finding] = []

    def __enter__(self) -> Self:
        self._new = not os.path.lexists(self._path)
        if self._new:
            durable.make_directory(self._path)
        try:
            self._root = os.open(self._path, _DIRECTORY)
        except OSError as error:
            raise RestoreStopped(
                f"{self._path} is not a directory of its own", hint="name a new directory, not a link or a file"
            ) from error
        if os.listdir(self._root):  # noqa: PTH208 - by descriptor
            os.close(self._root)
            raise RestoreStopped(f"{self._path} is not empty", hint="name a new directory: nothing is overwritten")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                self._undo()
        finally:
            os.close(self._root)

    def directory(self, path: str) -> None:
        """Make a directory that only we can enter until ``finish_directory``."""
        with self._parent(path) as (at, name):
            os.mkdir(name, 0o700, dir_fd=at)
            self._made[path] = None

    def file(self, path: str, entry: Entry, content: Iterable[bytes]) -> None:
        """Write a file, then give it its owner, attributes, mode and time, and put it on disk."""
        with self._parent(path) as (at, name):
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=at)
            try:
                self._made[path] = None
                _write(descriptor, content, sparse=entry.sparse)
                os.ftruncate(descriptor, entry.size)  # a hole at the end is not written, only meant
                self._restore(descriptor, path, entry)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def symlink(self, entry: Entry) -> None:
        """Make a symbolic link; where it points is its own business, since nothing here follows it."""
        with self._parent(entry.path) as (at, name):
            os.symlink(entry.target or "", name, dir_fd=at)
            self._made[entry.path] = None
            self._chown(entry, name, at)
            self._set_xattrs(f"/proc/self/fd/{at}/{name}", entry.path, entry)
            with self._kept_time(entry.path):
                os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=at, follow_symlinks=False)

    def hardlink(self, path: str, linked: str) -> None:
        """Give a file written before another name."""
        with self._parent(linked) as (there, existing), self._parent(path) as (at, name):
            os.link(existing, name, src_dir_fd=there, dst_dir_fd=at, follow_symlinks=False)
            self._made[path] = None

    def document(self, member: str, content: Iterable[bytes]) -> None:
        """Write a document below ``.edgedr``, for the owner's eyes."""
        path = PurePosixPath(OWN) / member
        for above in reversed(path.parents[:-1]):
            if str(above) not in self._made:
                self.directory(str(above))
        with self._parent(str(path)) as (at, name):
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=at)
            try:
                self._made[str(path)] = None
                _write(descriptor, content, sparse=False)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def finish_directory(self, entry: Entry) -> None:
        """Give a directory its owner, attributes, mode and time, and put it on disk."""
        with self._parent(entry.path) as (at, name):
            descriptor = os.open(name, _DIRECTORY, dir_fd=at)
            try:
                self._restore(descriptor, entry.path, entry)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def finish(self) -> None:
        """Put the top on disk, and say what could not be restored."""
        try:
            os.fsync(self._root)
        except OSError as error:
            raise durable.storage_error(error, "write", self._path) from error
        if self._owners_lost:
            hint = None if self._is_root else "restore as root to get the owners back"
            text = f"the owners of {self._owners_lost} paths could not be restored"
            self.findings.append(Finding(Severity.WARN, str(self._path), text, hint))

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, str]]:
        """Walk to the directory of ``path`` by descriptors; what goes wrong in the block is said about ``path``."""
        at = os.dup(self._root)
        *above, name = path.split("/")[1:]
        try:
            for part in above:
                below = os.open(part, _AT, dir_fd=at)
                os.close(at)
                at = below
            yield at, name
        except FileExistsError as error:
            raise Damaged(
                f"{self._path}{path} is there already, by another name or another program",
                hint="a file system that ignores case cannot hold this backup: name a directory on another one",
            ) from error
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise RestoreStopped(
                    f"something in {self._path}{path} was replaced by a link while it was being written",
                    hint="another program writes there: name a directory of your own",
                ) from error
            raise durable.storage_error(error, "write", Path(f"{self._path}{path}")) from error
        finally:
            os.close(at)

    def _restore(self, descriptor: int, path: str, entry: Entry) -> None:
        self._chown(entry, descriptor)
        self._set_xattrs(descriptor, path, entry)
        os.fchmod(descriptor, entry.mode)  # after the owner, whose change takes mode bits away
        with self._kept_time(path):
            os.utime(descriptor, ns=(entry.mtime_ns, entry.mtime_ns))

    def _chown(self, entry: Entry, at: int | str, parent: int | None = None) -> None:
        if not self._is_root:
            self._owners_lost += (entry.uid, entry.gid) != (os.geteuid(), os.getegid())
            return
        try:
            if isinstance(at, int):
                os.fchown(at, entry.uid, entry.gid)
            else:
                os.chown(at, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        except OSError:
            self._owners_lost += 1  # root of a user namespace, or of a network share, may not give everything away

    def _set_xattrs(self, at: int | str, path: str, entry: Entry) -> None:
        for name, value in Member.of(entry).xattrs.items():
            try:
                os.setxattr(at, name, value, follow_symlinks=isinstance(at, int))
            except OSError as error:
                text = f"attribute {name!a} could not be restored: {os.strerror(error.errno or 0).lower()}"
                self.findings.append(Finding(Severity.WARN, path, text))

    @contextmanager
    def _kept_time(self, path: str) -> Iterator[None]:
        try:
            yield
        except OverflowError:
            self.findings.append(Finding(Severity.WARN, path, "its time is beyond what this system knows"))

    def _undo(self) -> None:
        for path in reversed(self._made):
            with suppress(OSError, EdgedrError), self._parent(path) as (at, name):
                try:
                    os.unlink(name, dir_fd=at)
                except IsADirectoryError:
                    os.rmdir(name, dir_fd=at)
        if self._new:
            with suppress(OSError):
                os.rmdir(self._path)  # noqa: PTH106 - as all writes here


def _write(descriptor: int, content: Iterable[bytes], *, sparse: bool) -> None:
    """Write all chunks; blocks of zeros in a sparse file are skipped and so stay holes."""
    for chunk in content:
        step = _HOLE if sparse else len(chunk)
        for start in range(0, len(chunk), step):
            piece = chunk[start : start + step]
            if sparse and piece == bytes(len(piece)):
                os.lseek(descriptor, len(piece), os.SEEK_CUR)
                continue
            view = memoryview(piece)
            while view:
                view = view[os.write(descriptor, view) :]
