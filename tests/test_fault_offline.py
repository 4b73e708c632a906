"""Fault 13: thirty days without a link, at a capture every 15 minutes, and the day on which the link is back."""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from edgedr.errors import Unreachable
from edgedr.model import BackupId, Bytes, Class
from edgedr.replicas import ReplicaSettings
from edgedr.replication import Shipment
from edgedr.repository.chains import by_id, chain_of
from edgedr.repository.names import Place as At
from edgedr.repository.quota import let_go
from edgedr.repository.reading import read_artifact
from edgedr.repository.repository import Listed, Repository
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import BLOB, OPERATOR, START, Lab, bytes_of, churned
from tests.lab.places import BUCKET, Blind, memory_of, ship

EVERY = timedelta(minutes=15)
A_DAY = timedelta(days=1) // EVERY
QUOTA = 540_000  # bytes: what two days make
THIN = replace(BUCKET, daily_budget=Bytes(320_000), catch_up=timedelta(hours=24))
"""A replica that takes a little more than a day makes."""
pytestmark = pytest.mark.usefixtures("no_fsync")


class Remembering(Repository):
    """A repository that reads no manifest twice: this disk does not change behind its back, and a month is long."""

    def __init__(self, storage: MemoryStorage, lab: Lab) -> None:
        super().__init__(storage, site=lab.site, node=lab.node)
        self._objects = storage.objects
        self._looked: dict[tuple[At, int], Listed] = {}
        self._known: tuple[frozenset[str], tuple[Listed, ...]] = frozenset(), ()

    def list(self, some: Callable[[Sequence[At]], Collection[At]] | None = None) -> tuple[Listed, ...]:
        if some is not None or self._known[0] != self._objects.keys():
            self._known = frozenset(self._objects), super().list()
        return self._known[1]

    def _look(self, place: At, sizes: dict[str, int]) -> Listed:
        known = place, len(sizes)
        if known not in self._looked:
            self._looked[known] = super()._look(place, sizes)
        return self._looked[known]


@dataclass
class Site:
    """A node, its link, and what it did: each slot as the timer's `edgedr backup` goes about it."""

    path: Path
    here: MemoryStorage
    there: Blind
    replica: ReplicaSettings = BUCKET
    slot: int = 0
    contents: dict[int, bytes] = field(default_factory=dict)
    fulls: list[int] = field(default_factory=list)
    """The slots in which a full was made."""
    tries: list[int] = field(default_factory=list)
    """The slots in which the link was tried."""

    def __post_init__(self) -> None:
        self.lab = Lab(self.path, storage=self.here)
        self.lab.repository = Remembering(self.here, self.lab)

    @property
    def now(self) -> datetime:
        return START + EVERY * self.slot

    def go_on(self) -> Shipment | None:
        """Capture, keep the quota, ship if it is time to: one slot."""
        self.slot += 1
        record = memory_of(self.lab, self.replica).load()
        wanted = (record and record.full_wanted) or let_go(self.lab.listed(), QUOTA, shipped=()).full_wanted
        data = churned(self.contents.get(self.slot - 1, bytes_of(1, 3000)), self.slot)
        made = self.lab.back_up(data, full=wanted is not None, now=self.now).manifest
        assert made.id.sequence == self.slot
        self.contents[self.slot] = data
        self.fulls += [self.slot] if made.kind is Class.FULL else []
        self._keep_quota(made.id)
        if record is not None and record.is_waiting(self.now):
            return None
        self.tries.append(self.slot)
        return ship(self.lab, self.there, self.replica, now=self.now)

    def _keep_quota(self, newest: BackupId) -> None:
        listed = self.lab.listed()
        chosen = let_go(listed, QUOTA, shipped=())
        for each in chosen.discard:
            self.lab.repository.discard(each.place)
        left = self.lab.listed() if chosen.discard else listed
        assert sum(backup.size for backup in left) <= QUOTA
        assert left[-1].id == newest
        chain_of(left[-1].manifest, by_id(left))  # type: ignore[arg-type] # which raises if a link of it is not here

    def copied(self, to: Path, replica: ReplicaSettings) -> "Site":
        """Return the same node once more, as it is now, with other settings of its replica."""
        shutil.copytree(self.path, to)
        here, there = MemoryStorage(), Blind()
        here.objects, there.objects = dict(self.here.objects), dict(self.there.objects)
        there.closed = self.there.closed
        return Site(to, here, there, replica, self.slot, dict(self.contents), list(self.fulls), list(self.tries))

    def shipped(self) -> set[int]:
        """Open every backup that the bucket holds, along its chain, and compare it; return their sequences."""
        plain = MemoryStorage()
        plain.objects = self.there.objects
        seen = Repository(plain, site=self.lab.site, node=self.lab.node)
        known = by_id(seen.list())
        left = dict(known)
        while left:
            manifest = known[max(left)].manifest
            assert manifest is not None
            chain = chain_of(manifest, known)
            sinks = {link.id: _Sink() for link in chain}
            read_artifact(seen, chain, BLOB, (OPERATOR.identity,), sinks)
            for link, sink in sinks.items():
                assert bytes(sink.data) == self.contents[link.sequence]
                left.pop(link, None)
        return {backup.sequence for backup in known}


class _Sink:
    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.data += data
        return len(data)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A day with a link, and thirty without; the quota is looked at in every slot."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda _: None)
        site = Site(tmp_path_factory.mktemp("month"), MemoryStorage(), Blind())
        for _ in range(A_DAY):
            outcome = site.go_on()
            assert outcome is not None
            assert outcome.complete
        site.there.closed = Unreachable("cannot reach the bucket: the link is down")
        for _ in range(30 * A_DAY):
            outcome = site.go_on()
            assert outcome is None or not outcome.complete
    return site


def test_a_month_offline(month: Site) -> None:
    """One capture in each slot and one full a day, whatever the link, which is tried once in a while, not in each."""
    assert month.slot == 31 * A_DAY
    assert len(month.fulls) == 31
    assert {after - before for before, after in pairwise(month.fulls)} <= {A_DAY, A_DAY + 1}
    tried = [slot for slot in month.tries if slot > 2 * A_DAY]
    assert len(tried) < 25 * A_DAY
    assert {after - before for before, after in pairwise(tried)} <= {1, 2, 3, 4}
    assert month.shipped() == set(range(1, A_DAY + 1))
    record = memory_of(month.lab, BUCKET).load()
    assert record is not None
    assert record.failing_since == START + EVERY * (A_DAY + 1)
    assert record.full_wanted is None  # a full would not go either


def test_when_the_link_is_back_all_that_is_here_goes_in_order(month: Site, tmp_path: Path) -> None:
    """What the quota left is shipped, oldest first, and each restores; captures go on with no full in excess."""
    site = month.copied(tmp_path / "site", BUCKET)
    site.there.closed = None
    while site.go_on() is None:
        continue
    here = [backup.sequence for backup in site.lab.ids()]
    assert len(here) > A_DAY
    assert site.there.committed == here
    for _ in range(A_DAY):
        site.go_on()
    assert site.there.committed == list(range(here[0], site.slot + 1))
    assert site.shipped() == {*range(1, A_DAY + 1), *range(here[0], site.slot + 1)}
    assert all(after - before in {A_DAY, A_DAY + 1} for before, after in pairwise(site.fulls))
    record = memory_of(site.lab, BUCKET).load()
    assert record is not None
    assert (record.failures, record.waiting, record.full_wanted) == (0, 0, None)


def test_what_the_link_cannot_catch_up_with_begins_anew_once(month: Site, tmp_path: Path) -> None:
    """A link too thin for the backlog: that is given up, one full more is made, and from there all goes again."""
    site = month.copied(tmp_path / "site", THIN)
    before = len(site.fulls)
    site.there.closed = None
    for _ in range(3 * A_DAY):
        site.go_on()
    assert site.there.committed == sorted(set(site.there.committed))
    assert site.shipped() == {*range(1, A_DAY + 1), *site.there.committed}
    assert 3 <= len(site.fulls) - before <= 4
    assert max(site.there.committed) > site.slot - A_DAY
