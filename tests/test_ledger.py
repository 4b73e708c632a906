"""What is remembered of a replica, and what follows from it; and that only whole records are believed."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.errors import AlreadyRunning
from edgedr.model import BackupId
from edgedr.repository.backlog import ReplicaFacts
from edgedr.repository.ledger import Gap, ReplicaRecord
from edgedr.repository.repository import Listed
from edgedr.state import ReplicaMemory, StateDirectory
from tests.test_backlog import ID, TWO, backup
from tests.test_chains import NOW

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)
KNOWN = ReplicaRecord.blank("s3://bucket/edge", known=True)


def shipped(record: ReplicaRecord, *sequences: int, at: datetime = NOW) -> ReplicaRecord:
    for sequence in sequences:
        record = record.begin(ID[sequence]).shipped(ID[sequence], full=sequence in {1, 4}, at=at)
    return record


def passed(record: ReplicaRecord, *sequences: int, why: str = "no", listed: Sequence[Listed] = TWO) -> ReplicaRecord:
    return record.passing_over({ID[sequence]: why for sequence in sequences}, listed)


def had(record: ReplicaRecord) -> list[int]:
    return [sequence for sequence, one in ID.items() if record.has(one)]


# -- what was shipped, and what was not


def test_the_last_one_and_the_gaps_say_it_all() -> None:
    """What is before the last one was shipped, but for the gaps."""
    assert had(KNOWN) == []
    assert had(shipped(KNOWN, 1, 2)) == [1, 2]
    assert had(shipped(passed(KNOWN, 2, 3), 1, 4)) == [1, 4]
    assert had(passed(shipped(KNOWN, 1), 5, 6)) == [1]


def test_gaps_say_why() -> None:
    """Each backup that was passed over is known with its reason, the others without one."""
    record = KNOWN.passing_over({ID[2]: "superseded", ID[3]: "superseded", ID[5]: "unknown"}, TWO)
    assert record.gaps == (Gap(ID[2], ID[3], "superseded"), Gap(ID[5], ID[5], "unknown"))
    why = {sequence: record.why_not(one) for sequence, one in ID.items()}
    assert why == {1: None, 2: "superseded", 3: "superseded", 4: None, 5: "unknown", 6: None}


def test_gaps_are_as_few_as_can_be() -> None:
    """Neighbours of one reason are one gap; another reason, or one that goes between them, parts them."""
    assert passed(KNOWN, 2, 3, 4, 5).gaps == (Gap(ID[2], ID[5], "no"),)
    assert passed(passed(KNOWN, 2), 2, 3).gaps == (Gap(ID[2], ID[3], "no"),)
    assert [gap.reason for gap in KNOWN.passing_over({ID[2]: "a", ID[3]: "b", ID[4]: "b"}, TWO).gaps] == ["a", "b"]
    assert len(passed(KNOWN, 2, 4).gaps) == 2
    assert passed(KNOWN, 1, 3, listed=[TWO[0], TWO[2]]).gaps == (Gap(ID[1], ID[3], "no"),)  # 2 is no longer here


def test_what_is_no_longer_skipped_is_no_gap() -> None:
    """A full that was skipped may be all that is left to send: once it is there, it is known to be."""
    record = shipped(passed(KNOWN, 4, 5, 6), 1)
    record = shipped(passed(record, 5, 6), 4)
    assert had(record) == [1, 2, 3, 4]
    assert record.facts(TWO, None, None, NOW).skipped == {ID[5]: "no", ID[6]: "no"}


def test_an_old_full_that_goes_late_hides_nothing() -> None:
    """What went before it is there all the same."""
    record = passed(shipped(passed(KNOWN, 1, 2, 3), 4, 5), 2, 3)
    assert had(shipped(record, 1)) == [1, 4, 5]


def test_what_is_no_longer_here_is_forgotten() -> None:
    """A record does not grow with the years: gaps and fulls that the local repository let go of go too."""
    record = passed(shipped(passed(KNOWN, 2, 3), 1, 4), 2, 3)
    assert set(record.fulls) == {str(ID[1]), str(ID[4])}
    record = record.passing_over({}, TWO[3:])
    assert (record.gaps, set(record.fulls)) == ((), {str(ID[4])})
    assert record.last == ID[4]


def test_what_was_passed_over_is_known() -> None:
    """Once a plan was made without memory, what it gave up is what is known."""
    assert passed(replace(KNOWN, known=False), 1, 2, 3).known


class Counted(BackupId):
    """An id that counts how often it is compared or looked up."""

    asked = 0

    def __eq__(self, other: object) -> bool:
        Counted.asked += 1
        return super().__eq__(other)

    def __hash__(self) -> int:
        Counted.asked += 1
        return super().__hash__()


def test_a_month_without_a_link_is_remembered_in_a_moment() -> None:
    """The work grows with the number of backups, not with its square."""
    backups = []
    for one in (backup(sequence) for sequence in range(1, 2001)):
        counted = Counted(one.id.created, one.id.sequence, one.id.nonce)
        backups.append(replace(one, place=replace(one.place, id=counted)))
    Counted.asked = 0
    record = KNOWN.passing_over({one.id: "no" for one in backups[:1500]}, backups)
    record = replace(record, last=backups[-1].id)
    assert len(record.facts(backups, None, None, NOW).skipped) == 1500
    assert len(record.gaps) == 1
    assert Counted.asked < 20 * len(backups)


@given(
    skips=st.lists(st.dictionaries(st.integers(1, 6), st.sampled_from("ab")), max_size=3),
    last=st.none() | st.integers(1, 6),
)
def test_a_backup_is_shipped_or_it_is_not(skips: list[dict[int, str]], last: int | None) -> None:
    """Whatever was skipped when: the last plan's skips are the gaps, and nothing behind the last one is there."""
    record = KNOWN
    for skip in skips:
        record = record.passing_over({ID[sequence]: why for sequence, why in skip.items()}, TWO)
    record = replace(record, last=ID[last] if last else None)
    newest = skips[-1] if skips else {}
    assert {sequence: record.why_not(one) for sequence, one in ID.items() if record.why_not(one)} == newest
    assert had(record) == [sequence for sequence in ID if sequence <= (last or 0) and sequence not in newest]


def test_facts_are_what_is_remembered() -> None:
    """Of a place that may not be looked at: when what was shipped, what is half there, what the day has cost."""
    record = shipped(passed(KNOWN, 3), 1, 2, at=NOW - MINUTE).begin(ID[4])
    record = record.paid(30, NOW).arrived("a", 30).paid(0, NOW).arrived("b", 12).measured(1 << 20, 2.0)
    assert record.facts(TWO, None, 1000, NOW) == ReplicaFacts(
        shipped={ID[1]: NOW - MINUTE, ID[2]: NOW - MINUTE},  # a delta went after its full
        skipped={ID[3]: "no"},
        known=True,
        throughput=1 << 19,
        budget=1000,
        spent=30,
        partial={ID[4]: 42},
    )
    assert record.facts(TWO, None, None, NOW + DAY).spent == 0


def test_what_is_seen_goes_before_what_is_remembered() -> None:
    """Of a place that can be looked at, what it lists is there, and nothing else."""
    facts = shipped(passed(KNOWN, 4), 1, 2, 3).facts(TWO, {ID[1], ID[4]}, None, NOW)
    assert set(facts.shipped) == {ID[1], ID[4]}
    assert facts.skipped == {}
    assert replace(KNOWN, known=False).facts(TWO, set(), None, NOW).known
    assert not replace(KNOWN, known=False).facts(TWO, None, None, NOW).known


# -- on its way


def test_what_was_sent_of_a_backup_counts_until_it_is_there() -> None:
    """An interrupted backup goes on, another one begins from nothing, and one that is there is no longer on its way."""
    record = KNOWN.begin(ID[1]).beginning("a").beginning("b").beginning("a").paid(7, NOW).arrived("a", 7)
    assert (record.begun, record.done) == (("a", "b"), {"a": 7})
    assert record.begin(ID[1]) == record
    other = record.begin(ID[2])
    assert (other.sending, other.begun, other.done) == (ID[2], (), {})
    there = record.shipped(ID[1], full=True, at=NOW)
    assert (there.sending, there.begun, there.done) == (None, (), {})
    assert (there.last, there.last_at, there.fulls) == (ID[1], NOW, {str(ID[1]): NOW})
    assert record.shipped(ID[1], full=False, at=NOW).fulls == {}


def test_what_may_be_there() -> None:
    """An object that was begun may have arrived; where memory was lost, any object of what was made before."""
    record = KNOWN.begin(ID[4]).beginning("a")
    assert (record.may_be_there("a"), record.may_be_there("b")) == (True, False)
    assert replace(record, unsure=ID[4]).may_be_there("b")
    assert not replace(record, unsure=ID[3]).may_be_there("b")
    assert not replace(KNOWN, unsure=ID[3]).may_be_there("b")


def test_the_budget_is_of_a_day() -> None:
    """What travelled is taken off until midnight UTC; what was there already costs nothing."""
    evening = NOW.replace(hour=23, minute=59)
    record = KNOWN.paid(700, evening).arrived("a", 700).paid(0, evening).arrived("b", 900)
    assert record.budget_left(1000, evening) == 300
    assert record.paid(700, evening).arrived("c", 700).budget_left(1000, evening) == 0
    assert record.budget_left(1000, evening + MINUTE) == 1000
    assert record.paid(50, evening + MINUTE).arrived("c", 50).budget_left(1000, evening + MINUTE) == 950
    assert record.budget_left(None, evening) is None
    assert (record.is_fresh_day(evening), record.is_fresh_day(evening + MINUTE)) == (False, True)
    assert KNOWN.paid(0, evening).arrived("b", 900).is_fresh_day(evening)


def test_the_throughput_is_measured() -> None:
    """The newest shipment counts for a third or so; one that was too small or took no time tells nothing."""
    record = KNOWN.measured(1_000_000, 10.0)
    assert record.throughput == 100_000
    assert record.measured(1_000_000, 5.0).throughput == 130_000
    assert record.measured(10_000_000, 1000.0).throughput == 73_000
    assert KNOWN.measured(1_000_000, 1e9).throughput == 1
    for count, seconds in ((65_535, 1.0), (1_000_000, 0.0), (1_000_000, -1.0), (0, 1.0)):
        assert record.measured(count, seconds) == record


# -- when to try again


def pauses(chance: float, *, refused: bool = False) -> list[timedelta]:
    record, found = KNOWN, []
    for _ in range(9):
        record = record.failed("it broke", NOW, chance, refused=refused)
        assert record.next_try is not None
        found.append(record.next_try - NOW)
    return found


def test_pauses_grow_to_an_hour() -> None:
    """Each failure in a row doubles the pause, from a minute on; a thousand nodes come back at different times."""
    assert pauses(1.0) == [MINUTE * minutes for minutes in (1, 2, 4, 8, 16, 32, 60, 60, 60)]
    assert pauses(0.0) == [pause / 2 for pause in pauses(1.0)]
    record = replace(KNOWN, failures=10**6).failed("it broke", NOW, 1.0, refused=False)
    assert record.next_try == NOW + HOUR


@pytest.mark.parametrize(("asked", "pause"), [(0, 1), (0.5, 1), (7, 7), (60, 60), (61, 60), (10**6, 60)])
def test_a_server_that_asks_for_time_gets_it(asked: float, pause: int) -> None:
    """Nobody comes back before, nor stays away for more than an hour because of it."""
    assert KNOWN.failed("busy", NOW, 1.0, refused=False, at_least=asked * MINUTE).next_try == NOW + pause * MINUTE


def test_what_somebody_must_mend_is_tried_once_an_hour() -> None:
    """A place that refuses is not hammered, from the first time on."""
    assert pauses(1.0, refused=True) == [HOUR] * 9
    assert pauses(0.0, refused=True) == [HOUR / 2] * 9


def test_failures_are_remembered_until_it_is_well() -> None:
    """How often, since when, the last one's words, and whether somebody must do something; then nothing of it."""
    record = KNOWN.failed("first", NOW, 1.0, refused=True).failed("second", NOW + HOUR, 1.0, refused=False)
    assert (record.failures, record.failing_since, record.error, record.refused) == (2, NOW, "second", False)
    assert record.well() == KNOWN


def test_waiting_has_an_end() -> None:
    """It waits until the time has come; a clock that was set back by years does not make it wait for years."""
    record = KNOWN.failed("it broke", NOW, 1.0, refused=True)
    assert not KNOWN.is_waiting(NOW)
    assert [record.is_waiting(NOW + after) for after in (-MINUTE, 0 * MINUTE, 59 * MINUTE, HOUR, DAY)] == [
        False, True, True, False, False,
    ]  # fmt: skip
    assert not record.is_waiting(NOW - 10 * 365 * DAY)


# -- on disk


FULL = replace(
    shipped(passed(KNOWN, 2, 3), 1).begin(ID[4]).beginning("a").paid(1, NOW).arrived("a", 1).measured(1 << 20, 1.0),
    unsure=ID[6], clock_offset_ms=-1500, full_wanted="why", waiting=2, waiting_bytes=10,
).failed("it broke", NOW, 0.3, refused=True)  # fmt: skip


@pytest.fixture
def memory(tmp_path: Path) -> ReplicaMemory:
    return StateDirectory(tmp_path / "state").replica("far.1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/replicas/far.1.json"


def test_a_record_comes_back_as_it_was(memory: ReplicaMemory, tmp_path: Path) -> None:
    """Every field of it, in another process too; each replica has its own."""
    with memory.lock():
        assert memory.load() is None
        memory.save(KNOWN)
        memory.save(FULL)
    directory = StateDirectory(tmp_path / "state")
    assert directory.replica("far.1").load() == FULL
    assert directory.replica("far").load() is None


def test_a_record_that_is_torn_or_changed_is_none(memory: ReplicaMemory, path: Path) -> None:
    """Whatever a power cut or a bad disk left of it is not believed, wherever it was hit."""
    with memory.lock():
        memory.save(FULL)
    whole = path.read_bytes()
    broken = [whole[:size] for size in range(0, len(whole), 37)]
    broken += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 37)]
    broken += [whole + b"\n", b"\n", b"\0" * len(whole), whole.partition(b"\n")[2]]
    for data in broken:
        path.write_bytes(data)
        assert memory.load() is None
    path.write_bytes(whole)
    assert memory.load() == FULL


def test_a_link_in_its_place_is_no_record(memory: ReplicaMemory, path: Path) -> None:
    """Nothing is read through a link, however good it is."""
    with memory.lock():
        memory.save(FULL)
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")
    assert memory.load() is None


def test_one_serves_a_replica_at_a_time(memory: ReplicaMemory, path: Path, tmp_path: Path) -> None:
    """A second one is told at once; another replica may be served meanwhile. Half a record is swept."""
    directory = StateDirectory(tmp_path / "state")
    path.parent.mkdir(parents=True)
    half = path.with_name(".far.1.json.0badf00d.part")
    half.write_bytes(b"half")
    with memory.lock():
        assert not half.exists()
        with pytest.raises(AlreadyRunning, match="another edgedr holds"), directory.replica("far.1").lock():
            pytest.fail("two hold one lock")
        with directory.replica("far.2").lock(), directory.lock():
            pass
    with memory.lock():
        pass


def test_ids_are_ordered_by_sequence() -> None:
    """A clock that jumped makes nothing of what was shipped look unshipped."""
    late = BackupId(NOW + 3650 * DAY, 1, "0" * 8)
    assert replace(KNOWN, last=ID[2]).has(late)
