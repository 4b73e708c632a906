"""What a place tells beyond its backups: heartbeats, what is absent, what stands where something else belongs."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from edgedr.cli import terminal
from edgedr.errors import Damaged, Refused, StorageError
from edgedr.locations import Locations
from edgedr.repository import heartbeats
from edgedr.repository.alarms import alarms
from edgedr.repository.heartbeats import Heartbeat
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.repository import Listed, Repository
from edgedr.state import StateDirectory


def replica_records(here: Locations | None) -> dict[str, ReplicaRecord | None]:
    """Return what this node remembers of each of its replicas; nothing where this is not the node."""
    if here is None:
        return {}
    directory = StateDirectory(here.state.path)
    return {name: directory.replica(name).load() for name in here.replica_names}


def found_alarms(repository: Repository, backups: Sequence[Listed], now: datetime) -> Iterator[str]:
    """Yield what looks wrong with what is absent, node by node; of nodes too of which only the heartbeat is left."""
    by_node: dict[tuple[str, str], list[Listed]] = {node: [] for node in _heard_of(repository)}
    heard = set(by_node)
    for backup in backups:
        by_node.setdefault((backup.place.site, backup.place.node), []).append(backup)
    for (site, node), of_node in sorted(by_node.items()):
        beat = _heartbeat(repository, site, node, of_node) if (site, node) in heard else None
        for text in alarms(of_node, beat, now):
            yield f"{site}/{node}: {text}"
        if heard and beat is None:  # a copy has none of any node, and need not
            yield f"{site}/{node}: there is no heartbeat of it to believe, so that its silence cannot be told"


def _heard_of(repository: Repository) -> Iterator[tuple[str, str]]:
    """Yield the nodes that have a heartbeat here, among those that were asked for."""
    top = "/".join(filter(None, (heartbeats.TOP, repository.site)))
    try:
        for stored in repository.storage.list(top):
            site, _, name = stored.name.removeprefix(f"{heartbeats.TOP}/").partition("/")
            node = name.removesuffix(".json")
            if repository.node in {None, node} and heartbeats.heartbeat_name(site, node) == stored.name:
                yield site, node
    except Refused:
        return


def _heartbeat(repository: Repository, site: str, node: str, of_node: Sequence[Listed]) -> Heartbeat | None:
    """Return what a node last said, if it is signed by who signed its newest backup, where there is any."""
    what = f"the heartbeat of {site}/{node}"
    try:
        name = heartbeats.heartbeat_name(site, node)
        with repository.storage.open(name, limit=heartbeats.MAX_HEARTBEAT) as file:
            heartbeat, key = heartbeats.decode(file.read(heartbeats.MAX_HEARTBEAT + 1), what)
        other = ""
        if of_node and key != repository.signed(of_node[-1].place).key:
            other = f"{what} is not signed by who signed {of_node[-1].id}"
    except Damaged as error:
        terminal.warn(error.message, "somebody else wrote it, or it was damaged: look at the node")
        return None
    except StorageError:
        return None  # none, or one that we may not see
    if other or (heartbeat.site, heartbeat.node) != (site, node):
        terminal.warn(other or f"{what} is another node's", "somebody else wrote it: look at the node")
        return None
    return heartbeat


def tell_strays(repository: Repository) -> None:
    """Name what stood where something else belonged, though what is signed for was found behind it."""
    for name in sorted(repository.strays):
        terminal.warn(
            f"{name}: something else came first; what is signed for was found and taken",
            "somebody wrote over it, or the network spoilt it: look at its versions",
        )
