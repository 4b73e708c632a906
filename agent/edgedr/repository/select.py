"""Which backup is meant: ``latest``, a shortened id, a sequence number, a time. Pure."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from edgedr.errors import ConfigurationError, NoSuchBackup
from edgedr.model import Class
from edgedr.repository.chains import distinct
from edgedr.repository.names import Place
from edgedr.repository.repository import Listed

LATEST = "latest"
_SEQUENCE_DIGITS = 8


def select(listed: Sequence[Listed], wanted: str) -> Listed:
    """Return the backup that ``wanted`` names: ``latest``, the start of an id, its sequence, the start of its end.

    Raises ``NoSuchBackup`` if none or several fit.
    """
    listed = distinct(listed)
    if not listed:
        raise NoSuchBackup(
            "there is no backup here", hint="`edgedr backup` makes one; --repository names another place"
        )
    if wanted == LATEST:
        return _only_node(listed)[-1]
    fitting = [backup for backup in listed if _is_sequence(backup, wanted)]  # goes before every id that begins so
    fitting = fitting or [backup for backup in listed if wanted and _fits(backup, wanted)]
    if not fitting:
        raise NoSuchBackup(
            f"no backup fits {wanted!r}", hint=f"`edgedr list` shows them; the newest is {listed[-1].id}"
        )
    if len(fitting) > 1:
        shown = ", ".join(str(backup.id) for backup in fitting[:4]) + (", …" if len(fitting) > 4 else "")  # noqa: PLR2004
        raise NoSuchBackup(f"{wanted!r} fits {len(fitting)} backups: {shown}", hint="give more of the id")
    return fitting[0]


def select_at(listed: Sequence[Listed], time: datetime) -> Listed:
    """Return the newest backup made at ``time`` or before, by the node's clock at capture; ordered by sequence."""
    listed = distinct(listed)
    older = [backup for backup in _only_node(listed) if backup.id.created <= time] if listed else []
    if not older:
        raise NoSuchBackup(
            f"no backup is as old as {time:%Y-%m-%d %H:%M:%SZ}",
            hint=f"the oldest is {listed[0].id}" if listed else "there is no backup here",
        )
    return older[-1]


def near(places: Sequence[Place], choose: Callable[[Sequence[Listed]], Listed]) -> tuple[Place, ...]:
    """Return the places that a backup's chain is most likely made of, by their names: from the last full before it on.

    ``choose`` is asked which backup it is, with nothing read yet.
    """
    unread = [Listed(place, {}, None, ("it was not read",)) for place in places]
    wanted = choose(unread).place
    line = [place for place in places if (place.site, place.node) == (wanted.site, wanted.node)]
    before = [place for place in line if not wanted.id < place.id]
    fulls = [place.id for place in before if place.kind is Class.FULL]
    return tuple(place for place in before if not fulls or not place.id < max(fulls))


def parse_time(text: str) -> datetime:
    """Read ``2026-11-22T22:15Z`` and the like; a time without zone is UTC, as everything here."""
    try:
        time = datetime.fromisoformat(text)
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(f"{text!r} is not a time", hint="write it like 2026-11-22T22:15Z") from error


def nearest_intact(damaged: Listed, intact: Sequence[Listed]) -> Listed | None:
    """Return the intact backup to take instead: the newest before the damaged one, else the first after."""
    same = [b for b in intact if (b.place.site, b.place.node) == (damaged.place.site, damaged.place.node)]
    before = [backup for backup in same if backup.id < damaged.id]
    after = [backup for backup in same if backup.id > damaged.id]
    return before[-1] if before else (after[0] if after else None)


def _is_sequence(backup: Listed, wanted: str) -> bool:
    return wanted.isdecimal() and len(wanted) <= _SEQUENCE_DIGITS and int(wanted) == backup.id.sequence


def _fits(backup: Listed, wanted: str) -> bool:
    identifier = str(backup.id)
    return (
        identifier.startswith(wanted)
        or backup.id.nonce.startswith(wanted)
        or (identifier.partition("-")[2].startswith(wanted))
    )


def _only_node(listed: Sequence[Listed]) -> Sequence[Listed]:
    nodes = sorted({f"{backup.place.site}/{backup.place.node}" for backup in listed})
    if len(nodes) > 1:
        raise NoSuchBackup(
            f"backups of {len(nodes)} nodes are here: {', '.join(nodes[:6])}", hint="choose with --site and --node"
        )
    return listed
