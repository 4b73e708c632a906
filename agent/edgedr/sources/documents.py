"""What sources that write documents and take files have in common: how both come back, and how that is proven.

Each document's SHA-256 is a fact of its source, so that its loss shows; so is the number of objects in some.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from edgedr.archive import OWN
from edgedr.inventory import EntryKind, Inventory
from edgedr.kubernetes_yaml import KindDocument, ObjectCounter, one_line
from edgedr.model import Finding, Severity
from edgedr.node.files import Digest, Files
from edgedr.node.kube import KubeError
from edgedr.node.seen import Skipped
from edgedr.sources.base import Captured, Fact, Listing
from edgedr.steps import PlaceDocuments, PlaceFiles, Step

_FACT = "sha256 of "
_OBJECTS = "objects in "
_MAX_DOCUMENT = 1 << 40


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

    @property
    def first(self) -> str:
        """The first reason."""
        return next(iter(self.by_reason), "")

    def add(self, what: str, reason: str) -> None:
        """Note one thing."""
        self.by_reason.setdefault(one_line(reason), []).append(what)

    def reasons(self) -> Iterator[str]:
        """Yield each reason once, after what it is the reason for."""
        for reason, names in self.by_reason.items():
            yield f"{', '.join(names)}: {reason}"


def take_documents(directory: str, documents: Sequence[KindDocument[Any]], lacking: Lacks) -> Iterator[Captured]:
    """Yield each document, and how many objects are in it; note in ``lacking`` what could not be read.

    A server that does not answer any more is not asked for the rest.
    """
    for position, document in enumerate(documents):
        member = f"{directory}/{document.name}"
        yield Listing(member, document.pump)
        if document.error is not None:
            lacking.add(document.kind.name, document.error.message)
            if _is_away(document, document.error):
                rest = len(documents) - position - 1
                lacking.add(f"{rest} more kinds", document.error.message)
                return
        elif document.done:
            yield Fact(objects_fact(member), str(document.objects))
            for name in document.unwritable:
                lacking.add(f"{name} of {document.kind.name}", "malformed, or nested too deeply to be written as YAML")


def _is_away(document: KindDocument[Any], error: KubeError) -> bool:
    """Tell whether asking for more makes no sense: one answer that is no answer may be the fault of one kind."""
    if error.status is not None:
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
        yield Finding(Severity.GOOD, source, f"{len(wanted)} documents are as they were written")


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
        yield Finding(Severity.GOOD, source, f"{total} objects in {len(wanted)} documents parse")


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
        yield Finding(Severity.GOOD, source, f"{good} files have the recorded content")


def document_path(member: str) -> PurePosixPath:
    """Return where extraction puts a document, below the new root."""
    return PurePosixPath(OWN) / member
