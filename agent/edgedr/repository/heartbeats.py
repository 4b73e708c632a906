"""Heartbeats: a small signed object for each node that says how it is. Plain text, so nothing that may not be seen."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from edgedr import strictjson
from edgedr.model import SCHEMA, BackupId, Manifest
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.names import VERSION

if TYPE_CHECKING:
    from edgedr.sealing.signatures import PublicKey, Signer

TOP = f"{VERSION}/heartbeat"
MAX_HEARTBEAT = 64 << 10  # bytes
_MOST_WARNINGS = 20


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """How a node is: what it captured, what of it is in the place that this lies in, what waits, what is wrong.

    ``next_due`` is when another backup should have been made; after that, silence is a reason to look.
    """

    schema: int
    site: str
    node: str
    at: datetime
    edgedr_version: str
    lineage: str | None
    captured: BackupId | None
    captured_at: datetime | None
    complete: bool | None
    shipped: BackupId | None
    shipped_at: datetime | None
    waiting: int
    waiting_bytes: int
    etcd_revision: int | None
    clock_offset_ms: int | None
    next_due: datetime | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Envelope:
    signed: str
    signature: str


def compose(
    *,
    site: str,
    node: str,
    version: str,
    now: datetime,
    newest: Manifest | None,
    record: ReplicaRecord | None,
    etcd_revision: int | None,
    backup_every: timedelta,
    warnings: Iterable[str],
) -> Heartbeat:
    """Say how a node is, for one replica. Pure; ``warnings`` may be read by anybody with the bucket."""
    offset = record.clock_offset_ms if record else None
    return Heartbeat(
        schema=SCHEMA,
        site=site,
        node=node,
        at=now,
        edgedr_version=version,
        lineage=newest.lineage if newest else None,
        captured=newest.id if newest else None,
        captured_at=newest.created if newest else None,
        complete=newest.complete if newest else None,
        shipped=record.last if record else None,
        shipped_at=record.last_at if record else None,
        waiting=record.waiting if record else 0,
        waiting_bytes=record.waiting_bytes if record else 0,
        etcd_revision=etcd_revision,
        clock_offset_ms=offset,
        next_due=newest.created + backup_every if newest else now + backup_every,
        warnings=tuple(warnings)[:_MOST_WARNINGS],
    )


def heartbeat_name(site: str, node: str) -> str:
    """Return the name of a node's heartbeat."""
    return f"{TOP}/{site}/{node}.json"


def encode(heartbeat: Heartbeat, signer: "Signer") -> bytes:
    """Return the bytes of the object: what is signed as a text, and the signature over that text."""
    data = strictjson.encode(heartbeat)
    return strictjson.encode(_Envelope(data.decode(), signer.sign(data).decode()))


def decode(data: bytes, what: str) -> "tuple[Heartbeat, PublicKey]":
    """Read a heartbeat whose signature holds; return whose it is. Raises ``Damaged``."""
    from edgedr.sealing.signatures import verify  # noqa: PLC0415

    envelope = strictjson.decode(_Envelope, data, what=what, max_bytes=MAX_HEARTBEAT)
    signed, signature = (text.encode(errors="surrogateescape") for text in (envelope.signed, envelope.signature))
    key = verify(signed, signature, what)
    return strictjson.decode(Heartbeat, signed, what=what, max_bytes=MAX_HEARTBEAT, schema=SCHEMA), key
