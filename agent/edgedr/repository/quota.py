"""Which backups the local repository lets go of to keep within its quota, and in which order. Pure.

No clock is asked: the order of backups tells which are old.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from edgedr.model import BackupId
from edgedr.repository.chains import Chains, by_id, standing
from edgedr.repository.names import Place
from edgedr.repository.repository import Listed


@dataclass(frozen=True, slots=True)
class Quota:
    """What to let go of."""

    discard: tuple[Listed, ...] = ()
    """In this order: each after all that depend on it, so that an interruption leaves no delta without its chain."""
    reasons: Mapping[Place, str] = field(default_factory=dict)
    """Why each of them goes."""
    over: int = 0
    """Bytes beyond the quota that are left all the same."""
    full_wanted: str | None = None
    """Why the next backup is to be a full, now; ``None`` if it need not."""
    unshipped: tuple[BackupId, ...] = ()
    """Which of them not every replica has, oldest first."""


def in_mb(size: float) -> str:
    """Write a number of bytes as people read it."""
    return f"{size / 1e6:.1f} MB"


def let_go(listed: Sequence[Listed], quota: int, *, shipped: Collection[BackupId]) -> Quota:
    """Choose what of a node's committed backups goes, so that the rest takes ``quota`` bytes at most.

    ``shipped`` are those that every replica has. The newest intact backup and all that it depends on are kept; damaged
    ones go first, then whole chains, the oldest first. What is newer than all that is intact goes last, damaged or not:
    there may be nothing else of that time. While nothing is intact nothing goes: the disk may only be out of sorts.
    """
    total = sum(backup.size for backup in listed)
    if total <= quota:
        return Quota()
    listed = sorted(listed, key=lambda backup: backup.id)
    known = by_id(listed)
    intact, broken = standing(listed)
    if not intact:
        return Quota(over=total - quota, full_wanted="none of the backups here is intact, so that none is let go of")
    kept = [known[link.id] for link in intact[max(intact)]]
    reasons: dict[Place, str] = {}
    discard: list[Listed] = []
    for group in _groups(listed, known, kept, intact):
        if total <= quota:
            break
        for backup in group:
            if backup.place not in reasons:
                reasons[backup.place] = _why(backup, known, broken, quota)
                discard.append(backup)
                total -= backup.size
    lost = {backup.id for backup in discard if known[backup.id] is backup}
    unshipped = sorted(lost.difference(shipped))
    return Quota(tuple(discard), reasons, max(0, total - quota), _want_full(kept, quota), tuple(unshipped))


def _groups(
    listed: Sequence[Listed], known: Mapping[BackupId, Listed], kept: Sequence[Listed], intact: Chains
) -> Iterator[tuple[Listed, ...]]:
    """Yield what can go, what is missed least first, each backup after all that depend on it.

    A group goes as a whole, and may repeat what went in an earlier one.
    """
    newest = kept[-1].id
    dependents: defaultdict[BackupId, list[Listed]] = defaultdict(list)
    for backup in known.values():
        if backup.manifest is not None and backup.manifest.parent is not None:
            dependents[backup.manifest.parent].append(backup)

    def with_dependents(backup: Listed) -> tuple[Listed, ...]:
        group = [backup]
        for member in group:
            group += dependents.get(member.id, ())
        return tuple(sorted(group, key=lambda member: member.id, reverse=True))

    yield from ((backup,) for backup in listed if known[backup.id] is not backup)
    needed = {backup.id for backup in kept}
    candidates = [backup for backup in listed if known[backup.id] is backup and backup.id not in needed]
    damaged = [backup for backup in candidates if backup.id not in intact]
    yield from (with_dependents(backup) for backup in damaged if backup.id < newest)
    yield from (with_dependents(backup) for backup in candidates if backup.id in intact)
    yield from (with_dependents(backup) for backup in damaged if backup.id > newest)


def _why(backup: Listed, known: Mapping[BackupId, Listed], broken: Mapping[BackupId, str], quota: int) -> str:
    if known[backup.id] is not backup:
        return "another of its id stands where it belongs"
    if backup.id in broken:
        return f"{broken[backup.id]}, and nothing intact depends on it"
    return f"the quota of {in_mb(quota)} is exceeded, and nothing newer that is kept depends on it"


def _want_full(chain: Sequence[Listed], quota: int) -> str | None:
    """Say why a new full is wanted; none is where the last one alone is too large, as the next would be."""
    alone = sum(backup.size for backup in chain)
    if alone <= quota or chain[0].size > quota:
        return None
    return f"the newest chain alone is {in_mb(alone)}, the quota {in_mb(quota)}"
