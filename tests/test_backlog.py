"""What a replica gets of the backups of a node: a table of what is known, what goes, what is skipped, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.model import BackupId, Class
from edgedr.repository.backlog import Backlog, ReplicaFacts, ShippingPolicy, plan_shipping
from edgedr.repository.chains import standing
from edgedr.repository.repository import Listed
from tests.test_chains import NOW, listed, manifest

MB = 10**6
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def backup(sequence: int, parent: Listed | None = None, *, size: int = 10 * MB) -> Listed:
    """Return a backup of ``size`` bytes in all."""
    made = manifest(sequence, parent.manifest if parent else None, size=size)
    return replace(listed(made), objects={"etcd.db.000.zst.age": size})


def chain(first: int, last: int, *, full: int = 10 * MB, delta: int = MB) -> list[Listed]:
    """Return a full and the deltas up to ``last``."""
    links = [backup(first, size=full)]
    for sequence in range(first + 1, last + 1):
        links.append(backup(sequence, links[-1], size=delta))
    return links


def damaged(one: Listed) -> Listed:
    return replace(one, damage=("etcd.db.000.zst.age is missing",))


def illegible(one: Listed) -> Listed:
    return replace(one, manifest=None, damage=("it is not JSON",))


ONE = chain(1, 3)
TWO = [*ONE, *chain(4, 6)]
EXACT = [*chain(1, 3, delta=400_000), *chain(4, 6, delta=400_000)]
"""A day's bytes at 250 a second."""
ID = {one.id.sequence: one.id for one in TWO}
DAMAGED_2 = f"{ID[2]} is damaged: etcd.db.000.zst.age is missing"
CUT_OFF = "superseded: the chain that it continues is not shipped"
UNKNOWN = "unknown whether it is there, not sent again"
NEWEST_CHAIN = f"superseded: only the chain of {ID[4]} is shipped"
LARGE = "superseded: the newest chain alone is {} MB, a fresh full 10.0 MB"
TOO_OLD = f"its full {ID[1]} was shipped {{}} h ago, and would expire before it"
NOT_SHIPPED = "the newest backup {} is not shipped: {}"
KEPT = {"full_lifetime": 90 * DAY, "delta_lifetime": 30 * DAY}
"""Fulls are built upon for 90 - 30 - 1 = 59 days."""


@dataclass(frozen=True)
class Row:
    """What is known, by sequence, and what follows of it."""

    ship: Sequence[int]
    skip: Mapping[int, str] = field(default_factory=dict)
    held: Mapping[int, str] = field(default_factory=dict)
    wanted: str | None = None
    """Why the newest backup is not shipped, where a full is wanted."""
    reasons: tuple[str, ...] | None = None
    backups: Sequence[Listed] = tuple(TWO)
    shipped: Mapping[int, timedelta] = field(default_factory=dict)
    """How long ago."""
    skipped: Mapping[int, str] = field(default_factory=dict)
    partial: Mapping[int, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)


def ago(span: timedelta, *sequences: int) -> dict[int, timedelta]:
    return dict.fromkeys(sequences, span)


def skipped(why: str, *sequences: int) -> dict[int, str]:
    return dict.fromkeys(sequences, why)


def a_day(size: int) -> dict[str, Any]:
    """Return the facts of a link that sends so many bytes a day."""
    return {"throughput": size / 86400}


TABLE: dict[str, Row] = {
    "there is none": Row([], backups=(), reasons=()),
    "all, oldest first": Row([1, 2, 3, 4, 5, 6], reasons=(f"6 to ship, 24.0 MB, the oldest is {ID[1]}",)),
    "listed in another order": Row([1, 2, 3, 4, 5, 6], backups=TWO[::-1]),
    "a copy where it does not belong": Row(
        [2, 3],
        backups=[replace(illegible(ONE[1]), place=replace(ONE[1].place, kind=Class.FULL)), *ONE],
        shipped=ago(HOUR, 1),
    ),
    "the rest": Row([5, 6], shipped=ago(HOUR, 1, 2, 3, 4)),
    "nothing is left": Row([], shipped=ago(HOUR, 1, 2, 3, 4, 5, 6), reasons=()),
    "what is there is not listed any more": Row([4, 5, 6], backups=TWO[3:], shipped=ago(HOUR, 1, 2, 3)),
    "a part is there": Row(
        [3, 4, 5, 6],
        shipped=ago(HOUR, 1, 2),
        partial={3: MB // 2, 1: 7},
        reasons=(f"4 to ship, 12.5 MB, the oldest is {ID[3]}",),
    ),
    # what is damaged, skipped or cut off
    "a damaged one, and what depends on it": Row(
        [1, 4, 5, 6],
        held={2: DAMAGED_2, 3: f"the chain of {ID[3]} is broken at {ID[2]}: etcd.db.000.zst.age is missing"},
        backups=[TWO[0], damaged(TWO[1]), *TWO[2:]],
    ),
    "a manifest that cannot be read": Row(
        [1, 2],
        held={3: f"{ID[3]} is damaged: it is not JSON"},
        backups=[*TWO[:2], illegible(TWO[2])],
    ),
    "the full is gone here": Row(
        [3],
        held={2: f"the chain of {ID[2]} is broken at {ID[1]}: it is missing"},
        backups=[TWO[1], backup(3)],
        shipped=ago(HOUR, 1),
    ),
    "damaged here, intact there": Row([], backups=[TWO[0], damaged(TWO[1])], shipped=ago(HOUR, 1, 2)),
    "what was skipped stays skipped": Row(
        [4, 5, 6],
        skip=skipped("superseded: as I said", 2, 3),
        shipped=ago(HOUR, 1),
        skipped=skipped("superseded: as I said", 2, 3),
    ),
    "a delta upon what was skipped": Row(
        [],
        skip={2: "superseded: as I said", 3: CUT_OFF},
        wanted=CUT_OFF,
        backups=ONE,
        shipped=ago(HOUR, 1),
        skipped={2: "superseded: as I said"},
    ),
    "a delta upon one that is there without its chain": Row(
        [],
        skip={2: "superseded: as I said", 4: CUT_OFF},
        wanted=CUT_OFF,
        backups=chain(1, 4),
        shipped=ago(HOUR, 1, 3),
        skipped={2: "superseded: as I said"},
    ),
    # the state was lost
    "unknown: the newest chain": Row(
        [4, 5, 6],
        skip=skipped(UNKNOWN, 1, 2, 3),
        facts={"known": False},
        reasons=(
            f"what the replica holds is not known: shipping begins with {ID[4]}",
            f"3 to ship, 12.0 MB, the oldest is {ID[4]}",
        ),
    ),
    "unknown: what is known of the rest is kept": Row(
        [4],
        skip={1: UNKNOWN, 2: "superseded: as I said"},
        held={3: f"{ID[3]} is damaged: it is not JSON"},
        backups=[*ONE[:2], illegible(ONE[2]), TWO[3]],
        skipped={2: "superseded: as I said"},
        facts={"known": False},
    ),
    "unknown: and goes on from there": Row(
        [5, 6, 7],
        skip=skipped(UNKNOWN, 1, 2, 3),
        facts={"known": False},
        shipped=ago(HOUR, 4),
        backups=[*TWO, backup(7)],
    ),
    "unknown, and the newest chain is broken": Row(
        [1, 2, 3],
        held={
            4: f"{ID[4]} is damaged: etcd.db.000.zst.age is missing",
            5: f"the chain of {ID[5]} is broken at {ID[4]}: etcd.db.000.zst.age is missing",
        },
        backups=[*ONE, damaged(TWO[3]), TWO[4]],
        facts={"known": False},
    ),
    "unknown, and none is intact": Row(
        [],
        held={2: f"the chain of {ID[2]} is broken at {ID[1]}: it is missing"},
        backups=[TWO[1]],
        facts={"known": False},
        reasons=(),
    ),
    # the link is slow
    "it just fits": Row([1, 2, 3, 4, 5, 6], backups=EXACT, facts={"throughput": 250.0}),
    "nothing was measured": Row([1, 2, 3, 4, 5, 6], facts={"throughput": None}),
    "a link that was down has no throughput": Row([1, 2, 3, 4, 5, 6], facts={"throughput": 0.0}),
    "it does not fit": Row(
        [4, 5, 6],
        skip=skipped(NEWEST_CHAIN, 1, 2, 3),
        backups=[*EXACT[:5], backup(6, EXACT[4], size=400_001)],
        facts={"throughput": 250.0},
        reasons=(
            f"21.6 MB wait, 21.6 MB can be sent in 24.0 h: only the chain of {ID[4]} is shipped",
            f"3 to ship, 10.8 MB, the oldest is {ID[4]}",
        ),
    ),
    "it fits into two days": Row([1, 2, 3, 4, 5, 6], facts=a_day(12 * MB), policy={"catch_up": 2 * DAY}),
    "what was sent of it counts": Row([1, 2, 3, 4, 5, 6], facts=a_day(20 * MB), partial={1: 4 * MB}),
    "the newest chain does not fit either": Row([4, 5, 6], skip=skipped(NEWEST_CHAIN, 1, 2, 3), facts=a_day(MB)),
    "its full is there": Row([5, 6], shipped=ago(HOUR, 1, 2, 3, 4), facts=a_day(MB)),
    "the newest chain is half as large again as its full": Row(
        [4, 5, 6], skip=skipped(NEWEST_CHAIN, 1, 2, 3), backups=[*ONE, *chain(4, 6, delta=5 * MB // 2)], facts=a_day(MB)
    ),
    "the newest chain is larger": Row(
        [],
        skip=skipped(LARGE.format("15.2"), 4, 5, 6),
        wanted=LARGE.format("15.2"),
        backups=[*ONE, *chain(4, 6, delta=13 * MB // 5)],
        shipped=ago(HOUR, 1, 2, 3),
        facts=a_day(MB),
        reasons=(
            "15.2 MB wait, 1.0 MB can be sent in 24.0 h: the newest chain alone is 15.2 MB, a fresh full 10.0 MB",
        ),
    ),
    "its deltas alone are larger": Row(
        [],
        skip=skipped(LARGE.format("16.0"), 5, 6),
        wanted=LARGE.format("16.0"),
        backups=[*ONE, *chain(4, 6, delta=8 * MB)],
        shipped=ago(HOUR, 1, 2, 3, 4),
        facts=a_day(MB),
    ),
    "after the new full": Row(
        [7],
        skip=skipped(LARGE.format("16.0"), 5, 6),
        backups=[*TWO, backup(7)],
        shipped=ago(HOUR, 1, 2, 3, 4),
        skipped=skipped(LARGE.format("16.0"), 5, 6),
        facts=a_day(MB),
    ),
    # what was begun
    "a full that was begun": Row([1, 4, 5, 6], skip=skipped(NEWEST_CHAIN, 2, 3), partial={1: 1}, facts=a_day(MB)),
    "a delta that was nearly there": Row(
        [2, 4, 5, 6],
        skip=skipped(NEWEST_CHAIN, 3),
        shipped=ago(HOUR, 1),
        partial={2: MB // 2},
        facts=a_day(MB),
    ),
    "a delta that was hardly begun": Row(
        [4, 5, 6],
        skip=skipped(NEWEST_CHAIN, 2, 3),
        shipped=ago(HOUR, 1),
        partial={2: MB // 2 - 1},
        facts=a_day(MB),
    ),
    "a delta that was nearly there, but not its chain": Row(
        [4, 5, 6],
        skip={1: NEWEST_CHAIN, 2: CUT_OFF, 3: NEWEST_CHAIN},
        partial={2: MB - 1},
        facts=a_day(MB),
    ),
    "a full that was begun, before a new one": Row(
        [4],
        skip=skipped(LARGE.format("16.0"), 5, 6),
        backups=[*ONE, *chain(4, 6, delta=5 * MB)],
        shipped=ago(HOUR, 1, 2, 3),
        partial={4: 4 * MB},
        facts=a_day(MB),
    ),
    # nothing is there
    "a replica without a full gets the newest": Row(
        [4],
        skip=skipped(LARGE.format("20.0"), 1, 2, 3, 5, 6),
        backups=[*ONE, *chain(4, 6, delta=5 * MB)],
        facts=a_day(MB),
        reasons=(
            "32.0 MB wait, 1.0 MB can be sent in 24.0 h: the newest chain alone is 20.0 MB, a fresh full 10.0 MB",
            f"1 to ship, 10.0 MB, the oldest is {ID[4]}",
            NOT_SHIPPED.format(ID[6], f"{LARGE.format('20.0')}; a new full is wanted once {ID[4]} is there"),
        ),
    ),
    "even if it was skipped": Row(
        [4], skip={1: "no", 2: "no", 3: "no", 5: "no", 6: "no"}, skipped=skipped("no", *range(1, 7)), facts=a_day(MB)
    ),
    "and is not sent again where one is": Row(
        [],
        skip=skipped("no", 2, 3, 4, 5, 6),
        wanted="no",
        shipped=ago(HOUR, 1),
        skipped=skipped("no", 2, 3, 4, 5, 6),
        policy=KEPT,
    ),
    "all that was there has expired": Row(
        [4],
        skip=skipped("no", 2, 3, 5, 6),
        shipped=ago(90 * DAY + HOUR, 1),
        skipped=skipped("no", 2, 3, 4, 5, 6),
        policy=KEPT,
    ),
    "the deltas that are left there have lost their full": Row(
        [4],
        skip=skipped("no", 3, 5, 6),
        shipped=ago(90 * DAY + HOUR, 1) | ago(10 * DAY, 2),
        skipped=skipped("no", 3, 4, 5, 6),
        policy=KEPT,
    ),
    # lifecycle rules
    "the full is kept for long enough": Row([2, 3], backups=ONE, shipped=ago(59 * DAY, 1), policy=KEPT),
    "the full would expire first": Row(
        [],
        held=skipped(TOO_OLD.format("1417.0"), 2, 3),
        wanted=TOO_OLD.format("1417.0"),
        backups=ONE,
        shipped=ago(59 * DAY + HOUR, 1),
        policy=KEPT,
    ),
    "the full would expire first, and there is a newer one": Row(
        [4, 5, 6],
        held=skipped(TOO_OLD.format("1417.0"), 2, 3),
        shipped=ago(59 * DAY + HOUR, 1),
        policy=KEPT,
    ),
    "a full that goes now is new": Row([1, 2, 3, 4, 5, 6], policy=KEPT),
    "the chain's deltas are still there": Row([3], backups=ONE, shipped=ago(30 * DAY, 1, 2), policy=KEPT),
    "the chain's deltas have expired": Row(
        [],
        held={3: f"its chain has expired since {ID[2]} was shipped 721.0 h ago"},
        wanted=f"its chain has expired since {ID[2]} was shipped 721.0 h ago",
        backups=ONE,
        shipped=ago(30 * DAY + HOUR, 1, 2),
        policy=KEPT,
    ),
    "fulls are kept, deltas as long as they are": Row(
        [2, 3], backups=ONE, shipped=ago(89 * DAY, 1), policy={"full_lifetime": 90 * DAY}
    ),
    "no delta could be built upon": Row(
        [1],
        held=skipped(TOO_OLD.format("0.0"), 2, 3),
        backups=ONE,
        policy={"full_lifetime": 30 * DAY, "delta_lifetime": 30 * DAY},
        reasons=(
            f"1 to ship, 10.0 MB, the oldest is {ID[1]}",
            NOT_SHIPPED.format(
                ID[3], f"{TOO_OLD.format('0.0')}; only rules that keep fulls more than a day longer than deltas help"
            ),
        ),
    ),
    "no delta could be built upon, by whatever clock": Row(
        [],
        held=skipped(TOO_OLD.format("0.0"), 2, 3),
        backups=ONE,
        shipped=ago(-3650 * DAY, 1),
        policy={"full_lifetime": 30 * DAY, "delta_lifetime": 30 * DAY},
    ),
    "the clock was set back": Row([3], backups=ONE, shipped=ago(-3650 * DAY, 1, 2), policy=KEPT),
}


def ids(by_sequence: Mapping[int, Any], backups: Sequence[Listed]) -> dict[BackupId, Any]:
    known = ID | {one.id.sequence: one.id for one in backups}
    return {known[sequence]: value for sequence, value in by_sequence.items()}


@pytest.mark.parametrize("name", TABLE)
def test_the_plan(name: str) -> None:
    """What is known decides what goes, what never will and what cannot, always in the same words."""
    row = TABLE[name]
    facts = ReplicaFacts(
        shipped={one: NOW - span for one, span in ids(row.shipped, row.backups).items()},
        skipped=ids(row.skipped, row.backups),
        partial=ids(row.partial, row.backups),
        **row.facts,
    )
    plan = plan_shipping(row.backups, facts, ShippingPolicy(**row.policy), NOW)
    assert [one.id.sequence for one in plan.ship] == row.ship
    assert plan.skip == ids(row.skip, row.backups)
    assert plan.held == ids(row.held, row.backups)
    newest = max((one.id for one in row.backups), default=None)
    assert plan.full_wanted == (row.wanted and NOT_SHIPPED.format(newest, row.wanted))
    if row.reasons is not None:
        assert plan.reasons == row.reasons


TOKYO = timezone(9 * HOUR)
EVENING = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "policy", "bytes_that_fit"),
    [
        ({"budget": 20 * MB}, {}, 40 * MB),
        ({"budget": 20 * MB, "spent": 5 * MB}, {}, 35 * MB),
        ({"budget": 20 * MB, "spent": 25 * MB}, {}, 20 * MB),
        ({"budget": 20 * MB}, {"catch_up": 6 * HOUR}, 20 * MB),
        ({"budget": 20 * MB, "spent": 5 * MB}, {"catch_up": HOUR}, 15 * MB),
        ({"budget": 20 * MB}, {"catch_up": 3 * DAY}, 80 * MB),
        ({"budget": 20 * MB, "throughput": 200.0}, {}, 200 * 86400),
        ({"budget": 20 * MB, "throughput": 500.0}, {}, 500 * 6 * 3600 + 20 * MB),
        ({"budget": 20 * MB, "spent": 19 * MB, "throughput": 500.0}, {}, 21 * MB),
        ({"budget": 20 * MB, "throughput": 500.0}, {"catch_up": HOUR}, 500 * 3600),
        ({"budget": 20 * MB, "throughput": 0.0}, {}, 40 * MB),
        ({"throughput": 500.0}, {"catch_up": 3 * DAY}, 500 * 3 * 86400),
        ({"throughput": 500.0}, {"catch_up": timedelta(0)}, 0),
    ],
)
def test_what_fits(facts: dict[str, Any], policy: dict[str, Any], bytes_that_fit: int) -> None:
    """The link's hours count, and the budget of each day (UTC) within ``catch_up``, today's less what is spent."""
    known = ReplicaFacts(**facts)
    for now in (EVENING, EVENING.astimezone(TOKYO)):
        for more, goes in ((0, [1, 2]), (1, [2])):
            two = [backup(1, size=bytes_that_fit + more), backup(2, size=0)]
            plan = plan_shipping(two, known, ShippingPolicy(**policy), now)
            assert [one.id.sequence for one in plan.ship] == goes


@dataclass(frozen=True)
class World:
    """Any backups, as many damaged as not, and whatever a state file may say of a replica."""

    backups: list[Listed]
    facts: ReplicaFacts
    policy: ShippingPolicy

    def plan(self) -> Backlog:
        return plan_shipping(self.backups, self.facts, self.policy, NOW)


@st.composite
def repositories(draw: st.DrawFn) -> list[Listed]:
    """Any backups in any order, of a few bytes: chains and forks, some of them damaged or gone."""
    made: list[Listed] = []
    for sequence in range(1, draw(st.integers(0, 10)) + 1):
        parent = draw(st.sampled_from([None, *made[-2:], *made[-1:] * 4]))
        made.append(backup(sequence, parent, size=draw(st.integers(0, 9))))
    fates = st.sampled_from([*[lambda one: one] * 8, damaged, illegible, lambda _: None])
    return draw(st.permutations([left for one in made if (left := draw(fates)(one)) is not None]))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Small numbers all over, so that every limit is met."""
    backups = draw(repositories())
    some = st.sets(st.sampled_from([backup(sequence).id for sequence in range(1, 11)]))
    lifetimes = st.none() | st.integers(1, 40).map(timedelta)
    facts = ReplicaFacts(
        shipped={one: NOW - draw(st.integers(-40, 40)) * DAY for one in draw(some)},
        skipped=dict.fromkeys(draw(some), "as before") if draw(st.booleans()) else {},
        known=draw(st.booleans()),
        throughput=draw(st.none() | st.integers(0, 30).map(lambda size: size / 86400)),
        budget=draw(st.none() | st.integers(0, 20)),
        spent=draw(st.integers(0, 9)),
        partial={one: draw(st.integers(0, 12)) for one in draw(some)},
    )
    policy = ShippingPolicy(full_lifetime=draw(lifetimes), delta_lifetime=draw(lifetimes))
    return World(backups, facts, policy)


def parents(backups: Sequence[Listed]) -> dict[BackupId, BackupId | None]:
    return {one.id: one.manifest.parent for one in backups if one.manifest is not None}


@given(worlds())
def test_a_delta_goes_after_its_whole_chain(world: World) -> None:
    """Nothing damaged goes, the oldest goes first, and no delta whose chain is not there or goes before it."""
    plan = world.plan()
    assert list(plan.ship) == sorted(plan.ship, key=lambda one: one.id)
    assert all(one.manifest is not None and not one.damage for one in plan.ship)
    above = parents(world.backups)
    gone = set(world.facts.shipped)
    for one in plan.ship:
        gone.add(one.id)
        link: BackupId | None = one.id
        while link is not None:
            assert link in gone
            link = above[link]


@given(worlds())
def test_every_backup_is_accounted_for(world: World) -> None:
    """Each backup is there already, goes, is skipped or is held: one of them, and with a reason."""
    plan = world.plan()
    parts = [[one.id for one in plan.ship], plan.skip, plan.held, world.facts.shipped.keys() & ids_of(world.backups)]
    together = [one for part in parts for one in part]
    assert sorted(together) == sorted(ids_of(world.backups))
    assert all([*plan.skip.values(), *plan.held.values()])
    sizes = {one.id: one.size for one in plan.ship}
    assert plan.waiting_bytes == sum(max(0, size - world.facts.partial.get(one, 0)) for one, size in sizes.items())


@given(worlds())
def test_a_plan_that_is_remembered_stays(world: World) -> None:
    """Asked again with what was skipped remembered, nothing else comes out: no backup is sent after all."""
    plan = world.plan()
    again = replace(world, facts=replace(world.facts, skipped={**world.facts.skipped, **plan.skip})).plan()
    assert (again.ship, again.skip, again.held) == (plan.ship, plan.skip, plan.held)
    assert (again.full_wanted, again.waiting_bytes) == (plan.full_wanted, plan.waiting_bytes)


@given(worlds())
def test_nothing_is_skipped_of_what_fits(world: World) -> None:
    """Without a limit only what was skipped before is, and what depends on it."""
    endless = replace(world.facts, throughput=None, budget=None, known=True)
    plan = plan_shipping(world.backups, endless, world.policy, NOW)
    assert all(one in endless.skipped or why == CUT_OFF for one, why in plan.skip.items())


@given(worlds())
def test_the_newest_gets_there_or_a_full_is_wanted(world: World) -> None:
    """No plan leaves the replica behind for good: the newest intact backup goes, or a full does or is to be made."""
    world = replace(world, policy=ShippingPolicy())
    plan = world.plan()
    intact, _ = standing(world.backups)
    if intact and max(intact) not in {*world.facts.shipped, *ids_of(plan.ship)}:
        assert plan.full_wanted is not None or any(one.place.kind == "full" for one in plan.ship)


@given(worlds())
def test_an_empty_replica_gets_a_full(world: World) -> None:
    """However slow the link: where nothing was shipped and a full is intact, the newest such goes."""
    plan = replace(world, facts=replace(world.facts, shipped={})).plan()
    intact = [one.id for one in world.backups if one.place.kind == "full" and one.manifest and not one.damage]
    assert not intact or max(intact) in ids_of(plan.ship)


def ids_of(backups: Sequence[Listed]) -> list[BackupId]:
    return [one.id for one in backups]


@dataclass
class Site:
    """A node that makes a backup every quarter of an hour, and a link that sends ``speed`` bytes in that time."""

    speed: int
    delta: int
    made: list[Listed] = field(default_factory=list)
    shipped: dict[BackupId, datetime] = field(default_factory=dict)
    skipped: dict[BackupId, str] = field(default_factory=dict)
    partial: dict[BackupId, int] = field(default_factory=dict)
    wanted: str | None = None
    fulls: int = 0
    order: list[int] = field(default_factory=list)

    def pass_by(self, quarters: int, *, online: bool = True) -> None:
        for _ in range(quarters):
            self.capture()
            if online:
                self.ship()

    def capture(self) -> None:
        sequence = len(self.made) + 1
        due = self.wanted is not None or not self.made or sequence - self.newest_full >= 96
        self.fulls += due
        self.made.append(backup(sequence, None if due else self.made[-1], size=10 * MB if due else self.delta))

    @property
    def newest_full(self) -> int:
        return next(one.id.sequence for one in reversed(self.made) if one.place.kind == "full")

    @property
    def lag(self) -> int:
        """How many quarters of an hour the newest backup at the replica is behind."""
        return len(self.made) - max((one.sequence for one in self.shipped), default=0)

    def ship(self) -> None:
        now = NOW + len(self.made) * timedelta(minutes=15)
        facts = ReplicaFacts(self.shipped, self.skipped, throughput=self.speed / 900, partial=self.partial)
        plan = plan_shipping(self.made, facts, ShippingPolicy(), now)
        self.skipped.update(plan.skip)
        self.wanted = plan.full_wanted
        link = self.speed
        for one in plan.ship:
            size = one.size
            sent = min(link, size - self.partial.get(one.id, 0))
            link -= sent
            self.partial[one.id] = self.partial.get(one.id, 0) + sent
            if self.partial[one.id] < size:
                break
            self.shipped[one.id] = now
            self.order.append(one.id.sequence)


@pytest.mark.parametrize(
    ("speed", "lag", "fulls"),
    [
        (10 * MB, 0, 8),
        (400_000, 30, 8),
        (90_000, 250, 12),
        (40_000, 600, 12),
    ],
)
def test_the_slowest_link_makes_progress(speed: int, lag: int, fulls: int) -> None:
    """A link slower than the deltas, or than a full a day, still brings whole backups, without a burst of fulls."""
    site = Site(speed, delta=200_000)
    worst = 0
    site.pass_by(96)
    for _ in range(7 * 96):
        site.pass_by(1)
        worst = max(worst, site.lag)
    assert site.order == sorted(site.order)
    assert worst <= lag
    assert site.fulls <= fulls


def test_thirty_days_offline() -> None:
    """A month's backlog is not sent on a slow link: its newest chain is, in order, without a burst of fulls."""
    site = Site(speed=450_000, delta=50_000)  # 4 kbit/s: 43 MB a day, where 15 MB are made
    site.pass_by(96)
    assert site.lag == 0
    before = set(site.shipped)
    site.pass_by(30 * 96 - 48, online=False)
    site.pass_by(96)
    assert site.lag == 0
    assert site.fulls == 1 + 30 + 1
    assert site.order == sorted(site.order)
    anew = min(site.shipped.keys() - before)
    assert anew.sequence == 1 + 30 * 96
    assert site.skipped.keys() == {one.id for one in site.made[96:] if one.id < anew}
    assert set(site.skipped.values()) == {f"superseded: only the chain of {anew} is shipped"}
