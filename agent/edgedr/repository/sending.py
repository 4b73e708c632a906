"""Sending one committed backup to another storage: segments, signature, then the manifest, which commits it there."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, Protocol, cast

from edgedr.errors import Damaged, ObjectExists, ObjectMissing, Refused, StorageError, Unreachable
from edgedr.model import Manifest, Segment
from edgedr.repository.names import MANIFEST, RECIPE, SIGNATURE, Place, recipe
from edgedr.repository.repository import Repository
from edgedr.storage.base import Progress, Storage, nobody


class Ledger(Protocol):
    """Remembers, across crashes, what was sent of a backup. Threads may share it."""

    def has(self, name: str) -> bool:
        """Whether an object is known to be there."""

    def begin(self, name: str, size: int) -> bool:
        """Note that an object may arrive from now on; say whether that was noted before. May raise, to stop here."""

    def arrived(self, name: str, size: int, *, travelled: bool) -> None:
        """Note that an object is there."""


class Forgetful:
    """A ledger for a place that can be looked at: each object is asked for there."""

    def has(self, name: str) -> bool:  # noqa: ARG002
        """Nothing is known."""
        return False

    def begin(self, name: str, size: int) -> bool:  # noqa: ARG002
        """Let everything be sent."""
        return True

    def arrived(self, name: str, size: int, *, travelled: bool) -> None:
        """Note nothing."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object to be sent: its name, and how to open it."""

    name: str
    size: int
    sha256: str
    open: Callable[[], BinaryIO]


class _Source:
    """A file to be sent: that its disk cannot read it is damage here, and no fault of where it goes."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self._name = file, name
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        try:
            return self._file.read(size)
        except OSError as error:
            hint = "look at the kernel log, and replace the disk"
            raise Damaged(f"{self._name} cannot be read: {error.strerror or error}", hint=hint) from error


def send(
    source: Repository,
    place: Place,
    target: Storage,
    ledger: Ledger,
    *,
    at_once: int = 1,
    progress: Progress = nobody,
    hashed: bool = False,
) -> Manifest:
    """Send a committed backup. Interrupted anywhere, ``target`` has no manifest of it, hence no backup.

    With ``hashed``, the source lets go only of what was found to be as signed: for one from which it has to travel.
    Raises ``Damaged`` where the source is not what its manifest says, ``ObjectExists`` where somebody else's object has
    a name of ours, and what the storages raise.
    """
    with _read_here(place.object(MANIFEST)):
        signed = source.signed(place)
    segments = list(_segments(source, place, signed.manifest, hashed=hashed))
    with ThreadPoolExecutor(max(1, min(at_once, len(segments)))) as pool:
        try:
            for sent in as_completed([pool.submit(_send, one, target, ledger, progress) for one in segments]):
                sent.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _send(_small(place.object(SIGNATURE), signed.signature), target, ledger, progress)
    # The manifest is last: from its arrival on, and not before, the backup exists there.
    _send(_small(place.object(MANIFEST), signed.data), target, ledger, progress)
    return signed.manifest


@contextmanager
def _read_here(name: str) -> Iterator[None]:
    """Tell what a disk cannot read, which is damage of that backup, from a place that is out of reach."""
    try:
        yield
    except (Damaged, ObjectMissing, Unreachable, Refused):
        raise
    except StorageError as error:
        raise Damaged(f"{name} cannot be read: {error.message}", hint=error.hint) from error


def send_recipe(target: Storage) -> None:
    """Put the recipe for recovery by hand there too; one that is there already, of whatever version, is good enough."""
    try:
        _send(_small(RECIPE, recipe()), target, Forgetful(), nobody)
    except ObjectExists:
        return


def _send(one: _Object, target: Storage, ledger: Ledger, progress: Progress) -> None:
    if ledger.has(one.name):
        return
    again = ledger.begin(one.name, one.size)
    with _read_here(one.name):
        file = one.open()
    with file:
        source = cast("BinaryIO", _Source(file, one.name))
        travelled = target.put(one.name, source, one.size, one.sha256, again=again, progress=progress)
    ledger.arrived(one.name, one.size, travelled=travelled)


def _segments(source: Repository, place: Place, manifest: Manifest, *, hashed: bool) -> Iterator[_Object]:
    for artifact in manifest.artifacts:
        for segment in artifact.segments:
            name = place.object(segment.object)

            def opened(name: str = name, segment: Segment = segment) -> BinaryIO:
                return source.open(place, segment) if hashed else source.storage.open(name)

            yield _Object(name, segment.size, segment.sha256, opened)


def _small(name: str, data: bytes) -> _Object:
    return _Object(name, len(data), hashlib.sha256(data).hexdigest(), lambda: BytesIO(data))
