"""Keeping the local repository within its quota, and what the next backup needs to know of the replicas."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from edgedr import durable
from edgedr.log import Log
from edgedr.model import BackupId, Class
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.quota import Quota, in_mb, let_go
from edgedr.repository.repository import Listed
from edgedr.settings import Settings
from edgedr.wiring import open_repository, open_state


def keep_quota(settings: Settings, log: Log) -> list[str]:
    """Let go of what the local repository has no room for; return what a person should know. Under the node's lock.

    What exceeds the quota goes. Where only the disk is full, somebody else may have filled it: then no more goes than
    what every replica has.
    """
    local, state = open_repository(settings), open_state(settings).load()
    damaged = state.damaged if state else ()
    listed = [
        replace(backup, damage=("a verification found it damaged",)) if str(backup.id) in damaged else backup
        for backup in local.list()
    ]
    everywhere = _everywhere(settings, listed)
    chosen = let_go(listed, settings.repository.quota, shipped=everywhere)
    gone = {backup.place for backup in chosen.discard}
    left = [backup for backup in listed if backup.place not in gone]
    crowded = let_go(left, _room(settings, left), shipped=everywhere)
    spare = list(takewhile(lambda backup: backup.id in everywhere, crowded.discard))
    for backup in (*chosen.discard, *spare):
        local.discard(backup.place)
        reason = chosen.reasons.get(backup.place) or "the disk is full, and every replica has it"
        log.event("backup.let_go", backup=str(backup.id), reason=reason)
    return list(_said(chosen, len(spare), settings))


def _everywhere(settings: Settings, listed: Sequence[Listed]) -> frozenset[BackupId]:
    """Return the backups that every replica has."""
    records = [open_state(settings).replica(replica.name).load() for replica in settings.replicas]
    has = [record for record in records if record is not None]
    if not has or len(has) < len(records):
        return frozenset()
    return frozenset(backup.id for backup in listed if all(record.has(backup.id) for record in has))


def _said(chosen: Quota, spare: int, settings: Settings) -> Iterator[str]:
    if chosen.discard:
        unshipped = len(chosen.unshipped)
        lost = f", {unshipped} of them before they were shipped everywhere" if unshipped and settings.replicas else ""
        yield f"the local repository is full: its oldest were let go, {len(chosen.discard)} in all{lost}"
    if spare:
        yield f"the disk is full: the oldest that every replica has were let go here, {spare} in all"
    if chosen.over:
        yield f"the local repository is {in_mb(chosen.over)} over what it may take, and nothing else may go"


def full_wanted(settings: Settings, listed: Sequence[Listed]) -> str | None:
    """Say why the next backup is to be a full, for the sake of a replica or of the quota; ``None`` if it need not."""
    directory = open_state(settings)
    for replica in settings.replicas:
        record = directory.replica(replica.name).load()
        if record is not None and record.full_wanted is not None and not _is_made(record, listed):
            return f"{replica.name}: {record.full_wanted}"
    return let_go(listed, _room(settings, listed), shipped=frozenset()).full_wanted


def _is_made(record: ReplicaRecord, listed: Sequence[Listed]) -> bool:
    """Say whether the full that a replica wanted is there by now; nobody can tell it while it is out of reach."""
    since = record.wanted_after
    return any(each.place.kind is Class.FULL and (since is None or since < each.id) for each in listed)


def _room(settings: Settings, listed: Sequence[Listed]) -> int:
    """Return the bytes that the local repository may take: its quota, or what its disk has for it."""
    try:
        free = durable.free_space_of(settings.repository.path) - settings.repository.keep_free
    except OSError:  # not there yet, or out of sorts: whoever writes to it says so
        return settings.repository.quota
    used = sum(backup.size for backup in listed)
    return min(settings.repository.quota, max(0, used + free))


def last_clock_offset(settings: Settings) -> int | None:
    """Return how many milliseconds this clock was ahead of a replica's when one last answered."""
    records = (open_state(settings).replica(replica.name).load() for replica in settings.replicas)
    return next((record.clock_offset_ms for record in records if record and record.clock_offset_ms is not None), None)


def highest_shipped(settings: Settings) -> int:
    """Return the highest sequence that any replica was given: numbers go on from there, whatever else was lost."""
    records = (open_state(settings).replica(replica.name).load() for replica in settings.replicas)
    return max((record.last.sequence for record in records if record is not None and record.last), default=0)
