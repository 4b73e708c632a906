"""Objects in memory: the storage of tests and rehearsals. It passes the same contract suite as the others."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from edgedr.errors import ObjectExists, ObjectMissing, StorageError
from edgedr.storage.base import ByteSink, Stored


class _Buffer:
    def __init__(self) -> None:
        self.data = bytearray()
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        self.size = len(self.data)
        return len(data)

    def flush(self) -> None:
        pass


class MemoryStorage:
    """A dictionary of objects."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def describe(self) -> str:
        """Say where this is."""
        return "memory"

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        """Open a new object for writing."""
        self._check(name)
        buffer = _Buffer()
        yield buffer
        if name in self.objects:
            raise ObjectExists(f"{name} exists already")
        self.objects[name] = bytes(buffer.data)

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading."""
        self._check(name)
        if name not in self.objects:
            raise ObjectMissing(f"{name} is missing")
        return io.BytesIO(self.objects[name])

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the objects below ``prefix``, sorted by name."""
        if prefix:
            self._check(prefix)
        for name in sorted(self.objects):
            if not prefix or name == prefix or name.startswith(f"{prefix}/"):
                yield Stored(name, len(self.objects[name]))

    def delete(self, name: str) -> None:
        """Take an object away."""
        self._check(name)
        self.objects.pop(name, None)

    def sweep(self, prefix: str = "") -> int:
        """Nothing unfinished is ever kept here."""
        if prefix:
            self._check(prefix)
        return 0

    @staticmethod
    def _check(name: str) -> None:
        parts = name.split("/")
        if not all(parts) or any(part.startswith(".") for part in parts) or "\0" in name:
            raise StorageError(f"{name!r} is no object name")
