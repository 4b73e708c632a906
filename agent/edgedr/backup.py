"""The recipe of a backup: from a node to its repository. It reads as it runs; the order of writes is the safety."""

import secrets
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

from edgedr import __version__, durable
from edgedr.capture import Captured, Capturing, Plain
from edgedr.errors import Damaged, StorageError
from edgedr.inventory import Inventory
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
from edgedr.repository.choice import Capture, ChainPolicy, Decision, another_past, decide
from edgedr.repository.contents import cached_inventory
from edgedr.repository.names import Place, segment_object, segment_sizes
from edgedr.repository.parents import ParentCache, Reread
from edgedr.repository.repository import Listed, Repository
from edgedr.sealing.recipients import Recipient
from edgedr.sealing.segments import Prefix, seal
from edgedr.sealing.signatures import Signer
from edgedr.sources.base import Source
from edgedr.watching import Watcher

UNCHANGED_FROM = 8 << 20
"""Bytes from which an artifact that is its parent's is not shipped at all.

A delta between equals costs 36 bytes for each 128 KiB, since zstd's blocks are no longer: 20 kB for a database of
70 MB. Below this size it is no special case."""


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
    clock_offset_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A committed backup: its manifest, what its sources saw, what was left out, how long it took."""

    manifest: Manifest
    inventory: Inventory
    seconds: float
    turned: str | None = None
    """Why a new lineage began with it: its datastore did not grow on from that of the last backup."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The sources that are not in it, or not whole."""
        return tuple(name for name, source in self.manifest.sources.items() if not source.status.whole)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What its sources saw."""
        return tuple(finding for record in self.inventory.sources.values() for finding in record.findings)


def back_up(task: Task, now: datetime, watcher: Watcher, log: Log, *, full_because: str | None = None) -> Outcome:
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
    if BackupId.parse(str(backup)) != backup:  # it would be committed and never listed
        raise StorageError(f"sequence {backup.sequence} is beyond the last", hint="begin anew in another repository")
    earlier = cached_inventory(task.cache, newest.manifest) if newest and newest.manifest else None
    try:
        captured = Capturing(task.node, task.cache, backup, watcher, log).run(
            task.sources, task.identity.site, task.identity.node, earlier
        )
        turned = another_past(_last_etcd(listed), captured.etcd) or _went_back(earlier, captured.inventory)
        if turned is not None:  # order is by lineage first: what comes now does not follow upon what was before
            task = replace(task, identity=replace(task.identity, lineage=secrets.token_hex(8)))
            log.event("datastore.turned", reason=turned)
        decision = decide(
            listed,
            _facts_for_choice(task, captured, now, turned),
            task.policy,
            parent_problem=_parent_problem(task, newest) if newest else None,
            full_because=full_because,
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
    outcome = Outcome(manifest, captured.inventory, time.monotonic() - started, turned)
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


def _last_etcd(listed: Sequence[Listed]) -> EtcdFacts | None:
    """Return whose etcd the newest backup holds that has any: with several nodes, not each one has."""
    known = (backup.manifest.etcd for backup in reversed(listed) if backup.manifest is not None)
    return next((etcd for etcd in known if etcd is not None), None)


def _went_back(earlier: Inventory | None, now: Inventory) -> str | None:
    """Say if k3s's SQLite was restored to an older state."""
    before, after = (_sqlite_revision(inventory) for inventory in (earlier, now))
    if before is None or after is None or after >= before:
        return None
    return f"the datastore went back from revision {before} to {after}: it was restored to an older state"


def _sqlite_revision(inventory: Inventory | None) -> int | None:
    record = inventory.sources.get("sqlite") if inventory else None
    text = record.facts.get("revision", "") if record else ""
    return int(text) if text.isdecimal() else None


def _facts_for_choice(task: Task, captured: Captured, now: datetime, turned: str | None) -> Capture:
    return Capture(
        now=now,
        lineage=task.identity.lineage,
        recipients=tuple(recipient.fingerprint for recipient in task.recipients),
        cluster_id=captured.etcd.cluster_id if captured.etcd else None,
        segment_size=task.segment_size,
        another_past=turned,
    )


def _seal_and_commit(task: Task, place: Place, captured: Captured, decision: Decision, watcher: Watcher) -> Manifest:
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


def _seal(task: Task, place: Place, plain: Plain, decision: Decision, watcher: Watcher) -> Artifact:
    """Seal an artifact segment by segment, hashing once more what is read: a disk or a memory may lie meanwhile."""
    parent = decision.parent
    against = parent.artifact(plain.name) if parent else None
    if parent is not None and against is not None and plain.size >= UNCHANGED_FROM and plain.sha256 == against.sha256:
        return Artifact(plain.name, Class.DELTA, parent.id, plain.size, plain.sha256, ())
    segments = []
    watcher.begin(f"seal {plain.name}", plain.size)
    with ExitStack() as files:
        file = files.enter_context(Reread(task.cache.path(place.id, plain.name)))
        base = None
        if parent is not None and against is not None:
            base = files.enter_context(Reread(task.cache.path(parent.id, plain.name)))
        for number, size in enumerate(segment_sizes(plain.size, task.segment_size)):
            name = segment_object(plain.name, number)
            prefix = None  # the last one goes before the next is made: two would break the promise about memory
            prefix = _prefix(base, task.segment_size) if base is not None else None
            with task.repository.storage.create(place.object(name)) as out:
                sealed = seal(file, size, out, recipients=task.recipients, prefix=prefix)
            segments.append(Segment(name, sealed.size, sealed.sha256, size))
            watcher.advance(size)
        _same(file, plain.sha256, plain.name)
        if base is not None and against is not None:
            _same(base, against.sha256, f"the cached {plain.name} of its parent")
    return Artifact(
        name=plain.name,
        kind=Class.FULL if against is None else Class.DELTA,
        parent=parent.id if parent is not None and against is not None else None,
        size=plain.size,
        sha256=plain.sha256,
        segments=tuple(segments),
    )


def _prefix(base: Reread, size: int) -> Prefix | None:
    """Read the next segment of a parent; at its end there is none, and the segment of the child stands alone."""
    held = base.read(size)
    return Prefix(held) if held else None


def _same(file: Reread, sha256: str, what: str) -> None:
    if file.rest() != sha256:
        raise StorageError(f"{what} changed while it was sealed", hint="check this machine's memory and disk")


def _manifest(
    task: Task, place: Place, captured: Captured, decision: Decision, artifacts: tuple[Artifact, ...]
) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        id=place.id,
        lineage=task.identity.lineage,
        sequence=task.identity.sequence,
        site=task.identity.site,
        node=task.identity.node,
        created=place.id.created,
        clock_offset_ms=task.clock_offset_ms,
        edgedr_version=__version__,
        distribution=task.node.layout.name,
        kubernetes_version=task.kubernetes_version,
        segment_size=task.segment_size,
        artifacts=artifacts,
        sources={
            name: SourceResult(record.status, _public(record.status), captured.counts[name])
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
        case Status.OK | Status.ELSEWHERE | Status.ABSENT:
            return None
        case Status.PARTIAL:
            return "something of it could not be had; the sealed inventory says what"
        case Status.MISSING:
            return "could not be captured; the sealed inventory says why"
        case _:
            assert_never(status)
