"""Whether the next backup is a full or a delta, and why. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from edgedr.errors import Damaged
from edgedr.model import Class, EtcdFacts, Manifest
from edgedr.repository.chains import by_id, chain_of
from edgedr.repository.repository import Listed

LARGE_DELTA_PERCENT = 60
_APART = 100  # revisions


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """When a new full is due."""

    full_every: timedelta = timedelta(hours=24)
    max_chain: int = 96


@dataclass(frozen=True, slots=True)
class Capture:
    """What is known about the backup to be: when, for whom, of which etcd, in what segments."""

    now: datetime
    lineage: str
    recipients: tuple[str, ...]
    cluster_id: str | None
    segment_size: int
    another_past: str | None = None
    """Why its datastore is not the one of the last backup, grown on; ``None`` if it is."""


def another_past(before: EtcdFacts | None, now: EtcdFacts | None) -> str | None:
    """Say why etcd's history since an earlier backup is not one line; ``None`` if it may be.

    Members lie a few revisions apart, so that only a larger step back tells something, or one of the same member.
    """
    if before is None or now is None:
        return None
    if before.cluster_id != now.cluster_id:
        return f"etcd's cluster id changed from {before.cluster_id} to {now.cluster_id}"
    allowed = 0 if before.member_id == now.member_id else _APART
    if now.revision + allowed < before.revision:
        return f"etcd went back from revision {before.revision} to {now.revision}: it was restored to an older state"
    return None


@dataclass(frozen=True, slots=True)
class Decision:
    """Full or delta, each reason a sentence; for a delta, the chain it continues, full first."""

    kind: Class
    reasons: tuple[str, ...]
    chain: tuple[Manifest, ...] = ()

    @property
    def parent(self) -> Manifest | None:
        """The backup to compress against."""
        return self.chain[-1] if self.chain else None


def decide(
    listed: Sequence[Listed],
    capture: Capture,
    policy: ChainPolicy,
    *,
    parent_problem: str | None,
    full_because: str | None = None,
) -> Decision:
    """Choose between full and delta. ``listed`` are the committed backups of the node, oldest first.

    ``parent_problem`` says why the cached plaintext of the newest backup cannot be used; ``None``: it was verified.
    ``full_because`` says why a full is wanted whatever the chain.
    """
    if full_because is not None:
        return Decision(Class.FULL, (full_because,))
    if not listed:
        return Decision(Class.FULL, ("there was no backup before",))
    newest = listed[-1]
    if newest.manifest is None:
        return Decision(Class.FULL, (f"the newest backup is damaged: {newest.damage[0]}",))
    try:
        chain = chain_of(newest.manifest, by_id(listed))
    except Damaged as error:
        return Decision(Class.FULL, (error.message,))
    reasons = tuple(_reasons_for_full(chain, capture, policy))
    if parent_problem is not None:
        reasons += (parent_problem,)
    if reasons:
        return Decision(Class.FULL, reasons)
    return Decision(Class.DELTA, (f"delta {len(chain)} upon {chain[0].id}",), chain)


def _reasons_for_full(chain: Sequence[Manifest], capture: Capture, policy: ChainPolicy) -> list[str]:
    full, parent = chain[0], chain[-1]
    reasons = []
    age = capture.now - full.created
    if age < timedelta(0):
        reasons.append(f"the last full is {_hours(-age)} in the future: the clock was set back")
    if age >= policy.full_every:
        reasons.append(f"the last full is {_hours(age)} old, {_hours(policy.full_every)} is the limit")
    if len(chain) > policy.max_chain:
        reasons.append(f"the chain has {len(chain) - 1} deltas, {policy.max_chain} is the limit")
    if len(chain) > 1 and parent.sealed_size * 100 > full.sealed_size * LARGE_DELTA_PERCENT:
        reasons.append(f"the last delta was larger than {LARGE_DELTA_PERCENT} % of its full")
    if set(capture.recipients) != set(parent.recipients):
        reasons.append("the recipients changed")
    if parent.etcd is not None and capture.cluster_id is not None and parent.etcd.cluster_id != capture.cluster_id:
        reasons.append(f"etcd's cluster id changed from {parent.etcd.cluster_id} to {capture.cluster_id}")
    elif capture.another_past is not None:
        reasons.append(capture.another_past)
    elif capture.lineage != parent.lineage:
        reasons.append("the node was restored, moved or set up anew since the last backup")
    if capture.segment_size != parent.segment_size:
        reasons.append("the segment size changed")
    return reasons


def _hours(span: timedelta) -> str:
    return f"{span.total_seconds() / 3600:.1f} h"
