"""What a backup is made of, as frozen values without I/O. All sizes are bytes, all times are aware and in UTC."""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntEnum, StrEnum
from functools import total_ordering
from typing import NewType, Self

SCHEMA = 1
Bytes = NewType("Bytes", int)
"""A size in a setting: written like "64 MiB" in the configuration."""

NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
"""A site or node name: what Kubernetes allows for a node, so that it is safe in object names and on any screen."""


class Class(StrEnum):
    """Whether an artifact, or a whole backup, stands alone."""

    FULL = "full"
    DELTA = "delta"


class Proof(IntEnum):
    """How far a backup has been proven."""

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3
    L4 = 4
    L5 = 5
    L6 = 6

    def __str__(self) -> str:
        return self.name

    @property
    def meaning(self) -> str:
        """Say in words what has been seen to hold."""
        return _PROOF_MEANINGS[self]


_PROOF_MEANINGS = {
    Proof.L0: "it exists",
    Proof.L1: "signature and ciphertext hashes hold",
    Proof.L2: "it decrypts and the plaintext hashes hold",
    Proof.L3: "etcd pages, freelist and keys decode; certificates parse",
    Proof.L4: "closure: everything that the snapshot needs is beside it",
    Proof.L5: "a real etcd starts from it",
    Proof.L6: "a real API server answers from it",
}


class Severity(StrEnum):
    """How a finding weighs."""

    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw, good or bad: about what, what, and what to do next."""

    severity: Severity
    subject: str
    text: str
    hint: str | None = None


_ID = re.compile(r"(\d{8}T\d{6}Z)-(\d{8})-([0-9a-f]{8})", re.ASCII)


@total_ordering
@dataclass(frozen=True, slots=True)
class BackupId:
    """``20261122T221500Z-00000097-1f2e3d4c``: when by the node's clock, the sequence, and eight random hex digits."""

    created: datetime
    sequence: int
    nonce: str

    def __str__(self) -> str:
        return f"{self.created.astimezone(UTC):%Y%m%dT%H%M%SZ}-{self.sequence:08d}-{self.nonce}"

    def __lt__(self, other: Self) -> bool:
        """Order by sequence first: the clock of a node cannot be trusted."""
        return (self.sequence, self.created, self.nonce) < (other.sequence, other.created, other.nonce)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an id; anything else is a ``ValueError``."""
        match = _ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is not a backup id")
        return cls(datetime.fromisoformat(match[1]), int(match[2]), match[3])


@dataclass(frozen=True, slots=True)
class Segment:
    """One object of an artifact: its name within the backup, its sealed size and hash, its size in the clear."""

    object: str
    size: int
    sha256: str
    plain_size: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """One byte stream of a backup. ``parent`` is the backup that a delta is compressed against.

    A delta without segments is its parent's artifact, byte for byte: nothing of it was shipped.
    """

    name: str
    kind: Class
    parent: BackupId | None
    size: int
    sha256: str
    segments: tuple[Segment, ...]

    @property
    def unchanged(self) -> bool:
        """Whether it is its parent's artifact."""
        return not self.segments

    @property
    def sealed_size(self) -> int:
        """Bytes on the wire."""
        return sum(segment.size for segment in self.segments)


CLOSURE = "closure"
"""What closure is called among the sources of a backup: a record of its own, and no source."""
DATASTORES = ("etcd", "sqlite")
"""The sources that take what an API server keeps its objects in; a node has one of them."""


class Status(StrEnum):
    """What became of a source in a backup.

    ``partial``: something of it could not be had; ``missing``: nothing. Neither is a fault of the backup where it is
    ``elsewhere``: another node of the cluster captures it; or ``absent``: this node has no such thing.
    """

    OK = "ok"
    PARTIAL = "partial"
    MISSING = "missing"
    ELSEWHERE = "elsewhere"
    ABSENT = "absent"

    @property
    def whole(self) -> bool:
        """Whether a restore would miss nothing of it."""
        return self not in {Status.PARTIAL, Status.MISSING}


@dataclass(frozen=True, slots=True)
class SourceResult:
    """What became of one source: missing ones with the reason; ``counts`` is what it holds, by noun."""

    status: Status
    reason: str | None = None
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EtcdFacts:
    """Whose snapshot it is: the cluster's and the member's id (16 hex digits), the revision, the server's version."""

    cluster_id: str
    member_id: str
    revision: int
    version: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The signed plaintext record of a backup. It holds no secret, no path, no address."""

    schema: int
    id: BackupId
    lineage: str
    sequence: int
    site: str
    node: str
    created: datetime
    clock_offset_ms: int | None
    edgedr_version: str
    distribution: str | None
    kubernetes_version: str | None
    segment_size: int
    artifacts: tuple[Artifact, ...]
    sources: dict[str, SourceResult]
    etcd: EtcdFacts | None
    recipients: tuple[str, ...]
    proof: Proof
    reasons: tuple[str, ...]

    @property
    def kind(self) -> Class:
        """A backup is a full when each of its artifacts stands alone."""
        return Class.DELTA if any(a.kind is Class.DELTA for a in self.artifacts) else Class.FULL

    @property
    def parent(self) -> BackupId | None:
        """The backup that the deltas of this one are compressed against; all of them have the same."""
        return next((a.parent for a in self.artifacts if a.parent is not None), None)

    @property
    def sealed_size(self) -> int:
        """Bytes on the wire, without manifest and signature."""
        return sum(artifact.sealed_size for artifact in self.artifacts)

    @property
    def complete(self) -> bool:
        """Whether no source is missing or partial, and closure found nothing missing."""
        return all(source.status.whole for source in self.sources.values())

    def artifact(self, name: str) -> Artifact | None:
        """Return the artifact of that name, if this backup has one."""
        return next((artifact for artifact in self.artifacts if artifact.name == name), None)
