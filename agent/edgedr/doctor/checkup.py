"""This machine: who may read what, room on its disks, what runs here, certificates, the clock, other disks."""

import os
import secrets
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgedr import durable
from edgedr.credentials import Credential, Keeper
from edgedr.doctor.judging import bad, good, warn
from edgedr.errors import EdgedrError, SourceError
from edgedr.layouts import why_unknown
from edgedr.locations import Locations
from edgedr.model import Finding, Manifest, Severity
from edgedr.node.components import datastore
from edgedr.node.node import Node
from edgedr.replicas import ReplicaSettings, open_replica
from edgedr.repository.quota import in_mb
from edgedr.sealing.recipients import Recipient
from edgedr.sources.base import Fact
from edgedr.sources.certificates import FIRST_TO_EXPIRE, CertificatesSource

RELEASED = datetime(2026, 11, 1, tzinfo=UTC)
"""No clock that is right shows an earlier time."""
EXPIRING = timedelta(days=30)
_AHEAD = timedelta(minutes=5)  # by which a backup may be newer than now: clocks are set back by less
_FOR_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Stock:
    """What the local repository holds: bytes in all, the last full sealed and in the clear, the newest backup."""

    used: int = 0
    sealed: int = 0
    plain: int = 0
    newest: Manifest | None = None


def check_files(config: Path, state: Path, signing_key: Path, kept: Sequence[tuple[str, str]]) -> Iterator[Finding]:
    """See that nobody else reads what is secret, or writes what is believed.

    ``kept`` are references to secrets, each after what it is for.
    """
    found = [
        *_exposed("configuration", config, _WRITABLE_BY_OTHERS, "600"),
        *_exposed("state directory", state, _FOR_OTHERS, "700"),
        *_exposed("signing key", signing_key, _FOR_OTHERS, "600"),
    ]
    for label, text in kept:
        credential = Credential.parse(text)
        if credential.keeper is Keeper.FILE:
            found += _exposed(label, Path(credential.place), _FOR_OTHERS, "600")
    yield from found
    if not found:
        yield good("permissions", "configuration, state, signing key and credentials belong to us alone")


def _exposed(label: str, path: Path, forbidden: int, mode: str) -> Iterator[Finding]:
    try:
        seen = path.stat()
    except OSError as error:
        yield bad(
            label, f"cannot look at {path}: {(error.strerror or str(error)).lower()}", "run `edgedr init`, as root"
        )
        return
    if seen.st_mode & forbidden:
        may = "write" if forbidden == _WRITABLE_BY_OTHERS else "use"
        text = f"others may {may} {path}: its mode is {stat.S_IMODE(seen.st_mode):04o}"
        yield bad(label, text, f"chmod {mode} {path}")
    if seen.st_uid not in {0, os.geteuid()}:
        yield bad(label, f"{path} belongs to user {seen.st_uid}", f"chown root {path}, and ask how that came to be")


def check_recipients(recipients: Iterable[Recipient], proven: Collection[str]) -> Iterator[Finding]:
    """See that somebody has shown for each recipient that its backups can be opened."""
    unproven = [str(recipient) for recipient in recipients if recipient.fingerprint not in proven]
    for recipient in unproven:
        text = f"nobody has proven that {recipient} can open backups"
        yield warn("recipients", text, "run `edgedr init --site …` again, with the identity at hand")
    if not unproven:
        yield good("recipients", "each was proven to open backups")


def check_space(locations: Locations, stock: Stock) -> Iterator[Finding]:
    """See that the next full fits, and that the quota is reached before the disk is full."""
    floor, quota = locations.repository.keep_free, locations.repository.quota
    need = stock.plain + stock.sealed
    for label, path in (("state", locations.state.path), ("repository", locations.repository.path)):
        free = durable.free_space_of(_standing(path))
        if free < floor:
            text = f"{path}: {_size(free)} left, {_size(floor)} are to stay free: the next backup fails"
            yield bad("space", text, "free space there, move it to another disk, or lower [repository] keep_free")
        elif free - floor < need:
            text = f"{path}: {_size(free)} left; {_size(floor)} stay free, and a full takes up to {_size(need)} here"
            yield bad("space", text, "free space there, or move it to another disk")
        elif label == "repository" and free - floor < quota - stock.used:
            text = f"{path}: {_size(free)} left; the disk is full before the quota of {_size(quota)} is reached"
            yield warn("space", text, "lower [repository] quota, or free space there")
        else:
            yield good("space", f"{_size(free)} left for the {label}")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else in_mb(count)  # noqa: PLR2004


def _standing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def check_layout(node: Node) -> Iterator[Finding]:
    """See that a distribution was found."""
    if node.layout.is_known:
        yield good("layout", f"{node.layout.name}, {datastore(node.files, node.layout)}")
    else:
        yield bad("layout", why_unknown(node.root), "name where the node's / is: [node] root; or paths in [layout]")


def check_certificates(node: Node, source: CertificatesSource) -> Iterator[Finding]:
    """See what the source of certificates would warn of, and which expire within 30 days. The node knows the time."""
    try:
        items = list(replace(source, warn_before=EXPIRING).capture(node))
    except SourceError as error:
        yield bad("certificates", error.message, error.hint or "name where they are: [sources.certificates] paths")
        return
    doubts = [item for item in items if isinstance(item, Finding) and item.severity is not Severity.GOOD]
    for doubt in doubts:
        yield replace(doubt, subject="certificates", text=f"{doubt.subject}: {doubt.text}")
    if not doubts:
        first = next((item.value for item in items if isinstance(item, Fact) and item.key == FIRST_TO_EXPIRE), "none")
        yield good("certificates", f"sound; first to expire: {first}")


def check_clock(now: datetime, newest: Manifest | None) -> Iterator[Finding]:
    """See that the clock is neither before this version nor before what was backed up."""
    hint = "set it: timedatectl, chronyc; a machine without a battery starts in the past"
    if now < RELEASED:
        yield bad("clock", f"it shows {now:%Y-%m-%d}, before this version of edgedr was made", hint)
    elif newest is not None and newest.created > now + _AHEAD:
        text = f"it shows {now:%Y-%m-%d %H:%M}, the newest backup was made at {newest.created:%Y-%m-%d %H:%M}"
        yield bad("clock", f"{text}: one of the two was wrong", hint)
    else:
        yield good("clock", f"plausible: {now:%Y-%m-%d %H:%M:%SZ}")


def check_directory(replica: ReplicaSettings, locations: Locations, stock: Stock) -> Iterator[Finding]:
    """See that a directory on another disk takes objects. Raises ``StorageError`` where it is not there."""
    floor = locations.repository.keep_free
    open_replica(replica, repository=locations.repository.path, keep_free=floor)
    path = Path(replica.url)
    probe = path / f".doctor-{secrets.token_hex(4)}"  # no storage lists what begins with a dot
    with durable.create(probe) as out:
        out.write(b"edgedr doctor\n")
    durable.remove(probe)
    yield good("put", "it is there, and can be written to")
    free = durable.free_space_of(path)
    if free - floor < 2 * stock.sealed:
        yield warn("space", f"{_size(free)} left: little more than a full", "free space there, or take a larger disk")
    else:
        yield good("space", f"{_size(free)} left")


def checked(subject: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings; what kept somebody from looking further is one too."""
    try:
        yield from findings
    except EdgedrError as error:
        yield bad(subject, error.message, error.hint or "mend that, and ask again")
