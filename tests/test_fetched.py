"""Reading a remote storage through a directory: fetched once, gone on with, and believed as little as the network."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from edgedr.errors import ObjectMissing, StorageError, TooLong, Unreachable
from edgedr.storage.base import Spool, Storage
from edgedr.storage.fetched import FetchedStorage
from edgedr.storage.memory import MemoryStorage
from tests.storage_contract import HOSTILE, StorageContract, get, names, put

A, B, C, D = (f"v1/full/{name}" for name in "abcd")
_BLOCK = 4


class Far(MemoryStorage):
    """A storage whose connections break, each after ``breaks_after`` bytes where that is set."""

    at_once = 8
    clock_offset = 1.5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, int]] = []
        """Each download, and from which byte on."""
        self.breaks_after: int | None = None
        self.takes = 0.0

    def describe(self) -> str:
        return "far away"

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
        data = get(self, name)
        if limit is None or len(data) <= limit:
            yield self.open(name)

    def fetch(self, name: str, spool: Spool, *, limit: int | None = None) -> None:
        data = get(self, name)
        if limit is not None and len(data) > limit:
            raise TooLong(f"{name} has {len(data)} bytes")
        if spool.size > len(data):
            spool.restart()
        self.asked.append((name, spool.size))
        time.sleep(self.takes)
        until = len(data) if self.breaks_after is None else min(len(data), spool.size + self.breaks_after)
        while spool.size < until:
            spool.write(data[spool.size : min(until, spool.size + _BLOCK)])
        if until < len(data):
            raise Unreachable(f"cannot get {name}: the connection broke")


class TestFar(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return Far()


class TestFetchedStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return FetchedStorage(Far(), tmp_path / "fetched")


class TestFetchedStorageThatKeepsNearlyNothing(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return FetchedStorage(Far(), tmp_path / "fetched", keep=1)


@pytest.fixture
def far() -> Far:
    storage = Far()
    for name in (A, B, C, D):
        put(storage, name, f"what {name} holds".encode())
    return storage


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return tmp_path / "fetched"


def kept(here: Path) -> list[str]:
    """Return what is kept, whole or half."""
    return sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file())


def test_each_object_is_fetched_once(far: Far, here: Path) -> None:
    """However often it is read, also by a later process, it travels once."""
    storage = FetchedStorage(far, here)
    for _ in range(3):
        assert get(storage, A) == b"what v1/full/a holds"
    assert get(FetchedStorage(far, here), A) == b"what v1/full/a holds"
    assert far.asked == [(A, 0)]


@pytest.mark.parametrize("anew", [False, True], ids=["same process", "another process"])
def test_a_download_goes_on_where_it_stopped(far: Far, here: Path, anew: bool) -> None:
    """What arrived before the connection broke, or the process was killed, does not travel again."""
    storage = FetchedStorage(far, here)
    far.breaks_after = 7
    for _ in range(2):
        with pytest.raises(Unreachable):
            storage.open(A)
        storage = FetchedStorage(far, here) if anew else storage
    assert kept(here) == ["v1/full/.a.part"]
    far.breaks_after = None
    assert get(storage, A) == b"what v1/full/a holds"
    assert far.asked == [(A, 0), (A, 7), (A, 14)]
    assert kept(here) == ["v1/full/a"]


def test_half_of_another_object_is_begun_again(far: Far, here: Path) -> None:
    """Where the remote says that what is here belongs to something else, it is forgotten."""
    storage = FetchedStorage(far, here)
    far.breaks_after = 7
    with pytest.raises(Unreachable):
        storage.open(A)
    far.objects[A] = b"short"
    far.breaks_after = None
    assert get(storage, A) == b"short"


def test_what_is_kept_is_dropped_for_the_others(far: Far, here: Path) -> None:
    """Whoever found it bad is not given it again: the others are the remote's, and the next reader gets it anew."""
    storage = FetchedStorage(far, here)
    storage.open(A).close()
    (here / A).write_bytes(b"spoilt on this disk")
    assert get(storage, A) == b"spoilt on this disk"
    assert [file.read() for file in storage.others(A)] == [b"what v1/full/a holds"]
    assert get(storage, A) == b"what v1/full/a holds"
    assert far.asked == [(A, 0)] * 2


def test_what_was_changed_or_deleted_is_not_kept(far: Far, here: Path) -> None:
    """What this storage replaces or deletes is not read as it was."""
    storage = FetchedStorage(far, here)
    storage.open(A).close()
    storage.replace(A, b"another")
    assert get(storage, A) == b"another"
    storage.delete(A)
    with pytest.raises(ObjectMissing):
        storage.open(A)
    assert A not in names(storage)


def test_only_so_many_bytes_are_kept(far: Far, here: Path) -> None:
    """The oldest go, as many as have to; who reads one goes on reading it."""
    storage = FetchedStorage(far, here, keep=2 * len(get(far, A)))
    with storage.open(A) as file:
        assert file.read(4) == b"what"
        storage.open(B).close()
        assert kept(here) == [A, B]
        storage.open(C).close()
        assert kept(here) == [B, C]
        assert file.read() == b" v1/full/a holds"
    far.objects[A] = b"." * 3 * len(get(far, B))
    assert get(storage, A) == far.objects[A]
    assert kept(here) == [A]  # larger than all that may be kept, and read just now
    storage.open(D).close()
    assert kept(here) == [D]


def test_without_a_limit_all_is_kept(far: Far, here: Path) -> None:
    """A restore that is interrupted finds what it fetched."""
    storage = FetchedStorage(far, here)
    for name in (A, B, C, D):
        storage.open(name).close()
    assert kept(here) == [A, B, C, D]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_touch_nothing(far: Far, here: Path, name: str) -> None:
    """A name out of a hostile bucket makes no file and no directory, and removes none."""
    (here.parent / "precious").write_bytes(b"precious")
    storage = FetchedStorage(far, here)
    for act in (storage.open, storage.others, storage.delete, lambda name: storage.replace(name, b"x")):
        with pytest.raises(StorageError):
            act(name)
    assert [path.name for path in here.parent.iterdir()] == ["precious"]
    assert far.asked == []


def test_a_link_in_its_place_is_not_followed(far: Far, here: Path) -> None:
    """Neither read nor written through: it is removed, and the object fetched."""
    secret = here.parent / "secret"
    secret.write_bytes(b"secret")
    (here / A).parent.mkdir(parents=True)
    (here / A).symlink_to(secret)
    assert get(FetchedStorage(far, here), A) == b"what v1/full/a holds"
    assert not (here / A).is_symlink()
    assert secret.read_bytes() == b"secret"


def test_a_link_in_the_place_of_half_an_object_is_refused(far: Far, here: Path) -> None:
    """A download is never written to where a link leads."""
    precious = here.parent / "precious"
    precious.write_bytes(b"precious")
    (here / A).parent.mkdir(parents=True)
    (here / A).with_name(".a.part").symlink_to(precious)
    with pytest.raises(StorageError, match="cannot create") as caught:
        FetchedStorage(far, here).open(A)
    assert "symbolic link" in str(caught.value.hint)
    assert precious.read_bytes() == b"precious"


def test_a_pipe_in_its_place_makes_nobody_wait(far: Far, here: Path) -> None:
    """What is no file is removed, and the object fetched."""
    (here / A).parent.mkdir(parents=True)
    os.mkfifo(here / A)
    assert get(FetchedStorage(far, here), A) == b"what v1/full/a holds"


def test_what_is_fetched_is_for_its_owner(far: Far, here: Path) -> None:
    """Files are 0600 and directories 0700, whatever the umask says."""
    before = os.umask(0)
    try:
        FetchedStorage(far, here).open(A).close()
    finally:
        os.umask(before)
    modes = {str(path.relative_to(here)): stat.S_IMODE(path.stat().st_mode) for path in (here, *here.rglob("*"))}
    assert modes == {".": 0o700, "v1": 0o700, "v1/full": 0o700, A: 0o600}


def test_what_is_missing_is_not_kept(far: Far, here: Path) -> None:
    """An object that is not there is asked for again: it may be there later."""
    storage = FetchedStorage(far, here)
    for _ in range(2):
        with pytest.raises(ObjectMissing, match="v1/full/e"):
            storage.open("v1/full/e")
    put(far, "v1/full/e", b"late")
    assert get(storage, "v1/full/e") == b"late"


def test_nothing_of_what_is_too_long_is_fetched(far: Far, here: Path) -> None:
    """A hostile bucket does not fill the disk: what is longer than what belongs there stays where it is."""
    storage, size = FetchedStorage(far, here), len(get(far, A))
    with pytest.raises(TooLong):
        storage.open(A, limit=size - 1)
    assert list(storage.others(A, limit=size - 1)) == []
    with pytest.raises(TooLong):
        storage.fetch_all({A: size - 1}, lambda _: None)
    assert far.asked == []
    storage.open(A, limit=size).close()
    assert kept(here) == [A]


def test_many_read_at_once(far: Far, here: Path) -> None:
    """Threads that read different objects get each its own, however little is kept."""
    wanted = {f"v1/full/{number}": bytes([number]) * 1000 for number in range(40)}
    far.objects |= wanted
    storage = FetchedStorage(far, here, keep=2500)
    read: dict[str, bytes] = {}

    def act(names: list[str]) -> None:
        for name in names:
            read[name] = get(storage, name)

    threads = [threading.Thread(target=act, args=(list(wanted)[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == wanted
    assert len(kept(here)) == 2


def test_all_is_fetched_at_once(far: Far, here: Path) -> None:
    """What a restore needs comes in advance, several at a time; what is here already counts, and does not travel."""
    storage = FetchedStorage(far, here)
    far.breaks_after = 7
    with pytest.raises(Unreachable):
        storage.open(B)
    far.breaks_after = None
    storage.open(A).close()
    seen: list[int] = []
    storage.fetch_all(dict.fromkeys((A, B, C), 100), seen.append)
    assert sum(seen) == 3 * len(get(far, A))
    assert kept(here) == [A, B, C]
    assert sorted(far.asked) == [(A, 0), (B, 0), (B, 7), (C, 0)]
    for name in (A, B, C):
        assert get(storage, name) == get(far, name)
    assert len(far.asked) == 4


def test_progress_is_taken_back_where_it_begins_again(far: Far, here: Path) -> None:
    """Bytes of another object are no progress."""
    storage = FetchedStorage(far, here)
    far.breaks_after = 7
    with pytest.raises(Unreachable):
        storage.open(A)
    far.objects[A] = b"short"
    seen: list[int] = []
    storage.fetch_all({A: 100}, seen.append)
    assert seen == [7, -7, 4, 1]


def test_one_that_is_missing_stops_the_rest(far: Far, here: Path) -> None:
    """Nothing more is begun once it is clear that not all can be had."""
    far.objects |= {f"v1/full/{number}": b"" for number in range(100)}
    far.takes = 0.05
    with pytest.raises(ObjectMissing, match="v1/full/e"):
        FetchedStorage(far, here).fetch_all(dict.fromkeys(["v1/full/e", *far.objects], 9), lambda _: None)
    assert len(far.asked) <= 2 * far.at_once


def test_it_is_the_remote_otherwise(far: Far, here: Path) -> None:
    """Where it is, how it is asked, what its clock says and what it holds, the remote tells."""
    storage = FetchedStorage(far, here)
    assert (storage.describe(), storage.at_once, storage.clock_offset) == ("far away", 8, 1.5)
    assert names(storage) == names(far)
