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
from tests.lab.fake_source import OPERATOR, bytes_of

pytestmark = pytest.mark.usefixtures("no_fsync")

DATA = bytes_of(1, 10_000)
ROOT_FILES = {"etc/hostname": b"cp-1\n", "etc/machine-id": b"0123456789abcdef0123456789abcdef\n", "srv/a": DATA[:5000]}


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
