"""`restore`: what it says of what it did not find, and what to take instead."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr import durable
from edgedr.cli.main import main
from edgedr.errors import Damaged, RestoreStopped
from edgedr.repository.names import SIGNATURE
from edgedr.sources.table import SOURCE_NAMES
from tests.lab.damage import flipped
from tests.lab.fake_source import BLOB, SEGMENT, START, Lab, bytes_of, churned
from tests.lab.operator import Operator, Said

DATA = bytes_of(1, 2 * SEGMENT)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "less than a minute"),
        (59, "less than a minute"),
        (60, "1 minute"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (200_000, "2 days"),
    ],
)
def test_what_lies_between_two_backups_is_said(lab: Lab, seconds: int, expected: str) -> None:
    """Whoever takes another backup instead knows how much older or newer it is."""
    first = lab.back_up(DATA, now=START).manifest.id
    second = lab.back_up(churned(DATA, 2), now=START + timedelta(seconds=seconds), full=True).manifest.id
    flipped(lab.object(first, f"{BLOB}.000.zst.age"))
    with pytest.raises(Damaged) as caught:
        lab.restore(first, lab.path / "target")
    assert caught.value.hint == f"{second} is intact ({expected} newer): edgedr restore {second} …"


def test_an_unsigned_backup_has_a_way_on(lab: Lab) -> None:
    """Another intact backup comes first; without one, if all else is well, `--allow-unsigned` is named."""
    first = lab.back_up(DATA).manifest.id
    lab.object(first, SIGNATURE).unlink()
    with pytest.raises(Damaged) as caught:
        lab.restore(first, lab.path / "target")
    assert "--allow-unsigned" in (caught.value.hint or "")
    second = lab.back_up(DATA, full=True).manifest.id
    with pytest.raises(Damaged) as caught:
        lab.restore(first, lab.path / "target")
    assert f"{second} is intact" in (caught.value.hint or "")
    for backup in (first, second):
        lab.object(backup, f"{BLOB}.000.zst.age").unlink()
    with pytest.raises(Damaged) as caught:
        lab.restore(first, lab.path / "target")
    assert "another copy of the repository" in (caught.value.hint or "")


def test_the_room_that_is_needed_has_a_unit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few kilobytes need room too: with what is left free on the disk, rounded up."""
    backup = lab.back_up(DATA).manifest.id
    monkeypatch.setattr(durable, "free_space_of", lambda _: 1 << 20)
    with pytest.raises(RestoreStopped, match=r"no room for node\.tar: 17 MiB are needed"):
        lab.restore(backup, lab.path / "target")


def test_a_restore_of_what_was_never_held_ends_with_3(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All there is is restored, and the backup that holds the rest is named; the same when it is asked for alone."""
    node = Operator(scratch)
    said = Said(node, capsys)
    node.init()
    section = "[sources.certificates]\n"
    text = node.config.read_text().replace(section, f"{section}required = false\n")
    node.config.write_text(text.replace("[sources.files]\n", "[sources.files]\nrequired = true\n"))
    whole = said.json("backup")["id"]
    for path in (node.root / "etc/kubernetes").rglob("*"):
        if path.suffix in {".crt", ".key", ".pub", ".conf"}:
            path.unlink()
    shutil.rmtree(node.root / "var/lib/kubelet/pki", ignore_errors=True)
    said("backup", code=3)
    words: list[str | Path] = ["restore", "--identity", node.identity]
    hint = f"  hint: {whole} holds certificates: edgedr restore {whole} --only certificates …\n"
    text = said(*words, "--to", scratch / "a", code=3)
    assert "is restored; it held nothing of: certificates\n" in text
    assert hint in text
    assert (scratch / "a/files/etc/kubernetes").is_dir()
    assert hint in said(*words, "--to", scratch / "b", "--only", "certificates", code=9)
    assert not (scratch / "b").exists()
    said(*words, "--to", scratch / "c", "--only", "files")


def test_no_files_are_counted_where_none_were_asked_for(scratch: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A restore of etcd alone says nothing of files; one of everything does."""
    vector = Path(__file__).parent / "vectors/format-1"
    words = ["restore", "latest", "--repository", str(vector / "repository"), "--identity", f"{vector}/keys/escrow.txt"]
    for number, (only, expected) in enumerate(((["--only", "etcd"], False), ([], True))):
        assert main([*words, "--to", str(scratch / str(number)), *only]) == 0
        said = capsys.readouterr().out
        assert "\netcd.db  " in said
        assert ("\nfiles  " in said) == expected


def test_one_of_a_kind_is_said_in_the_singular(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """A node with one authority and nothing else: what is proven of it reads as a sentence."""
    said = Said(node, capsys)
    node.init([name for name in SOURCE_NAMES if name != "certificates"])
    keep = {node.root / "etc/kubernetes/pki/ca.crt", node.root / "etc/kubernetes/pki/ca.key"}
    for path in (*(node.root / "etc/kubernetes").rglob("*"), *(node.root / "var/lib/kubelet").rglob("*")):
        if path.suffix in {".crt", ".key", ".pub", ".conf", ".pem"} and path not in keep:
            path.unlink()
    assert "certificates     1 certificate, 2 files, 1 key\n" in said("backup", code=3)
    words: list[str | Path] = ["restore", "--identity", node.identity, "--to", node.directory / "x"]
    text = said(*words, "--only", "certificates")
    proof = "certificates: 1 certificate parses, 1 key pair fits, 1 signature of an authority holds"
    assert proof in " ".join(text.split())
