"""What every storage promises. Subclass ``StorageContract`` in a test module, and give it a ``storage`` fixture."""

import pytest

from edgedr.errors import ObjectExists, ObjectMissing, StorageError
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
        for act in (storage.create(name).__enter__, lambda: storage.open(name), lambda: storage.delete(name)):
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
