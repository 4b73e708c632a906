"""Which node this is, and where its repository and its memory are: all that a command needs which only looks.

On the bad day these sections must do, whatever is wrong with the others.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgedr.decoding import Problem, decode, read_table, refuse
from edgedr.model import NAME, Bytes

_KEEP_FREE = Bytes(256 << 20)


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """``[node]``: which node this is, and where its root is."""

    site: str
    name: str
    root: Path = Path("/")


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """``[repository]``: where backups are committed first, and how much of that disk stays free."""

    path: Path = Path("/var/lib/edgedr/repository")
    keep_free: Bytes = _KEEP_FREE


@dataclass(frozen=True, slots=True)
class StateSettings:
    """``[state]``: where the signing key, the cached parent and the lock are. Never on a shared disk."""

    path: Path = Path("/var/lib/edgedr")


@dataclass(frozen=True, slots=True)
class Locations:
    """The three sections together."""

    node: NodeSettings
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    state: StateSettings = field(default_factory=StateSettings)


def load_locations(path: Path) -> Locations:
    """Read these sections of a configuration file, and do not look at the others. Raises ``ConfigurationError``."""
    table, where = read_table(path)
    problems: list[Problem] = []
    ours = {name: table[name] for name in ("node", "repository", "state") if name in table}
    locations = decode(Locations, ours, "", problems)
    if isinstance(locations, Locations):
        problems += contradictions(locations.node, locations.repository, locations.state)
    refuse(problems, where)
    assert isinstance(locations, Locations)
    return locations


def contradictions(node: NodeSettings, repository: RepositorySettings, state: StateSettings) -> Iterator[Problem]:
    """Yield what cannot be meant."""
    for name, value in (("site", node.site), ("name", node.name)):
        if not NAME.fullmatch(value):
            yield Problem(f"[node] {name}", f"{value!r} is not a name: lower case letters, digits, dots and hyphens")
    for name, path in (("[repository] path", repository.path), ("[state] path", state.path)):
        if not path.is_absolute():
            yield Problem(name, f"{str(path)!r} is not an absolute path")
    if repository.path == state.path:
        yield Problem("[repository] path", "it must not be the state directory itself: take a directory below it")
