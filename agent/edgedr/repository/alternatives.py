"""Which of all that stands under a name is what is meant: a network may spoil it, and a bucket may keep several."""

from collections.abc import Callable, Iterator, MutableSet
from typing import BinaryIO, TypeVar

from edgedr.errors import Damaged, StorageError, TooLong
from edgedr.model import Segment
from edgedr.storage.base import Storage

T = TypeVar("T")

_BLOCK = 1 << 20


def first_good(storage: Storage, strays: MutableSet[str], name: str, limit: int, use: Callable[[BinaryIO], T]) -> T:
    """Use the first content of an object that is any good: what comes first, the same once more, older ones.

    None of more than ``limit`` bytes is fetched. ``use`` raises ``Damaged`` for what is no good; the first such error
    is raised if none is good. Names whose first content was not it are added to ``strays``.
    """
    first: Damaged | None = None
    for file in contents(storage, name, limit):
        if file is None:
            first = first or Damaged(f"{name} is damaged: longer than {limit} bytes")
            continue
        try:
            done = use(file)
        except Damaged as error:
            first = first or error
            file.close()
            continue
        except BaseException:
            file.close()
            raise
        if first is not None:
            strays.add(name)
        if done is not file:
            file.close()
        return done
    assert first is not None
    raise first


def contents(storage: Storage, name: str, limit: int) -> Iterator[BinaryIO | None]:
    """Yield all that stands under a name, likeliest first; ``None`` for what is too long to be of use."""
    try:
        yield storage.open(name, limit=limit)
    except TooLong:
        yield None
    yield from storage.others(name, limit=limit)


def small(file: BinaryIO, name: str, limit: int) -> bytes:
    """Read a small object whole. Raises ``Damaged`` if it has more than ``limit`` bytes."""
    try:
        data = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(name, error) from error
    if len(data) > limit:
        raise Damaged(f"{name} is damaged: longer than {limit} bytes")
    return data


def proven(file: BinaryIO, segment: Segment, what: str) -> BinaryIO:
    """Return a file at its beginning, once its content is found to be what the manifest says."""
    import hashlib  # noqa: PLC0415 - OpenSSL is not loaded for a list

    digest = hashlib.sha256()
    size = 0
    try:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    except OSError as error:
        raise _unreadable(what, error) from error
    if (size, digest.hexdigest()) != (segment.size, segment.sha256):
        difference = f"it has {size} bytes instead of {segment.size}" if size != segment.size else "sha256 differs"
        raise Damaged(f"segment {what} is damaged: {difference} from the manifest")
    file.seek(0)
    return file


def _unreadable(what: str, error: OSError) -> StorageError:
    return StorageError(
        f"{what} cannot be read: {error.strerror or error}", hint="look at the kernel log, and replace the disk"
    )
