"""S3 storages on real servers: each held to the contract, and what a bucket keeps, hides and refuses beyond it."""

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from edgedr.errors import ObjectExists, ObjectMissing, Refused
from edgedr.storage.base import Storage
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_client import S3Client
from tests.lab.policies import PREFIX, tenant
from tests.lab.s3road import fresh_prefix, key_file, options, shared
from tests.lab.s3servers import Ceph, Moto, Rclone, S3Server
from tests.storage_contract import StorageContract, get, names, send

A, B = "v1/full/plant-7/cp-1/a", "v1/full/plant-7/cp-1/b"


@pytest.fixture(scope="class")
def client(request: pytest.FixtureRequest) -> S3Client:
    """One client for a class: to make one takes longer than a test."""
    server: S3Server = request.getfixturevalue(request.cls.server)
    made = S3Client(options(server, server.bucket(**request.cls.kept)))
    if request.cls.kept.get("locked"):
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
        lock = {"ObjectLockEnabled": "Enabled", "Rule": rule}
        made.call("put_object_lock_configuration", "the bucket", ObjectLockConfiguration=lock)
    return made


class S3Contract(StorageContract):
    """Every one of these keeps every promise: what a bucket with versions keeps is seen by other means only."""

    server: ClassVar[str]
    kept: ClassVar[Mapping[str, bool]] = {}

    @pytest.fixture
    def storage(self, client: S3Client) -> Storage:
        return shared(client, fresh_prefix())


class TestMoto(S3Contract):
    server = "moto"


class TestMotoWithObjectLock(S3Contract):
    server = "moto"
    kept: ClassVar = {"locked": True}


class TestRclone(S3Contract):
    server = "rclone"


class TestCeph(S3Contract):
    server = "ceph"


class TestCephWithObjectLock(S3Contract):
    server = "ceph"
    kept: ClassVar = {"locked": True}


@pytest.fixture(params=["moto", "ceph"])
def versioned(request: pytest.FixtureRequest) -> S3Storage:
    """A bucket that keeps versions."""
    server: S3Server = request.getfixturevalue(request.param)
    return S3Storage(options(server, server.bucket(versioned=True)))


@pytest.fixture
def plain(moto: Moto) -> S3Storage:
    """A bucket that keeps none."""
    return S3Storage(options(moto, moto.bucket()))


def overwrite(storage: S3Storage, name: str, data: bytes) -> None:
    """Write over an object, as somebody else may."""
    key = f"{storage._options.prefix}/{name}"
    storage.client.call("put_object", name, Key=key, Body=data)


def contents(storage: S3Storage, name: str) -> list[bytes]:
    """Return what else there is under a name."""
    found = []
    for file in storage.others(name):
        with file:
            found.append(file.read())
    return found


def small_pages(storage: S3Storage) -> None:
    """Let the server give two entries at a time."""
    for each in ("ListObjectsV2", "ListObjectVersions"):
        storage.client._connected().meta.events.register(
            f"before-parameter-build.s3.{each}", lambda params, **_: params.setdefault("MaxKeys", 2)
        )


def test_older_contents_are_to_be_had(versioned: S3Storage) -> None:
    """What was written over comes behind what took its place: that once more first, then from new to old."""
    send(versioned, A, b"ours")
    send(versioned, f"{A}/below", b"a neighbour")
    overwrite(versioned, A, b"a stranger's")
    overwrite(versioned, A, b"another's")
    assert get(versioned, A) == b"another's"
    assert contents(versioned, A) == [b"another's", b"a stranger's", b"ours"]


def test_without_versions_there_is_the_same_once_more(plain: S3Storage) -> None:
    """What was overwritten for good is gone; nothing is made up."""
    send(plain, A, b"ours")
    overwrite(plain, A, b"a stranger's")
    assert contents(plain, A) == [b"a stranger's"]


def test_what_was_deleted_is_found_by_who_asks_for_it(versioned: S3Storage) -> None:
    """A list shows deleted objects no more, except with `deleted`: each once, its newest content, in order."""
    for name, data in ((f"{A}/2", b"two"), (f"{A}/1", b"one, old"), (B, b"here"), (f"{A}/3", b"three")):
        send(versioned, name, data)
    overwrite(versioned, f"{A}/1", b"one")
    for name in (f"{A}/1", f"{A}/2", f"{A}/3"):
        versioned.delete(name)
    assert names(versioned) == [B]
    assert names(versioned, A) == []
    with pytest.raises(ObjectMissing):
        versioned.open(f"{A}/1")
    hidden = S3Storage(versioned.client.options, deleted=True)
    small_pages(hidden)
    assert [(each.name, each.size) for each in hidden.list(A)] == [(f"{A}/1", 3), (f"{A}/2", 3), (f"{A}/3", 5)]
    assert names(hidden) == [f"{A}/1", f"{A}/2", f"{A}/3", B]
    assert names(hidden, f"{A}/2") == [f"{A}/2"]
    assert [get(hidden, name) for name in names(hidden)] == [b"one", b"two", b"three", b"here"]
    with pytest.raises(ObjectMissing):
        hidden.open(f"{A}/4")


def test_a_node_that_may_only_put_puts(ceph: Ceph) -> None:
    """Blind, as the shipped policy makes it: new objects arrive, and nothing is overwritten."""
    there = tenant(ceph, locked=False, roles=("node", "monitor"))
    key = key_file(ceph.directory / f"key-{there.bucket}", *there.keys["node"])
    node = S3Storage(options(ceph, there.bucket, prefix=PREFIX, credential=key))
    assert send(node, A, b"ours")
    assert send(node, B, b"ours too")
    with pytest.raises(ObjectExists, match="not known to be what was to be stored"):
        send(node, A, b"ours")  # for all we know it is somebody else's
    assert not send(node, A, b"ours", again=True)
    with pytest.raises(ObjectExists):
        send(node, A, b"other")
    node.replace("v1/heartbeat/plant-7/cp-1.json", b"first")
    node.replace("v1/heartbeat/plant-7/cp-1.json", b"second")
    for act in (lambda: node.open(A), lambda: names(node), lambda: node.delete(A), lambda: contents(node, A)):
        with pytest.raises(Refused):
            act()
    monitor = there.by("monitor")
    found = [monitor.get_object(Bucket=there.bucket, Key=f"{PREFIX}/{name}")["Body"].read() for name in (A, B)]
    assert found == [b"ours", b"ours too"]


def test_of_many_writers_at_once_one_wins(ceph: Ceph) -> None:
    """If-None-Match on a plain bucket: whoever comes first is stored, all others are told."""
    storage = S3Storage(options(ceph, ceph.bucket()))
    ready = threading.Barrier(8)

    def write(data: bytes) -> bytes | None:
        ready.wait()
        try:
            return data if send(storage, A, data) else None
        except ObjectExists:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [data for data in pool.map(write, [b"%d" % number for number in range(8)]) if data is not None]
    assert won == [get(storage, A)]


@pytest.mark.parametrize("by", ["put", "replace"])
def test_how_it_is_to_be_kept_reaches_the_server(moto: Moto, by: str) -> None:
    """Encryption by the server, its key, and the storage class are asked for with each object."""
    kept = {"sse": "aws:kms", "kms_key": "alias/edge", "storage_class": "STANDARD_IA"}
    storage = S3Storage(options(moto, moto.bucket(), **kept))
    if by == "put":
        send(storage, A, b"x")
    else:
        storage.replace(A, b"x")
    head = storage.client.call("head_object", A, Key=f"{storage._options.prefix}/{A}")
    assert (head["ServerSideEncryption"], head["StorageClass"]) == ("aws:kms", "STANDARD_IA")
    assert "alias/edge" in head["SSEKMSKeyId"]


def test_more_than_a_page_is_listed(rclone: Rclone, plain: S3Storage) -> None:
    """A list goes on behind its first thousand entries, in order, each once; also where pages are tiny."""
    bucket = rclone.bucket()
    storage = S3Storage(options(rclone, bucket))
    at = rclone.directory / "data" / bucket / storage._options.prefix / "v1/full"
    at.mkdir(parents=True)
    for number in range(1003):
        (at / f"{number:04d}").touch()
    assert names(storage) == [f"v1/full/{number:04d}" for number in range(1003)]
    small_pages(plain)
    for number in range(5):
        send(plain, f"{A}/{number}", b"")
    assert names(plain) == [f"{A}/{number}" for number in range(5)]


@pytest.mark.parametrize("deleted", [False, True])
@pytest.mark.parametrize("kind", ["moto", "ceph"])
def test_strange_names_of_others_are_passed_over(kind: str, deleted: bool, request: pytest.FixtureRequest) -> None:
    """What others keep in the bucket, whatever its name, neither shows nor breaks a list; odd names of ours do show."""
    server: S3Server = request.getfixturevalue(kind)
    storage = S3Storage(options(server, server.bucket(versioned=True)), deleted=deleted)
    prefix = storage._options.prefix
    ours = ["v1/a b+c%20ü&<>", "v1/full/x"]
    foreign = ("v1//x", "v1/.hidden", "v1/full/", "v1/a/../b", "/v1/x", "v1/tab\t/..", "")
    keys = [*(f"{prefix}/{name}" for name in (*ours, *foreign)), f"{prefix}-2/v1/full/x", "v1/full/x", prefix]
    for key in keys:
        storage.client.call("put_object", key, Key=key, Body=b"x")
    assert names(storage) == ours
    assert get(storage, ours[0]) == b"x"
