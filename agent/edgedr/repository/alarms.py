"""What the absence of backups tells: a gap, silence, or something that a node shipped and that is not there. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from edgedr.repository.chains import distinct
from edgedr.repository.heartbeats import Heartbeat
from edgedr.repository.repository import Listed

_GRACE = 2  # times the expected interval, before silence is a reason to look
_LONGEST = timedelta(days=7)
_AHEAD = timedelta(hours=1)


def alarms(listed: Sequence[Listed], heartbeat: Heartbeat | None, now: datetime) -> tuple[str, ...]:
    """Say what looks as if somebody hid, removed or replayed backups of one node, or as if it went silent.

    ``listed`` are all that is there of the node. Without a heartbeat only a gap can be seen.
    """
    backups = sorted(distinct(listed), key=lambda backup: backup.id)
    return (*_gaps(backups), *_told(backups, heartbeat, now))


def _gaps(backups: Sequence[Listed]) -> Iterator[str]:
    """Look behind the newest full: before it, lifetimes and quotas leave gaps of their own."""
    fulls = [number for number, backup in enumerate(backups) if backup.place.kind == "full"]
    recent = backups[fulls[-1] :] if fulls else backups
    for before, after in pairwise(recent):
        lost = after.id.sequence - before.id.sequence - 1
        if lost > 0:
            word = "backup is" if lost == 1 else "backups are"
            yield f"{lost} {word} missing between {before.id} and {after.id}: removed, hidden, or never shipped"


def _told(backups: Sequence[Listed], heartbeat: Heartbeat | None, now: datetime) -> Iterator[str]:
    if heartbeat is None:
        return
    newest, shipped, every = backups[-1].id if backups else None, heartbeat.shipped, _interval(heartbeat)
    if shipped is not None and (newest is None or newest < shipped):
        yield f"the node says that it shipped {shipped}, which is not here: removed or hidden"
    if newest is not None and newest.created - heartbeat.at > _GRACE * every:
        yield f"the heartbeat is older than {newest}: an old one was put in its place, or the node cannot write it"
    if heartbeat.at - now > _AHEAD:
        yield f"the heartbeat is of {_when(heartbeat.at)}, which is yet to come: a clock is wrong, or it is forged"
    elif now - heartbeat.at > _GRACE * every:
        yield f"the node's last word is of {_when(heartbeat.at)}: {_due(heartbeat)}"
    elif heartbeat.next_due is not None and heartbeat.at - heartbeat.next_due > (_GRACE - 1) * every:
        yield f"the node lives, and has made no backup since {heartbeat.captured}: {_due(heartbeat)}"


def _interval(heartbeat: Heartbeat) -> timedelta:
    """Return how often the node says that it is backed up, as far as that can be meant."""
    if heartbeat.next_due is None:
        return _LONGEST
    said = heartbeat.next_due - (heartbeat.captured_at or heartbeat.at)
    return min(max(said, timedelta(minutes=1)), _LONGEST)


def _due(heartbeat: Heartbeat) -> str:
    return "another was due" if heartbeat.next_due is None else f"a backup was due {_when(heartbeat.next_due)}"


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"
