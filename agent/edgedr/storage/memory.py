"""Objects in memory: the storage of tests and rehearsals. It passes the same contract suite as the others."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from edgedr.errors import ObjectExists, ObjectMissing
from edgedr.storage.base import ByteSink, Copying, Stored, refuse_name


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


class MemoryStorage(Copying):
    """A dictionary of objects."""

    at_once = 1
    clock_offset = None

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def describe(self) -> str:
        """Say where this is."""
        return "memory"

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        """Open a new object for writing."""
        refuse_name(name)
        buffer = _Buffer()
        yield buffer
        if name in self.objects:
            raise ObjectExists(f"{name} exists already")
        self.objects[name] = bytes(buffer.data)

    def replace(self, name: str, data: bytes) -> None:
        """Put a small object in place of what has that name."""
        refuse_name(name)
        self.objects[name] = data

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:  # noqa: ARG002 - nothing is fetched
        """Open an object for reading."""
        refuse_name(name)
        if name not in self.objects:
            raise ObjectMissing(f"{name} is missing")
        return io.BytesIO(self.objects[name])

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:  # noqa: ARG002
        """Yield nothing: a name has one content here."""
        refuse_name(name)
        return iter(())

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the objects below ``prefix``, sorted by name."""
        if prefix:
            refuse_name(prefix)
        for name in sorted(self.objects):
            if not prefix or name == prefix or name.startswith(f"{prefix}/"):
                yield Stored(name, len(self.objects[name]))

    def delete(self, name: str) -> None:
        """Take an object away."""
        refuse_name(name)
        self.objects.pop(name, None)

    def sweep(self, prefix: str = "") -> int:
        """Nothing unfinished is ever kept here."""
        if prefix:
            refuse_name(prefix)
        return 0
