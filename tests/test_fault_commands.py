"""Fault 1 for whole commands: with the state file, and with what `init` writes."""

import itertools
import stat
from functools import partial
from pathlib import Path

import pytest

from edgedr.cli.main import main
from edgedr.settings import load
from edgedr.wiring import open_repository, open_state
from tests.lab import faults
from tests.lab.damage import flipped
from tests.lab.site import DATA, back_up, init, move, site, without_etcd

pytestmark = pytest.mark.usefixtures("no_fsync")


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
    without_etcd(origin)
    assert back_up(origin) == 0
    for number, copy in faults.copies(origin, scratch / "killed"):
        move(origin, copy)
        (copy / "root/srv/a").write_bytes(DATA[5000:])
        ended = faults.in_child(partial(back_up, copy), number, faults.die_within)
        assert back_up(copy) == 0
        backups = len(open_repository(load(copy / "etc/edgedr.toml")).list())
        assert backups in {2, 3}
        expect_tidy(copy, backups)
        if not ended.killed:
            assert ended.code == 0
            break
    assert number > 60
    capsys.readouterr()


def test_init_killed_at_any_change(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run again after any death, `init` ends with one whole configuration, one private key and its public half."""
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


def test_verify_says_where_to_look_next(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged backup alone is no reason to say that nothing is intact; the next backup does not build upon it."""
    site(scratch)
    assert init(scratch) == 0
    without_etcd(scratch)
    assert [back_up(scratch) for _ in range(2)] == [0, 0]
    repository = open_repository(load(scratch / "etc/edgedr.toml"))
    first, second = repository.list()
    flipped(scratch / "repository" / first.place.object("node.tar.000.zst.age"))
    config = ["--config", str(scratch / "etc/edgedr.toml")]
    capsys.readouterr()
    assert main([*config, "verify", str(first.id)]) == 7
    assert "edgedr verify --all" in capsys.readouterr().err
    assert back_up(scratch) == 0
    third = repository.list()[-1]
    assert third.manifest is not None
    assert third.manifest.reasons == (
        f"the chain of {second.id} is broken at {first.id}: a verification found it damaged",
    )
    capsys.readouterr()
    assert main([*config, "verify", "--all"]) == 7
    assert f"{third.id} is intact" in capsys.readouterr().err
