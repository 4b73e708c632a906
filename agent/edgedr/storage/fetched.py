"""A remote storage read through a directory: each object is fetched once, and a download goes on where it stopped."""

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import BinaryIO

from edgedr import durable
from edgedr.errors import StorageError
from edgedr.storage.base import ByteSink, Progress, Remote, Spool, Stored, nobody, refuse_name


class FetchedStorage:
    """``remote``, with what was read of it kept below ``directory``, the newest ``keep`` bytes where that is given.

    What is kept is believed as little as what comes over the network: readers hash it, and ask for ``others``.
    """

    def __init__(self, remote: Remote, directory: Path, *, keep: int | None = None) -> None:
        self.at_once = remote.at_once
        self._remote = remote
        self._directory = directory
        self._keep = keep
        self._kept: dict[Path, int] = {}
        self._lock = threading.Lock()

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this clock is ahead of the remote's."""
        return self._remote.clock_offset

    def describe(self) -> str:
        """Say where the remote is."""
        return self._remote.describe()

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        """Open an object, fetched unless it is here already."""
        path = self._path(name)
        try:
            return durable.open_for_reading(path)
        except FileNotFoundError:
            pass
        except (OSError, StorageError):
            self._drop(path)
        size = self._fetch(name, path, nobody, limit)
        file = durable.open_for_reading(path)
        self._make_room(path, size)
        return file

    def fetch_all(self, sizes: Mapping[str, int], progress: Progress) -> None:
        """Fetch objects of these names, and at most these sizes, that are not here yet, several at a time.

        ``progress`` gets bytes as they come, and what is here.
        """

        def fetch(name: str) -> None:
            path = self._path(name)
            if path.is_file():
                progress(path.stat().st_size)
            else:
                self._fetch(name, path, progress, sizes[name])

        with ThreadPoolExecutor(self.at_once) as pool:
            try:
                for _ in pool.map(fetch, sizes):
                    pass
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, name: str, path: Path, progress: Progress, limit: int | None) -> int:
        durable.make_directory(path.parent)
        with durable.continuing(path) as part:
            watched = _Watched(part, progress)
            self._remote.fetch(name, watched, limit=limit)
            return watched.size

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
        """Ask the remote, since what is here is no good."""
        return self._others(name, self._path(name), limit)

    def _others(self, name: str, path: Path, limit: int | None) -> Iterator[BinaryIO]:
        self._drop(path)  # not before the first one is asked for
        yield from self._remote.others(name, limit=limit)

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Ask the remote."""
        return self._remote.list(prefix)

    def create(self, name: str) -> AbstractContextManager[ByteSink]:
        """Write to the remote."""
        return self._remote.create(name)

    def put(
        self,
        name: str,
        source: BinaryIO,
        size: int,
        sha256: str,
        *,
        again: bool = False,
        progress: Progress = nobody,
    ) -> bool:
        """Store in the remote."""
        return self._remote.put(name, source, size, sha256, again=again, progress=progress)

    def replace(self, name: str, data: bytes) -> None:
        """Replace in the remote."""
        self._drop(self._path(name))
        self._remote.replace(name, data)

    def delete(self, name: str) -> None:
        """Delete in the remote, and here."""
        self._drop(self._path(name))
        self._remote.delete(name)

    def sweep(self, prefix: str = "") -> int:
        """Sweep the remote."""
        return self._remote.sweep(prefix)

    def _path(self, name: str) -> Path:
        return self._directory.joinpath(*refuse_name(name))

    def _drop(self, path: Path) -> None:
        with self._lock:
            self._kept.pop(path, None)
        durable.remove(path)

    def _make_room(self, path: Path, size: int) -> None:
        if self._keep is None:
            return
        with self._lock:
            self._kept[path] = size
            gone = []
            while sum(self._kept.values()) > self._keep and len(self._kept) > 1:
                oldest = next(iter(self._kept))
                del self._kept[oldest]
                gone.append(oldest)
        for each in gone:
            with suppress(StorageError):  # whoever reads it has it open
                durable.remove(each)


class _Watched:
    """A spool, and somebody who is told how far it is."""

    def __init__(self, spool: Spool, progress: Progress) -> None:
        self._spool, self._progress = spool, progress
        progress(spool.size)

    @property
    def size(self) -> int:
        return self._spool.size

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._progress(len(data))
        return self._spool.write(data)

    def flush(self) -> None:
        self._spool.flush()

    def restart(self) -> None:
        self._progress(-self._spool.size)
        self._spool.restart()
