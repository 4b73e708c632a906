"""What a restore does, as data. Printed, rehearsed and carried out by readers that each ``match`` on all of them."""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class PlaceArtifact:
    """Put an artifact, whole and verified, at ``path``, relative to the target directory."""

    source: str
    artifact: str
    path: str


@dataclass(frozen=True, slots=True)
class PlaceFiles:
    """Put every inventory entry of a source back at its path below the target directory."""

    source: str


@dataclass(frozen=True, slots=True)
class PlaceDocuments:
    """Put the documents of a source below ``.edgedr/`` in the target directory, for a person to read and to apply."""

    source: str


Step: TypeAlias = PlaceArtifact | PlaceFiles | PlaceDocuments
