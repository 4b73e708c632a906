"""Objects as files below a local directory: 0600 files in 0700 directories, fsynced, never overwritten."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from edgedr import durable
from edgedr.errors import ObjectMissing, StorageError
from edgedr.storage.base import ByteSink, Copying, Stored, refuse_name


class DirectoryStorage(Copying):
    """Objects below ``root``, leaving ``keep_free`` bytes of its file system to others."""

    at_once = 1
    clock_offset = None

    def __init__(self, root: Path, *, keep_free: int = 0) -> None:
        self.root = root
        self._keep_free = keep_free

    def describe(self) -> str:
        """Say where this is."""
        return str(self.root)

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        """Open a new object for writing."""
        path = self._path(name)
        self._refuse_links(path)
        durable.make_directory(path.parent)
        with durable.create(path, floor=self._keep_free) as writer:
            yield writer

    def replace(self, name: str, data: bytes) -> None:
        """Put a small object in place of what has that name."""
        path = self._path(name)
        self._refuse_links(path)
        durable.make_directory(path.parent)
        durable.replace(path, data)

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:  # noqa: ARG002 - nothing is fetched
        """Open an object for reading."""
        path = self._path(name)
        self._refuse_links(path)
        try:
            return durable.open_for_reading(path)
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path} is missing") from error
        except OSError as error:
            raise durable.storage_error(error, "read", path) from error

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:  # noqa: ARG002
        """Yield nothing: a file system keeps one content of a name."""
        self._path(name)
        return iter(())

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the object ``prefix`` and those below it, sorted by name."""
        start = self._start(prefix)
        found = [
            Stored(str(path.relative_to(self.root)), size)
            for path, size in self._files(start)
            if not path.name.startswith(".")
        ]
        yield from sorted(found, key=lambda stored: stored.name)

    def delete(self, name: str) -> None:
        """Take an object away, and the directories that it leaves empty."""
        path = self._path(name)
        self._refuse_links(path)
        durable.remove(path)
        self._remove_empty(path.parent)

    def sweep(self, prefix: str = "") -> int:
        """Remove unfinished writes of ``prefix`` and below it, and directories that hold nothing."""
        start = self._start(prefix)
        swept = durable.sweep(start) if prefix else 0
        for path, _ in list(self._files(start)):
            if path.name.startswith(".") and path.name.endswith(durable.PART_SUFFIX):
                durable.remove(path)
                swept += 1
        for directory, directories, files in os.walk(start, topdown=False):
            if not directories and not files:
                self._remove_empty(Path(directory))
        return swept

    def _path(self, name: str) -> Path:
        return self.root.joinpath(*refuse_name(name))

    def _start(self, prefix: str) -> Path:
        path = self._path(prefix) if prefix else self.root
        self._refuse_links(path / "any")  # a prefix may be a directory: then it must not be a link either
        return path

    def _refuse_links(self, path: Path) -> None:
        """Refuse links among the parents: they would lead writes out of the repository."""
        for parent in path.relative_to(self.root).parents:
            try:
                mode = os.lstat(self.root / parent).st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise durable.storage_error(error, "look at", self.root / parent) from error
            if stat.S_ISLNK(mode) and parent != Path():
                raise StorageError(
                    f"{self.root / parent} is a symbolic link",
                    hint="edgedr does not write through links inside a repository: remove it",
                )

    def _files(self, start: Path) -> Iterator[tuple[Path, int]]:
        try:
            with os.scandir(start) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            yield from self._files(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        with suppress(FileNotFoundError):
                            yield Path(entry.path), entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            return
        except NotADirectoryError:
            with suppress(FileNotFoundError, NotADirectoryError):
                if stat.S_ISREG((status := start.lstat()).st_mode):
                    yield start, status.st_size
        except OSError as error:
            raise durable.storage_error(error, "list", start) from error

    def _remove_empty(self, directory: Path) -> None:
        while directory != self.root and directory.is_relative_to(self.root):
            try:
                os.rmdir(directory)  # noqa: PTH106
            except OSError:
                return  # not empty, or gone: either is fine, an empty directory is no object
            directory = directory.parent
