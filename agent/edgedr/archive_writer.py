"""Collect what sources take of a node, and write ``node.tar``: sorted, the same input giving the same bytes."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import BinaryIO, Self

from edgedr import durable, members, strictjson
from edgedr.archive import CHUNK, DOCUMENT, INVENTORY, MAX_INVENTORY, MAX_MEMBERS, OWN, RECORD
from edgedr.captured import CapturedFiles
from edgedr.errors import Damaged, SourceError
from edgedr.inventory import Entry, EntryKind, Inventory, LeftOut, SourceRecord
from edgedr.members import BLOCK, Member
from edgedr.model import SCHEMA, Finding, Severity, Status
from edgedr.node.files import Files
from edgedr.node.seen import Seen, Skipped
from edgedr.storage.base import ByteSink, Spool


@dataclass(frozen=True, slots=True)
class _Taken:
    """``start`` is where its content begins in the spool; names of one ``shared`` inode have the same one."""

    entry: Entry
    start: int
    shared: bool


class _Slot:
    """The place of one content in the spool: its last one while it is written."""

    def __init__(self, spool: durable.Writer) -> None:
        self._spool = spool
        self.start = spool.size
        self.size = 0
        self.hash = hashlib.sha256()

    def restart(self) -> None:
        if self.size:  # it is the last one: nothing else is written before it is done
            self._spool.rewind(self.start)
        self.size = 0
        self.hash = hashlib.sha256()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.hash.update(data)
        self.size += len(data)
        return self._spool.write(data)

    def flush(self) -> None:
        pass


class ArchiveWriter:
    """Collect what sources take, then write it in order.

    A context manager. Contents wait in the file ``spool``, which is removed at the end; memory holds one chunk of them
    and the inventory.
    """

    def __init__(self, spool: Path, files: Files, *, floor: int = 0) -> None:
        self._path = spool
        self._files = files
        self._floor = floor
        self._stack = ExitStack()
        self._taken: dict[PurePosixPath, _Taken] = {}
        self._left_out: dict[PurePosixPath, LeftOut] = {}
        self._inodes: dict[tuple[int, int], _Taken] = {}
        self._documents: dict[str, _Slot] = {}
        self._findings: dict[str, list[Finding]] = {}
        self._lost: dict[PurePosixPath, str] = {}

    def __enter__(self) -> Self:
        self._spool = self._stack.enter_context(durable.replacing(self._path, floor=self._floor, twice=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._stack.__exit__(kind, error, trace)
        finally:
            durable.remove(self._path)

    def take(self, path: PurePosixPath, source: str) -> None:
        """Take a path, and the directories above it, as they are; what cannot be taken is recorded as left out.

        A path that was taken before stays with the source that took it first.
        """
        for each in (*reversed(path.parents[:-1]), path):
            if each not in self._taken and each not in self._left_out:
                self._take(each, source)

    def document(self, member: str, content: bytes | Callable[[Spool], object]) -> str:
        """Add a text under ``member``, like ``runbooks/restore.md``: its bytes, or what writes them into a spool.

        Returns its SHA-256 in hex.
        """
        if not DOCUMENT.fullmatch(member) or member in self._documents:
            raise ValueError(f"{member!r} is no name for a document, or taken")
        slot = _Slot(self._spool)
        if isinstance(content, bytes):
            slot.write(content)
        else:
            content(slot)
        self._documents[member] = slot
        return slot.hash.hexdigest()

    def drop_documents(self, members: Iterable[str]) -> None:
        """Forget documents of a source that failed half-way."""
        for member in members:
            self._documents.pop(member, None)

    def drop(self, source: str) -> None:
        """Forget what a source took that failed half-way, except directories that others have something in."""
        kept = {path: taken for path, taken in self._taken.items() if taken.entry.source != source}
        for path, taken in list(kept.items()):
            for above in path.parents[:-1]:
                if above not in kept:
                    directory = self._taken[above]
                    kept[above] = replace(directory, entry=replace(directory.entry, source=taken.entry.source))
        self._taken = kept
        self._left_out = {path: left for path, left in self._left_out.items() if left.source != source}
        self._lost = {path: whose for path, whose in self._lost.items() if whose != source}
        self._findings.pop(source, None)

    def finish(self, site: str, node: str, sources: Mapping[str, SourceRecord], sink: ByteSink) -> Inventory:
        """Write the archive to ``sink`` and return its inventory: ``sources``, with what was found here.

        A source of which something could not be taken is partial: a restore would miss it.
        """
        self._stack.close()
        ordered = self._in_order()
        self._find_lost_targets(ordered)
        inventory = Inventory(
            schema=SCHEMA,
            site=site,
            node=node,
            sources={name: self._completed(name, record) for name, record in sources.items()},
            entries=tuple(taken.entry for taken in ordered),
            left_out=tuple(self._left_out[path] for path in sorted(self._left_out, key=os.fsencode)),
        )
        written = _Padded(sink)
        record = strictjson.encode(inventory)
        if len(record) > MAX_INVENTORY:
            raise SourceError(f"the inventory of {len(ordered)} paths is too large", hint="take fewer paths")
        try:  # what no restore could read must not be committed
            strictjson.decode(Inventory, record, what=INVENTORY, max_bytes=MAX_INVENTORY)
        except Damaged as error:
            raise SourceError(f"the inventory could not be read again: {error.message}", hint="report it") from error
        written.member(members.encode(Member.document(INVENTORY, len(record))), record)
        with durable.open_for_reading(self._path) as spool:
            for name, slot in sorted(self._documents.items()):
                written.member(members.encode(Member.document(name, slot.size)))
                written.content(spool, slot.start, slot.size, name)
            for taken in ordered:
                written.member(members.encode(Member.of(taken.entry)))
                written.content(spool, taken.start, taken.entry.size, taken.entry.path)
        written.end()
        return inventory

    def captured(self) -> CapturedFiles:
        """Return what was taken so far, to be read as the files of a node are. Before ``finish`` only."""
        return CapturedFiles(
            {path: (taken.entry, taken.start) for path, taken in self._taken.items()}, self._spool.read
        )

    def _completed(self, source: str, record: SourceRecord) -> SourceRecord:
        record = replace(record, findings=(*record.findings, *self._findings.get(source, ())))
        lost = [str(path) for path, whose in self._lost.items() if whose == source]
        if not lost or record.status is not Status.OK:
            return record
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        return replace(record, status=Status.PARTIAL, reason=f"could not take {lost[0]}{more}")

    def _take(self, path: PurePosixPath, source: str) -> None:
        slot = _Slot(self._spool)
        seen = self._files.look(path)
        known = self._same_file(seen)
        above = self._taken.get(path.parent)
        if str(path) == OWN:
            seen = Skipped("the name is edgedr's own", lost=False)
        elif len(path.parts) > 2 and (above is None or above.entry.kind is not EntryKind.DIRECTORY):  # noqa: PLR2004
            seen = Skipped("the directory that it is in could not be taken")
        elif known is None:
            seen = self._files.read(path, slot)
        if isinstance(seen, Skipped):
            self._left_out[path] = LeftOut(str(path), source, seen.reason)
            if seen.lost:
                self._lost[path] = source
            return
        if len(self._taken) >= MAX_MEMBERS:
            raise SourceError(f"more than {MAX_MEMBERS} paths, the last one {path}", hint="take fewer paths")
        self._taken[path] = self._remember(path, source, seen, slot, known)
        notes = list(seen.notes)
        if seen.kind is EntryKind.DIRECTORY and not self._files.listable(path):
            notes.append("cannot be listed: what is below it may be missing")
            self._lost[path] = source
        self._find(source, path, *notes)

    def _same_file(self, seen: Seen | Skipped) -> _Taken | None:
        """Find an earlier name of the same inode; one that changed since, or was used again, is another file."""
        if isinstance(seen, Skipped) or seen.kind is not EntryKind.FILE or seen.links == 1:
            return None
        known = self._inodes.get(seen.inode)
        same = known is not None and (known.entry.size, known.entry.mtime_ns) == (seen.size, seen.mtime_ns)
        return known if same else None

    def _remember(self, path: PurePosixPath, source: str, seen: Seen, slot: _Slot, known: _Taken | None) -> _Taken:
        if known is not None:
            return replace(known, entry=replace(known.entry, path=str(path), source=source))
        is_file = seen.kind is EntryKind.FILE
        taken = _Taken(
            Entry(
                path=str(path),
                kind=seen.kind,
                source=source,
                mode=seen.mode,
                uid=seen.uid,
                gid=seen.gid,
                mtime_ns=seen.mtime_ns,
                size=seen.size,
                sha256=slot.hash.hexdigest() if is_file else None,
                target=seen.target,
                xattrs={name: base64.b64encode(value).decode() for name, value in seen.xattrs.items()},
                sparse=seen.sparse,
            ),
            slot.start,
            shared=is_file and seen.links > 1,
        )
        if taken.shared:
            self._inodes[seen.inode] = taken
        return taken

    def _in_order(self) -> list[_Taken]:
        """Sort by path; of the names of one inode, the first carries the content and the others link to it."""
        first: dict[int, str] = {}
        ordered = []
        for path in sorted(self._taken, key=os.fsencode):
            taken = self._taken[path]
            entry = taken.entry
            if taken.shared and first.setdefault(taken.start, entry.path) != entry.path:
                entry = replace(
                    entry,
                    kind=EntryKind.HARDLINK,
                    target=first[taken.start],
                    size=0,
                    sha256=None,
                    xattrs={},
                    sparse=False,
                )
            ordered.append(replace(taken, entry=entry))
        return ordered

    def _find_lost_targets(self, ordered: list[_Taken]) -> None:
        for entry in (taken.entry for taken in ordered if taken.entry.kind is EntryKind.SYMLINK):
            path = PurePosixPath(entry.path)
            real = self._files.real(path)
            if real is not None and real not in self._taken:
                self._find(entry.source, path, f"points to {entry.target}, which is not in the backup")

    def _find(self, source: str, path: PurePosixPath, *texts: str) -> None:
        self._findings.setdefault(source, []).extend(Finding(Severity.WARN, str(path), text) for text in texts)


class _Padded:
    """Write members in whole blocks."""

    def __init__(self, sink: ByteSink) -> None:
        self._sink = sink
        self._size = 0

    def member(self, header: bytes, data: bytes = b"") -> None:
        self._write(header)
        self._write(data)
        self._pad(BLOCK)

    def content(self, spool: BinaryIO, start: int, size: int, what: str) -> None:
        spool.seek(start)
        left = size
        while left:
            chunk = spool.read(min(left, CHUNK))
            if not chunk:
                raise SourceError(f"the spooled content of {what} is gone", hint="look at the disk, try again")
            self._write(chunk)
            left -= len(chunk)
        self._pad(BLOCK)

    def end(self) -> None:
        self._write(bytes(2 * BLOCK))
        self._pad(RECORD)

    def _write(self, data: bytes) -> None:
        self._sink.write(data)
        self._size += len(data)

    def _pad(self, unit: int) -> None:
        self._write(bytes(-self._size % unit))
