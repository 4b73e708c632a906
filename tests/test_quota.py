"""What the local repository lets go of: a table of backups and a quota, what goes, in which order, and why."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.model import BackupId, Class
from edgedr.repository.chains import standing
from edgedr.repository.quota import let_go
from edgedr.repository.repository import Listed
from tests.test_backlog import ID, MB, ONE, TWO, backup, chain, damaged, illegible, repositories

THREE = [*TWO, *chain(7, 9)]
"""Three chains of 12 MB each."""
GONE = "etcd.db.000.zst.age is missing"


@dataclass(frozen=True)
class Row:
    """The backups and a quota in MB, and the sequences that go, in their order."""

    quota: float
    discard: Sequence[int]
    over: float = 0
    unshipped: Sequence[int] = ()
    wanted: str | None = None
    backups: Sequence[Listed] = tuple(THREE)
    shipped: Sequence[int] = tuple(range(1, 12))


TABLE: dict[str, Row] = {
    "there is none": Row(0, [], backups=()),
    "there is room": Row(36, []),
    "the oldest chain": Row(35.9, [3, 2, 1]),
    "a whole chain, and not more": Row(24, [3, 2, 1]),
    "two chains": Row(23.9, [3, 2, 1, 6, 5, 4]),
    "listed in another order": Row(23.9, [3, 2, 1, 6, 5, 4], backups=THREE[::-1]),
    "only the newest chain": Row(12, [3, 2, 1, 6, 5, 4]),
    "what was not shipped goes all the same": Row(13, [3, 2, 1, 6, 5, 4], unshipped=[3, 4], shipped=[1, 2, 5, 6]),
    # the newest chain
    "the newest chain is too large": Row(
        11, [3, 2, 1, 6, 5, 4], over=1, wanted="the newest chain alone is 12.0 MB, the quota 11.0 MB"
    ),
    "its full just fits": Row(
        10, [3, 2, 1, 6, 5, 4], over=2, wanted="the newest chain alone is 12.0 MB, the quota 10.0 MB"
    ),
    "its full is too large, as a new one would be": Row(9.9, [3, 2, 1, 6, 5, 4], over=2.1),
    "the newest is a full": Row(9, [3, 2, 1], over=1, backups=[*ONE, backup(4)]),
    # damaged ones
    "damaged, and there is room": Row(36, [], backups=[*ONE, damaged(TWO[3]), *THREE[4:]]),
    "damaged ones first, each after what depends on it": Row(
        35.9, [6, 5, 4], backups=[*ONE, damaged(TWO[3]), *THREE[4:]]
    ),
    "a damaged delta first, and what depends on it": Row(35, [6, 5], backups=[*TWO[:4], damaged(TWO[4]), *THREE[5:]]),
    "then the oldest chain": Row(22.9, [6, 5, 3, 2, 1], backups=[*TWO[:4], damaged(TWO[4]), *THREE[5:]]),
    "the oldest damaged first": Row(
        34.9, [3, 2], backups=[ONE[0], damaged(ONE[1]), ONE[2], TWO[3], damaged(TWO[4]), *THREE[5:]]
    ),
    "damaged and newer than all that is intact": Row(34, [3, 2, 1], backups=[*THREE[:7], damaged(THREE[7]), THREE[8]]),
    "it goes when only the newest intact chain is left": Row(
        11, [3, 2, 1, 6, 5, 4, 9, 8], backups=[*THREE[:7], damaged(THREE[7]), THREE[8]]
    ),
    "a newest chain whose full is damaged": Row(15, [3, 2, 1, 9, 8, 7], backups=[*TWO, damaged(THREE[6]), *THREE[7:]]),
    "a newest that cannot be read": Row(15, [3, 2, 1, 6, 5, 4], backups=[*THREE, illegible(backup(10, size=3 * MB))]),
    "and there is no room for it": Row(
        14.9, [3, 2, 1, 6, 5, 4, 10], backups=[*THREE, illegible(backup(10, size=3 * MB))]
    ),
    "none is intact": Row(
        1,
        [],
        over=11,
        wanted="none of the backups here is intact, so that none is let go of",
        backups=[damaged(ONE[0]), *ONE[1:]],
    ),
    # other shapes
    "a copy where it does not belong": Row(
        24, [1], backups=[replace(illegible(ONE[0]), place=replace(ONE[0].place, kind=Class.DELTA)), *TWO], shipped=[]
    ),
    "two deltas upon one": Row(11, [3], backups=[*ONE, backup(4, ONE[1], size=0)]),
    "a damaged delta of an old chain, newer than all that is intact": Row(
        10, [11, 3, 2, 1], backups=[*ONE, backup(4), damaged(backup(11, ONE[2]))]
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_what_goes(name: str) -> None:
    """The oldest goes first and the newest intact chain never; what is damaged before what is not, if it is older."""
    row = TABLE[name]
    known = ID | {one.id.sequence: one.id for one in row.backups}
    found = let_go(row.backups, round(row.quota * MB), shipped={known[one] for one in row.shipped if one in known})
    assert [one.id.sequence for one in found.discard] == row.discard
    assert found.over == round(row.over * MB)
    assert found.full_wanted == row.wanted
    assert [one.sequence for one in found.unshipped] == list(row.unshipped)
    assert found.reasons.keys() == {one.place for one in found.discard}


def test_why() -> None:
    """Each that goes has its reason: the quota, or its damage; and a copy that it is one."""
    copy = replace(illegible(ONE[0]), place=replace(ONE[0].place, kind=Class.DELTA))
    backups = [copy, *TWO[:4], damaged(TWO[4]), *THREE[5:]]
    assert let_go(backups, 15 * MB, shipped=()).reasons == {
        copy.place: "another of its id stands where it belongs",
        TWO[5].place: f"the chain of {ID[6]} is broken at {ID[5]}: {GONE}, and nothing intact depends on it",
        TWO[4].place: f"{ID[5]} is damaged: {GONE}, and nothing intact depends on it",
        **dict.fromkeys(
            (one.place for one in TWO[:4]),
            "the quota of 15.0 MB is exceeded, and nothing newer that is kept depends on it",
        ),
    }


@given(repositories(), st.integers(0, 60), st.data())
def test_nothing_that_is_kept_depends_on_what_goes(backups: list[Listed], quota: int, data: st.DataObject) -> None:
    """Wherever the work is interrupted, no backup has lost its parent, and the newest intact one its chain."""
    found = let_go(backups, quota, shipped=())
    intact, _ = standing(backups)
    gone = found.discard[: data.draw(st.integers(0, len(found.discard)))]
    assert len({one.place for one in gone}) == len(gone)
    left = [one for one in backups if one not in gone]
    lost = {one.id for one in gone}
    assert all(one.manifest is None or one.manifest.parent not in lost for one in left)
    if intact:
        assert max(intact) in standing(left)[0]


@given(repositories(), st.integers(0, 60))
def test_the_quota_holds_unless_only_the_newest_chain_is_left(backups: list[Listed], quota: int) -> None:
    """Nothing goes while there is room, and where there is none all but the newest intact chain does."""
    found = let_go(backups, quota, shipped=())
    left = [one for one in backups if one not in found.discard]
    total = sum(one.size for one in left)
    assert found.over == max(0, total - quota)
    intact, _ = standing(backups)
    if found.over and intact:
        assert {one.id for one in left} == {link.id for link in intact[max(intact)]}
    if found.discard:
        assert sum(one.size for one in backups) > quota


@given(repositories(), st.integers(0, 60), st.integers(0, 60))
def test_a_smaller_quota_goes_further_the_same_way(backups: list[Listed], one: int, other: int) -> None:
    """What a smaller quota lets go of begins with what a larger one does; asked again, nothing more goes."""
    smaller, larger = (let_go(backups, quota, shipped=()) for quota in sorted((one, other)))
    assert smaller.discard[: len(larger.discard)] == larger.discard
    left = [each for each in backups if each not in larger.discard]
    again = let_go(left, max(one, other), shipped=())
    assert again.discard == ()
    assert again.over == larger.over


def test_thirty_days_offline() -> None:
    """A month without a link, every quarter of an hour: the quota holds at each moment, and the newest is kept."""
    kept: list[Listed] = []
    lost: list[BackupId] = []
    wanted = 0
    for sequence in range(1, 30 * 96 + 1):
        newest = backup(sequence, kept[-1], size=50_000) if sequence % 96 != 1 else backup(sequence)
        kept.append(newest)
        found = let_go(kept, 50 * MB, shipped=())
        lost += found.unshipped
        kept = [one for one in kept if one not in found.discard]
        assert sum(one.size for one in kept) <= 50 * MB
        assert newest in kept
        assert standing(kept)[1] == {}
        wanted += found.full_wanted is not None
    assert lost == sorted(lost)
    assert len(lost) + len(kept) == 30 * 96
    assert [one.place.kind for one in kept].count(Class.FULL) >= 3
    assert wanted == 0
