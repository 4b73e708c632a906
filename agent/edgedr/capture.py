"""From the sources of a node to artifacts in the clear, in the cache: the first half of a backup."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import assert_never

from edgedr import durable
from edgedr.anchors import anchor_facts, anchors, anchors_of, changed
from edgedr.archive import NODE_TAR
from edgedr.archive_writer import ArchiveWriter
from edgedr.closure import Evidence, close
from edgedr.errors import SourceError, StorageError
from edgedr.inventory import EntryKind, Inventory, SourceRecord
from edgedr.log import Log
from edgedr.model import CLOSURE, BackupId, EtcdFacts, Finding, Severity, Status
from edgedr.node.node import Node
from edgedr.repository.parents import ParentCache
from edgedr.sources.base import (
    Absent,
    Copy,
    Count,
    Document,
    Elsewhere,
    Fact,
    Lacking,
    Listing,
    Source,
    Stream,
    TakePath,
)
from edgedr.sources.documents import document_fact, is_document, member_of
from edgedr.storage.base import Spool
from edgedr.watching import Watcher

_CHUNK = 1 << 20
_MAX_SAID = 8 << 10
"""Characters of one text in the inventory: whoever may create an object decides on some, and readers have bounds."""


@dataclass(frozen=True, slots=True)
class Plain:
    """An artifact in the clear, in the cache."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Captured:
    """What was captured: artifacts, the inventory that is in one of them, counts by source, whose etcd it was."""

    artifacts: tuple[Plain, ...]
    inventory: Inventory
    counts: dict[str, dict[str, int]]
    etcd: EtcdFacts | None


@dataclass(slots=True)
class _Notes:
    """What one source has said so far."""

    facts: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    status: Status = Status.OK
    reason: str | None = None

    def take(self, item: Fact | Count | Finding | Lacking | Elsewhere | Absent) -> None:
        match item:
            case Fact():
                self.facts[_bounded(item.key)] = _bounded(item.value)
            case Count():
                self.counts[item.noun] = item.number
            case Finding():
                hint = item.hint and _bounded(item.hint)
                self.findings.append(Finding(item.severity, _bounded(item.subject), _bounded(item.text), hint))
            case Lacking() if self.reason is None:
                self.status, self.reason = Status.PARTIAL, _bounded(item.reason)
            case Lacking():
                self.findings.append(Finding(Severity.WARN, "also lacking", _bounded(item.reason)))
            case Elsewhere():
                self.status, self.reason = Status.ELSEWHERE, f"captured by {_bounded(item.who)}"
            case Absent():
                self.status, self.reason = Status.ABSENT, _bounded(item.reason)
            case _:
                assert_never(item)

    def record(self) -> SourceRecord:
        return SourceRecord(self.status, self.reason, self.facts, tuple(self.findings))


def _bounded(text: str) -> str:
    return text if len(text) <= _MAX_SAID else f"{text[:_MAX_SAID]}… ({len(text)} characters)"


class Capturing:
    """One capture, into the cache directory of the backup to be."""

    def __init__(self, node: Node, cache: ParentCache, backup: BackupId, watcher: Watcher, log: Log) -> None:
        self._node = node
        self._cache = cache
        self._backup = backup
        self._watcher = watcher
        self._log = log
        self._artifacts: list[Plain] = []
        self._etcd: EtcdFacts | None = None

    def run(self, sources: Sequence[Source], site: str, node: str, earlier: Inventory | None = None) -> Captured:
        """Capture every source, check closure, then write ``node.tar``.

        A source that is not required may fail: it is recorded as missing. Raises ``SourceError`` for one that is.
        ``earlier`` is the inventory of the backup before, to say what the cluster hangs on and has changed since.
        """
        notes: dict[str, _Notes] = {}
        spool = self._cache.spool(self._backup) / "members"
        with ArchiveWriter(spool, self._node.files, floor=self._cache.keep_free) as archive:
            for source in sources:
                self._watcher.begin(f"capture {source.name}", None)
                notes[source.name] = self._source_or_why_not(source, archive)
            records = {name: said.record() for name, said in notes.items()}
            is_kine = "keys" in notes["sqlite"].counts if "sqlite" in notes else False
            records[CLOSURE] = self._closure(archive, earlier, is_kine=is_kine)
            with self._artifact(NODE_TAR) as sink:
                inventory = archive.finish(site, node, records, sink)
        taken = Counter(entry.source for entry in inventory.entries if entry.kind is not EntryKind.DIRECTORY)
        counts = {
            name: {**said.counts, **({"files": taken[name]} if taken[name] else {})} for name, said in notes.items()
        }
        counts[CLOSURE] = {"missing": len(inventory.sources[CLOSURE].missing)}
        return Captured(tuple(self._artifacts), inventory, counts, self._etcd)

    def _source_or_why_not(self, source: Source, archive: ArchiveWriter) -> _Notes:
        notes = _Notes()
        before, etcd = len(self._artifacts), self._etcd
        try:
            self._source(source, archive, notes)
        except SourceError as error:
            if source.required:
                raise
            archive.drop(source.name)
            archive.drop_documents(member_of(fact) for fact in notes.facts if is_document(fact))
            for half in self._artifacts[before:]:  # half a source is no source
                durable.remove(self._cache.path(self._backup, half.name))
            del self._artifacts[before:]
            self._etcd = etcd
            self._log.event("source.missing", source=source.name, reason=error.message)
            return _Notes(findings=notes.findings, status=Status.MISSING, reason=_bounded(error.message))
        if not notes.status.whole:
            self._log.event("source.partial", source=source.name, reason=notes.reason)
        return notes

    def _source(self, source: Source, archive: ArchiveWriter, notes: _Notes) -> None:
        for item in source.capture(self._node):
            match item:
                case Stream():
                    with self._artifact(item.artifact) as sink:
                        item.pump(sink)
                case Copy():
                    self._copy(item)
                case TakePath():
                    archive.take(item.path, source.name)
                case Document():
                    notes.facts[document_fact(item.member)] = archive.document(item.member, item.data)
                case Listing():
                    notes.facts[document_fact(item.member)] = archive.document(item.member, item.pump)
                case EtcdFacts():
                    self._etcd = item
                case _:
                    notes.take(item)

    def _closure(self, archive: ArchiveWriter, earlier: Inventory | None, *, is_kine: bool) -> SourceRecord:
        """Look whether all that the datastore needs was captured: on what is in the archive, not on the node.

        An SQLite database that is not kine's was asked for by name, and holds nothing that closure knows.
        """
        self._watcher.begin("closure", None)
        files = archive.captured()
        made = {plain.name: self._cache.path(self._backup, plain.name) for plain in self._artifacts}
        layout = self._node.layout
        sqlite = made.get("state.db") if is_kine else None
        before = anchors_of(earlier, CLOSURE)
        evidence = Evidence(files, layout, made.get("etcd.db"), sqlite, self._node.files, before)
        record = close(evidence)
        found = anchors(files, layout)
        named = {finding.subject for finding in record.missing}
        changes = tuple(change for change in changed(earlier, CLOSURE, found) if change.subject not in named)
        for change in changes:
            self._log.event("anchor.changed", path=change.subject)
        return replace(record, facts=anchor_facts(found), findings=(*record.findings, *changes))

    def _copy(self, item: Copy) -> None:
        """Let a library write a file of its own beside the cache, and take that in."""
        directory = self._cache.spool(self._backup)
        free = durable.free_space_of(directory)
        if free < 2 * item.size + self._cache.keep_free:
            raise StorageError(
                f"no room in {directory} for a copy of {item.artifact}: {free >> 20} MiB are free",
                hint="free space there, or lower [repository] keep_free",
            )
        path = directory / f"{item.artifact}.copy"
        try:
            item.make(path)
            with durable.open_for_reading(path) as file, self._artifact(item.artifact) as sink:
                while chunk := file.read(_CHUNK):
                    sink.write(chunk)
        finally:
            durable.remove(path)

    @contextmanager
    def _artifact(self, name: str) -> Iterator[Spool]:
        with self._cache.create(self._backup, name) as writer:
            measured = _Measured(writer, self._watcher)
            yield measured
        self._artifacts.append(Plain(name, measured.size, measured.digest.hexdigest()))


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
