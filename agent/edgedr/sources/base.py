"""What every source promises. ``tests/source_contract.py`` holds each one to it."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeAlias

from edgedr.inventory import Inventory
from edgedr.model import EtcdFacts, Finding
from edgedr.node.node import Node
from edgedr.steps import Step
from edgedr.storage.base import Spool


@dataclass(frozen=True, slots=True)
class Stream:
    """An artifact of its own. ``pump`` writes all of it, or raises ``SourceError``; it runs before the next item."""

    artifact: str
    pump: Callable[[Spool], None]


@dataclass(frozen=True, slots=True)
class TakePath:
    """Take this path of the node into ``node.tar`` as it is; absolute. A directory stands for itself alone."""

    path: PurePosixPath


@dataclass(frozen=True, slots=True)
class Document:
    """A text made for people, or for putting things back: goes into ``node.tar`` under ``member``."""

    member: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Listing:
    """A document that may be too long for memory: ``pump`` writes all of it, or raises ``SourceError``."""

    member: str
    pump: Callable[[Spool], None]


@dataclass(frozen=True, slots=True)
class Copy:
    """An artifact that a library writes as a file: ``make`` writes it, of about ``size`` bytes, to a path it is given.

    It runs before the next item; it raises ``SourceError``, and leaves nothing beside that path.
    """

    artifact: str
    size: int
    make: Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class Lacking:
    """Something that belongs to the source and could not be had: the source is partial, the backup incomplete."""

    reason: str


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another node of this cluster captures it: ``who`` names it. Nothing else comes after it."""

    who: str


@dataclass(frozen=True, slots=True)
class Absent:
    """This node has no such thing, and why that is known. Nothing else comes after it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fact:
    """Something to know on the bad day; sealed in the inventory."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Count:
    """How many of what; shown in the manifest, in the clear."""

    noun: str
    number: int


Captured: TypeAlias = (
    Stream | Copy | TakePath | Document | Listing | Fact | Count | Finding | EtcdFacts | Lacking | Elsewhere | Absent
)


class Source(Protocol):
    """One part of a node.

    The fields of an implementation are its settings, all with defaults, so that a blank node can build it.
    """

    @property
    def name(self) -> str:
        """Its name in configuration, output, metrics and manifests: ``etcd``, ``certificates``, ``files``, ..."""

    @property
    def required(self) -> bool:
        """Whether a backup without it is no backup. An optional one that fails is recorded as missing."""

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield what there is to keep. Raises ``SourceError`` when it cannot be had; never blocks without a deadline.

        The same node, unchanged, yields the same items in the same order.
        """

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Plan how to put it back. Plans only: touches nothing."""

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check what was restored below ``restored`` (the new root) and the artifacts restored beside it."""
