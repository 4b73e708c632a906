"""The way back: from sealed segments along a chain to verified plaintext. Bytes are handed on only in order.

A chain is walked segment by segment, from its full to its end, so that each object is opened once and memory stays at
about four segments, however long the chain and however large the artifact.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgedr.errors import Damaged
from edgedr.model import Artifact, BackupId, Manifest, Segment
from edgedr.repository.names import Place
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity
from edgedr.sealing.segments import Prefix, unseal


class Sink(Protocol):
    """Takes the plaintext of one artifact."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take all of ``data``."""


@dataclass(frozen=True, slots=True)
class Link:
    """One backup of a chain: where it is, and what it says."""

    place: Place
    manifest: Manifest


def links(chain: Sequence[Manifest]) -> tuple[Link, ...]:
    """Say where each backup of a chain is."""
    return tuple(Link(Place(m.kind, m.site, m.node, m.id), m) for m in chain)


class _Buffer:
    """A segment in the clear, of a size known beforehand."""

    def __init__(self, size: int) -> None:
        self.data = bytearray(size)
        self.size = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data[self.size : self.size + len(data)] = data
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass


def read_artifact(
    repository: Repository,
    chain: Sequence[Manifest],
    name: str,
    identities: Sequence[Identity],
    sinks: Mapping[BackupId, Sink],
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Recover an artifact along ``chain`` (full first) into the sinks of the backups that are asked for.

    Each sink gets its whole artifact in order, and each plaintext hash is compared with the manifest at the end: until
    this returns, nothing written is proven. ``progress`` gets sealed bytes as they are opened. Raises ``Damaged``
    naming object and backup, or ``WrongKey``.
    """
    carried = _carrying(links(chain), name)
    digests = {link.manifest.id: hashlib.sha256() for link, _ in carried}
    most = max((len(artifact.segments) for _, artifact in carried), default=0)
    for number in range(most):
        plain: bytearray | None = None
        for link, artifact in carried:
            if artifact.unchanged:  # its hash is its parent's, which is checked there
                if plain is not None and link.manifest.id in sinks:
                    sinks[link.manifest.id].write(plain)
                continue
            if number >= len(artifact.segments):
                plain = None
                continue
            segment = artifact.segments[number]
            prefix = Prefix(plain) if artifact.parent is not None and plain is not None else None
            plain = None  # the prefix holds a copy; two would break the promise about memory
            try:
                plain = _segment(repository, link, segment, identities, prefix)
            except Damaged as error:
                error.backup = str(link.manifest.id)
                raise
            del prefix
            digests[link.manifest.id].update(plain)
            if link.manifest.id in sinks:
                sinks[link.manifest.id].write(plain)
            progress(segment.size)
            if number == len(artifact.segments) - 1 and digests[link.manifest.id].hexdigest() != artifact.sha256:
                raise Damaged(
                    f"{name} of {link.manifest.id} is damaged: its plaintext is not what the manifest says",
                    backup=str(link.manifest.id),
                )


def _carrying(chain: Sequence[Link], name: str) -> list[tuple[Link, Artifact]]:
    """Return the part of a chain that this artifact goes through: it may have joined later, standing alone."""
    carried: list[tuple[Link, Artifact]] = []
    for link in chain:
        artifact = link.manifest.artifact(name)
        if artifact is None:
            carried = []
        elif artifact.parent is None:
            carried = [(link, artifact)]
        elif not carried or carried[-1][0].manifest.id != artifact.parent:
            raise Damaged(f"{name} of {link.manifest.id} is a delta without its parent {artifact.parent}")
        elif artifact.unchanged and (artifact.size, artifact.sha256) != (carried[-1][1].size, carried[-1][1].sha256):
            raise Damaged(f"{name} of {link.manifest.id} is said to be that of its parent, and is another")
        else:
            carried.append((link, artifact))
    return carried


def _segment(
    repository: Repository, link: Link, segment: Segment, identities: Sequence[Identity], prefix: Prefix | None
) -> bytearray:
    buffer = _Buffer(segment.plain_size)
    with repository.open(link.place, segment) as sealed:
        unseal(
            sealed,
            segment.plain_size,
            buffer,
            identities=identities,
            what=f"segment {segment.object} of {link.manifest.id}",
            prefix=prefix,
        )
    return buffer.data
