"""Serving the replicas of a node: ship what waits, and say that we live."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edgedr import __version__, deadman
from edgedr.credentials import Keeper
from edgedr.errors import AlreadyRunning, ConfigurationError, EdgedrError, StorageError, Unreachable
from edgedr.log import Log
from edgedr.model import Manifest
from edgedr.replicas import ReplicaSettings, open_replica
from edgedr.replication import Clock, Shipment, replicate
from edgedr.repository import heartbeats
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.repository import Listed, Repository
from edgedr.settings import Settings
from edgedr.state import StateDirectory
from edgedr.storage.base import Storage
from edgedr.watching import Watcher
from edgedr.wiring import live_revision, open_repository, open_state

_OVERDUE = 2  # times the interval between backups, after which one is missed
_LAST = 3  # backups of which the newest that can be read is told of
_SLOW_CLOCK = 60_000  # ms that a clock may be off before somebody should look


@dataclass(frozen=True, slots=True)
class Served:
    """One replica after a run: what was shipped, or why nobody tried."""

    replica: ReplicaSettings
    shipment: Shipment | None
    record: ReplicaRecord | None
    trouble: EdgedrError | None = None
    waits_until: datetime | None = None
    heartbeat: EdgedrError | None = None
    """Why the heartbeat could not be sent, where only that failed."""

    @property
    def complete(self) -> bool:
        """Whether it has all that there is."""
        return self.trouble is None and self.shipment is not None and self.shipment.complete


def serve(
    settings: Settings, clock: Clock, watcher: Watcher, log: Log, *, only: str | None = None, patient: bool = False
) -> list[Served]:
    """Ship to every replica what waits, and send each a heartbeat.

    With ``patient``, one that failed lately is left alone until it is time to try again. What goes wrong is in what is
    returned: one replica is no reason to leave another alone.
    """
    chosen = [replica for replica in settings.replicas if only in {None, replica.name}]
    directory, local = open_state(settings), open_repository(settings)
    revision = live_revision(settings) if chosen else None
    served = []
    for replica in chosen:
        memory = directory.replica(replica.name)
        record = memory.load()
        if patient and record is not None and record.is_waiting(clock()) and not _changed(replica, record):
            until = f"{record.next_try:%H:%M:%SZ}" if record.next_try else "later"
            told = Unreachable(
                f"not tried again yet, before {until}: {record.error}", hint="`edgedr replicate` tries at once"
            )
            served.append(Served(replica, None, record, told, record.next_try))
            continue
        try:
            with memory.lock():
                served.append(_serve(settings, local, replica, clock, watcher, log, revision))
        except AlreadyRunning:
            busy = AlreadyRunning("another run is shipping to it", hint="wait for it")
            served.append(Served(replica, None, record, busy))
        except StorageError as error:  # of our own disk: what is committed stays so, and the others are served
            served.append(Served(replica, None, record, error))
    if only is None:
        _ping(settings, local, served, clock(), log)
    return served


def _changed(replica: ReplicaSettings, record: ReplicaRecord) -> bool:
    """Say whether the credential was changed since it failed: then it may do better at once."""
    kept = replica.options.credential if replica.is_bucket else None
    if kept is None or kept.keeper is not Keeper.FILE or record.failed_at is None:
        return False
    try:
        return Path(kept.place).stat().st_mtime > record.failed_at.timestamp()
    except OSError:
        return False


def _serve(
    settings: Settings,
    local: Repository,
    replica: ReplicaSettings,
    clock: Clock,
    watcher: Watcher,
    log: Log,
    revision: int | None,
) -> Served:
    directory = open_state(settings)
    memory = directory.replica(replica.name)
    state = directory.load()
    try:
        storage = open_replica(replica, repository=settings.repository.path, keep_free=settings.repository.keep_free)
    except StorageError as error:
        record = memory.load() or ReplicaRecord.blank(replica.url, known=False)
        record = record.failed(error.message, clock(), 1.0, refused=False)
        memory.save(record)
        return Served(replica, None, record, error)
    damaged = state.damaged if state else ()
    shipment = replicate(local, replica, storage, memory, clock, watcher, log, damaged=damaged)
    _remember_damage(directory, shipment, log)
    trouble = shipment.trouble
    failed = None
    if not isinstance(trouble, Unreachable):  # a link that is down takes no heartbeat either
        failed = _beat(settings, local, storage, shipment.record, revision, clock())
    return Served(replica, shipment, shipment.record, trouble, heartbeat=failed)


def _beat(
    settings: Settings,
    local: Repository,
    storage: Storage,
    record: ReplicaRecord,
    revision: int | None,
    now: datetime,
) -> EdgedrError | None:
    site, node = settings.node.site, settings.node.name
    try:
        newest = _newest(local.list(lambda places: places[-_LAST:]))
        heartbeat = heartbeats.compose(
            site=site,
            node=node,
            version=__version__,
            now=now.replace(microsecond=0),
            newest=newest,
            record=record,
            etcd_revision=revision,
            backup_every=settings.heartbeat.backup_every,
            warnings=_warnings(newest, record),
        )
        storage.replace(
            heartbeats.heartbeat_name(site, node), heartbeats.encode(heartbeat, open_state(settings).signer())
        )
    except (StorageError, ConfigurationError) as error:
        return error
    return None


def _warnings(newest: Manifest | None, record: ReplicaRecord) -> list[str]:
    """Say what is wrong in words that anybody with the bucket may read."""
    said = []
    if newest is not None and not newest.complete:
        lacking = [name for name, source in newest.sources.items() if not source.status.whole]
        said.append(f"the newest backup lacks {', '.join(lacking)}")
    if record.failures:
        said.append("shipping to this replica fails")
    if record.full_wanted is not None:
        said.append("a new full is wanted")
    if abs(record.clock_offset_ms or 0) > _SLOW_CLOCK:
        said.append(f"the clock is {round((record.clock_offset_ms or 0) / 1000)} s off")
    return said


def _newest(listed: Sequence[Listed]) -> Manifest | None:
    return next((backup.manifest for backup in reversed(listed) if backup.manifest is not None), None)


def _remember_damage(directory: StateDirectory, shipment: Shipment, log: Log) -> None:
    """Let the next backup know what was found damaged: it begins a new chain."""
    if not shipment.damaged:
        return
    try:
        with directory.lock():
            state = directory.load()
            if state is not None:
                directory.save(replace(state, damaged=tuple(sorted({*state.damaged, *shipment.damaged}))))
    except (AlreadyRunning, StorageError) as error:
        log.event("damage.forgotten", backups=list(shipment.damaged), error=error.message)


def _ping(settings: Settings, local: Repository, served: Sequence[Served], now: datetime, log: Log) -> None:
    """Tell the dead man's switch, if all is well: the newest backup is whole and not overdue, and everywhere."""
    url = settings.heartbeat.ping
    if url is None or not all(each.complete for each in served):
        return
    newest = _newest(local.list(lambda places: places[-_LAST:]))
    if newest is None or not newest.complete or now > newest.created + _OVERDUE * settings.heartbeat.backup_every:
        return
    try:
        deadman.ping(url)
        log.event("deadman.told")
    except Unreachable as error:
        log.event("deadman.unreached", error=error.message)
