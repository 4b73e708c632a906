"""Closure as an operator meets it: at the end of a backup, in lists, and in ``edgedr show --closure``."""

import json
from pathlib import Path

import pytest

from edgedr.cli.main import main
from tests.lab.operator import Operator, Said

SIGNING_KEY = "/etc/kubernetes/pki/sa.key"


@pytest.fixture
def said(node: Operator, capsys: pytest.CaptureFixture[str]) -> Said:
    node.init()
    return Said(node, capsys)


def lose(node: Operator, path: str) -> None:
    (node.root / path[1:]).unlink()


def test_a_whole_node_is_complete(said: Said) -> None:
    """Nothing is missing, but nothing is called complete that has no snapshot to be complete for."""
    for words in (("backup",), ("show", "latest"), ("show", "latest", "--closure")):
        text = said(*words)
        assert "closure          no snapshot in this backup\n" in text
        assert "complete" not in text
    found = said.json("show", "latest", "--closure")
    assert (found["complete"], found["snapshot"]) == (True, False)


def test_what_is_missing_is_named_and_makes_it_incomplete(said: Said, node: Operator) -> None:
    """Exit 3, the piece with its consequence, marked in the list; the manifest itself names no path."""
    lose(node, SIGNING_KEY)
    text = said("backup", code=3)
    assert f"missing        {SIGNING_KEY}" in text
    assert "every service account token becomes invalid" in " ".join(text.split())
    assert "lacks 1 piece of what its snapshot needs" in text
    assert said("list").splitlines()[1].endswith("incomplete")
    assert said.json("list")[-1]["complete"] is False
    text = said("show", "latest")
    assert "1 piece missing: `edgedr show " in " ".join(text.split())
    assert SIGNING_KEY not in text
    text = said("show", "latest", "--closure")
    assert "INCOMPLETE: 1 piece missing" in text
    assert SIGNING_KEY in text
    assert max(map(len, text.splitlines())) <= 80
    (piece,) = [f for f in said.json("show", "latest", "--closure")["findings"] if f["severity"] == "bad"]
    assert piece["subject"] == SIGNING_KEY
    manifests = [path.read_text() for path in node.repository.rglob("manifest.json")]
    assert all("sa.key" not in manifest for manifest in manifests)


def test_what_an_older_backup_lacks_is_sealed(said: Said, node: Operator, tmp_path: Path) -> None:
    """The node itself can tell of its newest only; with an identity anybody can tell of any, from a copy too."""
    lose(node, SIGNING_KEY)
    said("backup", code=3)
    said("backup", code=3)
    assert "is sealed in it" in said("show", "1", "--closure", code=6)
    assert SIGNING_KEY in said("show", "1", "--closure", "--identity", node.identity)
    assert SIGNING_KEY in said("show", "2", "--closure", "--identity", node.identity)
    elsewhere: list[str | Path] = ["show", "latest", "--closure", "--repository", node.repository]
    assert "is sealed in it" in said(*elsewhere, code=6, config=False)
    assert SIGNING_KEY in said(*elsewhere, "--identity", node.identity, config=False)


def test_a_restore_says_again_what_was_missing(said: Said, node: Operator, tmp_path: Path) -> None:
    """All there is is restored; the exit code says that it is not all that is needed, the hint which backup has it."""
    whole = said.json("backup")["id"]
    lose(node, SIGNING_KEY)
    said("backup", code=3)
    said("backup", code=3)
    text = said("restore", "--identity", node.identity, "--to", tmp_path / "all", code=3)
    assert "it lacks what its snapshot needs: " in text
    assert SIGNING_KEY in text
    assert f"the newest that lacks none is {whole}: edgedr restore {whole}" in " ".join(text.split())
    said("restore", "--identity", node.identity, "--to", tmp_path / "some", "--only", "files")


def test_a_restore_names_no_better_backup_where_there_is_none(said: Said, node: Operator, tmp_path: Path) -> None:
    """Nothing is promised that is not there."""
    lose(node, SIGNING_KEY)
    said("backup", code=3)
    text = said("restore", "--identity", node.identity, "--to", tmp_path / "all", code=3)
    assert "names every piece" in text
    assert "lacks none" not in text


@pytest.mark.parametrize("piece", ["/etc/kubernetes/enc/encryption.yaml", SIGNING_KEY])
def test_a_piece_that_vanished_is_in_the_backup_before(said: Said, node: Operator, piece: str) -> None:
    """Whichever check misses it, nobody is told to look for a copy that the repository has."""
    said("backup")
    lose(node, piece)
    text = " ".join(said("backup", code=3).split())
    assert f"{piece} was in the last backup, and is gone: " in text
    assert "the backup before this one has it" in text


def test_a_changed_anchor_is_said_once(said: Said, node: Operator) -> None:
    """A new encryption key is reported by the backup that first has it, and by no later one."""
    said("backup")
    encryption = node.root / "etc/kubernetes/enc/encryption.yaml"
    encryption.write_text(encryption.read_text() + "\n# rotated\n")
    text = " ".join(said("backup").split())
    assert "/etc/kubernetes/enc/encryption.yaml changed since the last backup" in text
    assert "since the last backup" not in said("backup")
    authority = node.root / "etc/kubernetes/pki/front-proxy-ca.key"
    kept = authority.read_text()
    authority.unlink()
    said("backup", code=3)
    authority.write_text(kept)
    found = said.json("backup")["findings"]
    (change,) = [each for each in found if "since the last backup" in each["text"]]
    assert change["subject"] == "/etc/kubernetes/pki/front-proxy-ca.key"
    assert (change["text"], change["hint"]) == ("is new since the last backup", None)


def test_a_vector_that_never_checked(capsys: pytest.CaptureFixture[str]) -> None:
    """A backup of before closure says nothing of it, rather than that it is complete."""
    vector = Path(__file__).parent / "vectors/format-1"
    words = ["show", "latest", "--repository", str(vector / "repository")]
    assert main(words) == 0
    assert "closure" not in capsys.readouterr().out
    assert main([*words, "--closure", "--identity", str(vector / "keys/operator.txt"), "--json"]) == 8
    assert "before closure was checked" in capsys.readouterr().err


def test_scripts_get_it_too(said: Said, node: Operator) -> None:
    """The document of a backup has closure among its sources, with counts."""
    lose(node, SIGNING_KEY)
    out, _ = node.run("backup", "--json", code=3)
    found = json.loads(out)
    assert found["missing"] == ["closure"]
    assert found["sources"]["closure"]["counts"] == {"missing": 1}


def test_a_key_that_vanished_is_no_external_authority(said: Said, node: Operator) -> None:
    """What the last backup had and this one lacks is missing, once; where it never was, it is kept elsewhere."""
    said("backup")
    lose(node, "/etc/kubernetes/pki/etcd/ca.key")
    text = " ".join(said("backup", code=3).split())
    assert "/etc/kubernetes/pki/etcd/ca.key was in the last backup, and is gone" in text
    assert "etcd's certificates cannot be renewed" in text
    text = " ".join(said("backup").split())
    assert "is not on this node, as with an external authority" in text
