"""Chains, and the choice between full and delta: a table of what is known, what is decided, and why."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from edgedr.errors import Damaged
from edgedr.model import SCHEMA, Artifact, BackupId, Class, EtcdFacts, Manifest, Proof, Segment, SourceResult, Status
from edgedr.repository.chains import by_id, chain_of, clones, dependents, distinct
from edgedr.repository.choice import Capture, ChainPolicy, another_past, decide
from edgedr.repository.names import Place
from edgedr.repository.repository import Listed

NOW = datetime(2026, 11, 22, 22, 15, tzinfo=UTC)
MINUTES = timedelta(minutes=1)
HOUR = timedelta(hours=1)


def manifest(sequence: int, parent: Manifest | None = None, *, age: timedelta = HOUR, size: int = 100) -> Manifest:
    """Return the record of a backup: ``age`` old, of ``size`` sealed bytes."""
    backup = BackupId(NOW - age, sequence, f"{sequence:08x}")
    kind = Class.FULL if parent is None else Class.DELTA
    segments = (Segment("etcd.db.000.zst.age", size, "0" * 64, 1000),)
    return Manifest(
        schema=SCHEMA,
        id=backup,
        lineage="0123456789abcdef",
        sequence=sequence,
        site="plant-7",
        node="cp-1",
        created=backup.created,
        clock_offset_ms=None,
        edgedr_version="0.1.0",
        distribution=None,
        kubernetes_version=None,
        segment_size=1 << 20,
        artifacts=(Artifact("etcd.db", kind, parent.id if parent else None, 1000, "0" * 64, segments),),
        sources={"etcd": SourceResult(Status.OK)},
        etcd=EtcdFacts("c1", "m1", 42, "3.5.1"),
        recipients=("aaaa", "bbbb"),
        proof=Proof.L1,
        reasons=("a reason",),
    )


def listed(backup: Manifest, *damage: str, kind: Class | None = None) -> Listed:
    """Return a backup as a repository lists it."""
    return Listed(Place(kind or backup.kind, backup.site, backup.node, backup.id), {}, backup, damage)


def unreadable(backup: Manifest, why: str) -> Listed:
    """Return a backup whose manifest cannot be read."""
    return replace(listed(backup, why), manifest=None)


def chain(length: int, *, age: timedelta = HOUR, delta: int = 10) -> list[Manifest]:
    """Return a full, ``age`` old, and deltas up to ``length``, of ``delta`` sealed bytes each."""
    links = [manifest(1, age=age)]
    for sequence in range(2, length + 1):
        links.append(manifest(sequence, links[-1], age=age - sequence * MINUTES, size=delta))
    return links


FULL = manifest(1)
DELTA = manifest(2, FULL, size=10)
CAPTURE = Capture(NOW, FULL.lineage, ("bbbb", "aaaa"), "c1", FULL.segment_size)
POLICY = ChainPolicy()


@dataclass(frozen=True)
class Row:
    """What is known, and the class and reasons that follow."""

    kind: Class
    reasons: tuple[str, ...]
    backups: Sequence[Listed] = (listed(FULL), listed(DELTA))
    capture: Capture = CAPTURE
    policy: ChainPolicy = POLICY
    given: dict[str, Any] = field(default_factory=dict)


def full(*reasons: str, **known: Any) -> Row:
    return Row(Class.FULL, reasons, **known)


def delta(so_far: int, **known: Any) -> Row:
    return Row(Class.DELTA, (f"delta {so_far} upon {FULL.id}",), **known)


def links(*backups: Manifest) -> tuple[Listed, ...]:
    return tuple(listed(backup) for backup in backups)


TABLE: dict[str, Row] = {
    "a delta follows a full": delta(1, backups=links(FULL)),
    "a delta follows a delta": delta(2),
    "the first": full("there was no backup before", backups=()),
    "asked": full("a full was asked for", given={"full_because": "a full was asked for"}),
    "asked, and first": full("a full was asked for", backups=(), given={"full_because": "a full was asked for"}),
    "the cache is gone": full("the cached etcd.db is gone", given={"parent_problem": "the cached etcd.db is gone"}),
    "just under full_every": Row(
        Class.DELTA,
        (f"delta 2 upon {(young := chain(2, age=24 * HOUR - MINUTES))[0].id}",),
        backups=links(*young),
    ),
    "full_every": full("the last full is 24.0 h old, 24.0 h is the limit", backups=links(*chain(2, age=24 * HOUR))),
    "full_every, set": full(
        "the last full is 1.0 h old, 0.5 h is the limit", policy=ChainPolicy(full_every=30 * MINUTES)
    ),
    "the last delta of a chain": delta(96, backups=links(*chain(96))),
    "max_chain": full("the chain has 96 deltas, 96 is the limit", backups=links(*chain(97))),
    "max_chain of none": full(
        "the chain has 0 deltas, 0 is the limit", backups=links(FULL), policy=ChainPolicy(max_chain=0)
    ),
    "a delta of 60 %": delta(2, backups=links(*chain(2, delta=60))),
    "a delta of more": full("the last delta was larger than 60 % of its full", backups=links(*chain(2, delta=61))),
    "an earlier delta of more": delta(3, backups=links(*chain(2, delta=99), manifest(3, chain(2)[1], size=10))),
    "recipients in another order": delta(2, capture=replace(CAPTURE, recipients=("aaaa", "bbbb"))),
    "a recipient more": full("the recipients changed", capture=replace(CAPTURE, recipients=("aaaa", "bbbb", "cccc"))),
    "a recipient less": full("the recipients changed", capture=replace(CAPTURE, recipients=("aaaa",))),
    "another cluster": full("etcd's cluster id changed from c1 to c2", capture=replace(CAPTURE, cluster_id="c2")),
    "no etcd this time": delta(2, capture=replace(CAPTURE, cluster_id=None)),
    "another lineage": full(
        "the node was restored, moved or set up anew since the last backup", capture=replace(CAPTURE, lineage="f" * 16)
    ),
    "another segment size": full("the segment size changed", capture=replace(CAPTURE, segment_size=2 << 20)),
    "several reasons": full(
        "the last full is 30.0 h old, 24.0 h is the limit",
        "the last delta was larger than 60 % of its full",
        "the recipients changed",
        "the cached etcd.db is gone",
        backups=links(*chain(2, age=30 * HOUR, delta=80)),
        capture=replace(CAPTURE, recipients=("dddd",)),
        given={"parent_problem": "the cached etcd.db is gone"},
    ),
    "the newest cannot be read": full(
        "the newest backup is damaged: it is not JSON", backups=(listed(FULL), unreadable(DELTA, "it is not JSON"))
    ),
    "the newest is damaged": full(
        f"{DELTA.id} is damaged: a verification found it damaged",
        backups=(listed(FULL), listed(DELTA, "a verification found it damaged")),
    ),
    "the full is damaged": full(
        f"the chain of {DELTA.id} is broken at {FULL.id}: etcd.db.000.zst.age is missing",
        backups=(listed(FULL, "etcd.db.000.zst.age is missing"), listed(DELTA)),
    ),
    "the full is missing": full(f"the chain of {DELTA.id} is broken at {FULL.id}: it is missing", backups=links(DELTA)),
    "the full cannot be read": full(
        f"the chain of {DELTA.id} is broken at {FULL.id}: it is not JSON",
        backups=(unreadable(FULL, "it is not JSON"), listed(DELTA)),
    ),
    "an older chain is damaged": Row(
        Class.DELTA,
        (f"delta 1 upon {(anew := manifest(3)).id}",),
        backups=(listed(FULL, "gone"), listed(DELTA), listed(anew)),
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_choice(name: str) -> None:
    """What is known decides, always in the same words; a delta names the chain that it continues."""
    row = TABLE[name]
    decision = decide(row.backups, row.capture, row.policy, **{"parent_problem": None, **row.given})
    assert (decision.kind, decision.reasons) == (row.kind, row.reasons)
    newest = row.backups[-1].manifest if row.backups else None
    assert decision.parent == (newest if row.kind is Class.DELTA else None)


def test_a_chain_leads_from_its_full() -> None:
    """The chain of a backup is its full and every delta up to it, in order."""
    made = chain(4)
    known = by_id(links(*made, manifest(5)))
    assert chain_of(made[3], known) == tuple(made)
    assert chain_of(made[1], known) == tuple(made[:2])
    assert chain_of(made[0], known) == (made[0],)


def test_a_chain_of_other_segments_is_broken() -> None:
    """A parent cut into other pieces has no segment to decompress against."""
    first, second = chain(2)
    other = replace(first, segment_size=2 << 20)
    with pytest.raises(Damaged, match="its segments have another size"):
        chain_of(second, by_id(links(other, second)))


def test_what_depends_on_a_backup() -> None:
    """All later links of its chain depend on a backup, whatever order they are listed in; other chains do not."""
    made = [*chain(4), manifest(5)]
    ids = [one.id for one in made]
    shuffled = links(made[3], made[0], made[4], made[2], made[1])
    assert dependents(ids[0], shuffled) == tuple(ids[1:4])
    assert dependents(ids[2], shuffled) == (ids[3],)
    assert dependents(ids[4], shuffled) == ()


def test_two_machines_as_one_node_are_seen() -> None:
    """Two backups of one lineage with one number were made by two machines; a number again in a new lineage was not."""
    first = manifest(1)
    twin = replace(manifest(1), id=replace(first.id, nonce="ffffffff"))
    moved = replace(twin, lineage="f" * 16)
    assert clones([first, twin, manifest(2)]) == (str(first.id), str(twin.id))
    assert clones([first, moved, manifest(2)]) == ()


@pytest.mark.parametrize("order", [lambda pair: pair, lambda pair: pair[::-1]], ids=["before", "after"])
def test_a_copy_elsewhere_hides_nothing(order: Callable[[tuple[Listed, ...]], tuple[Listed, ...]]) -> None:
    """A backup's copy under another class is not taken for it, whichever is listed first."""
    real = listed(FULL)
    copy = replace(listed(FULL, "it is that of another", kind=Class.DELTA), manifest=None)
    assert by_id(order((real, copy)))[FULL.id] is real
    assert distinct(order((real, copy))) == (real,)
    assert distinct((copy,)) == (copy,)


ETCD = EtcdFacts("c1", "m1", 1000, "3.5.1")
BACK = "it was restored to an older state"


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (None, None, None),
        (None, ETCD, None),
        (ETCD, None, None),
        (ETCD, ETCD, None),
        (ETCD, replace(ETCD, revision=2000, version="3.6.0"), None),
        (ETCD, replace(ETCD, revision=999), f"etcd went back from revision 1000 to 999: {BACK}"),
        (ETCD, replace(ETCD, member_id="m2", revision=1001), None),
        (ETCD, replace(ETCD, member_id="m2", revision=900), None),
        (
            ETCD,
            replace(ETCD, member_id="m2", revision=899),
            f"etcd went back from revision 1000 to 899: {BACK}",
        ),
        (ETCD, replace(ETCD, cluster_id="c2"), "etcd's cluster id changed from c1 to c2"),
        (
            ETCD,
            replace(ETCD, cluster_id="c2", member_id="m2", revision=1),
            "etcd's cluster id changed from c1 to c2",
        ),
    ],
)
def test_another_past(before: EtcdFacts | None, now: EtcdFacts | None, said: str | None) -> None:
    """One member never steps back; two of one cluster lie up to 100 revisions apart; what is unknown tells nothing."""
    assert another_past(before, now) == said


def test_another_past_is_a_reason_of_its_own() -> None:
    """It is said as it was found, once, and not as another lineage; a changed cluster id is said first."""
    turned = replace(CAPTURE, another_past="etcd went back", lineage="f" * 16)
    assert decide(links(FULL), turned, POLICY, parent_problem=None).reasons == ("etcd went back",)
    other = replace(turned, cluster_id="c2")
    said = decide(links(FULL), other, POLICY, parent_problem=None).reasons
    assert said == ("etcd's cluster id changed from c1 to c2",)
