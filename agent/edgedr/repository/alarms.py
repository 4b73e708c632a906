"""What the absence of backups tells: a gap, silence, or something that a node shipped and that is not there. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from edgedr.repository.chains import distinct
from edgedr.repository.heartbeats import Heartbeat
from edgedr.repository.repository import Listed

_GRACE = 2  # times the expected interval, before silence is a reason to look


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
    newest, shipped = backups[-1].id if backups else None, heartbeat.shipped
    if shipped is not None and (newest is None or newest < shipped):
        yield f"the node says that it shipped {shipped}, which is not here: removed or hidden"
    if newest is not None and shipped is not None and shipped < newest:
        yield f"the heartbeat is older than {newest}: an old one was put in its place, or the node cannot write it"
    due = heartbeat.next_due
    if due is not None:
        every = max(due - (heartbeat.captured_at or heartbeat.at), timedelta(minutes=1))
        if now > heartbeat.at + _GRACE * every:
            yield f"the node's last word is of {_when(heartbeat.at)}: a backup was due {_when(due)}"
        elif heartbeat.at > due + (_GRACE - 1) * every:
            yield f"the node lives, and has made no backup since {heartbeat.captured}: one was due {_when(due)}"


def _when(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%SZ}"
