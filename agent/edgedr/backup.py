"""The recipe of a backup: from a node to its repository. It reads as it runs; the order of writes is the safety."""

import hashlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, assert_never

from edgedr import __version__, durable
from edgedr.archive import NODE_TAR, ArchiveWriter
from edgedr.errors import Damaged, SourceError, StorageError
from edgedr.inventory import EntryKind, Inventory, SourceRecord
from edgedr.log import Log
from edgedr.model import (
    SCHEMA,
    Artifact,
    BackupId,
    Class,
    EtcdFacts,
    Finding,
    Manifest,
    Proof,
    Segment,
    SourceResult,
    Status,
)
from edgedr.node.node import Node
from edgedr.repository.choice import Capture, ChainPolicy, Decision, decide
from edgedr.repository.names import Place, segment_object, segment_sizes
from edgedr.repository.parents import ParentCache
from edgedr.repository.repository import Listed, Repository
from edgedr.sealing.recipients import Recipient
from edgedr.sealing.segments import Prefix, seal
from edgedr.sealing.signatures import Signer
from edgedr.sources.base import Count, Document, Fact, Source, Spool, Stream, TakePath
from edgedr.watching import Watcher


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose backup it is, and which one in the line."""

    site: str
    node: str
    lineage: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Task:
    """Everything that a backup needs. Nothing in it changes while it runs."""

    node: Node
    sources: Sequence[Source]
    identity: Identity
    repository: Repository
    cache: ParentCache
    recipients: Sequence[Recipient]
    signer: Signer
    policy: ChainPolicy
    segment_size: int
    kubernetes_version: str | None = None
    damaged: frozenset[BackupId] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A committed backup: its manifest, what its sources saw, what was left out, how long it took."""

    manifest: Manifest
    inventory: Inventory
    seconds: float

    @property
    def missing(self) -> tuple[str, ...]:
        """The sources that are not in it, or not whole."""
        return tuple(name for name, source in self.manifest.sources.items() if source.status is not Status.OK)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What its sources saw."""
        return tuple(finding for record in self.inventory.sources.values() for finding in record.findings)


@dataclass(slots=True)
class _Notes:
    """What one source has said so far."""

    facts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    reason: str | None = None

    def record(self) -> SourceRecord:
        status = Status.OK if self.reason is None else Status.MISSING
        return SourceRecord(status, self.reason, self.facts, tuple(self.findings))


@dataclass(frozen=True, slots=True)
class _Plain:
    """An artifact in the clear, in the cache."""

    name: str
    size: int
    sha256: str


@dataclass(slots=True)
class _Captured:
    artifacts: list[_Plain] = field(default_factory=list)
    notes: dict[str, _Notes] = field(default_factory=dict)
    etcd: EtcdFacts | None = None
    inventory: Inventory | None = None


def back_up(task: Task, now: datetime, watcher: Watcher, log: Log, *, full: bool = False) -> Outcome:
    """Capture every source, seal, commit. Raises before anything is listed, or returns what was committed.

    The caller holds the node's lock. Whatever this leaves when it is killed is swept by the next run.
    """
    started = time.monotonic()
    listed = [
        replace(backup, damage=("a verification found it damaged",)) if backup.id in task.damaged else backup
        for backup in task.repository.list()
    ]
    newest = listed[-1] if listed else None
    task.cache.keep_only(newest.id if newest else None)
    for swept in task.repository.sweep():
        log.event("backup.swept", backup=str(swept))
    backup = BackupId(now.replace(microsecond=0), task.identity.sequence, secrets.token_hex(4))
    try:
        captured = _capture(task, backup, watcher, log)
        decision = decide(
            listed,
            _facts_for_choice(task, captured, now),
            task.policy,
            parent_problem=_parent_problem(task, newest) if newest else None,
            asked_full=full,
        )
        log.event("backup.decided", kind=str(decision.kind), reasons=list(decision.reasons))
        place = Place(decision.kind, task.identity.site, task.identity.node, backup)
        manifest = _seal_and_commit(task, place, captured, decision, watcher)
    except BaseException:
        with suppress(StorageError):  # the first error counts; the next run sweeps what is left
            task.cache.forget(backup)
        raise
    with suppress(StorageError):  # it is committed: what is left of the old parent is the next run's to remove
        task.cache.keep_only(backup)  # only now: until the commit, the old parent was the right one
    assert captured.inventory is not None
    outcome = Outcome(manifest, captured.inventory, time.monotonic() - started)
    log.event(
        "backup.committed",
        backup=str(backup),
        kind=str(manifest.kind),
        sealed_bytes=manifest.sealed_size,
        seconds=round(outcome.seconds, 3),
        missing=list(outcome.missing),
    )
    return outcome


def _parent_problem(task: Task, newest: Listed) -> str | None:
    """Say why nothing can be built upon the newest backup: nobody would believe it, or its plaintext is not at hand."""
    try:
        manifest, key = task.repository.signed_manifest(newest.place)
    except (Damaged, StorageError) as error:
        return error.message
    if key != task.signer.public:
        return "the node's signing key changed since the last backup"
    return task.cache.problem(manifest)


def _facts_for_choice(task: Task, captured: _Captured, now: datetime) -> Capture:
    return Capture(
        now=now,
        lineage=task.identity.lineage,
        recipients=tuple(recipient.fingerprint for recipient in task.recipients),
        cluster_id=captured.etcd.cluster_id if captured.etcd else None,
        segment_size=task.segment_size,
    )


def _capture(task: Task, backup: BackupId, watcher: Watcher, log: Log) -> _Captured:
    captured = _Captured()
    spool = task.cache.spool(backup) / "members"
    with ArchiveWriter(spool, task.node.files, floor=task.cache.keep_free) as archive:
        for source in task.sources:
            notes = captured.notes.setdefault(source.name, _Notes())
            watcher.begin(f"capture {source.name}", None)
            before = len(captured.artifacts)
            try:
                _capture_source(task, backup, source, notes, archive, captured, watcher)
            except SourceError as error:
                if source.required:
                    raise
                archive.drop(source.name)
                del captured.artifacts[before:]  # half a source is no source
                captured.notes[source.name] = _Notes(findings=notes.findings, reason=error.message)
                log.event("source.missing", source=source.name, reason=error.message)
        with _artifact(task, backup, NODE_TAR, captured, watcher) as sink:
            captured.inventory = archive.finish(
                task.identity.site, task.identity.node, {k: n.record() for k, n in captured.notes.items()}, sink
            )
    taken = Counter(entry.source for entry in captured.inventory.entries if entry.kind is not EntryKind.DIRECTORY)
    for name, notes in captured.notes.items():
        if taken[name]:
            notes.counts["files"] = taken[name]
    return captured


def _capture_source(
    task: Task,
    backup: BackupId,
    source: Source,
    notes: _Notes,
    archive: ArchiveWriter,
    captured: _Captured,
    watcher: Watcher,
) -> None:
    for item in source.capture(task.node):
        match item:
            case Stream():
                with _artifact(task, backup, item.artifact, captured, watcher) as sink:
                    item.pump(sink)
            case TakePath():
                archive.take(item.path, source.name)
            case Document():
                archive.document(item.member, item.data)
            case Fact():
                notes.facts[item.key] = item.value
            case Count():
                notes.counts[item.noun] = item.number
            case Finding():
                notes.findings.append(item)
            case EtcdFacts():
                captured.etcd = item
            case _:
                assert_never(item)


class _Measured:
    """A spool in the cache that is hashed and counted on its way."""

    def __init__(self, writer: durable.Writer, watcher: Watcher) -> None:
        self._writer = writer
        self._watcher = watcher
        self.digest = hashlib.sha256()

    @property
    def size(self) -> int:
        return self._writer.size

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.digest.update(data)
        self._watcher.advance(len(data))
        return self._writer.write(data)

    def flush(self) -> None:
        pass

    def restart(self) -> None:
        self._writer.restart()
        self.digest = hashlib.sha256()


@contextmanager
def _artifact(task: Task, backup: BackupId, name: str, captured: _Captured, watcher: Watcher) -> Iterator[Spool]:
    with task.cache.create(backup, name) as writer:
        measured = _Measured(writer, watcher)
        yield measured
    captured.artifacts.append(_Plain(name, measured.size, measured.digest.hexdigest()))


def _seal_and_commit(task: Task, place: Place, captured: _Captured, decision: Decision, watcher: Watcher) -> Manifest:
    try:
        artifacts = tuple(_seal(task, place, plain, decision, watcher) for plain in captured.artifacts)
        manifest = _manifest(task, place, captured, decision, artifacts)
        watcher.begin("check", manifest.sealed_size)
        _read_back(task, place, manifest)
        task.repository.commit(place, manifest, task.signer)
    except BaseException as error:
        with suppress(StorageError):  # the first error counts; the next run sweeps what is left
            task.repository.discard(place)
        if isinstance(error, OSError):
            raise durable.storage_error(error, "read", task.cache.directory) from error
        raise
    return manifest


def _read_back(task: Task, place: Place, manifest: Manifest) -> None:
    """Earn the L1 that the manifest claims."""
    for problem in task.repository.check(place, manifest):
        raise StorageError(f"what was just written cannot be read back: {problem}", hint="check the disk")


def _seal(task: Task, place: Place, plain: _Plain, decision: Decision, watcher: Watcher) -> Artifact:
    parent = decision.parent
    against = parent.artifact(plain.name) if parent else None
    segments = []
    watcher.begin(f"seal {plain.name}", plain.size)
    with durable.open_for_reading(task.cache.path(place.id, plain.name)) as opened:
        file = _Reread(opened)
        for number, size in enumerate(segment_sizes(plain.size, task.segment_size)):
            name = segment_object(plain.name, number)
            prefix = None
            if parent is not None and against is not None:
                prefix = _prefix(task.cache.path(parent.id, plain.name), number * task.segment_size, task.segment_size)
            with task.repository.storage.create(place.object(name)) as out:
                sealed = seal(file, size, out, recipients=task.recipients, prefix=prefix)
            segments.append(Segment(name, sealed.size, sealed.sha256, size))
            watcher.advance(size)
    if file.digest.hexdigest() != plain.sha256:  # between the first look and this one a disk or a memory lied
        raise StorageError(
            f"{plain.name} changed between capture and sealing", hint="check this machine's memory and disk"
        )
    return Artifact(
        name=plain.name,
        kind=Class.FULL if against is None else Class.DELTA,
        parent=parent.id if parent is not None and against is not None else None,
        size=plain.size,
        sha256=plain.sha256,
        segments=tuple(segments),
    )


class _Reread:
    """A file that is hashed once more while it is sealed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _prefix(parent: Path, start: int, size: int) -> Prefix | None:
    """Read the parent's segment; none where the parent is shorter, so that the segment stands alone."""
    with durable.open_for_reading(parent) as file:
        if os.fstat(file.fileno()).st_size <= start:
            return None
        file.seek(start)
        return Prefix(file.read(size))


def _manifest(
    task: Task, place: Place, captured: _Captured, decision: Decision, artifacts: tuple[Artifact, ...]
) -> Manifest:
    assert captured.inventory is not None
    return Manifest(
        schema=SCHEMA,
        id=place.id,
        lineage=task.identity.lineage,
        sequence=task.identity.sequence,
        site=task.identity.site,
        node=task.identity.node,
        created=place.id.created,
        clock_offset_ms=None,
        edgedr_version=__version__,
        distribution=task.node.layout.name,
        kubernetes_version=task.kubernetes_version,
        segment_size=task.segment_size,
        artifacts=artifacts,
        sources={
            name: SourceResult(record.status, _public(record.status), dict(captured.notes[name].counts))
            for name, record in captured.inventory.sources.items()
        },
        etcd=captured.etcd,
        recipients=tuple(recipient.fingerprint for recipient in task.recipients),
        proof=Proof.L1,
        reasons=decision.reasons,
    )


def _public(status: Status) -> str | None:
    """Keep paths and addresses out of the manifest, which anyone with the bucket can read; the inventory has them."""
    match status:
        case Status.OK:
            return None
        case Status.PARTIAL:
            return "something of it could not be taken; the sealed inventory says what"
        case Status.MISSING:
            return "could not be captured; the sealed inventory says why"
        case _:
            assert_never(status)
