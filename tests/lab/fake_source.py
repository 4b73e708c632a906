"""A node with one plain source, and everything around it that a backup and its way back need, below one directory."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from edgedr import strictjson
from edgedr.backup import Identity as Whose
from edgedr.backup import Outcome, Task, back_up
from edgedr.cli.terminal import Silent
from edgedr.inventory import Inventory
from edgedr.layouts import UNKNOWN
from edgedr.log import Log
from edgedr.model import BackupId, EtcdFacts, Finding, Manifest
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.recovery.recover import Extracted, Order, recover
from edgedr.repository.chains import by_id, chain_of
from edgedr.repository.checking import Verdict, check
from edgedr.repository.choice import ChainPolicy
from edgedr.repository.names import MANIFEST, RECIPE, SIGNATURE
from edgedr.repository.parents import ParentCache
from edgedr.repository.reading import read_artifact
from edgedr.repository.repository import Listed, Repository
from edgedr.sealing.identities import Identity, make_identity
from edgedr.sealing.recipients import fingerprint, parse_recipient
from edgedr.sealing.signatures import AllowedSigner, Signer, Trust
from edgedr.sources.base import Captured, Count, Stream, TakePath
from edgedr.steps import PlaceArtifact, PlaceFiles, Step
from edgedr.storage.base import Spool, Storage
from edgedr.storage.directory import DirectoryStorage

SEGMENT = 64 << 10
BLOB = "etcd.db"
START = datetime(2026, 11, 22, 22, 15, tzinfo=UTC)
EVERY = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class BlobSource:
    """A source whose artifact is the bytes that it is given; some files with it."""

    data: bytes = b""
    paths: tuple[str, ...] = ("/etc/site.conf", "/etc/empty")
    cluster_id: str = "cdf818194e3a8c32"

    @property
    def name(self) -> str:
        return "blob"

    @property
    def required(self) -> bool:
        return True

    def capture(self, node: Node) -> Iterator[Captured]:
        yield Stream(BLOB, self._pump)
        yield EtcdFacts(self.cluster_id, "8e9e05c52164694d", 42, "3.5.1")
        yield from (TakePath(PurePosixPath(path)) for path in self.paths)
        yield Count("keys", len(self.data))

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        yield PlaceArtifact(self.name, BLOB, BLOB)
        yield PlaceFiles(self.name)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        return ()

    def _pump(self, spool: Spool) -> None:
        for start in range(0, len(self.data), SEGMENT):
            spool.write(self.data[start : start + SEGMENT])


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an age key pair: ``recipient`` seals for them, ``identity`` is what they open with."""

    recipient: str
    identity: Identity

    @classmethod
    def new(cls) -> "Person":
        import pyrage  # noqa: PLC0415 - the lab makes keys as an operator does

        made = make_identity()
        return cls(made.recipient, Identity(fingerprint(made.recipient), pyrage.x25519.Identity.from_str(made.secret)))


OPERATOR = Person.new()
SIGNER = Signer.generate()


def bytes_of(seed: int, size: int) -> bytes:
    """Return bytes that do not compress, the same for the same seed."""
    return hashlib.shake_256(seed.to_bytes(8, "big")).digest(size)


def churned(data: bytes, seed: int) -> bytes:
    """Return ``data`` with a little of it changed, as a database a few minutes later."""
    at = seed * 7919 % max(len(data) - 64, 1)
    return data[:at] + bytes_of(seed, 64) + data[at + 64 :]


class Lab:
    """A node, its repository and its state below ``path``. Two labs at one path are one node, seen twice."""

    def __init__(
        self, path: Path, *, storage: Storage | None = None, site: str = "plant-7", node: str = "cp-1"
    ) -> None:
        self.path = path
        self.site, self.node = site, node
        self.root = path / "node"
        if not self.root.exists():
            (self.root / "etc").mkdir(parents=True)
            (self.root / "etc/site.conf").write_bytes(b"level = 7\n")
            (self.root / "etc/empty").write_bytes(b"")
        self.storage = DirectoryStorage(path / "repository") if storage is None else storage
        self.repository = Repository(self.storage, site=site, node=node)
        self.cache = ParentCache(path / "state" / "parent")

    @property
    def objects(self) -> Path:
        """Where the repository's files are."""
        return self.path / "repository"

    def task(self, data: bytes, **changes: object) -> Task:
        """Return what a backup of ``data`` needs; ``changes`` are fields of ``Task``, or a ``lineage``."""
        listed = self.repository.list()
        sequence = listed[-1].id.sequence + 1 if listed else 1
        lineage = str(changes.pop("lineage", "0123456789abcdef"))
        task = Task(
            node=Node(Files(self.root), UNKNOWN),
            sources=(BlobSource(data),),
            identity=Whose(self.site, self.node, lineage, sequence),
            repository=self.repository,
            cache=self.cache,
            recipients=(parse_recipient(OPERATOR.recipient),),
            signer=SIGNER,
            policy=ChainPolicy(),
            segment_size=SEGMENT,
        )
        return replace(task, **changes)  # type: ignore[arg-type]

    def back_up(self, data: bytes, *, full: bool = False, now: datetime | None = None, **changes: object) -> Outcome:
        """Back ``data`` up, five minutes after the last time."""
        task = self.task(data, **changes)
        because = "a full was asked for" if full else None
        at = now or START + EVERY * task.identity.sequence
        return back_up(task, at, Silent(), Log(), full_because=because)

    def listed(self) -> tuple[Listed, ...]:
        """Return what is committed."""
        return self.repository.list()

    def ids(self) -> list[BackupId]:
        """Return the ids of what is committed."""
        return [backup.id for backup in self.listed()]

    def get(self, backup: BackupId) -> Listed:
        """Return one committed backup."""
        return by_id(self.listed())[backup]

    def verify(
        self, *wanted: BackupId, key: bool = True, trust: Trust | None = None, person: Person = OPERATOR
    ) -> dict[BackupId, Verdict]:
        """Check ``wanted``, or all: with the key L2, without L1."""
        identities = (person.identity,) if key else ()
        verdicts = check(
            self.repository, self.listed(), wanted or self.ids(), trust=trust or trusting(), identities=identities
        )
        return {verdict.backup.id: verdict for verdict in verdicts}

    def read(self, backup: BackupId, artifact: str = BLOB) -> bytes:
        """Read an artifact back along its chain, in memory."""
        listed = self.listed()
        manifest = self.get(backup).manifest
        assert manifest is not None
        sink = _Collected()
        chain = chain_of(manifest, by_id(listed))
        read_artifact(self.repository, chain, artifact, (OPERATOR.identity,), {backup: sink})
        return bytes(sink.data)

    def restore(self, backup: BackupId, target: Path, **changes: object) -> Extracted:
        """Extract a backup below ``target``; ``changes`` are fields of ``Order``."""
        return self.restore_listed(self.get(backup), target, **changes)

    def restore_listed(self, backup: Listed, target: Path, **changes: object) -> Extracted:
        """Extract a backup as it is listed, in whatever state."""
        order = Order(
            backup=backup,
            target=target,
            sources=(BlobSource(),),
            identities=(OPERATOR.identity,),
            trust=trusting(),
            confirm=lambda _manifest, _key: False,
        )
        return recover(self.repository, self.listed(), replace(order, **changes), Silent())  # type: ignore[arg-type]

    def object(self, backup: BackupId, name: str) -> Path:
        """Return the file that holds one object of a backup."""
        return self.objects / self.get(backup).place.object(name)

    def resign(self, backup: BackupId, change: Callable[[Manifest], Manifest], signer: Signer = SIGNER) -> None:
        """Rewrite a manifest, and sign it anew."""
        manifest = self.get(backup).manifest
        assert manifest is not None
        data = strictjson.encode(change(manifest))
        self.object(backup, MANIFEST).write_bytes(data)
        self.object(backup, SIGNATURE).write_bytes(signer.sign(data))

    def leftovers(self) -> list[str]:
        """Return everything below repository and state that belongs to no committed backup: there should be none."""
        listed = self.listed()
        known = {RECIPE} | {listed_.place.object(name) for listed_ in listed for name in _objects_of(listed_)}
        newest = listed[-1].manifest if listed else None
        cached = {f"{newest.id}/{artifact.name}" for artifact in newest.artifacts} if newest else set()
        return sorted(_strangers(self.objects, known) + _strangers(self.cache.directory, cached))


def trusting(signer: Signer = SIGNER) -> Trust:
    """Return the trust of somebody who keeps the node's line of ``allowed_signers``."""
    return Trust((AllowedSigner(("cp-1@plant-7",), signer.public),))


def digest(data: bytes) -> str:
    """Return SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def expect(lab: Lab, contents: Mapping[BackupId, bytes]) -> None:
    """Assert that exactly these backups are listed, prove themselves with a key, and hold exactly these bytes."""
    assert lab.ids() == sorted(contents)
    assert all(not backup.damage for backup in lab.listed())
    assert {backup: verdict.intact for backup, verdict in lab.verify().items()} == dict.fromkeys(contents, True)
    for backup in lab.listed():
        assert backup.manifest is not None
        artifact = backup.manifest.artifact(BLOB)
        assert artifact is not None
        assert artifact.sha256 == digest(contents[backup.id])


class _Collected:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        return len(data)


def _objects_of(listed: Listed) -> Sequence[str]:
    segments = [s.object for a in listed.manifest.artifacts for s in a.segments] if listed.manifest else []
    return (*segments, "manifest.json", "manifest.json.sig")


def _strangers(root: Path, known: set[str]) -> list[str]:
    """Return files that nobody knows and directories that hold nothing, below ``root``."""
    found = []
    for directory, directories, files in os.walk(root):
        at = Path(directory)
        found += [str(at / name) for name in files if str((at / name).relative_to(root)) not in known]
        if not directories and not files and at != root:
            found.append(f"{at}/")
    return found
