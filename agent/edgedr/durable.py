"""Files that are either whole and on disk, or not there: the only place that writes files.

Every change to a disk goes through an ``os`` function called from this module, so that the fault suite can stop the
process before each of them in turn. Sizes are bytes. Failures of the disk come out as ``StorageError``.
"""

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgedr.errors import AlreadyRunning, ObjectExists, StorageError

PART_SUFFIX = ".part"
_SPACE_CHECK_EVERY = 8 << 20  # bytes between two looks at the free space: small beside any sane floor


def storage_error(error: OSError, act: str, path: Path) -> StorageError:
    """Say what could not be done where, with the next act for the common causes."""
    hint = {
        errno.ENOSPC: "free space there, or move the repository to another disk",
        errno.EDQUOT: "free space there, or raise the quota",
        errno.EROFS: "the file system is read-only: look at the kernel log for disk errors, then remount it",
        errno.EIO: "the disk reports an error: look at the kernel log, and replace the disk",
        errno.EACCES: "run as root, or check the owner of the directory",
        errno.EPERM: "run as root, or check the owner of the directory",
        errno.ELOOP: "a symbolic link stands where edgedr wants to write: remove it",
    }.get(error.errno or 0)
    return StorageError(f"cannot {act} {path}: {error.strerror or error}", hint=hint)


class Writer:
    """Append bytes to an open descriptor, and leave ``floor`` bytes of the file system free for others.

    With ``twice``, room is left for writing once more what was written: a spool's content goes into another file.
    """

    def __init__(self, descriptor: int, path: Path, *, floor: int = 0, twice: bool = False) -> None:
        self._descriptor = descriptor
        self._path = path
        self._floor = floor
        self._twice = twice
        self._until_check = 0
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of ``data``; a full disk, or one about to be full, is a ``StorageError``."""
        view = memoryview(data)
        try:
            if self._floor and self._until_check <= 0:
                self._keep_floor()
            written = 0
            while written < len(view):
                written += os.write(self._descriptor, view[written:])
        except OSError as error:
            raise storage_error(error, "write", self._path) from error
        self.size += written
        self._until_check -= written
        return written

    def read(self, start: int, size: int) -> bytes:
        """Read back what was written, from ``start``."""
        try:
            return os.pread(self._descriptor, size, start)
        except OSError as error:
            raise storage_error(error, "read", self._path) from error

    def flush(self) -> None:
        """Nothing is held back here; ``sync`` makes it durable."""

    def restart(self) -> None:
        """Forget everything written so far."""
        self.rewind(0)

    def rewind(self, size: int) -> None:
        """Forget what was written after the first ``size`` bytes."""
        try:
            os.ftruncate(self._descriptor, size)
            os.lseek(self._descriptor, size, os.SEEK_SET)
        except OSError as error:
            raise storage_error(error, "truncate", self._path) from error
        self.size = size
        self._until_check = 0

    def sync(self) -> None:
        """Put the bytes on disk."""
        os.fsync(self._descriptor)

    def _keep_floor(self) -> None:
        free = free_space_of(self._descriptor)
        if free < self._floor + (self.size if self._twice else 0):
            raise StorageError(
                f"cannot write {self._path}: {free >> 20} MiB left there, {self._floor >> 20} MiB are kept free",
                hint="free space there, or lower [repository] keep_free",
            )
        self._until_check = _SPACE_CHECK_EVERY


def free_space_of(place: int | Path) -> int:
    """Bytes that an unprivileged writer could still write on the file system of ``place``."""
    usage = os.fstatvfs(place) if isinstance(place, int) else os.statvfs(place)
    return usage.f_bavail * usage.f_frsize


def make_directory(path: Path, *, mode: int = 0o700) -> None:
    """Make ``path`` and its missing parents, each on disk before the next; the umask has no say."""
    missing: list[Path] = []
    at = path
    try:
        while not at.exists():
            missing.append(at)
            at = at.parent
        for directory in reversed(missing):
            with suppress(FileExistsError):  # made by another writer in the meantime: as good
                os.mkdir(directory, mode)  # noqa: PTH102 - by this name the fault suite finds it
                os.chmod(directory, mode)  # noqa: PTH101
            fsync_directory(directory.parent)
        there = path.is_dir()
    except OSError as error:
        raise storage_error(error, "make directory", path) from error
    if not there:
        raise StorageError(f"{path} is not a directory", hint="move it out of the way")


def fsync_directory(path: Path) -> None:
    """Put the names in a directory on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def create(path: Path, *, mode: int = 0o600, floor: int = 0) -> Iterator[Writer]:
    """Give a writer; when the block ends well, ``path`` exists, whole and durable. Otherwise it never exists.

    Raises ``ObjectExists`` if something has that name already, whatever it is: nothing is ever overwritten.
    """
    with _part(path, mode=mode, floor=floor) as (writer, part):
        yield writer
        try:
            writer.sync()  # the bytes before the name: after a power cut a name must not stand for a hole
            _give_name(part, path)
        except FileExistsError as error:
            raise ObjectExists(f"{path} exists already", hint="names are never reused; move it away") from error
        except OSError as error:
            raise storage_error(error, "write", path) from error


@contextmanager
def replacing(path: Path, *, mode: int = 0o600, floor: int = 0, twice: bool = False) -> Iterator[Writer]:
    """Like ``create``, but takes the place of a regular file of that name, in one step.

    A symbolic link or anything else of that name is refused: following it could write anywhere. ``twice`` as in
    ``Writer``.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise StorageError(f"{path} is not a regular file", hint="edgedr does not write through links: remove it")
    with _part(path, mode=mode, floor=floor, twice=twice) as (writer, part):
        yield writer
        try:
            writer.sync()
            os.rename(part, path)  # noqa: PTH104 - atomic: a reader sees the old file or the new one
            fsync_directory(path.parent)
        except OSError as error:
            raise storage_error(error, "write", path) from error


@contextmanager
def continuing(path: Path, *, mode: int = 0o600) -> Iterator[Writer]:
    """Give a writer that goes on where an interrupted run of this stopped; ``path`` gets its name when the block ends.

    For what can be had again and is checked by its hash: it is not put on disk with care, and what is half there stays.
    One writer of a path at a time.
    """
    part = path.with_name(f".{path.name}{PART_SUFFIX}")
    try:
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    except OSError as error:
        raise storage_error(error, "create", path) from error
    try:
        os.fchmod(descriptor, mode)
        writer = Writer(descriptor, path)
        writer.rewind(os.fstat(descriptor).st_size)
        yield writer
        try:
            os.rename(part, path)  # noqa: PTH104
        except OSError as error:
            raise storage_error(error, "write", path) from error
    finally:
        os.close(descriptor)


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Put ``data`` at ``path`` in one step."""
    with replacing(path, mode=mode) as writer:
        writer.write(data)


def remove(path: Path) -> None:
    """Take a name away, durably; a name that is gone already is fine."""
    try:
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
            fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, "remove", path) from error


def sweep(path: Path) -> int:
    """Remove what interrupted writes of ``path`` left beside it; return how many. Only with no writer of it at work."""
    swept = 0
    try:
        for name in os.listdir(path.parent):  # noqa: PTH208
            if name.startswith(f".{path.name}.") and name.endswith(PART_SUFFIX):
                os.unlink(path.parent / name)  # noqa: PTH108
                swept += 1
    except (FileNotFoundError, NotADirectoryError):
        return swept
    except OSError as error:
        raise storage_error(error, "sweep", path.parent) from error
    return swept


def rename(path: Path, to: Path) -> None:
    """Move a file within one file system, durably, taking the place of ``to``."""
    try:
        os.rename(path, to)  # noqa: PTH104
        fsync_directory(to.parent)
        if path.parent != to.parent:
            fsync_directory(path.parent)
    except OSError as error:
        raise storage_error(error, "rename", path) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that the kernel frees with the process, however it ends. Raises ``AlreadyRunning`` at once."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(error, "lock", path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning(
                f"another edgedr holds {path}", hint=f"wait for it; `fuser -v {path}` names the process"
            ) from error
        except OSError as error:
            raise storage_error(error, "lock", path) from error
        yield
    finally:
        os.close(descriptor)


def open_for_reading(path: Path) -> BinaryIO:
    """Open a regular file, never through a symbolic link, never waiting for a FIFO's writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError(f"{path} is not a regular file", hint="something else took its name: look who made it")
    return os.fdopen(descriptor, "rb")


@contextmanager
def _part(path: Path, *, mode: int, floor: int, twice: bool = False) -> Iterator[tuple[Writer, Path]]:
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART_SUFFIX}")
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(part, flags, mode)
    except OSError as error:
        raise storage_error(error, "create", path) from error
    try:
        try:
            os.fchmod(descriptor, mode)  # whatever the umask took away or left
        except OSError as error:
            raise storage_error(error, "create", path) from error
        yield Writer(descriptor, path, floor=floor, twice=twice), part
    finally:
        os.close(descriptor)
        with suppress(OSError):  # what became of ``path`` is decided by now; a part that stays is swept
            os.unlink(part)  # noqa: PTH108


def _give_name(part: Path, path: Path) -> None:
    try:
        os.link(part, path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}:
            raise
        # No hard links here (a FAT stick, some network shares). The run's lock keeps a second writer of ours out.
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        os.rename(part, path)  # noqa: PTH104
    try:
        fsync_directory(path.parent)
    except OSError:
        with suppress(OSError):
            os.unlink(path)  # noqa: PTH108 - named a moment ago by us; after a failure it must not exist
        raise
