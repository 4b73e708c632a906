"""Which committed backups go to a replica, in which order; which never will; and when only a new full helps. Pure.

Ask while the link works: what a plan skips is given up for this replica. It stays in the local repository.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from edgedr.model import BackupId, Class
from edgedr.repository.chains import Chains, distinct, standing
from edgedr.repository.quota import in_mb
from edgedr.repository.repository import Listed

_UNKNOWN = "unknown whether it is there, not sent again"
_CUT_OFF = "superseded: the chain that it continues is not shipped"
_MARGIN = timedelta(days=1)  # S3 expires at a midnight UTC, an upload takes its time, and two clocks differ
_WORTHWHILE_PERCENT = 150  # of a fresh full: a chain that is larger brings more bytes and an older state
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What this node knows of one replica: it may put there, not look."""

    shipped: Mapping[BackupId, datetime] = field(default_factory=dict)
    """When each committed backup was shipped, by the node's clock."""
    skipped: Mapping[BackupId, str] = field(default_factory=dict)
    """What earlier plans skipped, and why."""
    known: bool = True
    """False once the state about the replica was lost: there may be more than ``shipped`` says."""
    throughput: float | None = None
    """Measured bytes a second; ``None`` while nothing was measured: everything is taken to fit."""
    budget: int | None = None
    """Bytes a day (UTC); ``None``: no limit."""
    spent: int = 0
    """Bytes of today's budget that are gone."""
    partial: Mapping[BackupId, int] = field(default_factory=dict)
    """Bytes already there of backups that were begun."""


@dataclass(frozen=True, slots=True)
class ShippingPolicy:
    """How long a backlog may take, and how long after its upload a replica's lifecycle rules expire an object."""

    catch_up: timedelta = timedelta(hours=24)
    full_lifetime: timedelta | None = None
    delta_lifetime: timedelta | None = None

    @property
    def full_lasts(self) -> timedelta | None:
        """How long after its upload a full still outlives any new delta; ``None``: it never expires."""
        if self.full_lifetime is None:
            return None
        return self.full_lifetime - (self.delta_lifetime or timedelta(0)) - _MARGIN


@dataclass(frozen=True, slots=True)
class Backlog:
    """What to do for one replica. Each backup was shipped, or is in exactly one of ``ship``, ``skip`` and ``held``."""

    ship: tuple[Listed, ...]
    """To be shipped, in this order."""
    skip: Mapping[BackupId, str]
    """Given up for this replica, and why: to be remembered as ``ReplicaFacts.skipped``."""
    held: Mapping[BackupId, str]
    """Cannot be shipped now, and why. Not to be remembered: a disk that answers again may heal it, or a set clock."""
    waiting_bytes: int
    """Still to be sent of what is to be shipped."""
    full_wanted: str | None
    """Why the next backup is to be a full, now; ``None`` if it need not."""
    reasons: tuple[str, ...]


def plan_shipping(listed: Sequence[Listed], facts: ReplicaFacts, policy: ShippingPolicy, now: datetime) -> Backlog:
    """Choose what a replica gets of the committed backups of a node, ``listed`` in any order: all, oldest first.

    A backlog that the link cannot catch up with begins anew: with the newest chain or, where that alone is large, with
    a full that is yet to be made. A full that was begun is finished all the same, so that the slowest link makes
    progress, and a replica that holds nothing gets the newest full.
    """
    listed = sorted(distinct(listed), key=lambda backup: backup.id)
    intact, broken = standing(listed)
    newest_full = max((chain[0].id for chain in intact.values()), default=None)
    rescue = newest_full if _holds_nothing(listed, facts, policy, now) else None
    stuck = {**broken, **_expiring(intact, facts, policy, now)}
    given_up = dict(facts.skipped)
    reasons = []
    if not facts.known and newest_full is not None:
        begin = min(facts.shipped, default=newest_full)
        told = {**given_up, **stuck}
        given_up |= {backup.id: _UNKNOWN for backup in listed if backup.id < begin and backup.id not in told}
        reasons.append(f"what the replica holds is not known: shipping begins with {begin}")
    given_up = {backup: why for backup, why in given_up.items() if backup != rescue}

    ship, skip = _sift(listed, facts, given_up, stuck)
    left = {backup.id: max(0, backup.size - facts.partial.get(backup.id, 0)) for backup in ship}
    can = _capacity(facts, policy, now)
    if newest_full is not None and sum(left.values()) > can:
        fresh = next(backup.size for backup in listed if backup.id == newest_full)
        keep, why = _begin_anew(left, intact, fresh)
        keep |= {backup for backup in left if backup == rescue or _worth_finishing(backup, left, intact, facts)}
        given_up |= {backup: f"superseded: {why}" for backup in left if backup not in keep}
        ship, skip = _sift(listed, facts, given_up, stuck)
        reasons.append(
            f"{in_mb(sum(left.values()))} wait, {in_mb(can)} can be sent in {_hours(policy.catch_up)}: {why}"
        )

    held = {backup: why for backup, why in stuck.items() if backup not in skip and backup not in facts.shipped}
    waiting = sum(left[backup.id] for backup in ship)
    if ship:
        reasons.append(f"{len(ship)} to ship, {in_mb(waiting)}, the oldest is {ship[0].id}")
    wanted, later = _want_full(max(intact, default=None), ship, {**skip, **held}, policy)
    return Backlog(ship, skip, held, waiting, wanted, (*reasons, *later))


def _sift(
    listed: Sequence[Listed], facts: ReplicaFacts, given_up: Mapping[BackupId, str], stuck: Mapping[BackupId, str]
) -> tuple[tuple[Listed, ...], dict[BackupId, str]]:
    """Return what can go, oldest first, and what is skipped: a delta goes after its whole chain, or not at all."""
    whole: set[BackupId] = set()  # with their chains at the replica, or going there first
    ship: list[Listed] = []
    skip: dict[BackupId, str] = {}
    for backup in listed:
        there = backup.id in facts.shipped
        parent = None if backup.manifest is None else backup.manifest.parent
        if not there and backup.id in given_up:
            skip[backup.id] = given_up[backup.id]
        elif backup.id in stuck:
            continue
        elif parent is None or parent in whole:
            whole.add(backup.id)
            ship += [] if there else [backup]
        elif not there:
            skip[backup.id] = _CUT_OFF
    return tuple(ship), skip


def _begin_anew(left: Mapping[BackupId, int], intact: Chains, fresh: int) -> tuple[set[BackupId], str]:
    """Return the newest chain's part of what is left to send, or nothing if a fresh full would be less; and why."""
    full = intact[max(left)][0].id
    chain = {backup for backup in left if intact[backup][0].id == full}
    alone = sum(left[backup] for backup in chain)
    if alone * 100 <= fresh * _WORTHWHILE_PERCENT:
        return chain, f"only the chain of {full} is shipped"
    return set(), f"the newest chain alone is {in_mb(alone)}, a fresh full {in_mb(fresh)}"


def _worth_finishing(backup: BackupId, left: Mapping[BackupId, int], intact: Chains, facts: ReplicaFacts) -> bool:
    """Say whether to finish what was begun: a full in any case, since newer ones may come faster than one is sent."""
    sent = facts.partial.get(backup, 0)
    return sent > 0 and (backup == intact[backup][0].id or left[backup] <= sent)


def _expiring(intact: Chains, facts: ReplicaFacts, policy: ShippingPolicy, now: datetime) -> dict[BackupId, str]:
    """Return the deltas whose chain would not be at the replica for as long as they are, or is gone already."""
    found: dict[BackupId, str] = {}
    for backup, chain in intact.items():
        full = chain[0].id
        if backup == full:
            continue
        lasts, age = policy.full_lasts, _age(full, facts, now)
        if lasts is not None and age > lasts:
            found[backup] = f"its full {full} was shipped {_hours(age)} ago, and would expire before it"
        oldest, age = chain[1].id, _age(chain[1].id, facts, now)  # shipped before the others of its chain
        if policy.delta_lifetime is not None and age > policy.delta_lifetime:
            found[backup] = f"its chain has expired since {oldest} was shipped {_hours(age)} ago"
    return found


def _holds_nothing(listed: Sequence[Listed], facts: ReplicaFacts, policy: ShippingPolicy, now: datetime) -> bool:
    """Say whether no full is known to be at the replica. What is no longer here was shipped upon its full."""
    deltas = {backup.id for backup in listed if backup.place.kind is Class.DELTA}
    lifetime = policy.full_lifetime
    return all(lifetime is not None and _age(full, facts, now) > lifetime for full in facts.shipped.keys() - deltas)


def _want_full(
    newest: BackupId | None, ship: Sequence[Listed], refused: Mapping[BackupId, str], policy: ShippingPolicy
) -> tuple[str | None, list[str]]:
    """Return why a new full is wanted now, or what else is to be said of one, where the newest intact is refused."""
    if newest is None or newest not in refused:
        return None, []
    why = f"the newest backup {newest} is not shipped: {refused[newest]}"
    if policy.full_lasts is not None and policy.full_lasts < timedelta(0):
        return None, [f"{why}; only rules that keep fulls more than a day longer than deltas help"]
    on_its_way = next((backup.id for backup in ship if backup.place.kind is Class.FULL), None)
    if on_its_way is not None:  # made now, the new one would be old when the link is free
        return None, [f"{why}; a new full is wanted once {on_its_way} is there"]
    return why, []


def _capacity(facts: ReplicaFacts, policy: ShippingPolicy, now: datetime) -> float:
    """Return how many bytes can be sent within ``catch_up``: what is left of today, whole days, a part of the last."""
    if not facts.throughput and facts.budget is None:
        return math.inf
    rate = facts.throughput or math.inf
    budget = math.inf if facts.budget is None else facts.budget

    def sent(span: timedelta, budget: float) -> float:
        return min(rate * span.total_seconds(), max(0, budget)) if span else 0

    time = now.astimezone(UTC)
    midnight = time.replace(hour=0, minute=0, second=0, microsecond=0)
    today = min(policy.catch_up, _DAY - (time - midnight))
    days, rest = divmod(policy.catch_up - today, _DAY)
    return sent(today, budget - facts.spent) + days * sent(_DAY, budget) + sent(rest, budget)


def _age(backup: BackupId, facts: ReplicaFacts, now: datetime) -> timedelta:
    """Return how long ago a backup was shipped, zero if it was not: or in the future, before the clock was set back."""
    return max(timedelta(0), now - facts.shipped.get(backup, now))


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"
