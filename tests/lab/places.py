"""Places that backups are sent to, in memory: one that tells what it got, one that fails when told, a blind one."""

import errno
import io
from collections.abc import Callable, Collection, Iterator
from datetime import datetime, timedelta
from typing import BinaryIO

from edgedr.cli.terminal import Silent
from edgedr.errors import ObjectExists, Refused, Unreachable
from edgedr.log import Log
from edgedr.replicas import ReplicaSettings
from edgedr.replication import Shipment, replicate
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.names import MANIFEST, place_of
from edgedr.state import ReplicaMemory, StateDirectory
from edgedr.storage.base import Progress, Stored, nobody
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import START, Lab, bytes_of, churned

NOW = START + timedelta(hours=1)
BUCKET = ReplicaSettings("far", "s3://bucket/edge", at_once=1)
DISK = ReplicaSettings("usb", "/mnt/usb", at_once=1)
CONTENTS = {sequence: churned(bytes_of(1, 9000), sequence) for sequence in range(1, 6)}

Act = Callable[[str], object]


def nothing(_: str) -> None:
    """Do nothing."""


class Watched(MemoryStorage):
    """A storage that remembers what was put, and where something may happen before or after each ``put``."""

    def __init__(self, before: Act = nothing, after: Act = nothing) -> None:
        super().__init__()
        self.put_names: list[str] = []
        self.before, self.after = before, after

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
        self.put_names.append(name)
        self.before(name)
        travelled = super().put(name, source, size, sha256, again=again, progress=progress)
        self.after(name)
        return travelled

    @property
    def committed(self) -> list[int]:
        """The sequences whose manifests were put, in that order."""
        belongs = [place_of(name) for name in self.put_names]
        return [each[0].id.sequence for each in belongs if each is not None and each[1] == MANIFEST]


class Place(Watched):
    """A place whose ``fails_at``-th call from now on finds no link, and which refuses everything while ``closed``."""

    def __init__(self, where: str = "memory") -> None:
        super().__init__(before=self.asked, after=self.asked)
        self.where = where
        self.fails_at = 0
        self.closed: Exception | None = None

    def asked(self, what: str) -> None:
        """Fail, if it has come to that."""
        self.fails_at -= 1
        if self.fails_at == 0:
            raise Unreachable(f"cannot reach {what}")
        if self.closed is not None:
            raise self.closed

    def describe(self) -> str:
        return self.where

    def list(self, prefix: str = "") -> Iterator[Stored]:
        self.asked(prefix)
        return super().list(prefix)


class Blind(Place):
    """A place where this credential may only put: it tells that a name is taken, not by what."""

    def list(self, prefix: str = "") -> Iterator[Stored]:
        self.asked(prefix)
        raise Refused("cannot list: AccessDenied")

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        raise Refused(f"cannot get {name}: AccessDenied")

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
        taken = name in self.objects
        try:
            return super().put(name, source, size, sha256, progress=progress)
        except Refused as error:
            if not taken or self.closed is not None:
                raise
            if again:
                return False
            raise ObjectExists(f"{name} exists already") from error


class Bad(io.BytesIO):
    """A file on a disk that cannot read it."""

    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")


class Dying(MemoryStorage):
    """A disk that cannot read some sectors."""

    bad = ""

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        return Bad() if self.bad and self.bad in name else super().open(name, limit=limit)


def memory_of(lab: Lab, replica: ReplicaSettings) -> ReplicaMemory:
    return StateDirectory(lab.path / "state").replica(replica.name)


def ship(
    lab: Lab, to: MemoryStorage, replica: ReplicaSettings = DISK, *, now: datetime = NOW, damaged: Collection[str] = ()
) -> Shipment:
    """Serve one replica as a run of its own, with what the runs before it left on disk."""
    memory = memory_of(lab, replica)
    with memory.lock():
        outcome = replicate(lab.repository, replica, to, memory, lambda: now, Silent(), Log(), damaged=damaged)
        kept = memory.load()
        assert kept is not None
        assert kept == outcome.record or kept.place != outcome.record.place  # of one that was never reached
    return outcome


def know(lab: Lab, replica: ReplicaSettings) -> None:
    """Let the node remember that it has sent nothing yet."""
    memory = memory_of(lab, replica)
    with memory.lock():
        memory.save(ReplicaRecord.blank("memory", known=True))


def there(lab: Lab, place: MemoryStorage) -> list[int]:
    """Return the sequences of what a place holds, and assert that each restores to what was captured."""
    plain = MemoryStorage()
    plain.objects = place.objects
    seen = Lab(lab.path, storage=plain)
    for backup in seen.listed():
        assert not backup.damage
        assert seen.read(backup.id) == CONTENTS.get(backup.id.sequence, b"one more")
    return [backup.sequence for backup in seen.ids()]
