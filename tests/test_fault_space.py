"""Fault 3 for real: disks that are full, and the floor of free space that is kept for others."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedr.errors import RestoreStopped, StorageError
from edgedr.repository.parents import ParentCache
from edgedr.storage.directory import DirectoryStorage
from tests.lab.fake_source import Lab, bytes_of, expect

SMALL = bytes_of(1, 20_000)
LARGE = bytes_of(2, 3 << 20)
DISK = 2 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MiB. Only root can: elsewhere a laptop skips by name, and CI fails."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "edgedr-test", str(path)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = f"cannot mount a small disk, run as root: {done.stderr.strip()}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_below_the_repository(tmp_path: Path, disk: Path) -> None:
    """A backup that does not fit fails with what to do, leaves nothing of it, and the next one that fits works."""
    lab = Lab(tmp_path / "lab", storage=DirectoryStorage(disk / "repository"))
    contents = {lab.back_up(SMALL).manifest.id: SMALL}
    free = shutil.disk_usage(disk).free
    with pytest.raises(StorageError, match="No space left on device") as caught:
        lab.back_up(LARGE)
    assert "free space" in (caught.value.hint or "")
    assert str(disk) in caught.value.message
    assert shutil.disk_usage(disk).free == free
    assert not list(disk.rglob("*.part"))
    expect(lab, contents)
    contents[lab.back_up(SMALL[::-1]).manifest.id] = SMALL[::-1]
    expect(lab, contents)


def test_a_full_disk_below_the_state(tmp_path: Path, disk: Path) -> None:
    """Where the plaintext does not fit, the run fails alike, and what was captured of it is gone."""
    lab = Lab(tmp_path / "lab")
    lab.cache = ParentCache(disk / "parent")
    contents = {lab.back_up(SMALL).manifest.id: SMALL}
    free = shutil.disk_usage(disk).free
    with pytest.raises(StorageError, match="No space left on device"):
        lab.back_up(LARGE)
    assert shutil.disk_usage(disk).free == free
    expect(lab, contents)
    assert lab.leftovers() == []


@pytest.mark.parametrize("where", ["repository", "state"])
def test_the_floor_is_kept(tmp_path: Path, disk: Path, where: str) -> None:
    """Once others need the disk, edgedr stops at its floor, far from full, and names the setting."""
    floor = DISK // 2
    lab = Lab(tmp_path / "lab", storage=DirectoryStorage(disk / "repository", keep_free=floor))
    if where == "state":
        lab = Lab(tmp_path / "lab")
        lab.cache = ParentCache(disk / "parent", keep_free=floor)
    contents = {lab.back_up(SMALL).manifest.id: SMALL}
    (disk / "etcd").write_bytes(bytes(floor))
    free = shutil.disk_usage(disk).free
    with pytest.raises(StorageError, match="are kept free") as caught:
        lab.back_up(SMALL[::-1])
    assert "keep_free" in (caught.value.hint or "")
    assert shutil.disk_usage(disk).free == free
    expect(lab, contents)
    (disk / "etcd").unlink()
    contents[lab.back_up(SMALL[::-1]).manifest.id] = SMALL[::-1]
    expect(lab, contents)


def test_a_target_without_room_is_refused_first(tmp_path: Path, disk: Path) -> None:
    """A restore looks for room before it writes, and leaves the target as it was."""
    lab = Lab(tmp_path / "lab")
    backup = lab.back_up(LARGE).manifest.id
    with pytest.raises(RestoreStopped, match="no room") as caught:
        lab.restore(backup, disk / "target")
    assert "another disk" in (caught.value.hint or "")
    assert not (disk / "target").exists()


@pytest.mark.parametrize("given", ["new", "empty"])
def test_a_target_that_fills_up_is_left_as_it_was(
    tmp_path: Path, disk: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the room goes while a restore writes, nothing of it stays."""
    monkeypatch.setattr("edgedr.durable.free_space_of", lambda _: 1 << 40)  # there was room when it looked
    lab = Lab(tmp_path / "lab")
    backup = lab.back_up(LARGE).manifest.id
    target = disk / "target"
    if given == "empty":
        target.mkdir()
    with pytest.raises(StorageError, match="No space left on device"):
        lab.restore(backup, target)
    assert list(disk.rglob("*")) == ([target] if given == "empty" else [])
