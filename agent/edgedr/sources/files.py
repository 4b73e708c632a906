"""Configuration files: those of the distribution, those that the flags of its parts name, and those of the site."""

import glob
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedr.inventory import EntryKind, Inventory
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.components import Component, components
from edgedr.node.files import MAX_FILE_BYTES, matches
from edgedr.node.named_files import named_files
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.sources.base import Captured, TakePath
from edgedr.sources.documents import place_files, prove_files
from edgedr.steps import Step

_MAX_FILE = Bytes(MAX_FILE_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """Take configuration files as they are."""

    include: tuple[str, ...] = ()
    """Further files: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    max_file_bytes: Bytes = _MAX_FILE
    """Larger files are left out, and said; beyond 64 MiB they always are."""

    required: bool = False
    """Whether a backup without configuration files is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "files"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the paths, and what was named but is not there. See ``Source``."""
        told, unreadable = components(node.files, node.layout)
        named = sorted(_patterns(node, told))
        findings = [
            Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")
            for pattern in self.include
            if not node.files.expand((pattern,))
        ]
        findings += unreadable
        for path in node.files.expand((*node.layout.files, *named, *self.include)):
            if any(matches(path, pattern) for pattern in (*node.layout.leftovers, *self.exclude)):
                continue
            seen = node.files.look(path)
            if isinstance(seen, Seen) and seen.size > self.max_file_bytes:
                findings.append(Finding(Severity.WARN, str(path), f"left out: {seen.size} bytes are too many"))
                continue
            yield TakePath(path)
        yield from findings

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files. See ``Source``."""
        return place_files(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Compare every file's hash with the inventory's. See ``Source``."""
        del artifacts  # all of it is in files
        return prove_files(self.name, restored, inventory)


def _patterns(node: Node, told: Iterable[Component]) -> Iterator[str]:
    """Yield the files that something names and that are there, each as a pattern of itself."""
    for named in named_files(node.files, told):
        real = node.files.real(named.path)
        found = node.files.look(real) if real is not None else None
        if isinstance(found, Seen) and found.kind is EntryKind.FILE:
            yield glob.escape(named.path)
