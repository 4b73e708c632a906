"""The budget of a day: no day takes more than it may, and whatever is too large for one gets there all the same."""

import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest

from edgedr.errors import Unreachable
from edgedr.model import Bytes
from edgedr.replicas import ReplicaSettings
from edgedr.storage.base import Progress, nobody
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import BLOB, SEGMENT, Lab, bytes_of
from tests.lab.places import BUCKET, NOW, Blind, Place, ship, there

HOUR, DAY = timedelta(hours=1), timedelta(days=1)

pytestmark = pytest.mark.usefixtures("no_fsync")


def days(lab: Lab, place: Place, replica: ReplicaSettings) -> list[int]:
    """Ship, twice each day, until all is there; return how many bytes each day took."""
    took = []
    for day in range(30):
        outcomes = [ship(lab, place, replica, now=NOW + day * DAY + half * HOUR / 2) for half in range(2)]
        took.append(sum(outcome.sent_bytes for outcome in outcomes))
        last = outcomes[-1]
        assert [outcome.trouble for outcome in outcomes] == [None, None]
        assert (last.record.spent, last.record.failures) == (took[-1], 0)
        if last.complete:
            assert last.note is None
            return took
        assert "byte budget is spent" in str(last.note)
        assert (last.record.waiting, there(lab, place)) == (1, [])
    raise AssertionError("it never ends")


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_days_budget_is_kept_and_the_next_day_goes_on(tmp_path: Path, at_once: int) -> None:
    """However many go at once, no day takes more than it may, and what was sent is not sent again."""
    lab, place = Lab(tmp_path, storage=MemoryStorage()), Place()
    lab.back_up(bytes_of(7, 5 * SEGMENT))
    place.before = lambda _: time.sleep(0.02)  # so that those that go at once meet
    replica = replace(BUCKET, daily_budget=Bytes(2 * SEGMENT + 8000), at_once=at_once)
    took = days(lab, place, replica)
    assert max(took) <= 2 * SEGMENT + 8000
    assert sum(took) == lab.listed()[0].size
    assert len(took) == 3
    assert place.committed == [1]


def test_what_is_larger_than_a_days_budget_goes_on_a_fresh_day(tmp_path: Path) -> None:
    """A segment that no day has room for goes alone, the first of its day: otherwise it would never go."""
    lab, place = Lab(tmp_path, storage=MemoryStorage()), Place()
    lab.back_up(bytes_of(7, 2 * SEGMENT))
    took = days(lab, place, replace(BUCKET, daily_budget=Bytes(10_000), at_once=3))
    assert [size > SEGMENT for size in took[:2]] == [True, True]
    assert max(took) < SEGMENT + 1000
    assert sum(took) == lab.listed()[0].size


def test_what_never_arrives_is_paid_for(tmp_path: Path) -> None:
    """A link that breaks each upload near its end uses the day's budget up all the same, and goes on tomorrow."""

    class Breaking(Blind):
        def put(
            self,
            name: str,
            source: BinaryIO,
            size: int,
            sha256: str,
            *,
            again: bool = False,
            progress: Progress = nobody,
        ) -> bool:
            if BLOB not in name:
                return super().put(name, source, size, sha256, again=again, progress=progress)
            progress(size - 1)
            progress(1 - size)  # for whoever watches; the link carried it all the same
            raise Unreachable("the connection broke")

    lab = Lab(tmp_path, storage=MemoryStorage())
    lab.back_up(bytes_of(1, 9000))
    size = lab.listed()[0].size
    replica = replace(BUCKET, daily_budget=Bytes(3 * size))
    place = Breaking()
    for _ in range(20):
        outcome = ship(lab, place, replica)
    assert outcome.record.spent <= 4 * size
    assert outcome.note is not None
    assert "budget" in outcome.note
    assert outcome.record.throughput is None
