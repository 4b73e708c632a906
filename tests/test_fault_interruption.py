"""Faults 1, 2 and 3: killed, torn and refused at every single change of the disk. Nothing committed is lost, ever."""

import errno
from collections import Counter
from pathlib import Path

import pytest

from edgedr.errors import EdgedrError, StorageError
from edgedr.model import BackupId
from edgedr.recovery.extract import extract  # noqa: F401 - warm, so that no child imports it anew
from tests.lab import faults
from tests.lab.fake_source import SEGMENT, Lab, bytes_of, churned, expect

FIRST = bytes_of(1, SEGMENT + 9000)
SECOND = churned(FIRST, 2)
THIRD = churned(SECOND, 3)
NEXT = churned(THIRD, 4)

DEATHS = {"before": faults.die_before, "within": faults.die_within}


pytestmark = pytest.mark.usefixtures("no_fsync")


def first(path: Path) -> dict[BackupId, bytes]:
    """Nothing is there yet."""
    Lab(path)
    return {}


def delta(path: Path) -> dict[BackupId, bytes]:
    """A full is there, so that a delta follows."""
    return {Lab(path).back_up(FIRST).manifest.id: FIRST}


def chain(path: Path) -> dict[BackupId, bytes]:
    """A full and a delta are there, and the leftovers of a killed run."""
    lab = Lab(path)
    contents = {lab.back_up(data).manifest.id: data for data in (FIRST, SECOND)}
    assert faults.in_child(lambda: _drop(lab.back_up(NEXT)), 60, faults.die_before).killed
    return contents


BEGINNINGS = {"first": first, "delta": delta, "chain": chain}


def _drop(_: object) -> None:
    """Stand for a command's exit code."""


def expect_sound(lab: Lab, before: dict[BackupId, bytes], attempted: bytes) -> dict[BackupId, bytes]:
    """Assert that what was committed is there, and at most the attempted backup more; all of it whole."""
    fresh = sorted(set(lab.ids()) - set(before))
    assert len(fresh) <= 1
    contents = before | dict.fromkeys(fresh, attempted)
    assert lab.ids() == sorted(contents)
    assert not any(backup.damage for backup in lab.listed())
    if fresh:
        assert lab.read(fresh[0]) == attempted
    return contents


def expect_recovery(lab: Lab, contents: dict[BackupId, bytes]) -> None:
    """Assert that the next run works and leaves nothing of the last one behind."""
    contents[lab.back_up(NEXT).manifest.id] = NEXT
    expect(lab, contents)
    assert lab.leftovers() == []


@pytest.mark.parametrize(("beginning", "death"), [("first", "within"), ("delta", "before"), ("chain", "within")])
def test_killed_at_any_change_of_the_disk(beginning: str, death: str, scratch: Path) -> None:
    """Whenever a backup is killed, what was committed restores, nothing half is listed, and the next run works."""
    before = BEGINNINGS[beginning](scratch / "origin")
    outcomes: Counter[bool] = Counter()
    for number, copy in faults.copies(scratch / "origin", scratch / "killed"):
        lab = Lab(copy)
        ended = faults.in_child(lambda lab=lab: _drop(lab.back_up(THIRD)), number, DEATHS[death])  # type: ignore[misc]
        contents = expect_sound(lab, before, THIRD)
        outcomes[len(contents) > len(before)] += 1
        expect_recovery(lab, contents)
        if not ended.killed:
            assert ended.code == 0
            break
    assert number > 60
    assert outcomes[False] > 40
    assert outcomes[True] > 2


@pytest.mark.parametrize("for_good", [False, True], ids=["once", "for good"])
def test_refused_at_any_change_of_the_disk(for_good: bool, scratch: Path) -> None:
    """A full or dying disk ends that run with a storage error; earlier backups are untouched, the next run works."""
    before = chain(scratch / "origin")
    left = {part.name for part in (scratch / "origin").rglob("*.part")}
    failed = 0
    for number, copy in faults.copies(scratch / "origin", scratch / "refused"):
        lab = Lab(copy)
        error: EdgedrError | None = None
        code = (errno.ENOSPC, errno.EIO)[number % 2]
        with faults.watched(number, faults.failing(code, for_good=for_good)) as seen:
            try:
                lab.back_up(THIRD)
            except StorageError as caught:
                error = caught
        contents = expect_sound(lab, before, THIRD)
        if error is None:
            assert len(contents) == len(before) + 1
        else:
            failed += 1
            assert len(contents) == len(before)
            assert error.hint
            assert str(copy) in error.message
            # Where letting go was what failed, the part stays until the next run.
            assert {part.name for part in copy.rglob("*.part")} <= left or seen.calls[number - 1] == "unlink"
        expect_recovery(lab, contents)
        if len(seen.calls) < number:
            break
    assert number > 60
    assert failed > 50


def test_every_change_of_the_disk_is_seen(scratch: Path) -> None:
    """The enumeration is whole: no file is opened for writing, named, moved or removed past the calls it counts."""
    for beginning in BEGINNINGS.values():
        path = scratch / beginning.__name__
        beginning(path)
        ended = faults.in_child(lambda path=path: _drop(Lab(path).back_up(THIRD)), audit=True)  # type: ignore[misc]
        assert ended.code == 0, ended.said
        assert len(ended.said) > 60
        assert {"open", "write", "fsync", "link", "unlink", "mkdir", "fchmod"} <= set(ended.said)
    assert {"rename", "rmdir"} <= set(ended.said)
    with pytest.raises(AssertionError, match="open"):
        faults.in_child(lambda: _drop((scratch / "past").write_bytes(b"the door")), audit=True)


def test_the_order_of_a_commit(scratch: Path) -> None:
    """Bytes are on disk before their name is, the name before the next object begins, and the manifest comes last."""
    lab = Lab(scratch)
    with faults.watched() as seen:
        manifest = lab.back_up(FIRST).manifest
    objects = [Path(name).name for call, name in seen.named if call == "link" and "/repository/" in name]
    segments = [segment.object for artifact in manifest.artifacts for segment in artifact.segments]
    assert objects == [*segments, "RECOVER.txt", "manifest.json.sig", "manifest.json"]
    for at, call in enumerate(seen.calls):
        if call == "link":
            assert seen.calls[at - 1 : at + 3] == ["fsync", "link", "fsync", "unlink"]
