"""Which node this is, and where its repository and its memory are: all that a command needs which only looks.

On the bad day these sections must do, whatever is wrong with the others.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgedr.decoding import Problem, Reading, decode, read_table, refuse, shown
from edgedr.model import NAME, Bytes

PARENT = "parent"
"""Where, below the state directory, the plaintext of the newest backup is kept."""

_KEEP_FREE = Bytes(256 << 20)
_QUOTA = Bytes(4 << 30)
_PATHS = ("[node] root", "[repository] path", "[state] path")


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """``[node]``: which node this is, and where its root is."""

    site: str
    name: str
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """``[repository]``: where backups are committed first, how large it may get, what of the disk stays free."""

    path: Path = Path("/var/lib/edgedr/repository")
    quota: Bytes = _QUOTA
    keep_free: Bytes = _KEEP_FREE


@dataclass(frozen=True, slots=True)
class StateSettings:
    """``[state]``: where the signing key, the cached parent and the lock are. Never on a shared disk."""

    path: Path = Path("/var/lib/edgedr")


@dataclass(frozen=True, slots=True)
class Locations:
    """The three sections together, and what the replicas are called."""

    node: NodeSettings
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    state: StateSettings = field(default_factory=StateSettings)
    replica_names: tuple[str, ...] = field(default=(), init=False)


def load_locations(path: Path) -> Locations:
    """Read these sections of a configuration file, and do not look at the others. Raises ``ConfigurationError``."""
    table, where = read_table(path)
    reading = Reading()
    ours = {name: table[name] for name in ("node", "repository", "state") if name in table}
    locations = decode(Locations, ours, "", reading)
    refuse([*reading.problems, *contradictions(reading.values)], where)
    assert isinstance(locations, Locations)
    object.__setattr__(locations, "replica_names", tuple(_replica_names(table.get("replicas"))))
    return locations


def _replica_names(replicas: object) -> Iterator[str]:
    """Yield the names that can be read: whatever else is wrong there is not for who only looks."""
    for replica in replicas if isinstance(replicas, list) else ():
        name = replica.get("name") if isinstance(replica, dict) else None
        if isinstance(name, str) and NAME.fullmatch(name):
            yield name


def root_problems(root: Path) -> Iterator[Problem]:
    """Yield what keeps a directory from being the node's root."""
    try:
        if not root.is_dir():
            yield Problem("[node] root", f"{shown(str(root))} is not a directory")
    except (OSError, ValueError) as error:
        yield Problem("[node] root", f"cannot look at {shown(str(root))}: {getattr(error, 'strerror', None) or error}")


def contradictions(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what cannot be meant, among the values that could be read."""
    for place in ("[node] site", "[node] name"):
        if place in values and not NAME.fullmatch(values[place]):
            text = f"{shown(values[place])} is not a name: lower case letters, digits, dots and hyphens"
            yield Problem(place, text)
    paths = {place: Path(os.path.normpath(values[place])) for place in _PATHS if place in values}
    for place, path in paths.items():
        if not path.is_absolute():
            yield Problem(place, f"{shown(str(path))} is not an absolute path")
        elif "\0" in str(path):
            yield Problem(place, f"{shown(str(path))} has a NUL in it")
    if "[repository] path" in paths and "[state] path" in paths:
        repository, state = paths["[repository] path"], paths["[state] path"]
        if repository == state:
            yield Problem("[repository] path", "it must not be the state directory itself: take a directory below it")
        elif repository.is_relative_to(state / PARENT):
            yield Problem("[repository] path", f"{PARENT} below the state directory is emptied by every backup")
        elif state.is_relative_to(repository):
            yield Problem("[state] path", "it must not be inside the repository, which is copied to other places")
