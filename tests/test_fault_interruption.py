"""Faults 1, 2 and 3: killed, torn and refused at every single change of the disk. Nothing committed is lost, ever."""

import errno
import itertools
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from edgedr.cli.main import main
from edgedr.errors import EdgedrError, RestoreStopped, StorageError
from edgedr.model import BackupId, Class
from edgedr.recovery.extract import extract  # noqa: F401 - warm, so that no child imports it anew
from edgedr.settings import load
from edgedr.wiring import open_repository, open_state
from tests.lab import faults
from tests.lab.fake_source import BLOB, OPERATOR, SEGMENT, Lab, bytes_of, churned, expect
from tests.lab.trees import picture

FIRST = bytes_of(1, SEGMENT + 9000)
SECOND = churned(FIRST, 2)
THIRD = churned(SECOND, 3)
NEXT = churned(THIRD, 4)

DEATHS = {"before": faults.die_before, "within": faults.die_within}


@pytest.fixture(autouse=True)
def no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cuts the power, so waiting for the disk would prove nothing."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


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


def copies(origin: Path, to: Path) -> Iterator[tuple[int, Path]]:
    """Yield 1, 2, 3, … and each time a fresh copy of ``origin``."""
    for number in itertools.count(1):
        copy = to / str(number)
        shutil.copytree(origin, copy, symlinks=True)
        yield number, copy
        shutil.rmtree(copy)


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
def test_killed_at_any_change_of_the_disk(beginning: str, death: str, tmp_path: Path) -> None:
    """Whenever a backup is killed, what was committed restores, nothing half is listed, and the next run works."""
    before = BEGINNINGS[beginning](tmp_path / "origin")
    outcomes: Counter[bool] = Counter()
    for number, copy in copies(tmp_path / "origin", tmp_path / "killed"):
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
def test_refused_at_any_change_of_the_disk(for_good: bool, tmp_path: Path) -> None:
    """A full or dying disk ends that run with a storage error; earlier backups are untouched, the next run works."""
    before = chain(tmp_path / "origin")
    failed = 0
    for number, copy in copies(tmp_path / "origin", tmp_path / "refused"):
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
            assert not list(copy.rglob("*.part"))
        expect_recovery(lab, contents)
        if len(seen.calls) < number:
            break
    assert number > 60
    assert failed > 50
