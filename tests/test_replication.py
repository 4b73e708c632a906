"""Bringing a replica up to date: oldest first, nothing twice, and whatever stops it, the next run goes on."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr.errors import ConfigurationError, Damaged, EdgedrError, ObjectExists, Refused, Unreachable
from edgedr.model import BackupId
from edgedr.replicas import ReplicaSettings
from edgedr.repository.names import MANIFEST, RECIPE
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import BLOB, SEGMENT, Lab, bytes_of
from tests.lab.places import BUCKET, CONTENTS, DISK, NOW, Blind, Dying, Place, know, memory_of, ship, there

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

pytestmark = pytest.mark.usefixtures("no_fsync")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A node with two chains in memory: backups 1 and 2, and 3 to 5."""
    lab = Lab(tmp_path, storage=MemoryStorage())
    for sequence, data in CONTENTS.items():
        lab.back_up(data, full=sequence == 3)
    return lab


def sequences(ids: Collection[BackupId]) -> list[int]:
    return [backup.sequence for backup in ids]


@pytest.mark.parametrize("replica", [DISK, BUCKET])
def test_all_is_shipped_oldest_first_and_once(lab: Lab, replica: ReplicaSettings) -> None:
    """Each backup after the ones that it needs; once it is there, nobody asks for it again."""
    place = Place()
    outcome = ship(lab, place, replica)
    assert sequences(outcome.shipped) == place.committed == there(lab, place) == [1, 2, 3, 4, 5]
    assert (outcome.trouble, outcome.note, outcome.complete, outcome.reasons) == (None, None, True, ())
    assert outcome.sent_bytes == sum(backup.size for backup in lab.listed())
    assert RECIPE in place.objects
    assert max(Counter(place.put_names).values()) == 1
    place.put_names.clear()
    again = ship(lab, place, replica)
    assert (again.shipped, again.complete, place.put_names) == ((), True, [])
    lab.back_up(b"one more")
    assert sequences(ship(lab, place, replica).shipped) == [6]
    assert max(Counter(place.put_names).values()) == 1


def test_what_is_measured(lab: Lab) -> None:
    """Of a bucket, how fast the link is and how far the clocks are apart; a disk has no link."""
    lab.back_up(bytes_of(7, 2 * SEGMENT))
    far, usb = Place(), Place()
    far.clock_offset = 1.5  # type: ignore[assignment]
    record = ship(lab, far, BUCKET).record
    assert record.clock_offset_ms == 1500
    assert (record.throughput or 0) > 0
    record = ship(lab, usb, DISK).record
    assert (record.clock_offset_ms, record.throughput) == (None, None)


@pytest.mark.parametrize(
    ("kind", "replica", "at_once"), [(Place, DISK, 1), (Place, BUCKET, 1), (Blind, BUCKET, 1), (Blind, BUCKET, 3)]
)
def test_whatever_call_fails_the_next_run_goes_on(
    lab: Lab, kind: type[Place], replica: ReplicaSettings, at_once: int
) -> None:
    """At any call, done or not done: nothing half is listed there, and the next run sends only what is not known."""
    for at in range(1, 1000):
        place, named = kind(), replace(replica, name=f"r{at}", at_once=at_once)
        know(lab, named)
        place.fails_at = at
        outcome = ship(lab, place, named)
        if outcome.trouble is None:
            break
        assert isinstance(outcome.trouble, Unreachable)
        assert there(lab, place) == list(range(1, 1 + len(there(lab, place))))
        assert (outcome.record.failures, outcome.record.refused) == (1, False)
        assert outcome.record.is_waiting(NOW + timedelta(seconds=29))
        assert not outcome.record.is_waiting(NOW + timedelta(minutes=1))
        outcome = ship(lab, place, named)
        assert outcome.complete
        assert outcome.record.failures == 0
        assert there(lab, place) == [1, 2, 3, 4, 5]
        assert max(Counter(place.put_names).values()) <= 2
        if replica.is_bucket:  # on a disk what is there is looked at, and not written once more
            assert len([name for name, count in Counter(place.put_names).items() if count == 2]) <= at_once + 1
    assert at > 40


# -- memory


def test_without_memory_what_can_be_seen_is_not_sent_again(lab: Lab) -> None:
    """Where looking is allowed, a lost record costs a list, and no byte."""
    place = Place()
    ship(lab, place, BUCKET)
    (lab.path / "state/replicas/far.json").write_bytes(b"torn")
    del place.objects[next(name for name in place.objects if "-00000005-" in name and name.endswith(f"/{MANIFEST}"))]
    place.put_names.clear()
    assert sequences(ship(lab, place, BUCKET).shipped) == place.committed == [5]


def test_blind_and_without_memory_the_newest_chain_goes(lab: Lab) -> None:
    """What an older chain is to the place is not known: it is given up for it, and said."""
    place = Blind()
    outcome = ship(lab, place, BUCKET)
    assert sequences(outcome.shipped) == there(lab, place) == [3, 4, 5]
    assert any("what the replica holds is not known" in reason for reason in outcome.reasons)
    assert [outcome.record.has(backup) for backup in lab.ids()] == [False, False, True, True, True]
    lab.back_up(b"one more")
    assert sequences(ship(lab, place, BUCKET).shipped) == [6]
    place.put_names.clear()
    assert (ship(lab, place, BUCKET).complete, place.put_names) == (True, [])


def test_blind_and_without_memory_what_was_sent_is_taken_for_ours(lab: Lab) -> None:
    """The newest chain may be there, whole or in part, and wherever the run that finds out is interrupted."""
    for at in range(1, 1000):
        place = Blind()
        know(lab, BUCKET)
        assert ship(lab, place, BUCKET).complete
        before = dict(place.objects)
        (lab.path / "state/replicas/far.json").unlink()
        place.put_names.clear()
        place.fails_at = at
        interrupted = ship(lab, place, BUCKET).trouble
        place.fails_at = 0
        outcome = ship(lab, place, BUCKET)
        assert outcome.complete
        assert outcome.sent_bytes == 0
        assert place.objects == before
        assert set(place.committed) == {3, 4, 5}
        if interrupted is None:
            break
        assert isinstance(interrupted, Unreachable)
    assert at >= 15


def test_what_is_made_after_memory_was_lost_is_nobody_elses(lab: Lab) -> None:
    """Of a backup that is newer, another's object is not taken for ours."""
    place = Blind()
    ship(lab, place, BUCKET)
    made = lab.back_up(b"one more").manifest.id
    place.objects[lab.get(made).place.object(f"{BLOB}.000.zst.age")] = b"somebody else's"
    outcome = ship(lab, place, BUCKET)
    assert isinstance(outcome.trouble, ObjectExists)
    assert not outcome.record.has(made)
    outcome = ship(lab, place, BUCKET)  # nor later, when we have sent something of that name ourselves
    assert (outcome.trouble, outcome.shipped) == (None, ())
    assert "something else has a name of its" in (outcome.record.why_not(made) or "")
    assert outcome.record.full_wanted
    full = lab.back_up(b"a full", full=True).manifest.id
    assert ship(lab, place, BUCKET).shipped == (full,)


def test_another_disk_has_nothing_of_what_the_first_one_got(lab: Lab) -> None:
    """A disk that is swapped while a backup is on its way to it gets every object of it."""
    first, second = Place(), Place()
    first.fails_at = 8
    assert ship(lab, first, DISK).trouble
    ship(lab, second, DISK)
    assert there(lab, second) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", [Place, Blind])
def test_a_place_that_refuses_everything_is_not_taken_for_a_blind_one(lab: Lab, kind: type[Place]) -> None:
    """With a wrong key from the first day on, nothing is given up: it goes on as if it began once the key is right."""
    place = kind()
    place.closed = Refused("cannot put: SignatureDoesNotMatch")
    outcome = ship(lab, place, BUCKET)
    assert isinstance(outcome.trouble, Refused)
    assert (outcome.record.known, outcome.record.gaps) == (False, ())
    place.closed = None
    ship(lab, place, BUCKET)
    assert there(lab, place) == ([1, 2, 3, 4, 5] if kind is Place else [3, 4, 5])


@pytest.mark.parametrize("other", ["where", "endpoint"])
def test_another_place_under_the_same_name_is_not_known(lab: Lab, other: str) -> None:
    """Nothing is taken to be in a new bucket, or in one of that name at another server, because the old one has it."""
    replica = replace(BUCKET, endpoint="https://old.example")
    ship(lab, Place(), replica)
    place = Place("another" if other == "where" else "memory")
    ship(lab, place, replace(replica, endpoint="https://new.example") if other == "endpoint" else replica)
    assert there(lab, place) == [1, 2, 3, 4, 5]


def test_a_disk_that_was_swapped_gets_everything(lab: Lab) -> None:
    """An empty one in its place holds nothing, whatever is remembered, and however the first run to it ends."""
    place = Place()
    ship(lab, place)
    place.objects.clear()
    place.fails_at = 4
    outcome = ship(lab, place)
    assert outcome.trouble is not None
    assert not any(outcome.record.has(backup) for backup in lab.ids())
    assert sequences(ship(lab, place).shipped) == there(lab, place) == [1, 2, 3, 4, 5]


def test_what_was_removed_in_between_is_sent_again(lab: Lab) -> None:
    """A backup that is gone from a disk goes there once more, with nothing that is still there."""
    place = Place()
    ship(lab, place)
    for name in [name for name in place.objects if "-00000002-" in name]:
        del place.objects[name]
    place.put_names.clear()
    assert sequences(ship(lab, place).shipped) == place.committed == [2]
    assert ship(lab, place).record.last == lab.ids()[-1]


# -- trouble that somebody must mend


@pytest.mark.parametrize("error", [Refused("cannot put: ExpiredToken"), ConfigurationError("env:KEY is not set")])
def test_what_refuses_is_left_alone_for_an_hour_and_recovers_by_itself(lab: Lab, error: EdgedrError) -> None:
    """A bad credential, or none, is told once in the outcome; with a good one the next run is like any other."""
    place = Place()
    know(lab, BUCKET)
    place.closed = error
    for failures in (1, 2):
        outcome = ship(lab, place, BUCKET)
        record = outcome.record
        assert outcome.trouble is error
        assert (record.refused, record.failures, record.error, record.waiting) == (True, failures, error.message, 5)
        assert record.is_waiting(NOW + timedelta(minutes=29))
        assert not record.is_waiting(NOW + HOUR)
    place.closed = None
    outcome = ship(lab, place, BUCKET, now=NOW + HOUR)
    assert outcome.complete
    assert (outcome.record.refused, outcome.record.failures, outcome.record.error) == (False, 0, None)
    assert there(lab, place) == [1, 2, 3, 4, 5]


def test_replicas_are_independent(lab: Lab) -> None:
    """What one cannot get, another gets; each is remembered by itself."""
    far, usb = Place("far"), Place("usb")
    far.fails_at = 9
    assert ship(lab, far, BUCKET).trouble is not None
    assert ship(lab, usb, DISK).complete
    assert there(lab, usb) == [1, 2, 3, 4, 5]
    assert ship(lab, far, BUCKET).complete
    assert there(lab, far) == [1, 2, 3, 4, 5]
    lab.back_up(b"one more")
    assert sequences(ship(lab, usb, DISK).shipped) == sequences(ship(lab, far, BUCKET).shipped) == [6]


# -- the local repository is not what it was


@pytest.mark.parametrize("how", ["a bit", "a sector"])
@pytest.mark.parametrize(("hit", "shipped"), [(1, [3, 4, 5]), (2, [1, 3, 4, 5]), (4, [1, 2, 3])])
def test_damage_here_is_passed_over_with_what_depends_on_it(
    tmp_path: Path, lab: Lab, hit: int, shipped: list[int], how: str
) -> None:
    """It is named once, the rest goes on, nothing of it is listed there, and it is not tried for ever."""
    disk, backup = Dying(), lab.listed()[hit - 1]
    disk.objects = lab.storage.objects  # type: ignore[attr-defined]
    hurt = Lab(tmp_path, storage=disk)
    name = backup.place.object(f"{BLOB}.000.zst.age")
    if how == "a bit":
        disk.objects[name] = disk.objects[name][:-1] + bytes([disk.objects[name][-1] ^ 1])
    else:
        disk.bad = name
    place = Place()
    outcome = ship(hurt, place, BUCKET)
    assert isinstance(outcome.trouble, Damaged)
    assert str(backup.id) in outcome.trouble.message
    assert outcome.damaged == (str(backup.id),)
    assert sequences(outcome.shipped) == there(hurt, place) == shipped
    assert [outcome.record.has(one) for one in lab.ids()] == [number in shipped for number in range(1, 6)]
    place.put_names.clear()
    again = ship(hurt, place, BUCKET, damaged=outcome.damaged)
    assert (again.trouble, again.shipped, again.damaged) == (None, (), ())
    assert place.committed == []


def test_what_was_given_up_stays_so_when_damage_is_passed_over(lab: Lab) -> None:
    """Going on behind damage makes nothing of what is not there look shipped."""
    place, damaged = Blind(), [str(lab.ids()[3])]
    assert sequences(ship(lab, place, BUCKET, damaged=damaged).shipped) == [3]
    lab.back_up(b"one more", full=True)
    outcome = ship(lab, place, BUCKET, damaged=damaged)
    assert sequences(outcome.shipped) == [6]
    assert [one.sequence for one in lab.ids() if outcome.record.has(one)] == [3, 6]


def test_damage_that_was_passed_over_stays_so_when_a_name_is_taken(lab: Lab) -> None:
    """Giving one backup up makes nothing of another that is not there look shipped."""
    know(lab, BUCKET)
    place = Blind()
    lab.back_up(b"one more", full=True)
    taken = lab.back_up(b"one more", full=True).manifest.id
    place.objects[lab.get(taken).place.object(MANIFEST)] = b"somebody else's"
    outcome = ship(lab, place, BUCKET, damaged=[str(lab.ids()[3])])
    assert isinstance(outcome.trouble, ObjectExists)
    assert [one.sequence for one in lab.ids() if outcome.record.has(one)] == [1, 2, 3, 6]


@pytest.mark.parametrize("hit", [2, 5])
def test_a_backup_that_vanishes_meanwhile(lab: Lab, hit: int) -> None:
    """What the quota lets go of while it is on its way is no damage; the rest goes on, and no half of it is listed."""
    backup, place = lab.listed()[hit - 1], Place()

    def let_go(name: str) -> None:
        if name.startswith(backup.place.prefix):
            lab.repository.discard(backup.place)

    place.after = let_go
    outcome = ship(lab, place, BUCKET)
    assert isinstance(outcome.trouble, Damaged)
    assert "was let go while it was shipped" in outcome.trouble.message
    assert outcome.damaged == ()
    left = [1, 3, 4, 5] if hit == 2 else [1, 2, 3, 4]
    assert sequences(outcome.shipped) == there(lab, place) == left
    assert (ship(lab, place, BUCKET).trouble, sequences(lab.ids())) == (None, left)


@pytest.mark.parametrize("trouble", [Unreachable("no such host"), Refused("cannot put: AccessDenied")])
def test_an_address_with_a_mistake_costs_nothing(lab: Lab, trouble: Exception) -> None:
    """What is remembered of a place is kept until the one that stands in its place was reached."""
    right, wrong = Blind("s3://right"), Blind("s3://rihgt")
    ship(lab, right, BUCKET)
    wrong.closed = trouble
    outcome = ship(lab, wrong, BUCKET)
    assert outcome.trouble is not None
    kept = memory_of(lab, BUCKET).load()
    assert kept is not None
    assert (kept.place, kept.failures) == ("s3://right", 1)
    made = lab.back_up(b"one more").manifest.id
    outcome = ship(lab, right, BUCKET)
    assert (outcome.shipped, outcome.record.failures) == ((made,), 0)
