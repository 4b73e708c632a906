"""What every storage promises. ``tests/storage_contract.py`` holds each implementation to it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol


class ByteSink(Protocol):
    """Something that takes bytes, and knows how many it took."""

    @property
    def size(self) -> int:
        """Bytes taken so far."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``."""

    def flush(self) -> None:
        """Do nothing: libraries call it out of habit."""


class Spool(ByteSink, Protocol):
    """A sink that can begin again: what was written is forgotten."""

    def restart(self) -> None:
        """Forget everything written so far."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is there: its name, and its size in bytes."""

    name: str
    size: int


class Storage(Protocol):
    """Immutable objects under names like ``v1/full/site/node/id/manifest.json``.

    Names are relative, of parts that are neither empty nor begin with a dot; anything else is a ``StorageError``.
    Whatever the place itself refuses, or loses, comes out as ``StorageError`` with the object's name.
    """

    def describe(self) -> str:
        """Say where this is, for people: a path or a URL, never a credential."""

    def create(self, name: str) -> AbstractContextManager[ByteSink]:
        """Open a new object for writing.

        The object exists, whole and durable, once the block ends without an exception; before, and after a failure or a
        crash at any moment, it does not exist. Raises ``ObjectExists`` (at the latest at the block's end) and leaves
        what is there untouched if the name is taken.
        """

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading; seekable. Raises ``ObjectMissing``."""

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the object ``prefix`` and those below it (whole name parts), sorted by name; unfinished ones never."""

    def delete(self, name: str) -> None:
        """Take an object away for good; one that is not there is fine."""

    def sweep(self, prefix: str = "") -> int:
        """Remove what interrupted writes of ``prefix`` and of objects below it left; return how many.

        Only with no writer at work there.
        """
