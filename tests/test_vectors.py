"""What a released version wrote opens forever; broken, each kind of damage has its name."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edgedr.cli.main import main
from tests.lab.by_hand import recover_by_hand

VECTORS = Path(__file__).parent / "vectors"
FORMATS = sorted(path.name for path in VECTORS.iterdir() if path.is_dir())
PEOPLE = ("operator", "escrow", "spare")


class Vector:
    """A copy of one vector, which may be broken."""

    def __init__(self, name: str, directory: Path) -> None:
        self.keys = VECTORS / name / "keys"
        self.expected = json.loads((VECTORS / name / "expected.json").read_text())
        self.full, self.delta = self.expected
        self.directory = directory
        self.repository = directory / "repository"
        shutil.copytree(VECTORS / name / "repository", self.repository)

    def of(self, backup: str) -> Path:
        """Return the directory of a backup."""
        (found,) = self.repository.glob(f"v1/*/*/*/{backup}")
        return found


@pytest.fixture(params=FORMATS)
def vector(request: pytest.FixtureRequest, tmp_path: Path) -> Vector:
    return Vector(request.param, tmp_path)


def _run(capsys: pytest.CaptureFixture[str], *words: str | Path, code: int = 0) -> str:
    capsys.readouterr()
    ended = main([str(word) for word in words])
    said = capsys.readouterr()
    assert ended == code, said.out + said.err
    return said.out + said.err


def _hashes(directory: Path, names: dict[str, str]) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.parametrize("person", PEOPLE)
def test_each_person_can_prove_it(vector: Vector, person: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every recipient's identity opens every backup, and the node's signature is believed."""
    identity = vector.keys / f"{person}.txt"
    said = _run(capsys, "verify", "--all", "--repository", vector.repository, "--identity", identity)
    assert "2 of 2 intact; L2" in said
    assert "warn" not in said


def test_it_restores(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    """Full and delta come back with the bytes that were there, and the files with their modes."""
    for backup, holds in vector.expected.items():
        target = vector.directory / backup
        words: list[str | Path] = ["restore", backup, "--repository", vector.repository, "--to", target]
        said = _run(capsys, *words, "--identity", vector.keys / "escrow.txt")
        assert "signed by cp-1" in said
        assert "the SHA-256 behind them holds" in said
        assert _hashes(target, {"etcd.db": ""}) == {"etcd.db": holds["artifacts"]["etcd.db"]}
        assert (target / "files/etc/motd").stat().st_mode & 0o7777 == 0o640
        assert (target / "files/etc/link").readlink() == Path("site.conf")
        assert (target / "files/etc/site.conf").read_bytes() == b"level = 7\n"


def test_it_shows(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    """What every manifest has said stays readable."""
    listed = json.loads(_run(capsys, "list", "--json", "--repository", vector.repository))
    found = {
        row["id"]: {"class": row["class"], "artifacts": {a["name"]: a["sha256"] for a in row["artifacts"]}}
        for row in listed
    }
    assert found == vector.expected
    shown = json.loads(_run(capsys, "show", "latest", "--json", "--repository", vector.repository))
    assert shown["chain"] == [vector.full, vector.delta]
    assert shown["etcd"]["revision"] == 4242


def test_it_is_recovered_by_hand(vector: Vector) -> None:
    """The recipe of today reads it, for each backup, with stock tools only."""
    for backup, holds in vector.expected.items():
        directory = vector.directory / f"by-hand-{backup}"
        done = recover_by_hand(
            directory,
            repository=vector.repository,
            backup=backup,
            identity=vector.keys / "spare.txt",
            allowed_signers=vector.keys / "allowed_signers",
        )
        assert done.returncode == 0, done.stderr
        assert _hashes(directory, holds["artifacts"]) == holds["artifacts"]


# -- broken


def _flip(name: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        data = bytearray((directory / name).read_bytes())
        data[len(data) // 2] ^= 1
        (directory / name).write_bytes(data)

    return act


def _cut(name: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        (directory / name).write_bytes((directory / name).read_bytes()[:-1])

    return act


def _empty(name: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        (directory / name).write_bytes(b"")

    return act


def _lose(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _swap(one: str, other: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        first, second = (directory / one).read_bytes(), (directory / other).read_bytes()
        (directory / one).write_bytes(second)
        (directory / other).write_bytes(first)

    return act


def _from_the_other(name: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        (other,) = (
            path for path in directory.parent.parent.parent.parent.glob(f"*/*/*/*/{name}") if path.parent != directory
        )
        shutil.copy(other, directory / name)

    return act


def _say(old: str, new: str) -> Callable[[Path], None]:
    def act(directory: Path) -> None:
        text = (directory / "manifest.json").read_text()
        assert old in text
        (directory / "manifest.json").write_text(text.replace(old, new))

    return act


def _move(directory: Path) -> None:
    here, there = ("delta", "full") if "/delta/" in str(directory) else ("full", "delta")
    target = Path(str(directory).replace(f"/v1/{here}/", f"/v1/{there}/"))
    target.parent.mkdir(parents=True, exist_ok=True)
    directory.rename(target)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "segment flipped": (_flip("etcd.db.000.zst.age"), "etcd.db.000.zst.age of ID is damaged: sha256 differs"),
    "segment cut": (
        _cut("etcd.db.001.zst.age"),
        "etcd.db.001.zst.age of ID is damaged: it has .* bytes instead",
    ),
    "segment lost": (_lose("etcd.db.001.zst.age"), "etcd.db.001.zst.age of ID is missing"),
    "archive lost": (_lose("node.tar.000.zst.age"), "segment node.tar.000.zst.age of ID is missing"),
    "segments swapped": (_swap("etcd.db.000.zst.age", "node.tar.000.zst.age"), "etcd.db.000.zst.age of ID is damaged"),
    "segment of the other": (_from_the_other("etcd.db.000.zst.age"), "etcd.db.000.zst.age of ID is damaged"),
    "manifest changed": (_say("4242", "4243"), "signature of the manifest of ID does not hold"),
    "manifest flipped": (_flip("manifest.json"), "signature of the manifest of ID does not hold"),
    "manifest emptied": (_empty("manifest.json"), "manifest of ID does not hold"),
    "manifest of the other": (_from_the_other("manifest.json"), "signature of the manifest of ID does not hold"),
    "manifest of tomorrow": (_say('"schema": 1', '"schema": 2'), "signature of the manifest of ID does not hold"),
    "signature flipped": (_flip("manifest.json.sig"), "the signature of the manifest of ID"),
    "signature lost": (_lose("manifest.json.sig"), "ID is not signed: manifest.json.sig is missing"),
    "signature of the other": (
        _from_the_other("manifest.json.sig"),
        "signature of the manifest of ID does not hold",
    ),
    "wrong class": (_move, "the manifest of ID is damaged: it is that of ID of plant-7/cp-1, "),
}


@pytest.mark.parametrize("link", ["full", "delta"])
@pytest.mark.parametrize("kind", BROKEN)
def test_damage_has_its_name(vector: Vector, kind: str, link: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Verify and restore end with 7 and name object and backup; what is intact is said to be."""
    backup = {"full": vector.full, "delta": vector.delta}[link]
    act, expected = BROKEN[kind]
    act(vector.of(backup))
    here: list[str | Path] = ["--repository", vector.repository, "--identity", vector.keys / "operator.txt"]
    rows = json.loads(_run(capsys, "verify", "--all", "--json", *here, code=7).partition("]\nerror:")[0] + "]")
    states = {row["id"]: row for row in rows}
    assert states[backup]["state"] == "damaged"
    problem = "\n".join(states[backup]["problems"])
    pattern = expected.replace("ID", backup)
    assert re.search(pattern, problem), problem
    assert states[vector.full]["state"] == ("damaged" if link == "full" else "ok")
    assert states[vector.delta]["broken_by"] == (vector.full if link == "full" else None)
    target = vector.directory / "restored"
    said = _run(capsys, "restore", backup, *here, "--to", target, code=7)
    assert backup in said
    assert not target.exists()


def test_a_lost_full_takes_its_deltas_down(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    """The delta names what it depends on."""
    shutil.rmtree(vector.of(vector.full))
    said = _run(capsys, "verify", "--all", "--repository", vector.repository, code=7)
    assert f"its chain is broken by {vector.full}" in said
    assert "none is intact" in said


def test_a_format_of_tomorrow_asks_for_a_newer_edgedr(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown schema is not taken for damage that a restore could ignore: it says what would read it."""
    _say('"schema": 1', '"schema": 2')(vector.of(vector.delta))
    said = _run(capsys, "show", "latest", "--repository", vector.repository, code=7)
    assert "schema 2 is unknown, this edgedr reads 1" in said


def test_an_unsigned_backup_is_restored_only_when_told(vector: Vector, capsys: pytest.CaptureFixture[str]) -> None:
    """Without its signature a backup is refused, unless a person takes it on their own judgement."""
    _lose("manifest.json.sig")(vector.of(vector.full))
    here: list[str | Path] = ["--repository", vector.repository, "--identity", vector.keys / "operator.txt"]
    target = vector.directory / "restored"
    assert "is missing" in _run(capsys, "restore", vector.full, *here, "--to", target, code=7)
    _run(capsys, "restore", vector.full, *here, "--to", target, "--allow-unsigned")
    holds = vector.expected[vector.full]["artifacts"]["etcd.db"]
    assert _hashes(target, {"etcd.db": ""}) == {"etcd.db": holds}
