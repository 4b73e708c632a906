"""What a node remembers of one replica, and what follows from it. Frozen values, no I/O.

Backups are shipped in their order, so that the last one and the gaps before it say it all, however many there are.
"""

from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Self

from edgedr.model import SCHEMA, BackupId
from edgedr.repository.backlog import ReplicaFacts
from edgedr.repository.repository import Listed

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(minutes=1), timedelta(hours=1)
_FRESH_WEIGHT = 0.3  # of the newest shipment in the measured throughput
_LEAST_MEASURED = 64 << 10  # bytes; less says something of round trips, not of the link


@dataclass(frozen=True, slots=True)
class Gap:
    """Backups, from one to another, that this replica does not get, and why."""

    first: BackupId
    last: BackupId
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaRecord:
    """One replica as this node knows it. ``known`` is false when it had to begin without memory and could not look.

    Of backups up to ``unsure`` anything may be there already, since memory was lost after they were made.
    """

    schema: int
    place: str
    known: bool
    unsure: BackupId | None = None
    last: BackupId | None = None
    last_at: datetime | None = None
    fulls: dict[str, datetime] = field(default_factory=dict)
    gaps: tuple[Gap, ...] = ()
    sending: BackupId | None = None
    begun: tuple[str, ...] = ()
    done: dict[str, int] = field(default_factory=dict)
    day: str = ""
    spent: int = 0
    throughput: int | None = None
    failures: int = 0
    failing_since: datetime | None = None
    failed_at: datetime | None = None
    error: str | None = None
    refused: bool = False
    next_try: datetime | None = None
    clock_offset_ms: int | None = None
    full_wanted: str | None = None
    wanted_after: BackupId | None = None
    """The newest backup that there was when a full was wanted: one that comes later is that full."""
    waiting: int = 0
    waiting_bytes: int = 0

    @classmethod
    def blank(cls, place: str, *, known: bool) -> Self:
        """Begin to remember a place."""
        return cls(SCHEMA, place, known)

    def has(self, backup: BackupId) -> bool:
        """Whether a backup was shipped, as far as is remembered."""
        return self.last is not None and not self.last < backup and self.why_not(backup) is None

    def why_not(self, backup: BackupId) -> str | None:
        """Say why a backup was passed over; ``None`` if it was not."""
        return next((gap.reason for gap in self.gaps if not (backup < gap.first or gap.last < backup)), None)

    def facts(
        self, listed: Sequence[Listed], there: Collection[BackupId] | None, budget: int | None, now: datetime
    ) -> ReplicaFacts:
        """Return what plans are made from. ``there`` is what the replica lists, where it may be looked at."""
        ids = [backup.id for backup in listed]
        fulls = sorted((BackupId.parse(name), when) for name, when in self.fulls.items())
        shipped = {one: _shipped_at(one, fulls) for one in ids if (self.has(one) if there is None else one in there)}
        return ReplicaFacts(
            shipped=shipped,
            skipped={one: why for one in ids if (why := self.why_not(one)) is not None and one not in shipped},
            known=self.known or there is not None,
            throughput=self.throughput,
            budget=budget,
            spent=self.spent if self.day == _day(now) else 0,
            partial={} if self.sending is None else {self.sending: sum(self.done.values())},
        )

    def passing_over(self, skip: Mapping[BackupId, str], listed: Sequence[Listed]) -> Self:
        """Remember what a plan skips, in as few gaps as there are.

        What it skips no longer is no gap any more, and what is no longer here is forgotten.
        """
        ids = sorted(backup.id for backup in listed)
        gaps: list[Gap] = []
        for before, one in zip([None, *ids], ids, strict=False):
            reason = skip.get(one)
            if reason is None:
                continue
            if gaps and gaps[-1].reason == reason and gaps[-1].last == before:
                gaps[-1] = replace(gaps[-1], last=one)
            else:
                gaps.append(Gap(one, one, reason))
        here = {str(one) for one in ids}
        fulls = {name: when for name, when in self.fulls.items() if name in here}
        return replace(self, gaps=tuple(gaps), fulls=fulls, known=True)

    def begin(self, backup: BackupId) -> Self:
        """Remember which backup is on its way; what was sent of it before still counts."""
        return self if self.sending == backup else replace(self, sending=backup, begun=(), done={})

    def beginning(self, name: str) -> Self:
        """Remember that an object may arrive from now on, whatever becomes of us."""
        return self if name in self.begun else replace(self, begun=(*self.begun, name))

    def may_be_there(self, name: str) -> bool:
        """Whether an object of what is on its way may be there: it was begun, or nobody remembers."""
        forgotten = self.sending is not None and self.unsure is not None and not self.unsure < self.sending
        return forgotten or name in self.begun

    def paid(self, travelled: int, now: datetime) -> Self:
        """Remember how many bytes of the day's budget went over the wire, whatever became of them."""
        if not travelled:
            return self
        spent = (self.spent if self.day == _day(now) else 0) + travelled
        return replace(self, day=_day(now), spent=spent)

    def arrived(self, name: str, size: int) -> Self:
        """Remember that an object is there."""
        return replace(self, done={**self.done, name: size})

    def shipped(self, backup: BackupId, *, full: bool, at: datetime) -> Self:
        """Remember that a backup is there, whole, since ``at``."""
        fulls = {**self.fulls, str(backup): at} if full else self.fulls
        last = backup if self.last is None else max(self.last, backup)  # an old full may go when all others are gone
        return replace(self, last=last, last_at=at, fulls=fulls, sending=None, begun=(), done={})

    def measured(self, count: int, seconds: float) -> Self:
        """Take a shipment into the measured throughput."""
        if count < _LEAST_MEASURED or seconds <= 0:
            return self
        fresh = count / seconds
        known = fresh if self.throughput is None else self.throughput
        return replace(self, throughput=max(1, round(known + (fresh - known) * _FRESH_WEIGHT)))

    def well(self) -> Self:
        """Forget that something failed."""
        return replace(self, failures=0, failing_since=None, failed_at=None, error=None, refused=False, next_try=None)

    def failed(
        self, error: str, now: datetime, chance: float, *, refused: bool, at_least: timedelta = timedelta(0)
    ) -> Self:
        """Remember a failure, and when to try again: later each time; what somebody must mend, once an hour.

        Not before ``at_least``, which the server asked for, up to an hour.
        """
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(self.failures, 10))
        pause = _LONGEST_PAUSE if refused else pause
        return replace(
            self,
            failures=self.failures + 1,
            failing_since=self.failing_since or now,
            failed_at=now,
            error=error,
            refused=refused,
            next_try=now + max(pause * (0.5 + chance / 2), min(at_least, _LONGEST_PAUSE)),
        )

    def is_waiting(self, now: datetime) -> bool:
        """Whether it is too soon to try again. A clock that was set back does not make it wait for years."""
        return self.next_try is not None and now < self.next_try <= now + _LONGEST_PAUSE

    def budget_left(self, budget: int | None, now: datetime) -> int | None:
        """Return how many bytes may still be sent today (UTC); ``None``: as many as there are."""
        if budget is None:
            return None
        return max(0, budget - (self.spent if self.day == _day(now) else 0))

    def is_fresh_day(self, now: datetime) -> bool:
        """Whether nothing was sent today yet: what is larger than a whole day's budget must go one day."""
        return self.day != _day(now) or self.spent == 0


def _shipped_at(backup: BackupId, fulls: Sequence[tuple[BackupId, datetime]]) -> datetime:
    """Return when a backup was shipped; of a delta, the earliest that it can have been: with the full before it."""
    at = bisect_right(fulls, backup, key=lambda full: full[0])
    return fulls[at - 1][1] if at else backup.created


def _day(now: datetime) -> str:
    return now.strftime("%Y-%m-%d")
