"""Certificates, their keys, and the kubeconfigs that carry some: what a cluster's identity is made of."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgedr.errors import SourceError
from edgedr.inventory import EntryKind, Inventory
from edgedr.layouts import UNKNOWN, why_unknown
from edgedr.model import Finding, Severity
from edgedr.node.files import Files, matches
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.pki import Ledger, examine
from edgedr.sources.base import Captured, Count, Fact, TakePath
from edgedr.steps import PlaceFiles, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesSource:
    """Take the PKI trees and kubeconfigs of the layout, and know what is in them."""

    paths: tuple[str, ...] = ()
    """Further certificates and keys: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    required: bool = True
    """Whether a backup without certificates is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "certificates"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the paths, a ledger of every certificate, and what is wrong or missing. See ``Source``."""
        paths = [
            path
            for path in node.files.expand((*node.layout.certificates, *self.paths))
            if not any(matches(path, pattern) for pattern in self.exclude)
        ]
        ledger = examine(_contents(node.files, paths), thorough=False)
        if not ledger.certificates:
            raise self._none(node)
        yield from map(TakePath, paths)
        yield from _facts(ledger)
        yield Count("certificates", len(ledger.certificates))
        yield Count("keys", ledger.keys)
        yield from ledger.findings
        yield from self._missing(node, ledger)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files. See ``Source``."""
        if any(entry.source == self.name for entry in inventory.entries):
            yield PlaceFiles(self.name)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check that they parse, that keys fit, and that authorities signed what they should. See ``Source``."""
        del artifacts  # all of it is in files
        files = Files(restored)
        kinds = {EntryKind.FILE, EntryKind.HARDLINK}
        entries = [entry for entry in inventory.entries if entry.source == self.name and entry.kind in kinds]
        if not entries:
            return
        paths = [PurePosixPath(entry.path) for entry in entries]
        contents = _contents(files, paths)
        lost = [path for path in paths if path not in contents and not files.exists(path)]
        for path in lost:
            yield Finding(Severity.BAD, str(path), "was not restored", "restore once more, into a new directory")
        ledger = examine(contents, thorough=True)
        yield from ledger.findings
        if not lost and not any(finding.severity is Severity.BAD for finding in ledger.findings):
            text = f"{len(ledger.certificates)} certificates parse, {ledger.paired} key pairs fit, "
            yield Finding(Severity.GOOD, self.name, text + f"{ledger.chained} signatures of authorities hold")

    def _none(self, node: Node) -> SourceError:
        places = ", ".join((*node.layout.certificates, *self.paths))
        looked = f": {places}" if places else ""
        reason = f"; {why_unknown(node.root)}" if node.layout is UNKNOWN else ""
        return SourceError(
            f"there is no certificate on this node where one is expected{looked}{reason}",
            hint="name where they are: [sources.certificates] paths; or where the node's / is: [node] root",
        )

    def _missing(self, node: Node, ledger: Ledger) -> Iterator[Finding]:
        if not any(issued.is_authority for issued in ledger.certificates):
            text = "there are certificates, but no authority among them"
            yield Finding(Severity.BAD, self.name, text, "know where the authority is kept, or name its path")
        for pattern in self.paths:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")
        for path in node.layout.essential:
            if not node.files.exists(path):
                text = "is not on this node, and so not in the backup"
                yield Finding(Severity.WARN, path, text, "without it the restored cluster is another one: keep it safe")


def _contents(files: Files, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, bytes]:
    """Read the regular files among ``paths``; one that is linked to is among them itself."""
    contents = {}
    for path in paths:
        seen = files.look(path)
        content = files.contents(path) if isinstance(seen, Seen) and seen.kind is EntryKind.FILE else None
        if content is not None:
            contents[path] = content
    return contents


def _facts(ledger: Ledger) -> Iterator[Fact]:
    counted: dict[PurePosixPath, int] = {}
    for issued in ledger.certificates:
        number = counted[issued.path] = counted.get(issued.path, 0) + 1
        yield Fact(f"certificate {issued.path}" + (f" #{number}" if number > 1 else ""), str(issued))
    first = ledger.first_to_expire
    if first is not None:
        yield Fact("first to expire", f"{first.path} {first.not_after:%Y-%m-%dT%H:%M:%SZ}")
