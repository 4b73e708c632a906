"""Faults 1 and 3 for a restore: killed or refused at any change, the target is never half of anything."""

import errno
import itertools
from functools import partial
from pathlib import Path

import pytest

from edgedr.errors import RestoreStopped, StorageError
from edgedr.model import BackupId
from edgedr.recovery.target import Target
from tests.lab import faults
from tests.lab.fake_source import BLOB, SEGMENT, Lab, bytes_of, churned, expect

pytestmark = pytest.mark.usefixtures("no_fsync")

FIRST = bytes_of(1, SEGMENT + 9000)
THIRD = churned(FIRST, 3)


def tree(lab: Lab) -> dict[str, bytes]:
    """Return what a restore of the newest backup must hold."""
    return {BLOB: THIRD, "files/etc/site.conf": b"level = 7\n", "files/etc/empty": b""}


@pytest.mark.parametrize("given", ["new", "empty"])
def test_a_restore_refused_by_the_disk_leaves_the_target(given: str, scratch: Path) -> None:
    """ENOSPC or EIO at any change during a restore: a storage error, and the target is as it was."""
    lab = Lab(scratch / "lab")
    lab.back_up(FIRST)
    newest = lab.back_up(THIRD).manifest.id
    for number in itertools.count(1):
        target = scratch / "targets" / str(number)
        (target if given == "empty" else target.parent).mkdir(parents=True, exist_ok=True)
        code = (errno.ENOSPC, errno.EIO)[number % 2]
        with faults.watched(number, faults.failing(code, for_good=False)) as seen:
            try:
                lab.restore(newest, target)
            except StorageError as error:
                assert error.hint  # noqa: PT017 - some of these calls may fail without harm
                assert not target.exists() if given == "new" else not list(target.iterdir())
                continue
        assert {name: (target / name).read_bytes() for name in tree(lab)} == tree(lab)
        if len(seen.calls) < number:
            break
    assert number > 40
    expect(lab, {lab.ids()[0]: FIRST, newest: THIRD})


def test_a_restore_killed_at_any_change_can_be_run_again(scratch: Path) -> None:
    """After any death the same restore works, or says that the target is in use; what has its name there is right."""
    lab = Lab(scratch / "lab")
    lab.back_up(FIRST)
    newest = lab.back_up(THIRD).manifest.id
    refused = 0
    for number in itertools.count(1):
        target = scratch / "targets" / str(number)
        ended = faults.in_child(partial(_restore, lab, newest, target), number, faults.die_within)
        try:
            lab.restore(newest, target)
        except RestoreStopped:
            refused += 1
            there = {name: data for name, data in tree(lab).items() if (target / name).exists()}
            assert there
            assert {name: (target / name).read_bytes() for name in there} == there
        else:
            assert {name: (target / name).read_bytes() for name in tree(lab)} == tree(lab)
            assert not (target / ".restoring").exists()
        if not ended.killed:
            break
    assert number > 40
    assert 0 < refused < 10  # between the first name and the last


def _restore(lab: Lab, backup: BackupId, target: Path) -> None:
    lab.restore(backup, target)


def test_an_extraction_that_is_not_on_disk_is_none(scratch: Path) -> None:
    """If the last directory cannot be put on disk, extracting failed, as the storage's fault."""

    def finish() -> None:
        with Target(scratch / "target") as target:
            target.document("inventory.json", [b"{}"])
            with faults.watched(1, faults.failing(errno.EIO, for_good=False)):
                target.finish()

    with pytest.raises(StorageError, match="Input/output error"):
        finish()
    assert not (scratch / "target").exists()
