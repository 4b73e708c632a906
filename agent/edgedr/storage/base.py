"""What every storage promises. ``tests/storage_contract.py`` holds each implementation to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeAlias

from edgedr.errors import Damaged, ObjectExists, StorageError

Progress: TypeAlias = Callable[[int], None]
_BLOCK = 1 << 20


def nobody(count: int) -> None:
    """Take no notice of progress."""


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
    Whatever the place itself refuses, or loses, comes out as ``StorageError`` with the object's name: ``Unreachable``
    where it may do better later by itself, ``Refused`` where somebody must mend something first.
    """

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this machine's clock is ahead of the place's, where that was learnt."""

    @property
    def at_once(self) -> int:
        """How many objects are worth reading at the same time: one from a disk, more where each costs a round trip."""

    def describe(self) -> str:
        """Say where this is, for people: a path or a URL, never a credential."""

    def create(self, name: str) -> AbstractContextManager[ByteSink]:
        """Open a new object for writing.

        The object exists, whole and durable, once the block ends without an exception; before, and after a failure or a
        crash at any moment, it does not exist. Raises ``ObjectExists`` (at the latest at the block's end) and leaves
        what is there untouched if the name is taken.
        """

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
        """Store the ``size`` bytes of ``source`` from where it stands, whose hash is ``sha256`` (hex).

        Returns once the object is whole and durable: true if its bytes travelled, false if the very same were there.
        Raises ``Damaged`` and stores nothing if the source is not what its hash says; ``ObjectExists``, leaving what is
        there untouched, where the name is taken by something else, or by something that we may not look at: with
        ``again``, that an earlier attempt may have got through, such an object is taken for ours. ``progress`` gets
        bytes as they travel, negative where they have to travel once more.
        """

    def replace(self, name: str, data: bytes) -> None:
        """Put a small object in place of what has that name: the one kind that changes is a heartbeat."""

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        """Open an object for reading; seekable. Raises ``ObjectMissing``.

        One of more than ``limit`` bytes is ``TooLong`` where it would have to be fetched: nothing of it is.
        """

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
        """Open what else is to be had under a name, likeliest first, each when it is asked for.

        That is the same once more where it came over a network, and older contents where the place keeps them; none of
        more than ``limit`` bytes, and not more of them than anybody wrote there in good faith.
        """

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the object ``prefix`` and those below it (whole name parts), sorted by name; unfinished ones never."""

    def delete(self, name: str) -> None:
        """Take an object away for good; one that is not there is fine."""

    def sweep(self, prefix: str = "") -> int:
        """Remove what interrupted writes of ``prefix`` and of objects below it left; return how many.

        Only with no writer at work there.
        """


class Remote(Storage, Protocol):
    """A storage behind a network, from which a download can go on where it stopped."""

    def fetch(self, name: str, spool: Spool, *, limit: int | None = None) -> None:
        """Append to a spool what of an object it does not hold yet; what it holds may be of another object by now."""


def refuse_name(name: str) -> list[str]:
    """Return the parts of an object's name. Raises ``StorageError`` for one that leaves the storage, or hides in it."""
    parts = name.split("/")
    if not all(parts) or any(part.startswith(".") for part in parts) or "\0" in name:
        raise StorageError(f"{name!r} is no object name", hint="this may be a hostile manifest: do not trust it")
    return parts


class Copying(ABC):
    """How a place puts that is written to like a file, and whose objects can be looked at."""

    @abstractmethod
    def create(self, name: str) -> AbstractContextManager[ByteSink]:
        """Open a new object for writing."""

    @abstractmethod
    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        """Open an object for reading."""

    def put(
        self,
        name: str,
        source: BinaryIO,
        size: int,
        sha256: str,
        *,
        again: bool = False,  # noqa: ARG002 - what is there can be looked at
        progress: Progress = nobody,
    ) -> bool:
        """Store what ``source`` holds."""
        try:
            with self.create(name) as out:
                _copy_proven(source, size, sha256, name, out, progress)
        except ObjectExists:
            with self.open(name) as there:
                if not is_same(there, size, sha256):
                    raise
            return False
        return True


def _copy_proven(source: BinaryIO, size: int, sha256: str, name: str, out: ByteSink, progress: Progress) -> None:
    import hashlib  # noqa: PLC0415 - OpenSSL is not loaded for a list

    digest = hashlib.sha256()
    while out.size < size and (block := source.read(min(_BLOCK, size - out.size))):
        digest.update(block)
        out.write(block)
        progress(len(block))
    if (out.size, digest.hexdigest()) != (size, sha256):
        raise Damaged(f"what was to be stored as {name} is not what its hash says")


def is_same(file: BinaryIO, size: int, sha256: str) -> bool:
    """Say whether a file has this size and hash."""
    import hashlib  # noqa: PLC0415

    digest = hashlib.sha256()
    seen = 0
    while block := file.read(_BLOCK):
        seen += len(block)
        digest.update(block)
    return (seen, digest.hexdigest()) == (size, sha256)
