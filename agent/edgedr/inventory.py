"""The sealed record inside ``node.tar``: every path, what was left out, what each source found. Without I/O."""

from dataclasses import dataclass, field
from enum import StrEnum

from edgedr.model import Finding, Severity, Status


class EntryKind(StrEnum):
    """What a path in ``node.tar`` is. Nothing else is ever captured or extracted."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


@dataclass(frozen=True, slots=True)
class Entry:
    """One path of the node. ``path`` is absolute; undecodable bytes in it are surrogate escapes (PEP 383).

    ``mode`` has permission, setgid (directories) and sticky bits. ``target`` is a symbolic link's text, or the absolute
    path that a hard link shares its inode with. ``xattrs`` are base64. ``sha256`` is a file's, in hex.
    """

    path: str
    kind: EntryKind
    source: str
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    sha256: str | None = None
    target: str | None = None
    xattrs: dict[str, str] = field(default_factory=dict)
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A path that was looked at and not taken, and why."""

    path: str
    source: str
    reason: str


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """The sealed part of what is known about a source: facts by key, and what its checks saw."""

    status: Status
    reason: str | None = None
    facts: dict[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()

    @property
    def missing(self) -> tuple[Finding, ...]:
        """The pieces that closure names as missing, in a record of closure."""
        return tuple(finding for finding in self.findings if finding.severity is Severity.BAD)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The sealed record inside ``node.tar``. It holds no time and no id: an unchanged node gives the same bytes."""

    schema: int
    site: str
    node: str
    sources: dict[str, SourceRecord]
    entries: tuple[Entry, ...]
    left_out: tuple[LeftOut, ...]
