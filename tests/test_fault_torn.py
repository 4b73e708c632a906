"""Fault 2: whatever a power cut or a bad disk made of a small record, it is recognised, and costs at most one full."""

import errno
import io
import os
import secrets
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from edgedr import durable
from edgedr.errors import StorageError
from edgedr.model import SCHEMA, BackupId, Class
from edgedr.repository.names import MANIFEST, SIGNATURE
from edgedr.sealing.signatures import Signer
from edgedr.state import State, StateDirectory, next_state
from tests.lab.damage import TORN
from tests.lab.fake_source import BLOB, EVERY, SEGMENT, START, Lab, bytes_of, churned, expect

pytestmark = pytest.mark.usefixtures("no_fsync")

FIRST = bytes_of(1, SEGMENT + 9000)
SECOND = churned(FIRST, 2)
THIRD = churned(SECOND, 3)
FOURTH = churned(THIRD, 4)


@pytest.fixture
def lab(scratch: Path) -> Lab:
    return Lab(scratch)


@pytest.fixture
def two(lab: Lab) -> dict[BackupId, bytes]:
    """Make a full and a delta."""
    return {lab.back_up(data).manifest.id: data for data in (FIRST, SECOND)}


def grow(lab: Lab, contents: dict[BackupId, bytes], data: bytes, kind: Class) -> str:
    """Back up once more, of that class; return the first reason for it."""
    manifest = lab.back_up(data).manifest
    assert manifest.kind is kind
    contents[manifest.id] = data
    return manifest.reasons[0]


@pytest.mark.parametrize("torn", TORN)
@pytest.mark.parametrize("artifact", [BLOB, "node.tar"])
def test_a_torn_cached_parent_costs_one_full(lab: Lab, two: dict[BackupId, bytes], artifact: str, torn: str) -> None:
    """A parent that is not what its manifest says is never compressed against; the one after is a delta again."""
    TORN[torn](lab.cache.path(max(two), artifact))
    assert f"the cached {artifact}" in grow(lab, two, THIRD, Class.FULL)
    grow(lab, two, FOURTH, Class.DELTA)
    expect(lab, two)
    assert lab.leftovers() == []


@pytest.mark.parametrize("trick", ["link", "pipe", "directory"])
def test_something_else_in_the_parents_place_costs_one_full(lab: Lab, two: dict[BackupId, bytes], trick: str) -> None:
    """A link, even to the right bytes, a FIFO or a directory that took the cached parent's name is not read."""
    path = lab.cache.path(max(two), BLOB)
    path.rename(lab.path / "elsewhere")
    if trick == "link":
        path.symlink_to(lab.path / "elsewhere")
    elif trick == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    grow(lab, two, THIRD, Class.FULL)
    expect(lab, two)
    assert lab.leftovers() == []
    assert (lab.path / "elsewhere").read_bytes() == SECOND


@pytest.mark.parametrize("torn", [name for name in TORN if name != "gone"])
def test_a_torn_newest_manifest_is_recognised(lab: Lab, two: dict[BackupId, bytes], torn: str) -> None:
    """It is listed as damaged by name; older backups list and restore, and the next one begins a new chain."""
    newest = max(two)
    TORN[torn](lab.object(newest, MANIFEST))
    (older, damaged) = lab.listed()
    assert (older.damage, damaged.id) == ((), newest)
    verdict = lab.verify()[newest]
    assert str(newest) in verdict.problems[0]
    assert (verdict.intact, verdict.instead) == (False, older.id)
    del two[newest]
    assert lab.read(older.id) == FIRST
    third = lab.back_up(THIRD).manifest
    assert third.kind is Class.FULL
    assert third.sequence == newest.sequence + 1
    two[third.id] = THIRD
    grow(lab, two, FOURTH, Class.DELTA)
    assert {backup: verdict.intact for backup, verdict in lab.verify().items()} == {
        **dict.fromkeys(two, True),
        newest: False,
    }
    assert {backup: lab.read(backup) for backup in two} == two


def test_a_manifest_that_is_gone_is_a_backup_that_is_gone(lab: Lab, two: dict[BackupId, bytes]) -> None:
    """Without its manifest a backup is not listed, and what is left of it is swept."""
    newest = max(two)
    lab.object(newest, MANIFEST).unlink()
    del two[newest]
    assert lab.ids() == list(two)
    grow(lab, two, THIRD, Class.FULL)
    expect(lab, two)
    assert lab.leftovers() == []


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_newest_signature_is_built_upon_by_nothing(lab: Lab, two: dict[BackupId, bytes], torn: str) -> None:
    """No delta follows a backup that nobody would believe: it would not be believed either."""
    newest = max(two)
    path = lab.object(newest, SIGNATURE)
    before = path.read_bytes()
    TORN[torn](path)
    if torn in {"a byte more", "cut by a byte"} and lab.verify(newest, key=False)[newest].intact:
        return  # the armor forgives what stands behind its last line
    del two[newest]
    grow(lab, two, THIRD, Class.FULL)
    grow(lab, two, FOURTH, Class.DELTA)
    assert {backup: lab.verify(backup)[backup].intact for backup in two} == dict.fromkeys(two, True)
    assert not lab.verify(newest)[newest].intact
    path.write_bytes(before)
    assert lab.verify(newest)[newest].intact


def test_a_new_signing_key_begins_a_new_chain(lab: Lab, two: dict[BackupId, bytes]) -> None:
    """A chain is signed by one key: whoever believes its end must not be asked about a key that is lost."""
    third = lab.back_up(THIRD, signer=Signer.generate()).manifest
    assert third.kind is Class.FULL
    assert "signing key changed" in third.reasons[0]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_state_is_forgotten(lab: Lab, two: dict[BackupId, bytes], torn: str, scratch: Path) -> None:
    """A torn state file reads as none, and the newest manifest then says lineage and sequence: the chain goes on."""
    directory = StateDirectory(scratch / "memory")
    directory.save(State(SCHEMA, "feedfacefeedface", 7, None, ("unproven",), ("damaged",)))
    TORN[torn](directory.path / "state.json")
    assert directory.load() is None
    newest = lab.get(max(two)).manifest
    assert newest is not None
    state, odd = next_state(directory.load(), newest, newest.sequence, "machine")
    assert (state.lineage, state.sequence, odd) == (newest.lineage, newest.sequence + 1, None)
    directory.save(state)
    assert directory.load() == state


def test_a_state_of_many_damages_is_read_back(scratch: Path) -> None:
    """However much a verification found damaged, all of it is remembered."""
    directory = StateDirectory(scratch)
    state = State(
        SCHEMA, "feedfacefeedface", 7, None, (), tuple(f"20261122T221500Z-{n:08d}-1f2e3d4c" for n in range(5000))
    )
    directory.save(state)
    assert directory.load() == state


class _BadSectors(io.FileIO):
    """A file whose second half cannot be read."""

    def readinto(self, buffer: Any, /) -> int | None:
        if self.tell() >= self.bad_from:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().readinto(memoryview(buffer)[: max(self.bad_from - self.tell(), 1)])

    def readall(self) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    @property
    def bad_from(self) -> int:
        return os.fstat(self.fileno()).st_size // 2


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """Return the set of files that have bad sectors: add to it."""
    files: set[Path] = set()
    real = durable.open_for_reading

    def open_for_reading(path: Path) -> BinaryIO:
        file = real(path)
        if path not in files:
            return file
        with file:
            return io.BufferedReader(_BadSectors(os.dup(file.fileno()), "rb"))

    monkeypatch.setattr(durable, "open_for_reading", open_for_reading)
    return files


@pytest.mark.parametrize("name", [f"{BLOB}.000.zst.age", "node.tar.000.zst.age", MANIFEST, SIGNATURE])
def test_a_bad_sector_is_said_of_its_object(lab: Lab, two: dict[BackupId, bytes], name: str, bad: set[Path]) -> None:
    """An object that cannot be read is named with its backup, neither a bug nor the end of a verification of all."""
    older, newest = sorted(two)
    bad.add(lab.object(newest, name))
    verdicts = lab.verify()
    assert [verdicts[backup].intact for backup in (older, newest)] == [True, False]
    assert name in verdicts[newest].problems[0] or str(newest) in verdicts[newest].problems[0]
    assert "cannot be read" in verdicts[newest].problems[0]
    assert lab.read(older) == FIRST
    third = lab.back_up(THIRD).manifest
    assert third.kind is (Class.FULL if name in {MANIFEST, SIGNATURE} else Class.DELTA)


def test_a_bad_sector_below_the_cached_parent_costs_one_full(
    lab: Lab, two: dict[BackupId, bytes], bad: set[Path]
) -> None:
    """A cached parent that cannot be read is as good as gone."""
    bad.add(lab.cache.path(max(two), BLOB))
    grow(lab, two, THIRD, Class.FULL)
    expect(lab, two)


def test_a_bad_sector_below_what_was_just_captured_fails_the_run(
    lab: Lab, two: dict[BackupId, bytes], bad: set[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the spooled plaintext cannot be read back, that is the storage's failure, and nothing is listed."""
    monkeypatch.setattr(secrets, "token_hex", lambda count: "ab" * count)
    task = lab.task(THIRD)
    newest = BackupId(START + EVERY * task.identity.sequence, task.identity.sequence, "abababab")
    bad.add(lab.cache.path(newest, BLOB))
    with pytest.raises(StorageError, match="cannot read"):
        lab.back_up(THIRD)
    expect(lab, two)
    assert lab.leftovers() == []
