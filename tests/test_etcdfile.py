"""The reader of etcd's file: only what lives counts, whatever else is in its pages; hostile files end in words."""

import os
import random
import struct
from pathlib import Path

import pytest

from edgedr.errors import Damaged, StorageError
from edgedr.etcdfile import EtcdFile
from tests.lab import kubeadm
from tests.lab.etcd import EtcdCluster, Version

OLD, NEW = b"k8s:enc:aescbc:v1:old:", b"k8s:enc:secretbox:v1:new:"


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of Kubernetes 1.36 on etcd 3.6, restored and pruned on etcd 3.5."""
    return kubeadm.datastore(tmp_path_factory.mktemp("etcd") / "etcd.db")


def sealed(path: Path) -> dict[str, int]:
    with EtcdFile(path) as file:
        return file.sealed_with()


def test_genuine_secrets_are_counted(genuine: Path) -> None:
    """Of 417 objects, the 30 Secrets are sealed, all with the same key."""
    assert sealed(genuine) == {"k8s:enc:secretbox:v1:key1:": 30}
    with EtcdFile(genuine) as file:
        assert len(file.values(b"/registry/")) == 417
        assert file.mentions() == {"k8s:enc:secretbox:v1:key1:"}
        namespaces = file.values(b"/registry/namespaces/")
        assert namespaces[b"/registry/namespaces/kube-system"].startswith(b"k8s\0")


@pytest.mark.parametrize("version", ["3.4", "3.5"])
def test_only_the_last_value_of_a_key_counts(tmp_path: Path, version: Version) -> None:
    """Overwritten, deleted, made anew, in a tree of several levels, with values of many pages: as the server says."""
    with EtcdCluster(tmp_path, version=version) as etcd:
        etcd.fill((b"/registry/secrets/a/%05d" % n, OLD + os.urandom(40)) for n in range(3000))
        etcd.fill((b"/registry/secrets/a/%05d" % n, NEW + os.urandom(40)) for n in range(2000))
        etcd.put("/registry/secrets/a/large", NEW + os.urandom(600_000))
        etcd.put("/registry/configmaps/a/text", b"it says " + OLD + b" in its middle")
        etcd.delete(b"/registry/secrets/a/00000")
        etcd.delete(b"/registry/secrets/a/02999")
        etcd.put("/registry/secrets/a/02999", NEW)
        etcd.put("/registry/secrets/a/00001", b"in the clear again")
        etcd.etcdctl("snapshot", "save", str(tmp_path / "etcd.db"))
        items = etcd.items()
    expected: dict[str, int] = {}
    for value in items.values():
        for seal in (OLD, NEW):
            if value.startswith(seal):
                expected[seal.decode()] = expected.get(seal.decode(), 0) + 1
    assert sealed(tmp_path / "etcd.db") == expected
    with EtcdFile(tmp_path / "etcd.db") as file:
        assert file.values(b"") == items
        assert file.mentions() == {OLD.decode(), NEW.decode()}


def test_a_database_without_anything(tmp_path: Path) -> None:
    """A new etcd has no keys, and that is no fault."""
    with EtcdCluster(tmp_path) as etcd:
        etcd.etcdctl("snapshot", "save", str(tmp_path / "etcd.db"))
    with EtcdFile(tmp_path / "etcd.db") as file:
        assert (file.values(b""), file.sealed_with(), file.mentions()) == ({}, {}, frozenset())


def test_a_seal_across_two_reads_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast look never misses one, wherever the file is cut into pieces."""
    monkeypatch.setattr("edgedr.etcdfile._CHUNK", 1024)
    for shift in range(990, 1030):
        path = tmp_path / str(shift)
        path.write_bytes(bytes(shift) + NEW + bytes(3000))
        with EtcdFile(path) as file:
            assert file.mentions() == {NEW.decode()}, shift


@pytest.mark.parametrize("length", [0, 10, 80, 4096, 8192, 100_000])
def test_a_file_that_is_cut_is_damaged(genuine: Path, tmp_path: Path, length: int) -> None:
    """What is no whole database is said to be none."""
    path = tmp_path / "etcd.db"
    path.write_bytes(genuine.read_bytes()[:length])
    with pytest.raises(Damaged, match=r"etcd\.db is not a whole etcd database"):
        sealed(path)


def test_no_file_is_a_storage_error(tmp_path: Path) -> None:
    """A file that is not there is not damaged."""
    with pytest.raises(StorageError):
        sealed(tmp_path / "none")


def test_a_tree_that_leads_in_circles_ends(genuine: Path, tmp_path: Path) -> None:
    """A branch page that leads to itself is refused, and does not hold anybody up."""
    data = bytearray(genuine.read_bytes())
    size = 4096
    for number in range(len(data) // size):
        flags, count = struct.unpack_from("<HH", data, number * size + 8)
        if flags == 1:
            for index in range(count):
                struct.pack_into("<Q", data, number * size + 16 + index * 16 + 8, number)
    path = tmp_path / "etcd.db"
    path.write_bytes(data)
    with pytest.raises(Damaged):
        sealed(path)


def test_hostile_bytes_end_in_words(genuine: Path, tmp_path: Path) -> None:
    """Whatever bytes are changed, reading ends: with an answer, or as ``Damaged``; never otherwise."""
    original = genuine.read_bytes()
    pages = [n for n in range(len(original) // 4096) if original[n * 4096 + 8] in {1, 2, 4}]
    chance = random.Random(7)
    outcomes = set()
    for _ in range(300):
        data = bytearray(original)
        for _ in range(chance.randrange(1, 4)):
            at = chance.choice(pages) * 4096 + chance.randrange(0, chance.choice((16, 80, 4096)))
            data[at] = chance.randrange(256)
        path = tmp_path / "etcd.db"
        path.write_bytes(data)
        try:
            sealed(path)
            outcomes.add("answer")
        except Damaged:
            outcomes.add("damaged")
    assert outcomes == {"answer", "damaged"}
