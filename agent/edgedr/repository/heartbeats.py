"""Heartbeats: a small signed object for each node that says how it is. Plain text, so nothing that may not be seen."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from edgedr import strictjson
from edgedr.model import SCHEMA, BackupId
from edgedr.repository.names import VERSION

if TYPE_CHECKING:
    from edgedr.sealing.signatures import PublicKey, Signer

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


def heartbeat_name(site: str, node: str) -> str:
    """Return the name of a node's heartbeat."""
    return f"{VERSION}/heartbeat/{site}/{node}.json"


def encode(heartbeat: Heartbeat, signer: "Signer") -> bytes:
    """Return the bytes of the object: what is signed as a text, and the signature over that text."""
    if len(heartbeat.warnings) > _MOST_WARNINGS:
        raise AssertionError("a heartbeat is small")
    data = strictjson.encode(heartbeat)
    return strictjson.encode(_Envelope(data.decode(), signer.sign(data).decode()))


def decode(data: bytes, what: str) -> "tuple[Heartbeat, PublicKey]":
    """Read a heartbeat whose signature holds; return whose it is. Raises ``Damaged``."""
    from edgedr.sealing.signatures import verify  # noqa: PLC0415

    envelope = strictjson.decode(_Envelope, data, what=what, max_bytes=MAX_HEARTBEAT)
    signed = envelope.signed.encode()
    key = verify(signed, envelope.signature.encode(), what)
    return strictjson.decode(Heartbeat, signed, what=what, max_bytes=MAX_HEARTBEAT, schema=SCHEMA), key
