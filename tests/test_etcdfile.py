"""The reader of etcd's file: only what lives counts, whatever else is in its pages; hostile files end in words."""

import os
import random
import struct
from pathlib import Path

import pytest

from edgedr.errors import Damaged, StorageError
from edgedr.etcdfile import EtcdFile
from tests.lab import bolt, kubeadm
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


KEPT = {b"/registry/secrets/a/one": NEW + b"1", b"/registry/secrets/a/two": b"in the clear"}


def key_bucket(page: bolt.Page) -> bolt.Page:
    """Return a root page with a bucket of etcd that holds a page itself."""
    return bolt.leaf([(b"key", bolt.inline(page), bolt.BUCKET)])


def live(path: Path) -> dict[bytes, bytes]:
    with EtcdFile(path) as file:
        return file.values(b"")


def test_the_mark_of_a_bumped_revision_is_no_key(tmp_path: Path) -> None:
    """A restore with ``--bump-revision`` leaves an entry without a value: nothing was stored there."""
    entries = [*bolt.history(*KEPT.items()), (bolt.revision(1_000_000), b"", 0)]
    path = bolt.write(tmp_path / "etcd.db", bolt.database(key_bucket(bolt.leaf(entries))))
    assert live(path) == KEPT
    assert sealed(path) == {NEW.decode(): 1}


def test_a_deletion_takes_all_earlier_values_along(tmp_path: Path) -> None:
    """A tombstone ends a key, until the key is put once more; it is not a value without bytes."""
    changes: list[tuple[bytes, bytes | None]] = [
        (b"/gone", OLD + b"1"),
        (b"/back", OLD + b"2"),
        (b"/gone", None),
        (b"/back", None),
        (b"/back", NEW + b"3"),
    ]
    path = bolt.write(tmp_path / "etcd.db", bolt.database(key_bucket(bolt.leaf(bolt.history(*changes)))))
    assert live(path) == {b"/back": NEW + b"3"}
    assert sealed(path) == {NEW.decode(): 1}


@pytest.mark.parametrize("page_size", [1 << 10, 4 << 10, 16 << 10, 64 << 10])
@pytest.mark.parametrize("lost", [None, 0, 1])
def test_a_database_of_any_page_size(tmp_path: Path, page_size: int, lost: int | None) -> None:
    """Pages are as large as those of the machine that made the file; one meta page of the two is enough to know."""
    large = {b"/registry/secrets/a/large": NEW + bytes(3 * page_size)}
    pages = bolt.database(
        bolt.leaf([(b"key", bolt.bucket(4), bolt.BUCKET), (b"lease", bolt.inline(bolt.leaf([])), bolt.BUCKET)]),
        bolt.branch([5, 6]),
        bolt.leaf(bolt.history(*KEPT.items(), (b"/registry/secrets/a/large", OLD))),
        bolt.leaf([(bolt.revision(9), bolt.key_value(*next(iter(large.items()))), 0)]),
        page_size=page_size,
    )
    if lost is not None:
        pages[lost] = bolt.torn(pages[lost])
    path = bolt.write(tmp_path / "etcd.db", pages, page_size=page_size)
    assert live(path) == KEPT | large


@pytest.mark.parametrize("newer", [0, 1])
def test_the_newer_meta_page_counts(tmp_path: Path, newer: int) -> None:
    """The last transaction wrote one of the two in turn; the other leads to what was before it."""
    pages = bolt.database(
        key_bucket(bolt.leaf(bolt.history((b"/before", b"1")))), key_bucket(bolt.leaf(bolt.history((b"/after", b"2"))))
    )
    pages[newer] = bolt.meta(root=4, transaction=9)
    pages[1 - newer] = bolt.meta(root=3, transaction=8)
    assert live(bolt.write(tmp_path / "etcd.db", pages)) == {b"/after": b"2"}


@pytest.mark.parametrize("newer", [0, 1])
def test_a_torn_meta_page_does_not_count(tmp_path: Path, newer: int) -> None:
    """A transaction whose meta page does not add up was never committed; without any good one nothing is claimed."""
    pages = bolt.database(
        key_bucket(bolt.leaf(bolt.history((b"/before", b"1")))), key_bucket(bolt.leaf(bolt.history((b"/after", b"2"))))
    )
    pages[newer] = bolt.torn(bolt.meta(root=4, transaction=9))
    pages[1 - newer] = bolt.meta(root=3, transaction=8)
    assert live(bolt.write(tmp_path / "etcd.db", pages)) == {b"/before": b"1"}
    pages[1 - newer] = bolt.torn(pages[1 - newer])
    with pytest.raises(Damaged, match="no valid meta page"):
        live(bolt.write(tmp_path / "etcd.db", pages))


def test_only_the_bucket_of_keys_is_read(tmp_path: Path) -> None:
    """Other buckets hold entries of other kinds, and an item of that name that is no bucket is none."""
    other = bolt.inline(bolt.leaf(bolt.history((b"/not-a-key", b"1"))))
    root = bolt.leaf([(b"key", other, 0), (b"meta", other, bolt.BUCKET)])
    assert live(bolt.write(tmp_path / "etcd.db", bolt.database(root))) == {}


@pytest.mark.parametrize(("levels", "whole"), [(32, True), (33, False)])
def test_a_tree_that_is_too_deep_is_none(tmp_path: Path, levels: int, whole: bool) -> None:
    """No database has that many levels, though each of its pages is another one."""
    pages = [bolt.branch([number]) for number in range(4, 4 + levels)]
    path = bolt.write(tmp_path / "etcd.db", bolt.database(*pages, key_bucket(bolt.leaf(bolt.history(*KEPT.items())))))
    if whole:
        assert live(path) == KEPT
    else:
        with pytest.raises(Damaged, match="lead in circles"):
            live(path)


def test_pages_that_are_reached_again_and_again_are_no_tree(tmp_path: Path) -> None:
    """Few pages, few levels, and yet endless work: nobody is led through more pages than there are."""
    wide = [bolt.branch([number] * 50) for number in (4, 5)]
    path = bolt.write(tmp_path / "etcd.db", bolt.database(*wide, key_bucket(bolt.leaf(bolt.history(*KEPT.items())))))
    with pytest.raises(Damaged, match="lead in circles"):
        live(path)


@pytest.mark.parametrize(
    ("overflow", "pages", "said"),
    [
        ((64 << 20) // 4096 - 1, 1 << 15, None),
        ((64 << 20) // 4096, 1 << 15, "goes on beyond its end"),
        (7, 10, None),
        (7, 9, "goes on beyond its end"),
        (0xFFFFFFFF, 1 << 15, "goes on beyond its end"),
    ],
    ids=["the longest", "one more", "to the end", "beyond the end", "any length"],
)
def test_a_page_is_as_long_as_memory_allows(tmp_path: Path, overflow: int, pages: int, said: str | None) -> None:
    """A page that says it has gigabytes is not read, nor one that would go on beyond the file."""
    root = key_bucket(bolt.leaf(bolt.history(*KEPT.items())))
    long = bolt.Page(root.flags, root.count, root.content, overflow)
    path = bolt.write(tmp_path / "etcd.db", bolt.database(long), size=(pages + 1) * 4096)
    if said is None:
        assert live(path) == KEPT
    else:
        with pytest.raises(Damaged, match=said):
            live(path)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        (bolt.Page(bolt.FREELIST, 0), "page 3 is neither branch nor leaf"),
        (bolt.branch([4]), "page 4 is beyond its end"),
        (bolt.Page(bolt.LEAF, 65535), "holds more than it can"),
        (bolt.leaf([(b"key", b"short", bolt.BUCKET)]), "a bucket without a header"),
        (bolt.leaf([(b"key", bolt.bucket(0), bolt.BUCKET)]), "a page without a header"),
        (key_bucket(bolt.leaf([(bolt.revision(2), b"\x0a\x09/key", 0)])), "a stored value is cut"),
        (key_bucket(bolt.leaf([(bolt.revision(2), b"\x0a\xff", 0)])), "a number is cut"),
        (key_bucket(bolt.leaf([(bolt.revision(2), b"\x0d/key", 0)])), "no key and value"),
    ],
    ids=["flags", "number", "count", "bucket", "inline", "value", "length", "field"],
)
def test_what_does_not_add_up_is_named(tmp_path: Path, root: bolt.Page, said: str) -> None:
    """Each way not to be a database has its own words."""
    with pytest.raises(Damaged, match=said):
        live(bolt.write(tmp_path / "etcd.db", bolt.database(root)))
