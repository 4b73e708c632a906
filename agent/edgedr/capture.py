"""From the sources of a node to artifacts in the clear, in the cache: the first half of a backup."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import assert_never

from edgedr import durable
from edgedr.archive import NODE_TAR, ArchiveWriter
from edgedr.errors import SourceError
from edgedr.inventory import EntryKind, Inventory, SourceRecord
from edgedr.log import Log
from edgedr.model import BackupId, EtcdFacts, Finding, Status
from edgedr.node.node import Node
from edgedr.repository.parents import ParentCache
from edgedr.sources.base import Count, Document, Fact, Source, Spool, Stream, TakePath
from edgedr.watching import Watcher


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
    reason: str | None = None

    def record(self) -> SourceRecord:
        status = Status.OK if self.reason is None else Status.MISSING
        return SourceRecord(status, self.reason, self.facts, tuple(self.findings))


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

    def run(self, sources: Sequence[Source], site: str, node: str) -> Captured:
        """Capture every source, then write ``node.tar``.

        A source that is not required may fail: it is recorded as missing. Raises ``SourceError`` for one that is.
        """
        notes: dict[str, _Notes] = {}
        spool = self._cache.spool(self._backup) / "members"
        with ArchiveWriter(spool, self._node.files, floor=self._cache.keep_free) as archive:
            for source in sources:
                self._watcher.begin(f"capture {source.name}", None)
                notes[source.name] = self._source_or_why_not(source, archive)
            with self._artifact(NODE_TAR) as sink:
                inventory = archive.finish(site, node, {name: said.record() for name, said in notes.items()}, sink)
        taken = Counter(entry.source for entry in inventory.entries if entry.kind is not EntryKind.DIRECTORY)
        counts = {
            name: {**said.counts, **({"files": taken[name]} if taken[name] else {})} for name, said in notes.items()
        }
        return Captured(tuple(self._artifacts), inventory, counts, self._etcd)

    def _source_or_why_not(self, source: Source, archive: ArchiveWriter) -> _Notes:
        notes = _Notes()
        before = len(self._artifacts)
        try:
            self._source(source, archive, notes)
        except SourceError as error:
            if source.required:
                raise
            archive.drop(source.name)
            del self._artifacts[before:]  # half a source is no source
            self._log.event("source.missing", source=source.name, reason=error.message)
            return _Notes(findings=notes.findings, reason=error.message)
        return notes

    def _source(self, source: Source, archive: ArchiveWriter, notes: _Notes) -> None:
        for item in source.capture(self._node):
            match item:
                case Stream():
                    with self._artifact(item.artifact) as sink:
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
                    self._etcd = item
                case _:
                    assert_never(item)

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
