"""What every storage promises. Subclass ``StorageContract`` in a test module, and give it a ``storage`` fixture."""

import hashlib
import io

import pytest

from edgedr.errors import Damaged, ObjectExists, ObjectMissing, StorageError
from edgedr.storage.base import Storage

HOSTILE = (
    "", "/", "a//b", "/etc/passwd", "..", "../a", "a/../b", "a/..", ".", "./a", "a/.", ".hidden", "a/.hidden", "a/",
    "a\0b",
)  # fmt: skip


def put(storage: Storage, name: str, data: bytes = b"x") -> None:
    """Store a small object."""
    with storage.create(name) as out:
        out.write(data)


def get(storage: Storage, name: str) -> bytes:
    """Read a small object."""
    with storage.open(name) as file:
        return file.read()


def send(storage: Storage, name: str, data: bytes, *, again: bool = False) -> bool:
    """Store what a file holds that is read from its fourth byte on."""
    source = io.BytesIO(b"---" + data + b"what follows is not of it")
    source.seek(3)
    return storage.put(name, source, len(data), hashlib.sha256(data).hexdigest(), again=again)


def names(storage: Storage, prefix: str = "") -> list[str]:
    """List the names below a prefix."""
    return [stored.name for stored in storage.list(prefix)]


class StorageContract:
    """The promises of ``edgedr.storage.base.Storage``."""

    @pytest.fixture
    def storage(self) -> Storage:
        raise NotImplementedError

    def test_what_is_stored_is_read(self, storage: Storage) -> None:
        """Bytes come back as they went in, whatever pieces and kinds of buffers they came in."""
        with storage.create("v1/a") as out:
            assert out.write(b"one ") == 4
            assert out.write(bytearray(b"two ")) == 4
            assert out.write(memoryview(b"three")) == 5
            out.flush()
            assert out.size == 13
        assert get(storage, "v1/a") == b"one two three"
        assert [(stored.name, stored.size) for stored in storage.list()] == [("v1/a", 13)]

    def test_an_empty_object_is_an_object(self, storage: Storage) -> None:
        """Nothing written is still something stored."""
        put(storage, "v1/empty", b"")
        assert get(storage, "v1/empty") == b""
        assert names(storage) == ["v1/empty"]

    def test_an_object_can_be_read_twice(self, storage: Storage) -> None:
        """What is opened is seekable: it is hashed first, and read then."""
        put(storage, "a", b"0123456789")
        with storage.open("a") as file:
            assert file.read(4) == b"0123"
            file.seek(0)
            assert file.read() == b"0123456789"
            assert file.tell() == 10

    def test_nothing_is_visible_before_the_end(self, storage: Storage) -> None:
        """An object being written is neither listed nor readable."""
        with storage.create("v1/a") as out:
            out.write(b"half")
            assert names(storage) == []
            with pytest.raises(ObjectMissing):
                storage.open("v1/a")
        assert names(storage) == ["v1/a"]

    @pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
    def test_a_failed_write_leaves_nothing(self, storage: Storage, failure: type[BaseException]) -> None:
        """After a failure the object does not exist, its name is free, and there is nothing to sweep."""

        def fail() -> None:
            with storage.create("v1/a") as out:
                out.write(b"half")
                raise failure

        with pytest.raises(failure):
            fail()
        assert names(storage) == []
        assert storage.sweep() == 0
        put(storage, "v1/a", b"whole")
        assert get(storage, "v1/a") == b"whole"

    def test_names_are_never_reused(self, storage: Storage) -> None:
        """A second object of the same name is refused, and the first one stays as it was."""
        put(storage, "v1/a", b"first")
        with pytest.raises(ObjectExists) as caught:
            put(storage, "v1/a", b"second")
        assert "a exists" in caught.value.message
        assert get(storage, "v1/a") == b"first"
        assert names(storage) == ["v1/a"]
        assert storage.sweep() == 0

    def test_of_two_writers_one_wins(self, storage: Storage) -> None:
        """Where two write the same name at once, one is told, and the other's object stays."""
        first = storage.create("v1/a")
        out = first.__enter__()
        out.write(b"slow")
        put(storage, "v1/a", b"fast")
        with pytest.raises(ObjectExists):
            first.__exit__(None, None, None)
        assert get(storage, "v1/a") == b"fast"

    def test_a_file_is_stored_as_its_hash_says(self, storage: Storage) -> None:
        """``put`` takes its size from where the file stands, and tells how far it is."""
        seen: list[int] = []
        data = b"0123456789" * 1000
        source = io.BytesIO(b"skip" + data)
        source.seek(4)
        assert storage.put("v1/a", source, len(data), hashlib.sha256(data).hexdigest(), progress=seen.append)
        assert get(storage, "v1/a") == data
        assert sum(seen) == len(data)
        assert send(storage, "v1/empty", b"")
        assert get(storage, "v1/empty") == b""

    @pytest.mark.parametrize("told", [b"0123456789", b"0123X", b"something"])
    def test_a_file_that_is_not_what_its_hash_says_is_not_stored(self, storage: Storage, told: bytes) -> None:
        """Damage on a disk does not travel: changed, longer or shorter content is refused, and the name stays free."""
        with pytest.raises(Damaged, match="v1/a"):
            storage.put("v1/a", io.BytesIO(b"012345678X"), len(told), hashlib.sha256(told).hexdigest())
        with pytest.raises(Damaged):
            storage.put("v1/a", io.BytesIO(b"01234"), 10, hashlib.sha256(b"01234").hexdigest())
        assert names(storage) == []
        assert send(storage, "v1/a", b"whole")

    @pytest.mark.parametrize("again", [False, True])
    def test_the_same_once_more_is_fine(self, storage: Storage, *, again: bool) -> None:
        """What is there already, byte for byte, is not stored twice: a lost reply is no reason to fail."""
        assert send(storage, "v1/a", b"same", again=again)
        assert not send(storage, "v1/a", b"same", again=again)
        assert get(storage, "v1/a") == b"same"
        put(storage, "v1/b", b"written otherwise")
        assert not send(storage, "v1/b", b"written otherwise", again=again)

    @pytest.mark.parametrize("again", [False, True])
    @pytest.mark.parametrize("there", [b"first", b"longer than it", b"xxxx"])
    def test_something_else_of_that_name_stays(self, storage: Storage, there: bytes, *, again: bool) -> None:
        """Other content of the same name is reported, and never overwritten."""
        put(storage, "v1/a", there)
        with pytest.raises(ObjectExists) as caught:
            send(storage, "v1/a", b"other", again=again)
        assert "v1/a" in caught.value.message
        assert get(storage, "v1/a") == there

    def test_a_heartbeat_is_replaced(self, storage: Storage) -> None:
        """The one kind of object that changes is replaced whole, whether it was there or not."""
        storage.replace("v1/heartbeat/a/b.json", b"first")
        storage.replace("v1/heartbeat/a/b.json", b"second, and longer")
        assert get(storage, "v1/heartbeat/a/b.json") == b"second, and longer"
        assert names(storage) == ["v1/heartbeat/a/b.json"]

    def test_what_else_there_is_never_hides_what_is_there(self, storage: Storage) -> None:
        """Whatever other contents a place knows of a name, the last one stored is among them or they are none."""
        put(storage, "v1/a", b"content")
        others = []
        for file in storage.others("v1/a"):
            with file:
                others.append(file.read())
        assert set(others) <= {b"content"}

    def test_a_missing_object_is_named(self, storage: Storage) -> None:
        """Opening what is not there says which object that was."""
        with pytest.raises(ObjectMissing) as caught:
            storage.open("v1/full/gone")
        assert "v1/full/gone" in caught.value.message

    def test_deleting_is_for_good_and_twice_is_fine(self, storage: Storage) -> None:
        """A deleted object is gone, its neighbours stay; deleting what is not there is no error."""
        put(storage, "v1/a/1")
        put(storage, "v1/a/2")
        storage.delete("v1/a/1")
        storage.delete("v1/a/1")
        storage.delete("v1/never/was")
        assert names(storage) == ["v1/a/2"]
        put(storage, "v1/a/1", b"anew")
        assert get(storage, "v1/a/1") == b"anew"

    def test_a_prefix_is_of_whole_name_parts(self, storage: Storage) -> None:
        """``v1/a`` lists what is below ``v1/a`` and the object of that name, not what is below ``v1/ab``."""
        for name in ("v1/a/x", "v1/ab/x", "v1/a-/x", "v1/b", "w"):
            put(storage, name)
        assert names(storage, "v1/a") == ["v1/a/x"]
        assert names(storage, "v1/b") == ["v1/b"]
        assert names(storage, "v1/nothing") == []
        assert names(storage, "v1/a/x/deeper") == []
        assert names(storage, "v1") == ["v1/a-/x", "v1/a/x", "v1/ab/x", "v1/b"]

    def test_lists_are_sorted_by_name(self, storage: Storage) -> None:
        """The order is that of the whole names, whatever order they were stored in."""
        for name in ("b/2", "a.b/1", "a/9", "b/10", "a/10", "c"):
            put(storage, name)
        assert names(storage) == sorted(["b/2", "a.b/1", "a/9", "b/10", "a/10", "c"])

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names_are_refused(self, storage: Storage, name: str) -> None:
        """A name that leaves the storage, or hides in it, is refused by every door."""
        for act in (
            storage.create(name).__enter__,
            lambda: storage.open(name),
            lambda: storage.delete(name),
            lambda: send(storage, name, b"x"),
            lambda: storage.replace(name, b"x"),
            lambda: next(iter(storage.others(name))),
        ):
            with pytest.raises(StorageError):
                act()
        if name:  # the empty prefix is everything
            for listing in (lambda: names(storage, name), lambda: storage.sweep(name)):
                with pytest.raises(StorageError):
                    listing()
        assert names(storage) == []

    def test_it_says_where_it_is(self, storage: Storage) -> None:
        """A storage has a name for people."""
        assert storage.describe()
