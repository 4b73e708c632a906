"""Copies of what was shipped: written over in a bucket, taken from place to place, kept on a second disk."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from edgedr import strictjson
from edgedr.model import Manifest
from edgedr.repository.repository import Repository
from edgedr.storage.directory import DirectoryStorage
from edgedr.storage.s3 import S3Storage
from tests.lab.s3faults import Fault, Request
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3road import by_way_of, fresh_prefix, light_clients, options, shared, waits
from tests.lab.s3servers import Moto
from tests.lab.shipped import HEARTBEAT, Away, Shipped
from tests.storage_contract import get, names
from tests.test_bucket_only import Link
from tests.test_fault_replication import Node


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for another try."""
    light_clients(monkeypatch)
    waits(monkeypatch)


def forged(shipped: Shipped, _: str, data: bytes) -> bytes:
    """Return a manifest that says the same, but for a hash: consistent in itself."""
    manifest = strictjson.decode(Manifest, data, what="it", max_bytes=1 << 20)
    artifact = manifest.artifacts[0]
    segment = replace(artifact.segments[0], sha256="0" * 64)
    other = replace(artifact, segments=(segment, *artifact.segments[1:]))
    return strictjson.encode(replace(manifest, artifacts=(other, *manifest.artifacts[1:])))


SPOILT: dict[str, tuple[int, str, Callable[[Shipped, str, bytes], bytes]]] = {
    "segment, as long": (0, "node.tar.001.zst.age", lambda _, __, data: data[:-1] + bytes([data[-1] ^ 1])),
    "segment, shorter": (0, "node.tar.001.zst.age", lambda _, __, data: data[:-1]),
    "segment, longer": (0, "node.tar.001.zst.age", lambda _, __, data: data * 2),
    "segment, empty": (2, "node.tar.000.zst.age", lambda _, __, data: b""),
    "segment, of another backup": (1, "node.tar.000.zst.age", lambda shipped, name, _: another(shipped, 2, name)),
    "manifest, no JSON": (2, "manifest.json", lambda _, __, data: b"<html>"),
    "manifest, forged": (2, "manifest.json", forged),
    "manifest, of another backup": (2, "manifest.json", lambda shipped, name, _: another(shipped, 1, name)),
    "signature": (0, "manifest.json.sig", lambda _, __, data: b"-----BEGIN SSH SIGNATURE-----\n"),
}


def another(shipped: Shipped, backup: int, like: str) -> bytes:
    return next(data for name, data in shipped.of(backup).items() if name.endswith(like.rpartition("/")[2]))


def spoil(there: Away, what: str) -> str:
    """Write over one object; return its name."""
    backup, within, change = SPOILT[what]
    name = next(name for name in there.shipped.of(backup) if name.endswith(f"/{within}"))
    there.write(name, change(there.shipped, name, there.shipped.objects[name]))
    return name


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_signed_for_is_taken_from_behind_what_was_written_over_it(
    keeping: Away, shipped: Shipped, tmp_path: Path, what: str
) -> None:
    """In a bucket with versions: verified, restored and copied as if nothing had been, and the stray is named."""
    name = spoil(keeping, what)
    keeping.write(name, b"and once more")
    stray = f"{name}: something else came first; what is signed for was found and taken"
    assert [each["id"] for each in keeping.json("list")] == list(shipped.ids)
    assert stray in keeping.here("verify", "--all")
    assert stray in keeping.here("restore", "--to", tmp_path / "restored", *keeping.identity)
    assert keeping.restored(tmp_path / "restored") == dict(shipped.newest)
    said = keeping.run("copy", keeping.place.url, tmp_path / "copy", *keeping.access())
    assert f"{name}: something else stood there first" in said
    assert content(tmp_path / "copy") == without_heartbeat(shipped.objects)


@pytest.mark.parametrize("what", SPOILT)
def test_with_an_identity_too_what_is_signed_for_is_proven(keeping: Away, what: str) -> None:
    """L2 reads what stands behind what was written over it, just as L1 and a restore do."""
    spoil(keeping, what)
    verdicts = keeping.json("verify", "--all", *keeping.identity)
    assert [(each["state"], each["level"]) for each in verdicts] == [("ok", "L2")] * 3


@pytest.mark.parametrize("what", SPOILT)
def test_without_versions_it_is_damaged(there: Away, shipped: Shipped, tmp_path: Path, what: str) -> None:
    """Exit 7, the object and its backup named, nothing extracted, and the nearest that is intact, where one is."""
    name = spoil(there, what)
    backup = SPOILT[what][0]
    said = there.here("verify", "--all", *there.identity, code=7)
    assert shipped.ids[backup] in said
    assert name.rpartition("/")[2].removesuffix(".sig") in said or "signature" in said
    said = there.here("restore", "--to", tmp_path / "restored", *there.identity, code=7)
    assert not (tmp_path / "restored/files").exists()
    if backup > 0:
        assert shipped.ids[backup - 1] in said.rpartition("hint:")[2]


def content(directory: Path) -> dict[str, bytes]:
    """Return the objects of a repository in a directory."""
    storage = DirectoryStorage(directory)
    return {name: get(storage, name) for name in names(storage)}


def without_heartbeat(objects: Mapping[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in objects.items() if name != HEARTBEAT}


def test_there_and_back_again(there: Away, shipped: Shipped, moto: Moto, tmp_path: Path) -> None:
    """From a bucket to a directory, and to a bucket of another server: byte for byte; the second time, nothing."""
    disk = tmp_path / "disk"
    assert "3 backups" in there.run("copy", there.place.url, disk, *there.access())
    assert content(disk) == without_heartbeat(shipped.objects)
    far = options(moto, moto.bucket())
    to = ("--to-endpoint", far.endpoint or "", "--to-ca", str(far.ca), "--to-credential", str(far.credential))
    for source, words in ((disk, ("--path-style", *to)), (there.place.url, (*there.access(), *to))):
        said = there.run("copy", source, far.url, *words)
    storage = S3Storage(far)
    assert {name: get(storage, name) for name in names(storage)} == without_heartbeat(shipped.objects)
    assert "3 backups there already" in said
    there.here("verify", "--all", *there.identity, place=far)


def test_one_backup_goes_with_its_chain(there: Away, shipped: Shipped, tmp_path: Path) -> None:
    """`--id` brings what that backup needs, and nothing else."""
    there.run("copy", there.place.url, tmp_path / "disk", "--id", shipped.ids[1], *there.access())
    assert content(tmp_path / "disk").keys() == {"v1/RECOVER.txt", *shipped.of(0), *shipped.of(1)}
    assert there.run("copy", there.place.url, tmp_path / "x", "--site", "plant-8", *there.access(), code=8)


def test_a_copy_to_a_bucket_goes_on(there: Away, shipped: Shipped, proxy: S3Proxy, tmp_path: Path) -> None:
    """Cut at any put: no backup there that is not whole; the next run sends what is missing, and that alone."""
    there.run("copy", there.place.url, tmp_path / "disk", *there.access())
    wanted = without_heartbeat(shipped.objects)
    for number in range(1, len(wanted) + 1):
        target = shared(there.storage.client, fresh_prefix())
        place = by_way_of(proxy, target._options)
        proxy.faults = after(number, "PUT")
        there.run("copy", tmp_path / "disk", place.url, *there.access(place), code=5)
        assert [backup.damage for backup in Repository(target).list()] == [()] * len(Repository(target).list())
        before = set(names(target))
        assert len(before) == number - 1
        proxy.faults = lambda _: None
        proxy.requests.clear()
        there.run("copy", tmp_path / "disk", place.url, *there.access(place))
        sent = {each.path.partition(f"/{place.prefix}/")[2] for each in proxy.requests if each.method == "PUT"}
        assert sent == wanted.keys() - before
        assert {name: get(target, name) for name in names(target)} == wanted


def after(number: int, method: str) -> Callable[[Request], Fault | None]:
    """Let a link die for good with the ``number``-th request of that method."""
    seen: list[Request] = []

    def script(request: Request) -> Fault | None:
        seen.extend([request] if request.method == method else [])
        return Fault(reset_after=0) if len(seen) >= number else None

    return script


@pytest.mark.parametrize("whole", [0, 2, 3, 5, 7])
def test_a_copy_from_a_bucket_goes_on(
    there: Away, shipped: Shipped, proxy: S3Proxy, tmp_path: Path, whole: int
) -> None:
    """Cut within a download: what is whole stays, nothing is half there, and the next run brings the rest."""
    place, disk = by_way_of(proxy, there.place), tmp_path / "disk"
    proxy.faults = Link(whole, 100)
    there.run("copy", place.url, disk, *there.access(place), code=5)
    copied = [str(backup.id) for backup in Repository(DirectoryStorage(disk)).list()]
    assert copied == list(shipped.ids[: whole // 3])  # each has three segments
    proxy.faults = lambda _: None
    proxy.requests.clear()
    there.run("copy", place.url, disk, *there.access(place))
    assert content(disk) == without_heartbeat(shipped.objects)
    asked = {each.path.partition(f"/{place.prefix}/")[2] for each in proxy.requests if each.path.endswith(".age")}
    assert not asked & {name for one in range(len(copied)) for name in shipped.of(one)}


@pytest.mark.parametrize(("what", "left"), [("segment, shorter", 0), ("segment, of another backup", 1)])
def test_what_is_damaged_is_left_out_with_what_depends_on_it(
    there: Away, shipped: Shipped, tmp_path: Path, what: str, left: int
) -> None:
    """The intact are copied, the others named; exit 7. What was mended since comes with the next run."""
    name = spoil(there, what)
    said = there.run("copy", there.place.url, tmp_path / "disk", *there.access(), code=7)
    assert f"{3 - left} backups not copied; the first is {shipped.ids[left]}" in said
    listed = Repository(DirectoryStorage(tmp_path / "disk")).list()
    assert [str(backup.id) for backup in listed] == list(shipped.ids[:left])
    assert all(not backup.damage for backup in listed)
    there.write(name, shipped.objects[name])
    there.run("copy", there.place.url, tmp_path / "disk", *there.access())
    assert content(tmp_path / "disk") == without_heartbeat(shipped.objects)


def test_a_second_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory as a replica: not there, on the same disk by mistake, or meant; then it is as good as a bucket."""
    disk, node = tmp_path / "disk", Node(tmp_path / "node", capsys)
    node.make(f'\n[[replicas]]\nname = "usb"\nurl = "{disk}"\n')
    assert f"{disk} is not there" in node.run("backup", code=5)
    disk.mkdir()
    assert "is on the same disk as the repository" in node.run("replicate", code=5)
    assert list(disk.iterdir()) == []
    node.config.write_text(node.config.read_text() + "same_disk = true\n")
    node.change(1)
    node.run("replicate")
    node.run("backup")
    assert [each["shipped"] for each in node.json("list")] == [{"usb": True}] * 2
    assert {name: data for name, data in content(disk).items() if name != HEARTBEAT} == node.objects()
    assert HEARTBEAT in content(disk)
    elsewhere = [each["id"] for each in node.json("list", "--from", str(disk))]
    assert elsewhere == node.local()
    shutil.rmtree(disk / "v1")  # somebody swapped the disk: it has nothing, whatever is remembered
    assert node.json("replicate")[0]["shipped"] == node.local()
    node.run("verify", "--all", "--from", disk)
