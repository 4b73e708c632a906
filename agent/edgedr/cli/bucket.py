"""What a place tells beyond its backups: heartbeats, what is absent, what stands where something else belongs."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby

from edgedr.cli import terminal
from edgedr.errors import Damaged, StorageError
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
    """Yield what looks wrong with what is absent, node by node."""
    for (site, node), of_node in groupby(backups, key=lambda backup: (backup.place.site, backup.place.node)):
        backups_there = tuple(of_node)
        beat = _heartbeat(repository, site, node, backups_there[-1])
        for text in alarms(backups_there, beat, now):
            yield f"{site}/{node}: {text}"


def _heartbeat(repository: Repository, site: str, node: str, newest: Listed) -> Heartbeat | None:
    """Return what a node last said, if it is signed by who signed its newest backup."""
    what = f"the heartbeat of {site}/{node}"
    try:
        with repository.storage.open(heartbeats.heartbeat_name(site, node)) as file:
            heartbeat, key = heartbeats.decode(file.read(heartbeats.MAX_HEARTBEAT + 1), what)
        other = "" if key == repository.signed(newest.place).key else f"{what} is not signed by who signed {newest.id}"
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
