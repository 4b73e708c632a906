"""SQLite databases of a node: copied without changing them, whoever writes to them meanwhile, and proven.

The only place that opens one. A database is one file, and beside it what has not reached that file yet: ``-wal``, or a
``-journal`` after a crash; the file alone is no backup. Paths are real ones; sizes are bytes.
"""

import fcntl
import os
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from edgedr.errors import SourceError, StorageError

_MAGIC = b"SQLite format 3\0"
_HEADER = 100
_WRITE_VERSION = 18  # offset in the header: 2 means a write-ahead log
_LOCK_BYTES = (0x40000000, 512)  # where every SQLite keeps its locks: pending, reserved, shared
_FLOCK = "hhqqi4x"  # struct flock of 64-bit Linux: type, whence, start, length, process
_STEP = 4096  # pages of a backup between two looks at the clock
_CHUNK = 1 << 20
_RETRY = 0.05  # seconds
_LOOK_AT_CLOCK = 100_000  # instructions of SQLite's machine
_BESIDE = ("-wal", "-journal")
_UNSTABLE = {
    sqlite3.SQLITE_READONLY_CANTINIT,
    sqlite3.SQLITE_READONLY_CANTLOCK,
    sqlite3.SQLITE_READONLY_RECOVERY,
    sqlite3.SQLITE_READONLY_ROLLBACK,
}
"""What a read-only connection says while another process makes or repairs the log's index."""

_OF_THE_COPY = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_TRUNCATE, sqlite3.SQLITE_IOERR_FSYNC}

_KEYS = """SELECT count(*) FROM (SELECT max(id) AS id FROM kine WHERE name != 'compact_rev_key' GROUP BY name) AS newest
CROSS JOIN kine ON kine.id = newest.id WHERE ifnull(kine.deleted, 0) = 0"""
"""Through the index (name, id), then one row per name: all of it is never read, and nothing sorted."""


@dataclass(frozen=True, slots=True)
class DatabaseFacts:
    """What a database is: ``revision`` and ``keys`` (live ones, kine's own mark left out) only where it is kine's."""

    page_size: int
    pages: int
    revision: int | None = None
    keys: int | None = None


class DatabaseDamaged(SourceError):
    """What SQLite's own check found in a database."""


class _Again(Exception):
    """Not now: somebody is busy with the database, or has just begun or ended to be."""


class _Clock:
    """Until when something may take."""

    def __init__(self, deadline: timedelta) -> None:
        self._deadline = deadline
        self._end = time.monotonic() + deadline.total_seconds()

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def check(self, what: Path) -> None:
        if self.over:
            raise SourceError(
                f"{what} was not read within {self._deadline.total_seconds():g} s",
                hint="see who keeps it locked, or raise [sources.sqlite] deadline",
            )


def size_of(database: Path) -> int:
    """Return how large a copy may become. Raises ``SourceError`` for what is no SQLite database."""
    _is_wal(database)
    return sum(size for size, *_ in filter(None, map(_pulse, (database, _beside(database, "-wal")))))


def copy_database(database: Path, to: Path, *, deadline: timedelta) -> DatabaseFacts:
    """Copy a database as it is at one moment to one new file, 0600, which needs no file beside it; check the copy.

    Page follows page as in the original. The copy does not say that it has a write-ahead log: it opens read-only,
    anywhere, and nothing is made beside it; kine asks for the log again whenever it starts. Raises ``SourceError``
    where the database cannot be had within ``deadline``, ``DatabaseDamaged`` for a damaged one, ``StorageError`` where
    the copy cannot be written; then nothing is left. The copy is not flushed to disk.
    """
    clock = _Clock(deadline)
    try:
        while True:
            with suppress(_Again):
                _make_anew(to)
                _copy_once(database, to, clock)
                return examine(to, deadline=deadline)
            clock.check(database)
            time.sleep(_RETRY)
    except OSError as error:  # reading says so itself
        _remove(to)
        raise StorageError(
            f"cannot write a copy of {database}: {os.strerror(error.errno or 0).lower()}",
            hint="see how full the state directory is",
        ) from error
    except BaseException:
        _remove(to)
        raise


def examine(database: Path, *, deadline: timedelta) -> DatabaseFacts:
    """Check a database that nobody has open, every page and index of it, and say what it is; it is not changed.

    Raises ``DatabaseDamaged``, or ``SourceError`` where it cannot be read within ``deadline``.
    """
    clock = _Clock(deadline)
    _is_wal(database)
    try:
        with closing(_connect(database, "mode=ro&immutable=1")) as connection:
            connection.set_progress_handler(lambda: clock.over, _LOOK_AT_CLOCK)
            problems = [str(row[0]) for row in connection.execute("PRAGMA integrity_check(3)")]
            if problems != ["ok"]:
                raise DatabaseDamaged(_line(problems))
            if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
                raise DatabaseDamaged("rows refer to rows that are not there")
            return _facts(connection)
    except sqlite3.Error as error:
        clock.check(database)
        raise DatabaseDamaged(_line([str(error)])) from error


def _facts(connection: sqlite3.Connection) -> DatabaseFacts:
    size, pages = (int(connection.execute(f"PRAGMA page_{what}").fetchone()[0]) for what in ("size", "count"))
    columns = {row[1] for row in connection.execute("PRAGMA table_info(kine)")}
    if not {"id", "name", "deleted"} <= columns:
        return DatabaseFacts(size, pages)
    revision = connection.execute("SELECT max(id) FROM kine").fetchone()[0]
    return DatabaseFacts(size, pages, int(revision or 0), int(connection.execute(_KEYS).fetchone()[0]))


def _copy_once(database: Path, to: Path, clock: _Clock) -> None:
    """Choose how: with locks where a process has it open; else from files that are seen to hold still."""
    logged, used = _is_wal(database), _in_use(database)
    beside = {name: _pulse(name) for name in (database, *(_beside(database, suffix) for suffix in _BESIDE))}
    left = [name for name, pulse in beside.items() if pulse is not None and pulse[0]]
    try:
        if used or (not logged and left == [database]):
            _back_up(database, "mode=ro", to, clock)
            return
        if left == [database]:  # a log would be made by looking at it, but not when told that nobody writes
            _back_up(database, "mode=ro&immutable=1", to, clock)
        else:
            _copy_aside(left, to, clock)
    except sqlite3.Error as error:
        raise _translated(error, database, changed=_in_use(database) != used) from error
    if _in_use(database) or any(_pulse(name) != pulse for name, pulse in beside.items()):
        raise _Again


def _copy_aside(files: list[Path], to: Path, clock: _Clock) -> None:
    """Recover what a crash left behind, in a copy: doing it in place is for whoever owns the database."""
    with tempfile.TemporaryDirectory(prefix=".", dir=to.parent) as private:
        for file in files:
            with _new(Path(private) / file.name) as copy:
                for chunk in _chunks(file):
                    clock.check(file)
                    copy.write(chunk)
        _back_up(Path(private) / files[0].name, "mode=rw", to, clock)


def _back_up(database: Path, how: str, to: Path, clock: _Clock) -> None:
    """Copy page by page within one read transaction.

    So writers neither wait nor make it begin again. It is kept short, with no flush in it: a full checkpoint, such as
    kine makes when it compacts, waits until its last reader has ended.
    """
    with closing(_connect(database, how)) as live, closing(_connect(to, "mode=rw")) as copy:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
            copy.execute(f"PRAGMA {pragma}").fetchall()
        live.execute("BEGIN")
        live.execute("SELECT count(*) FROM sqlite_master").fetchone()
        live.backup(copy, pages=_STEP, progress=lambda *_: clock.check(database))
        live.execute("ROLLBACK")
        copy.execute("PRAGMA journal_mode = DELETE").fetchall()


def _connect(database: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{quote(str(database))}?{how}", uri=True, timeout=0, isolation_level=None)
    connection.text_factory = _text
    return connection


def _text(data: bytes) -> str:
    """Read what SQLite says, where damage may have put anything into a name."""
    return data.decode(errors="replace")


def _translated(error: sqlite3.Error, database: Path, *, changed: bool) -> Exception:
    """Say what an error of SQLite means while a copy is made."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF
    if primary in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} or code in _UNSTABLE or changed:
        return _Again()
    if primary == sqlite3.SQLITE_FULL or code in _OF_THE_COPY:
        return StorageError(f"cannot write a copy of {database}: {error}", hint="see how full the state directory is")
    if primary in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return DatabaseDamaged(_line([str(error)]))
    return SourceError(f"cannot read {database}: {_line([str(error)])}", hint="run edgedr as root")


def _is_wal(database: Path) -> bool:
    """Tell whether a database has a write-ahead log. Raises ``SourceError`` for what is no database."""
    with _reading(database) as file:
        header = file.read(_HEADER)
    if len(header) < _HEADER or not header.startswith(_MAGIC):
        what = "is not an SQLite database" if header else "is empty"
        raise SourceError(f"{database} {what}", hint="name the database: [sources.sqlite] database")
    return header[_WRITE_VERSION] == 2  # noqa: PLR2004 - as the file format has it


def _in_use(database: Path) -> bool:
    """Tell whether another process has it open: one with a write-ahead log keeps its lock all the time."""
    with _reading(database) as file:
        lock = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, *_LOCK_BYTES, 0)
        kind: int = struct.unpack(_FLOCK, fcntl.fcntl(file, fcntl.F_GETLK, lock))[0]
    return kind != fcntl.F_UNLCK


def _pulse(path: Path) -> tuple[int, ...] | None:
    """Return what changes with a file; its size comes first. ``None`` if there is none."""
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return None
    return status.st_size, status.st_ino, status.st_dev, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def _reading(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; anything else might make us wait. Raises ``SourceError``."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise SourceError(f"{path} is not a file", hint="name the database: [sources.sqlite] database")
            yield os.fdopen(descriptor, "rb", closefd=False)
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = "run edgedr as root" if isinstance(error, PermissionError) else "see whether the disk is well"
        raise SourceError(f"cannot read {path}: {os.strerror(error.errno or 0).lower()}", hint=hint) from error


def _chunks(path: Path) -> Iterator[bytes]:
    with _reading(path) as file:
        while chunk := file.read(_CHUNK):
            yield chunk


def _remove(path: Path) -> None:
    with suppress(OSError):  # the first error counts
        path.unlink()


def _make_anew(path: Path) -> None:
    path.unlink(missing_ok=True)
    with _new(path):
        pass


def _new(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def _beside(database: Path, suffix: str) -> Path:
    return database.with_name(database.name + suffix)


def _line(words: list[str], width: int = 160) -> str:
    """Put what SQLite says on one line."""
    return " ".join("; ".join(words).split())[:width]
