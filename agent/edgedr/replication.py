"""The recipe of replication: committed backups to one replica, oldest first, going on where it stopped.

What was captured and what was shipped are two facts. Nothing here touches a backup in the local repository, and nothing
that goes wrong here keeps the next one from being captured.
"""

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Protocol

from edgedr.errors import (
    ConfigurationError,
    Damaged,
    EdgedrError,
    ObjectExists,
    ObjectMissing,
    Refused,
    StorageError,
    Unreachable,
)
from edgedr.log import Log
from edgedr.model import BackupId, Class
from edgedr.replicas import ReplicaSettings
from edgedr.repository.backlog import Backlog, ShippingPolicy, plan_shipping
from edgedr.repository.heartbeats import heartbeat_name
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.names import MANIFEST, RECIPE, SIGNATURE, node_prefixes
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.sending import send, send_recipe
from edgedr.storage.base import Storage
from edgedr.watching import Watcher

Clock = Callable[[], datetime]


class Memory(Protocol):
    """Where a replica's record is kept. It may be lost: ``load`` returns ``None`` then."""

    def load(self) -> ReplicaRecord | None:
        """Return what was remembered."""

    def save(self, record: ReplicaRecord) -> None:
        """Remember, in one step."""


@dataclass(frozen=True, slots=True)
class Shipment:
    """What came of one run to one replica. ``trouble`` is why not everything is there, ``note`` why that is as told."""

    name: str
    place: str
    record: ReplicaRecord
    shipped: tuple[BackupId, ...] = ()
    sent_bytes: int = 0
    seconds: float = 0.0
    trouble: EdgedrError | None = None
    note: str | None = None
    reasons: tuple[str, ...] = ()
    held: int = 0
    """How many backups cannot be shipped now, and may be later."""
    damaged: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether it has all that there is."""
        return self.trouble is None and self.record.waiting == 0 and not self.held


def _reasons(plan: Backlog) -> Iterator[str]:
    if plan.skip or plan.held or plan.full_wanted:
        yield from (reason for reason in plan.reasons if " to ship, " not in reason)  # it is shipped by now
    if plan.held:
        newest = max(plan.held)
        yield f"{len(plan.held)} cannot be shipped now, the newest of them {newest}: {plan.held[newest]}"


class _BudgetSpent(Exception):
    """No error: it was set so."""


def replicate(
    local: Repository,
    replica: ReplicaSettings,
    storage: Storage,
    memory: Memory,
    clock: Clock,
    watcher: Watcher,
    log: Log,
    *,
    damaged: Collection[str] = (),
) -> Shipment:
    """Bring a replica up to date with the local repository, as far as link, budget and time allow.

    ``damaged`` are the ids of local backups that a verification found bad. The caller holds the replica's lock. What
    fails is in the outcome, and in the record: the next run knows.
    """
    run = _Run(local, replica, storage, memory, clock, watcher, log)
    run.damaged |= dict.fromkeys(damaged, "a verification found it damaged")
    return run.everything()


def _remembered(memory: Memory, storage: Storage, endpoint: str | None) -> tuple[ReplicaRecord, ReplicaRecord | None]:
    """Return the record of this very place, and that of another which was served under its name before.

    What is known of the other one is kept until this one is reached: an address with a mistake in it costs nothing.
    """
    record = memory.load()
    place = storage.describe() if endpoint is None else f"{storage.describe()} at {endpoint}"
    if record is None or record.place != place:
        return ReplicaRecord.blank(place, known=False), record
    return record, None


class _Run:
    """One run. It is its own ledger: each object that arrived is on disk before the next one is begun."""

    def __init__(
        self,
        local: Repository,
        replica: ReplicaSettings,
        storage: Storage,
        memory: Memory,
        clock: Clock,
        watcher: Watcher,
        log: Log,
    ) -> None:
        self._local, self._replica, self._storage = local, replica, storage
        self._memory, self._clock, self._watcher, self._log = memory, clock, watcher, log
        self._record, self._elsewhere = _remembered(memory, storage, replica.endpoint)
        self._reached = False
        self._listed: list[Listed] = []
        self.damaged: dict[str, str] = {}
        self._vanished: set[str] = set()
        self._under_way: dict[str, int] = {}
        self._shipped: list[BackupId] = []
        self._lock = threading.Lock()
        self._sent = self._on_the_wire = 0
        self._smooth = True
        self._seconds = 0.0
        self._recipe = False

    def everything(self) -> Shipment:
        trouble: EdgedrError | None = None
        note: str | None = None
        plan: Backlog | None = None
        known = set(self.damaged)
        try:
            self._sweep()
            plan = self._plan()
            while wrong := self._ship_all(plan):
                trouble = wrong
                plan = self._plan()  # without what is damaged or in the way, and what depends on it
            self._keep(self._record.well())
        except _BudgetSpent:
            note = "today's byte budget is spent; it goes on after midnight UTC"
            self._keep(self._record.well())
        except (StorageError, ConfigurationError) as error:  # the latter: a credential that is not where it should be
            trouble = error
            refused = not isinstance(error, Unreachable)
            chance = random.random()  # noqa: S311 - spreads a fleet's attempts
            asked = timedelta(seconds=getattr(error, "after", None) or 0)
            now = self._clock()
            self._keep(self._record.failed(error.message, now, chance, refused=refused, at_least=asked))
            if self._elsewhere is not None and not self._reached:
                self._memory.save(self._elsewhere.failed(error.message, now, chance, refused=refused))
        self._count_waiting(plan)
        self._note_clock()
        outcome = Shipment(
            name=self._replica.name,
            place=self._storage.describe(),
            record=self._record,
            shipped=tuple(self._shipped),
            sent_bytes=self._sent,
            seconds=self._seconds,
            trouble=trouble,
            note=note,
            reasons=tuple(_reasons(plan)) if plan else (),
            held=len(plan.held) if plan else 0,
            damaged=tuple(sorted(set(self.damaged) - known - self._vanished)),
        )
        self._tell(outcome)
        return outcome

    def _ship_all(self, plan: Backlog) -> EdgedrError | None:
        """Ship what is planned; return what is wrong with a backup that stopped it, having noted which one that is."""
        for backup in plan.ship:
            before = {held: why for held, why in plan.held.items() if held < backup.id}
            passed = {**plan.skip, **before}
            try:
                if before:  # what is behind the last one that was shipped counts as shipped, but for the gaps
                    self._keep(self._record.passing_over(passed, self._listed))
                self._ship(backup)
            except ObjectExists as error:
                self._pass_over(backup, passed, error)
                return error
            except (ObjectMissing, Damaged) as error:
                self.damaged[str(backup.id)] = error.message
                if all(backup.id != other.id for other in self._local.list()):
                    self._vanished.add(str(backup.id))
                    return Damaged(f"{backup.id} was let go while it was shipped", hint="the next run begins behind it")
                return Damaged(
                    f"{backup.id} is damaged in the local repository, and not shipped: {error.message}",
                    hint="the next backup is a full; `edgedr verify --all` says what else is damaged",
                )
        return None

    def _pass_over(self, backup: Listed, passed: Mapping[BackupId, str], error: ObjectExists) -> None:
        """Give a backup up, since somebody else's object has a name of its: nobody may take that for ours later."""
        why = f"something else has a name of its: {error.message}"
        record = self._record.passing_over({**passed, backup.id: why}, self._listed)
        self._keep(replace(record, sending=None, begun=(), done={}))

    def _plan(self) -> Backlog:
        """Decide what goes, and remember what does not."""
        self._listed = listed = [
            replace(backup, damage=(self.damaged[str(backup.id)],)) if str(backup.id) in self.damaged else backup
            for backup in self._local.list()
        ]
        there = self._there()
        facts = self._record.facts(listed, there, self._replica.daily_budget, self._clock())
        policy = ShippingPolicy(self._replica.catch_up, self._replica.full_lifetime, self._replica.delta_lifetime)
        plan = plan_shipping(listed, facts, policy, self._clock())
        record = self._record.passing_over(plan.skip, listed)
        if there is not None:  # what is there is what counts, whatever was remembered
            last = max((one for one in facts.shipped if not plan.ship or one < plan.ship[0].id), default=None)
            record = replace(record, last=last, last_at=(record.last_at or last.created) if last else None)
        elif not self._record.known:
            record = replace(record, unsure=max((backup.id for backup in listed), default=None))
        if record.gaps != self._record.gaps or (plan.full_wanted and not record.full_wanted):
            self._put_recipe()  # given up for good: only where the link works is it known that it comes to this
        newest = max((backup.id for backup in listed), default=None)
        after = record.wanted_after if record.full_wanted and plan.full_wanted else newest
        self._keep(replace(record, full_wanted=plan.full_wanted, wanted_after=after if plan.full_wanted else None))
        return plan

    def _there(self) -> frozenset[BackupId] | None:
        """Return which backups a replica holds: always where looking is free, else when memory was lost."""
        if self._replica.is_bucket and self._record.known:
            return None
        try:
            there = Repository(self._storage, site=self._local.site, node=self._local.node).places()
            return frozenset(place.id for place, objects in there if MANIFEST in objects)
        except Refused:
            self._put_recipe()  # whoever may not put either is not what a node should be: nothing is given up for that
            return None  # as it should be: then the plan begins with the newest chain

    def _sweep(self) -> None:
        """Remove what killed runs left half written, where that stays: nobody else writes below this node's names."""
        site, node = self._local.site, self._local.node
        if not self._replica.is_bucket and site is not None and node is not None:
            for prefix in (*node_prefixes(site, node), heartbeat_name(site, node), RECIPE):
                self._storage.sweep(prefix)

    def _put_recipe(self) -> None:
        if not self._recipe:
            send_recipe(self._storage)
            self._recipe = self._reached = True

    def _ship(self, backup: Listed) -> None:
        self._put_recipe()
        self._under_way.clear()
        self._keep(self._record.begin(backup.id))
        self._watcher.begin(f"ship {backup.id.sequence:08d}", backup.size)
        started, before, self._smooth = time.monotonic(), self._sent, True
        try:
            at_once = self._replica.at_once
            send(self._local, backup.place, self._storage, self, at_once=at_once, progress=self._travelled)
        finally:
            seconds = time.monotonic() - started
            self._seconds += seconds
            with self._lock:
                self._keep(self._record.paid(self._on_the_wire, self._clock()))  # also for what never arrived
                self._on_the_wire = 0
        if self._replica.is_bucket and self._smooth:  # an outage says nothing of how fast the link is
            self._record = self._record.measured(self._sent - before, seconds)
        full = backup.place.kind is Class.FULL
        # What was there already has been for longer than we know: its lifetime counts from then.
        arrived = self._clock() if self._sent > before else min(backup.id.created, self._clock())
        self._keep(self._record.shipped(backup.id, full=full, at=arrived))
        self._shipped.append(backup.id)
        self._log.event("backup.shipped", backup=str(backup.id), replica=self._replica.name, bytes=backup.size)

    def has(self, name: str) -> bool:
        """Whether an object is known to be there: a disk may be another one by now, and can be looked at."""
        return self._replica.is_bucket and name in self._record.done

    def begin(self, name: str, size: int) -> bool:
        """Note that an object is on its way; stop where the day's budget does not allow it."""
        with self._lock:
            now = self._clock()
            left = self._record.budget_left(self._replica.daily_budget, now)
            fresh = self._record.is_fresh_day(now) and not self._under_way
            closes = name.endswith((f"/{SIGNATURE}", f"/{MANIFEST}"))  # what makes a backup of what is paid for
            if left is not None and size > left - sum(self._under_way.values()) and not fresh and not closes:
                raise _BudgetSpent
            self._under_way[name] = size
            before = self._record.may_be_there(name)
            self._keep(self._record.beginning(name))
            return before

    def arrived(self, name: str, size: int, *, travelled: bool) -> None:
        """Note that an object is there."""
        with self._lock:
            self._under_way.pop(name, None)
            self._sent += size if travelled else 0
            now = self._clock()
            self._keep(self._record.paid(self._on_the_wire, now).arrived(name, size))
            self._on_the_wire = 0

    def _travelled(self, count: int) -> None:
        """Count what goes over the wire: all of it costs, also what has to go once more."""
        with self._lock:
            self._on_the_wire += max(0, count)
            self._smooth = self._smooth and count >= 0
        self._watcher.advance(count)

    def _keep(self, record: ReplicaRecord) -> None:
        if record != self._record and (self._reached or self._elsewhere is None):
            self._memory.save(record)
        self._record = record

    def _count_waiting(self, plan: Backlog | None) -> None:
        if plan is None:
            return
        shipped = set(self._shipped)
        waiting = [backup for backup in plan.ship if backup.id not in shipped]
        size = sum(backup.size for backup in waiting) - sum(self._record.done.values())
        self._keep(replace(self._record, waiting=len(waiting), waiting_bytes=max(0, size)))

    def _note_clock(self) -> None:
        offset = self._storage.clock_offset
        if offset is not None:
            self._keep(replace(self._record, clock_offset_ms=round(offset * 1000)))

    def _tell(self, outcome: Shipment) -> None:
        self._log.event(
            "replica.failed" if outcome.trouble else "replica.served",
            replica=outcome.name,
            shipped=len(outcome.shipped),
            bytes=outcome.sent_bytes,
            seconds=round(outcome.seconds, 3),
            waiting=outcome.record.waiting,
            error=outcome.trouble.message if outcome.trouble else None,
        )
