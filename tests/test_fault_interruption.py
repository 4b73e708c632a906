"""Faults 1, 2 and 3: killed, torn and refused at every single change of the disk. Nothing committed is lost, ever."""

import errno
import itertools
import os
import shutil
import stat
import tempfile
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


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: thousands of small changes are made here, none meant to last."""
    memory = Path("/dev/shm")
    at = Path(tempfile.mkdtemp(dir=memory)) if os.access(memory, os.W_OK) else tmp_path
    yield at
    if at != tmp_path:
        shutil.rmtree(at)


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
def test_killed_at_any_change_of_the_disk(beginning: str, death: str, scratch: Path) -> None:
    """Whenever a backup is killed, what was committed restores, nothing half is listed, and the next run works."""
    before = BEGINNINGS[beginning](scratch / "origin")
    outcomes: Counter[bool] = Counter()
    for number, copy in copies(scratch / "origin", scratch / "killed"):
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
    for number, copy in copies(scratch / "origin", scratch / "refused"):
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
            assert seen.calls[at - 1 : at + 4] == ["fsync", "link", "fsync", "unlink", seen.calls[at + 3]]


# Whole commands, with the state file and what `init` writes.

ROOT_FILES = {"etc/hostname": b"cp-1\n", "etc/machine-id": b"0123456789abcdef0123456789abcdef\n", "srv/a": FIRST[:5000]}


def site(path: Path) -> Path:
    """Lay a node's root below ``path``, and return where its configuration belongs."""
    for name, data in ROOT_FILES.items():
        (path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "root" / name).write_bytes(data)
    return path / "etc/edgedr.toml"


def init(path: Path) -> int:
    """Run `edgedr init`."""
    return main(
        ["--config", str(path / "etc/edgedr.toml"), "init", "--site", "plant-7", "--root", str(path / "root"),
         "--recipient", OPERATOR.recipient, "--repository", str(path / "repository"), "--state", str(path / "state"),
         "--unproven"]
    )  # fmt: skip


def without_etcd(path: Path) -> None:
    """Let the configuration capture files only."""
    config = path / "etc/edgedr.toml"
    text = config.read_text().replace("# disabled = []", 'disabled = ["etcd", "certificates"]')
    text = text.replace("[sources.files]", '[sources.files]\ninclude = ["/srv"]')
    config.write_text(text.replace('# keep_free = "256 MiB"', 'keep_free = "1 MiB"'))


def back_up(path: Path) -> int:
    """Run `edgedr backup`."""
    return main(["--config", str(path / "etc/edgedr.toml"), "backup", "--json"])


def expect_tidy(path: Path, backups: int) -> None:
    """Assert that so many backups are there, all whole, and nothing that a killed command left."""
    settings = load(path / "etc/edgedr.toml")
    listed = open_repository(settings).list()
    assert [backup.damage for backup in listed] == [()] * backups
    assert not list(path.rglob("*.part"))
    state = open_state(settings).load()
    assert state is not None
    assert state.sequence == listed[-1].id.sequence
    assert len({backup.manifest.lineage for backup in listed if backup.manifest}) == 1
    (kept,) = (path / "state/parent").iterdir()
    assert kept.name == str(listed[-1].id)


def test_the_backup_command_killed_at_any_change(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the state file too: lineage and sequence survive every death, no number is used twice by what is listed."""
    origin = scratch / "origin"
    site(origin)
    assert init(origin) == 0
    for number, copy in copies(origin, scratch / "killed"):
        move(origin, copy)
        if number == 1:
            without_etcd(copy)
            assert back_up(copy) == 0
            shutil.rmtree(origin)
            shutil.copytree(copy, origin)
            continue
        move(copy.with_name("1"), copy)
        (copy / "root/srv/a").write_bytes(SECOND[:5000])
        ended = faults.in_child(partial(back_up, copy), number - 1, faults.die_within)
        assert ended.code in {0, faults.KILLED}
        assert back_up(copy) == 0
        backups = len(open_repository(load(copy / "etc/edgedr.toml")).list())
        assert backups in {2, 3}
        expect_tidy(copy, backups)
        if not ended.killed:
            break
    assert number > 60
    capsys.readouterr()


def move(origin: Path, copy: Path) -> None:
    """Let a configuration that was copied name its new place."""
    config = copy / "etc/edgedr.toml"
    config.write_text(config.read_text().replace(f'"{origin}/', f'"{copy}/'))


def test_init_killed_at_any_change(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run again after any death, `init` ends with one whole configuration and one key, private, its public half beside it."""
    for number in itertools.count(1):
        path = scratch / str(number)
        site(path)
        ended = faults.in_child(partial(init, path), number, faults.die_within, audit=True)
        assert init(path) == 0
        state = open_state(load(path / "etc/edgedr.toml"))
        assert (path / "state/signing.key.pub").read_text().startswith(str(state.signer().public))
        assert not list(path.rglob("*.part"))
        for file in (path / "etc/edgedr.toml", path / "state/signing.key", path / "state/state.json"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE((path / "state").stat().st_mode) == 0o700
        if not ended.killed:
            break
    assert number > 20
    without_etcd(path)
    assert back_up(path) == 0
    expect_tidy(path, 1)
    capsys.readouterr()


# The restore target.


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
