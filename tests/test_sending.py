"""Sending one backup: its manifest arrives last or not at all, and what was interrupted goes on."""

import io
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import pytest

from edgedr.errors import Damaged, ObjectExists, ObjectMissing, StorageError, Unreachable
from edgedr.repository.names import MANIFEST, RECIPE, SIGNATURE, recipe
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.sending import Forgetful, send, send_recipe
from edgedr.storage.base import Storage
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import BLOB, SEGMENT, Lab, bytes_of
from tests.lab.places import Act, Dying, Place, Watched
from tests.storage_contract import StorageContract, get, names, put

DATA = bytes_of(1, 3 * SEGMENT + 9000)
OBJECTS = 7  # four segments of the database, one of node.tar, signature, manifest


class Noted:
    """A ledger in memory: what it notes outlives an interruption."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.there: dict[str, int] = {}
        self.travelled = 0

    def has(self, name: str) -> bool:
        return name in self.there

    def begin(self, name: str, size: int) -> bool:
        again = name in self.begun
        self.begun.append(name)
        return again

    def arrived(self, name: str, size: int, *, travelled: bool) -> None:
        assert name in self.begun
        self.there[name] = size
        self.travelled += size if travelled else 0


class TestPlace(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return Place()


class Spoilt(MemoryStorage):
    """A storage where something else comes first under each name: what belongs there is among the others."""

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        return io.BytesIO(self.objects[name][::-1])

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
        yield io.BytesIO(b"neither")
        yield io.BytesIO(self.objects[name])


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """A node with one backup in memory."""
    lab = Lab(tmp_path, storage=MemoryStorage())
    lab.back_up(DATA)
    return lab


@pytest.fixture
def backup(lab: Lab) -> Listed:
    return lab.listed()[0]


def failing(at: int) -> Act:
    """Return what fails at the ``at``-th time, counted from 1."""
    count = iter(range(1, 10**6))

    def fail(name: str) -> None:
        if next(count) == at:
            raise Unreachable(f"cannot put {name}: connection reset")

    return fail


def arrived_whole(lab: Lab, target: MemoryStorage, backup: Listed) -> bool:
    """Say whether a backup is there, and assert that it is the one that was sent."""
    if backup.place.object(MANIFEST) not in target.objects:
        assert Repository(target).list() == ()
        return False
    there = Lab(lab.path, storage=target)
    assert [(one.id, one.damage) for one in there.listed()] == [(backup.id, ())]
    assert there.read(backup.id) == DATA
    assert {name: target.objects[name] for name in names(target, backup.place.prefix)} == {
        name: get(lab.storage, name) for name in names(lab.storage, backup.place.prefix)
    }
    return True


@pytest.mark.parametrize("at_once", [1, 4, 16])
def test_the_manifest_is_last(lab: Lab, backup: Listed, at_once: int) -> None:
    """Segments in any order, then the signature, then the manifest: until then there is no backup there."""
    target = Watched(before=lambda _: _expect_nothing(target))
    ledger, seen = Noted(), list[int]()
    sent = send(lab.repository, backup.place, target, ledger, at_once=at_once, progress=seen.append)
    assert sent == backup.manifest
    assert target.put_names[-2:] == [backup.place.object(SIGNATURE), backup.place.object(MANIFEST)]
    assert len(set(target.put_names)) == len(target.put_names) == OBJECTS
    assert arrived_whole(lab, target, backup)
    assert sum(seen) == ledger.travelled == backup.size


def _expect_nothing(target: Watched) -> None:
    assert not any(name.endswith(f"/{MANIFEST}") for name in target.objects)


@pytest.mark.parametrize("at_once", [1, 4])
@pytest.mark.parametrize("lost", ["before", "after"])
def test_interrupted_anywhere_it_goes_on(lab: Lab, backup: Listed, lost: str, at_once: int) -> None:
    """Whichever object fails, or whose reply is lost: no backup there; the next run sends what has not arrived."""
    for at in range(1, OBJECTS + 1):
        target, ledger = Watched(**{lost: failing(at)}), Noted()
        with pytest.raises(Unreachable, match="connection reset"):
            send(lab.repository, backup.place, target, ledger, at_once=at_once)
        whole = arrived_whole(lab, target, backup)
        assert whole == (at == OBJECTS and lost == "after")
        before, arrived = set(target.put_names), set(ledger.there)
        target.put_names.clear()
        send(lab.repository, backup.place, target, ledger, at_once=at_once)
        assert arrived_whole(lab, target, backup)
        assert arrived.isdisjoint(target.put_names)
        assert len(arrived) + len(target.put_names) == OBJECTS
        assert max(Counter(ledger.begun).values()) == 2
        assert {name for name, count in Counter(ledger.begun).items() if count == 2} <= before


def test_what_arrived_is_not_even_opened(lab: Lab, backup: Listed) -> None:
    """What the ledger has is sent, whatever has become of it here since."""
    target, ledger = Watched(after=failing(3)), Noted()
    with pytest.raises(Unreachable):
        send(lab.repository, backup.place, target, ledger)
    for name in ledger.there:
        lab.storage.delete(name)
    send(lab.repository, backup.place, target, ledger)
    assert Lab(lab.path, storage=target).read(backup.id) == DATA


def _flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize("change", [_flip, lambda data: data[:-1], lambda _: b""])
@pytest.mark.parametrize("number", [0, 3])
def test_damage_does_not_travel(lab: Lab, backup: Listed, number: int, change: Callable[[bytes], bytes]) -> None:
    """A segment that is not what the manifest says stays here, and without it there is no backup there."""
    name = backup.place.object(f"{BLOB}.{number:03d}.zst.age")
    local, target = _memory(lab), Watched()
    local.objects[name] = change(local.objects[name])
    with pytest.raises(Damaged, match=f"{BLOB}.{number:03d}"):
        send(lab.repository, backup.place, target, Noted(), at_once=2)
    assert name not in target.objects
    assert not arrived_whole(lab, target, backup)


def test_a_segment_that_is_gone_is_named(lab: Lab, backup: Listed) -> None:
    """Somebody may have let go of the backup meanwhile."""
    name = backup.place.object(f"{BLOB}.001.zst.age")
    lab.storage.delete(name)
    target = Watched()
    with pytest.raises(ObjectMissing, match=f"{BLOB}.001"):
        send(lab.repository, backup.place, target, Noted())
    assert not arrived_whole(lab, target, backup)


def test_a_disk_that_cannot_read_is_damage_here(lab: Lab, backup: Listed) -> None:
    """A bad sector under a backup is no fault of the place that it goes to: it names the object and the disk."""
    local, target = Dying(), Watched()
    local.bad = ".002."
    local.objects = _memory(lab).objects
    with pytest.raises(Damaged, match=r"\.002\.zst\.age cannot be read: Input/output error") as caught:
        send(Repository(local), backup.place, target, Noted())
    assert "replace the disk" in str(caught.value.hint)
    assert not arrived_whole(lab, target, backup)


@pytest.mark.parametrize("name", [f"{BLOB}.002.zst.age", SIGNATURE, MANIFEST])
@pytest.mark.parametrize("ledger", [Noted, Forgetful])
def test_what_somebody_else_put_there_stays(
    lab: Lab, backup: Listed, name: str, ledger: type[Noted | Forgetful]
) -> None:
    """Another object under a name of ours is reported by that name, and nothing is written over it."""
    target, taken = Watched(), backup.place.object(name)
    put(target, taken, b"somebody else's")
    with pytest.raises(ObjectExists, match=name):
        send(lab.repository, backup.place, target, ledger())
    assert target.objects[taken] == b"somebody else's"
    assert name == MANIFEST or backup.place.object(MANIFEST) not in target.objects


def test_what_is_there_already_is_fine(lab: Lab, backup: Listed) -> None:
    """A place that can be looked at needs no memory: the very same objects do not travel twice."""
    target, seen = Watched(), list[int]()
    for _ in range(2):
        send(lab.repository, backup.place, target, Forgetful(), progress=seen.append)
    assert arrived_whole(lab, target, backup)
    ledger = Noted()
    send(lab.repository, backup.place, target, ledger)
    assert (len(ledger.there), ledger.travelled) == (OBJECTS, 0)


def test_from_a_place_of_many_contents_the_signed_one_goes(lab: Lab, backup: Listed) -> None:
    """``hashed`` lets go of what is as signed, though something else comes first; without it nothing else is tried."""
    spoilt, target = Spoilt(), Watched()
    spoilt.objects = _memory(lab).objects
    source = Repository(spoilt)
    with pytest.raises(Damaged):
        send(source, backup.place, Watched(), Noted())
    send(source, backup.place, target, Noted(), hashed=True, at_once=2)
    assert arrived_whole(lab, target, backup)
    assert len(source.strays) == OBJECTS


def test_several_go_at_once(lab: Lab, backup: Listed) -> None:
    """As many segments as were asked for are under way together; one where one was asked for."""
    meet = threading.Barrier(4)

    def wait_for_the_others(_: str) -> None:
        if len(target.put_names) <= meet.parties:
            meet.wait(20)

    target = Watched(before=wait_for_the_others)
    send(lab.repository, backup.place, target, Noted(), at_once=4)
    assert arrived_whole(lab, target, backup)
    under_way: list[str] = []

    def end(name: str) -> None:
        assert under_way == [name]
        under_way.clear()

    alone = Watched(before=under_way.append, after=end)
    send(lab.repository, backup.place, alone, Noted())
    assert arrived_whole(lab, alone, backup)


def test_whoever_interrupts_it_does_not_wait_for_the_rest(lab: Lab, backup: Listed) -> None:
    """Ctrl-C ends it with what is under way: over a slow link the rest may take hours."""
    halted = threading.Event()

    def halt(_number: int, _frame: FrameType | None) -> None:
        halted.set()
        raise KeyboardInterrupt

    def interrupt(_: str) -> None:
        if not halted.is_set():
            time.sleep(0.05)  # until all of them wait for their turn
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            halted.wait(20)
        time.sleep(0.05)

    before = signal.signal(signal.SIGUSR1, halt)
    target = Watched(before=interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            send(lab.repository, backup.place, target, Noted())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert len(target.put_names) <= 2


def test_the_recipe_is_there_once(lab: Lab) -> None:
    """Recovery by hand is explained where the backups are; what an older version explained stays."""
    target = Watched()
    send_recipe(target)
    send_recipe(target)
    assert target.objects == {RECIPE: recipe()}
    target.objects[RECIPE] = b"how it was done before"
    send_recipe(target)
    assert target.objects == {RECIPE: b"how it was done before"}

    def refuse(_: str) -> None:
        raise StorageError("it is full")

    with pytest.raises(StorageError, match="it is full"):
        send_recipe(Watched(before=refuse))


def _memory(lab: Lab) -> MemoryStorage:
    assert isinstance(lab.storage, MemoryStorage)
    return lab.storage
