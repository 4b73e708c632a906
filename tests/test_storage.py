"""The storages, each held to the contract; and what a directory promises beyond it."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edgedr.errors import ObjectMissing, StorageError
from edgedr.storage.base import Storage
from edgedr.storage.directory import DirectoryStorage
from edgedr.storage.memory import MemoryStorage
from tests.lab import faults
from tests.storage_contract import StorageContract, get, names, put


class TestMemoryStorage(StorageContract):
    @pytest.fixture
    def storage(self) -> Storage:
        return MemoryStorage()


class TestDirectoryStorage(StorageContract):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        return DirectoryStorage(tmp_path / "repository")


@pytest.fixture
def storage(tmp_path: Path) -> DirectoryStorage:
    return DirectoryStorage(tmp_path / "repository")


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def die_at_link(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, *, first: bool) -> Any:
    return faults.die_before(name, real, args, kwargs, first=first) if name == "link" else real(*args, **kwargs)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.usefixtures("no_umask")
def test_umask_000_opens_nothing(storage: DirectoryStorage) -> None:
    """Files are 0600 and directories 0700, whatever the umask says."""
    with storage.create("v1/a/b") as out:
        out.write(b"x")
        (part,) = (storage.root / "v1/a").iterdir()
        assert mode(part) == 0o600
    assert mode(storage.root / "v1/a/b") == 0o600
    for directory in (storage.root, storage.root / "v1", storage.root / "v1/a"):
        assert mode(directory) == 0o700


def test_umask_777_closes_nothing_to_ourselves(storage: DirectoryStorage) -> None:
    """A umask that takes everything away does not make a backup that its owner cannot read."""
    before = os.umask(0o777)
    try:
        put(storage, "v1/a/b", b"x")
    finally:
        os.umask(before)
    assert mode(storage.root / "v1/a/b") == 0o600
    assert mode(storage.root / "v1/a") == 0o700


@pytest.mark.parametrize("link", ["v1", "v1/full", "v1/full/site"])
def test_links_inside_are_refused(storage: DirectoryStorage, tmp_path: Path, link: str) -> None:
    """A symbolic link among an object's directories leads nothing in or out: no write, read, list, delete or sweep."""
    outside = tmp_path / "outside"
    name = "v1/full/site/object"
    below = outside / Path(name).relative_to(link)
    below.parent.mkdir(parents=True)
    below.write_bytes(b"precious")
    part = below.with_name(".object.0badf00d.part")
    part.write_bytes(b"somebody else's")
    (storage.root / link).parent.mkdir(parents=True, exist_ok=True)
    (storage.root / link).symlink_to(outside)
    for act in (
        lambda: put(storage, f"{name}2"),
        lambda: get(storage, name),
        lambda: storage.delete(name),
        lambda: names(storage, "v1/full/site"),
        lambda: storage.sweep("v1/full/site"),
    ):
        with pytest.raises(StorageError, match="symbolic link") as caught:
            act()
        assert caught.value.hint
    assert names(storage) == []
    assert storage.sweep() == 0
    assert below.read_bytes() == b"precious"
    assert part.exists()
    assert len(list(below.parent.iterdir())) == 2


def test_a_link_in_an_objects_place_is_no_object(storage: DirectoryStorage, tmp_path: Path) -> None:
    """A link of the object's name is neither followed nor listed nor overwritten."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    put(storage, "v1/real")
    (storage.root / "v1/link").symlink_to(secret)
    assert names(storage) == ["v1/real"]
    with pytest.raises(StorageError):
        get(storage, "v1/link")
    with pytest.raises(StorageError):
        put(storage, "v1/link")
    assert secret.read_bytes() == b"secret"


def test_a_pipe_in_an_objects_place_is_no_object(storage: DirectoryStorage) -> None:
    """Opening a FIFO that took an object's name is refused instead of waiting for a writer for ever."""
    put(storage, "v1/real")
    os.mkfifo(storage.root / "v1/pipe")
    assert names(storage) == ["v1/real"]
    with pytest.raises(StorageError):
        get(storage, "v1/pipe")


def test_the_root_itself_may_be_a_link(tmp_path: Path) -> None:
    """Where the repository is, is the operator's choice."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "repository").symlink_to(tmp_path / "disk")
    storage = DirectoryStorage(tmp_path / "repository")
    put(storage, "v1/a")
    assert names(storage) == ["v1/a"]


def test_what_a_dead_writer_left_is_swept(storage: DirectoryStorage) -> None:
    """Unfinished writes are never listed; a sweep takes them and empty directories away, only below its prefix."""
    put(storage, "v1/a/object")
    for name in ("v1/a/dead", "v1/b/c/dead", "v1/RECOVER.txt"):
        assert faults.in_child(partial(put, storage, name), 1, die_at_link).killed
    assert names(storage) == ["v1/a/object"]
    assert len(list(storage.root.rglob(".*.part"))) == 3
    (storage.root / "v1/b/empty").mkdir()
    assert storage.sweep("v1/b") == 1
    assert not (storage.root / "v1/b").exists()
    assert storage.sweep("v1/RECOVER.txt") == 1
    assert storage.sweep() == 1
    assert not list(storage.root.rglob(".*.part"))
    assert get(storage, "v1/a/object") == b"x"


def test_a_name_that_cannot_be_made_durable_is_taken_back(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the directory cannot be put on disk after an object got its name, the write failed, and the name is free."""

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) and names(storage):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError, match="Input/output error"):
        put(storage, "v1/a")
    assert names(storage) == []
    assert not list(storage.root.rglob("*.part"))


def test_strangers_are_left_alone(storage: DirectoryStorage) -> None:
    """Hidden files and directories of others are neither objects nor leftovers."""
    put(storage, "v1/a")
    (storage.root / ".Trash").mkdir()
    (storage.root / ".Trash/old").write_bytes(b"old")
    (storage.root / "v1/.note").write_bytes(b"note")
    assert names(storage) == ["v1/a"]
    assert storage.sweep() == 0
    assert (storage.root / ".Trash/old").exists()
    assert (storage.root / "v1/.note").exists()


def test_a_repository_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Listing before the first backup finds nothing, and makes nothing."""
    storage = DirectoryStorage(tmp_path / "never")
    assert names(storage) == []
    assert storage.sweep() == 0
    with pytest.raises(ObjectMissing):
        storage.open("v1/a")
    assert not (tmp_path / "never").exists()


def test_the_floor_of_free_space_is_kept(tmp_path: Path) -> None:
    """A write that would begin below the floor is refused, with the setting to change, and leaves nothing."""
    storage = DirectoryStorage(tmp_path / "repository", keep_free=1 << 60)
    with pytest.raises(StorageError, match="kept free") as caught:
        put(storage, "v1/a")
    assert "keep_free" in (caught.value.hint or "")
    assert names(storage) == []
    assert not list(storage.root.rglob("*.part"))


def test_without_hard_links_nothing_is_overwritten_either(
    storage: DirectoryStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system without hard links still gets whole objects, and never a second one of a name."""

    def link(*_args: object, **_kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    put(storage, "v1/a", b"first")
    with pytest.raises(StorageError, match="exists"):
        put(storage, "v1/a", b"second")
    assert get(storage, "v1/a") == b"first"
    assert not list(storage.root.rglob("*.part"))
