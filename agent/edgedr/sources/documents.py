"""What sources that write documents and take files have in common: how both come back, and how that is proven.

Each document's SHA-256 is a fact of its source, so that its loss shows; so is the number of objects in some.
"""

import hashlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Generic, TypeVar

from edgedr.archive import OWN
from edgedr.decoding import size_text
from edgedr.errors import EdgedrError, SourceError, StorageError
from edgedr.inventory import EntryKind, Inventory
from edgedr.kubernetes_yaml import ObjectCounter, cleaned, named, one_line, remarks, written
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.contents import Digest
from edgedr.node.files import Files
from edgedr.node.kube import Kind, Kube, KubeError, Object
from edgedr.node.seen import Skipped
from edgedr.sources.base import Captured, Fact, Listing
from edgedr.steps import PlaceDocuments, PlaceFiles, Step
from edgedr.storage.base import Spool

_FACT = "sha256 of "
_OBJECTS = "objects in "
_MAX_DOCUMENT = 1 << 40
_NAMED = 20
_UNWRITABLE = "malformed, too large, or nested too deeply to be written as YAML"
_MAX_STEM, _CUT = 200, 150  # of the 255 bytes that a file's name may have
_MAX_NOTED = 16 << 20  # bytes of YAML of objects that something is remembered of: a note may take five times as many

Note = TypeVar("Note")


def document_fact(member: str) -> str:
    """Return the fact under which the SHA-256 of a document is kept."""
    return _FACT + member


def is_document(fact: str) -> bool:
    """Tell whether a fact is about a document."""
    return fact.startswith(_FACT)


def member_of(fact: str) -> str:
    """Return the document that such a fact is about."""
    return fact.removeprefix(_FACT)


def documents_of(source: str, inventory: Inventory) -> dict[str, str]:
    """Return the SHA-256 of each document of a source, in hex, by its name."""
    record = inventory.sources.get(source)
    facts = record.facts if record else {}
    return {member_of(fact): digest for fact, digest in facts.items() if is_document(fact)}


def objects_fact(member: str) -> str:
    """Return the fact under which the number of objects in a document is kept."""
    return _OBJECTS + member


@dataclass(slots=True)
class Lacks:
    """What could not be had, by reason: a server that is away is one reason, not fifty."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)
    """The first of them by name."""
    more: dict[str, int] = field(default_factory=dict)
    """How many others."""

    @property
    def first(self) -> str:
        """The first reason."""
        return next(iter(self.by_reason), "")

    def add(self, what: str, reason: str, *, more: int = 0) -> None:
        """Note one thing, and how many more of its sort."""
        reason = one_line(reason)
        names = self.by_reason.setdefault(reason, [])
        if len(names) < _NAMED:
            names.append(what)
        else:
            more += 1
        self.more[reason] = self.more.get(reason, 0) + more

    def reasons(self) -> Iterator[str]:
        """Yield each reason once, after what it is the reason for."""
        for reason, names in self.by_reason.items():
            more = f" and {self.more[reason]} more" if self.more[reason] else ""
            yield f"{', '.join(names)}{more}: {reason}"


@dataclass(slots=True)
class Room:
    """What all documents of a source may have together, and what of it is left; ``setting`` is what may be raised."""

    size: Bytes
    setting: str | None = None
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.size

    def take(self, size: int) -> None:
        """Take so many bytes. Raises ``SourceError`` where they are not there."""
        if size > self.left:
            hint = f"; raise {self.setting}" if self.setting else ""
            raise SourceError(f"does not fit into the {size_text(self.size)} that all documents may have{hint}")
        self.left -= size


@dataclass(slots=True, repr=False)
class KindDocument(Generic[Note]):
    """All objects of one kind on their way from the server into a document; one page of them in memory.

    ``keep`` tells which to write, ``note`` what to remember of each that is written. After ``pump``: ``objects`` were
    written, ``left_out`` were not kept; ``unwritable`` are the names of the first that are malformed, too large or
    nested too deeply, and ``more_unwritable`` is how many others are; or ``error`` says why the kind could not be had,
    and the document says it too. ``notes_end`` tells that there was more to remember than memory should hold.
    """

    kube: Kube
    kind: Kind
    room: Room
    keep: Callable[[Object], bool] = lambda _: True
    note: Callable[[Object], Note | None] = lambda _: None
    objects: int = 0
    left_out: int = 0
    notes: list[Note] = field(default_factory=list)
    notes_end: bool = False
    unwritable: list[str] = field(default_factory=list)
    more_unwritable: int = 0
    done: bool = False
    error: EdgedrError | None = None
    _taken: int = 0
    _noted: int = 0

    @property
    def name(self) -> str:
        """The document's name in its directory: one that every file system takes, and that no other kind has."""
        name = self.kind.name
        if len(name) > _MAX_STEM:
            name = f"{name[:_CUT]}-{hashlib.sha256(name.encode()).hexdigest()}"  # longer than any that was not cut
        return f"{name}.yaml"

    def pump(self, spool: Spool) -> None:
        """Write the document. Raises nothing that the server, or what it sends, is to blame for."""
        try:
            self._begin(spool)
            self.kube.scan(self.kind.path, lambda item: self._take(item, spool), lambda: self._begin(spool))
            self._write(spool, f"# end of {self.kind.name}: {self.objects} objects\n".encode())
        except (SourceError, StorageError) as error:
            # A full disk, too, costs only this kind: what is forgotten here is free again, and the snapshot of etcd,
            # which has all of this and a floor of its own, must not be lost over a list that somebody lets grow.
            self.error = error
            self._forget(spool)
            with suppress(StorageError):  # an empty document says it as well: there are no objects in it
                spool.write(f"# {self.kind.name}: could not be read: {one_line(error.message)}\n".encode())
        else:
            self.done = True

    def _begin(self, spool: Spool) -> None:
        self._forget(spool)
        self._write(spool, self._header().encode())

    def _forget(self, spool: Spool) -> None:
        spool.restart()
        self.room.left += self._taken
        self.objects = self.left_out = self.more_unwritable = self._taken = self._noted = 0
        self.notes_end = False
        self.notes.clear()
        self.unwritable.clear()

    def _header(self) -> str:
        return (
            f"# {one_line(self.kind.kind)}, {self.kind.api_version}: without what a cluster sets itself.\n"
            f"# Review, then: kubectl apply --server-side -f {self.name}\n"
        )

    def _take(self, item: Object, spool: Spool) -> None:
        item = {
            **item,
            "apiVersion": item.get("apiVersion") or self.kind.api_version,
            "kind": item.get("kind") or self.kind.kind,
        }
        try:
            kept = self.keep(item)
            said = "".join(f"# {remark}\n" for remark in remarks(item)) if kept else ""
            text = written(cleaned(item)) if kept else ""
            noted = self.note(item) if kept else None
        except (ValueError, LookupError, TypeError, AttributeError):
            # whoever may extend the API decides what comes here: one odd object must not cost all the others
            self._leave(item)
            return
        if not kept:
            self.left_out += 1
            return
        self._write(spool, f"---\n{said}{text}".encode())
        self.objects += 1
        if noted is not None:
            self._remember(noted, len(text))

    def _write(self, spool: Spool, data: bytes) -> None:
        self.room.take(len(data))
        self._taken += len(data)
        spool.write(data)

    def _leave(self, item: Object) -> None:
        if len(self.unwritable) < _NAMED:
            self.unwritable.append(named(item))
        else:
            self.more_unwritable += 1

    def _remember(self, note: Note, size: int) -> None:
        self._noted += size
        if self._noted > _MAX_NOTED:
            self.notes_end = True
        else:
            self.notes.append(note)


def take_documents(directory: str, documents: Sequence[KindDocument[Any]], lacking: Lacks) -> Iterator[Captured]:
    """Yield each document, and how many objects are in it; note in ``lacking`` what could not be read.

    A server that does not answer any more is not asked for the rest.
    """
    for position, document in enumerate(documents):
        member = f"{directory}/{document.name}"
        yield Listing(member, document.pump)
        if document.error is not None:
            lacking.add(document.kind.name, document.error.message)
            if _is_away(document):
                rest = len(documents) - position - 1
                lacking.add(f"{rest} more kinds", document.error.message)
                return
        elif document.done:
            yield Fact(objects_fact(member), str(document.objects))
            last = len(document.unwritable) - 1
            for number, name in enumerate(document.unwritable):
                more = document.more_unwritable if number == last else 0
                lacking.add(f"{name} of {document.kind.name}", _UNWRITABLE, more=more)


def _is_away(document: KindDocument[Any]) -> bool:
    """Tell whether asking for more makes no sense: one answer that is no answer may be the fault of one kind."""
    if not isinstance(document.error, KubeError) or document.error.status is not None:
        return False
    try:
        document.kube.get("/version")
    except KubeError as again:
        return again.status is None
    return False


def place_files(source: str, inventory: Inventory) -> Iterator[Step]:
    """Plan to put back the files of a source, if it has some."""
    if any(entry.source == source for entry in inventory.entries):
        yield PlaceFiles(source)


def place_documents(source: str, inventory: Inventory) -> Iterator[Step]:
    """Plan to put back the documents of a source, if it has some."""
    if documents_of(source, inventory):
        yield PlaceDocuments(source)


def prove_documents(source: str, restored: Path, inventory: Inventory) -> Iterable[Finding]:
    """Compare each document below the new root with what was written at capture."""
    wanted = documents_of(source, inventory)
    files = Files(restored, max_file_bytes=_MAX_DOCUMENT)
    bad = 0
    for member, digest in wanted.items():
        found = Digest()
        files.read(document_path(member), found)
        if found.hex != digest:
            bad += 1
            yield Finding(Severity.BAD, member, "was not restored as it was written", "restore once more")
    if wanted and not bad:
        yield Finding(Severity.GOOD, source, f"documents as they were written: {len(wanted)}")


def prove_objects(source: str, restored: Path, inventory: Inventory) -> Iterable[Finding]:
    """Parse each document of objects below the new root, and compare how many there are with what was written."""
    record = inventory.sources.get(source)
    facts = record.facts if record else {}
    wanted = {key.removeprefix(_OBJECTS): value for key, value in facts.items() if key.startswith(_OBJECTS)}
    files = Files(restored, max_file_bytes=_MAX_DOCUMENT)
    bad = 0
    for member, number in wanted.items():
        counter = ObjectCounter()
        seen = files.read(document_path(member), counter)
        counter.end()
        problem = seen.reason if isinstance(seen, Skipped) else counter.problem
        if problem is not None or str(counter.objects) != number:
            bad += 1
            text = problem or f"{counter.objects} objects, of {number} that were written"
            yield Finding(Severity.BAD, member, text, "restore once more")
    if wanted and not bad:
        total = sum(map(int, wanted.values()))
        yield Finding(Severity.GOOD, source, f"objects that parse, of as many captured: {total}")


def prove_files(source: str, restored: Path, inventory: Inventory) -> Iterable[Finding]:
    """Compare each file of a source below the new root with the hash in the inventory."""
    files = Files(restored, max_file_bytes=sys.maxsize)
    hashes = {entry.path: entry.sha256 for entry in inventory.entries if entry.kind is EntryKind.FILE}
    good = 0
    for entry in inventory.entries:
        if entry.source != source or entry.kind not in {EntryKind.FILE, EntryKind.HARDLINK}:
            continue
        expected = hashes.get(entry.target or "") if entry.kind is EntryKind.HARDLINK else entry.sha256
        content = Digest()
        seen = files.read(PurePosixPath(entry.path), content)
        if isinstance(seen, Skipped) or content.hex != expected:
            text = f"was not restored: {seen.reason}" if isinstance(seen, Skipped) else "has another content"
            yield Finding(Severity.BAD, entry.path, text, "restore once more, into a new directory")
        else:
            good += 1
    if good:
        yield Finding(Severity.GOOD, source, f"files with the recorded content: {good}")


def document_path(member: str) -> PurePosixPath:
    """Return where extraction puts a document, below the new root."""
    return PurePosixPath(OWN) / member
