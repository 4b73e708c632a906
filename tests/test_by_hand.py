"""Recovery by hand: the printed recipe, run by a shell with the stock tools only, gives the same bytes, or stops."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgedr import backup as recipe_of_backup
from edgedr.model import BackupId
from edgedr.sealing.identities import make_identity
from edgedr.sealing.recipients import parse_recipient
from edgedr.sealing.signatures import allowed_signers_line
from tests.lab.by_hand import recipe, recover_by_hand
from tests.lab.fake_source import SIGNER, Lab, bytes_of, churned
from tests.lab.tools import need

RUNBOOK = Path(__file__).parent.parent / "runbooks" / "recover-by-hand.md"
SEGMENT = 64 << 10


class Bench:
    """A node's line of backups, and an operator with the key and the node's line of ``allowed_signers``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        made = make_identity()
        self.identity = path / "key.txt"
        self.identity.write_text(f"{made.secret}\n")
        self.signers = path / "allowed_signers"
        self.signers.write_text(allowed_signers_line("plant-7", "cp-1", SIGNER.public) + "\n")
        self.recipient = parse_recipient(made.recipient)
        self.lab = Lab(path / "a node's own")

    def back_up(self, data: bytes, **changes: Any) -> BackupId:
        return self.lab.back_up(data, recipients=(self.recipient,), **changes).manifest.id

    def recover(self, backup: BackupId | str, *, signers: bool = True) -> subprocess.CompletedProcess[str]:
        return recover_by_hand(
            self.path / "by-hand",
            repository=Path(f"{self.lab.objects}"),
            backup=str(backup),
            identity=self.identity,
            allowed_signers=self.signers if signers else None,
        )

    @property
    def recovered(self) -> bytes:
        return (self.path / "by-hand" / "etcd.db").read_bytes()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize("signers", [True, False])
def test_a_full(bench: Bench, signers: bool) -> None:
    """A backup that stands alone: database and archive, and nothing else is left in the directory."""
    data = bytes_of(1, 50_000)
    done = bench.recover(bench.back_up(data), signers=signers)
    assert done.returncode == 0, done.stderr
    assert bench.recovered == data
    assert sorted(path.name for path in (bench.path / "by-hand").iterdir()) == ["etcd.db", "node.tar"]
    assert ('Good "edgedr" signature for cp-1@plant-7' in done.stdout) == signers
    assert ("not checked: who signed" in done.stdout) != signers
    listing = subprocess.run(
        [need("tar"), "-tf", "node.tar"], cwd=bench.path / "by-hand", capture_output=True, check=True
    )
    assert b"files/etc/site.conf" in listing.stdout


@pytest.mark.parametrize("signers", [True, False])
def test_a_chain_of_ten_deltas(bench: Bench, signers: bool) -> None:
    """A full and ten deltas, oldest first."""
    data = bytes_of(2, 150_000)
    backup = bench.back_up(data)
    for number in range(10):
        data = churned(data, number)
        backup = bench.back_up(data)
    done = bench.recover(backup, signers=signers)
    assert done.returncode == 0, done.stderr
    assert bench.recovered == data
    assert done.stdout.count("Good") == (11 if signers else 0)


def test_a_database_that_grows_and_shrinks(bench: Bench) -> None:
    """Segments come and go along the chain; where a parent has none, or an empty one, the segment stands alone."""
    data = bytes_of(3, SEGMENT * 3 + 5)
    sizes = [SEGMENT * 3 + 5, SEGMENT, 0, SEGMENT * 2 + 3, SEGMENT * 2 + 9, SEGMENT - 1, SEGMENT * 3]
    for number, size in enumerate(sizes):
        backup = bench.back_up(churned(data, number)[:size])
    manifest = bench.lab.get(backup).manifest
    assert manifest is not None
    assert manifest.parent is not None
    done = bench.recover(backup)
    assert done.returncode == 0, done.stderr
    assert bench.recovered == churned(data, len(sizes) - 1)[: sizes[-1]]


def test_an_empty_artifact(bench: Bench) -> None:
    """No bytes are bytes, too."""
    done = bench.recover(bench.back_up(b""))
    assert done.returncode == 0, done.stderr
    assert bench.recovered == b""


def test_segments_of_the_default_size(bench: Bench) -> None:
    """Two segments of 64 MiB: windows beyond what zstd takes by default, against a parent of the same size."""
    parent = bytes_of(5, 70 << 20)
    child = churned(churned(parent, 10_000), 100)
    for data in (parent, child):
        backup = bench.back_up(data, segment_size=64 << 20)
    done = bench.recover(backup)
    assert done.returncode == 0, done.stderr
    assert bench.recovered == child


# -- what must stop it


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _of_another(path: Path) -> None:
    shutil.copy(path.with_name("node.tar.000.zst.age"), path)


@pytest.mark.parametrize("damage", [_flip, _cut, Path.unlink, _of_another])
@pytest.mark.parametrize("name", ["etcd.db.000.zst.age", "etcd.db.001.zst.age", "manifest.json", "manifest.json.sig"])
@pytest.mark.parametrize("link", [0, 1])
def test_damage_stops_it(bench: Bench, damage: Callable[[Path], None], name: str, link: int) -> None:
    """Damage of any object, anywhere in the chain, ends it with an error, and nothing has the name of the database."""
    data = bytes_of(6, SEGMENT + 5)
    ids = [bench.back_up(data), bench.back_up(churned(data, 1))]
    damage(bench.lab.object(ids[link], name))
    done = bench.recover(ids[-1])
    assert done.returncode != 0
    assert done.stderr
    assert not (bench.path / "by-hand" / "etcd.db").exists()


def test_damage_stops_it_even_if_nobody_checks_signatures(bench: Bench) -> None:
    """A manifest changed to fit a damaged segment still does not get its bytes past age, zstd and the last hash."""
    backup = bench.back_up(bytes_of(7, 1000))
    manifest = bench.lab.object(backup, "manifest.json")
    text = manifest.read_text()
    recorded = bench.lab.get(backup).manifest
    assert recorded is not None
    manifest.write_text(text.replace(recorded.artifacts[0].sha256, "0" * 64))
    done = bench.recover(backup, signers=False)
    assert done.returncode != 0
    assert "has not the hash" in done.stderr
    assert not list((bench.path / "by-hand").glob("*.*"))


def test_a_wrong_identity_stops_it(bench: Bench) -> None:
    """Another key opens nothing, and what age says is shown."""
    backup = bench.back_up(b"etcd")
    bench.identity.write_text(f"{make_identity().secret}\n")
    done = bench.recover(backup)
    assert done.returncode != 0
    assert "no identity matched" in done.stderr


def test_an_unknown_id_stops_it(bench: Bench) -> None:
    """A typo in the id is said, not taken for a backup without artifacts."""
    bench.back_up(b"etcd")
    done = bench.recover("20261122T221500Z-00000097-1f2e3d4c")
    assert done.returncode != 0
    assert "there is no backup 20261122T221500Z-00000097-1f2e3d4c of plant-7/cp-1" in done.stderr


def test_a_backup_in_another_s_place_stops_it(bench: Bench) -> None:
    """A whole older backup, rightly signed, does not pass under a newer id."""
    old, new = bench.back_up(b"old", full=True), bench.back_up(b"new", full=True)
    for path in bench.lab.object(old, "manifest.json").parent.iterdir():
        shutil.copy(path, bench.lab.object(new, "manifest.json").parent)
    done = bench.recover(new)
    assert done.returncode != 0
    assert "is not that of" in done.stderr


def test_a_stranger_s_signature_stops_it(bench: Bench) -> None:
    """A signer who is not on the node's line is not believed."""
    backup = bench.back_up(b"etcd")
    bench.signers.write_text(bench.signers.read_text().replace("cp-1@", "cp-2@"))
    done = bench.recover(backup)
    assert done.returncode != 0
    assert f"do not trust {backup}" in done.stderr


def test_nothing_is_overwritten(bench: Bench) -> None:
    """A second run into the same directory stops before it begins."""
    backup = bench.back_up(b"etcd")
    assert bench.recover(backup).returncode == 0
    (bench.path / "by-hand").rename(bench.path / "first")
    shutil.rmtree(bench.path / "by-hand-tools")
    again = subprocess.run(
        ["sh"], input=recipe(), cwd=bench.path / "first", capture_output=True, text=True, check=False
    )
    assert again.returncode != 0
    assert "holds a recovered backup already" in again.stderr
    assert (bench.path / "first" / "etcd.db").read_bytes() == b"etcd"


def test_the_runbook_has_the_same_recipe(bench: Bench) -> None:
    """What a person reads in the runbook is what lies in the repository, to the letter."""
    assert f"```sh\n{recipe()}```\n" in RUNBOOK.read_text()
    bench.back_up(b"etcd")
    assert recipe() in (bench.lab.objects / "v1" / "RECOVER.txt").read_text()


def test_what_did_not_change(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An artifact without segments is its parent's: the recipe carries it over, through several links and beyond."""
    monkeypatch.setattr(recipe_of_backup, "UNCHANGED_FROM", 1)
    first = bytes_of(1, 3 * SEGMENT + 5)
    second = churned(first, 3)
    states = [first, first, first, second, second, first]
    ids = [bench.back_up(state) for state in states]
    for number, (state, backup) in enumerate(zip(states, ids, strict=True)):
        done = bench.recover(backup)
        assert done.returncode == 0, done.stdout + done.stderr
        assert bench.recovered == state
        (bench.path / "by-hand").rename(bench.path / f"done-{number}")
        (bench.path / "by-hand-tools").rename(bench.path / f"tools-{number}")
