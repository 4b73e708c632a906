"""`list`, `show`, `verify`, `restore`, `config check`: what they print, and how they end."""

import json
import os
import re
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edgedr.cli.main import main
from edgedr.cli.parser import build_parser
from edgedr.sealing.identities import make_identity
from edgedr.sources.table import SOURCE_NAMES
from tests.lab.operator import CANARY, Operator, Said


def test_config_check(look: Said) -> None:
    """It says what runs here, what would be captured, who can open it and who signs."""
    text = look("config", "check")
    for word in ("kubeadm", "plant-7/cp-1", "certificates", "files", look.operator.recipient, "SHA256:"):
        assert word in text
    found = look.json("config", "check")
    assert found["distribution"] == "kubeadm"
    assert set(found["sources"]) == {"certificates", "files"}


def test_list(look: Said) -> None:
    """A line for each, oldest first, within 80 columns; the same for scripts."""
    rows = look.json("list")
    found = [(row["class"], row["sequence"], row["condition"]) for row in rows]
    assert found == [("full", 1, "ok"), ("delta", 2, "ok")]
    assert rows[1]["parent"] == rows[0]["id"]
    lines = look("list").splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["backup", rows[0]["id"], rows[1]["id"]]
    assert lines[-1] == "L1: signature and ciphertext hashes hold"


def test_show(look: Said) -> None:
    """What is inside, class, chain, sizes, sources, proof level."""
    full, delta = look.json("list")
    text = look("show", "latest")
    for word in (delta["id"], f"from {full['id']}", "1 full + 1 delta", "node.tar", "certificates", "L1", "kubeadm"):
        assert word in text
    assert "needed by        1 later backup\n" in look("show", full["id"])
    found = look.json("show", "latest")
    assert found["chain"] == [full["id"], delta["id"]]


def test_ways_to_name_a_backup(look: Said) -> None:
    """By id, its beginning, its sequence, its random end, as the latest, by time; a sequence goes before all."""
    full, delta = (row["id"] for row in look.json("list"))
    ways = {"1": full, "2": delta, "00000002": delta, "latest": delta, full: full, full[:-3]: full, delta[17:27]: delta}
    ways[full[-8:]] = full
    for wanted, expected in ways.items():
        assert look.json("show", wanted)["id"] == expected, wanted
    created = datetime.strptime(full[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    assert look.json("show", "--at", created.isoformat())["id"] in {full, delta}
    assert look.json("show", "--at", "2999-01-01")["id"] == delta


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["show", "20"], 8, "'20' fits 2 backups"),
        (["show", "nothing"], 8, "no backup fits 'nothing'"),
        (["show", ""], 8, "no backup fits ''"),
        (["restore", "", "--to", "/nowhere", "--identity", "{key}"], 8, "no backup fits ''"),
        (["show", "00000003"], 8, "no backup fits '00000003'"),
        (["show", "--at", "2001-01-01"], 8, "no backup is as old as 2001-01-01"),
        (["show", "--at", "yesterday"], 2, "'yesterday' is not a time"),
        (["show", "--at", "9999-12-31T23:59-14:00"], 2, "is not a time"),
        (["show", "latest", "--at", "2999-01-01"], 2, "ID and --at were both given"),
        (["verify", "--all", "latest"], 2, "--all and a single backup"),
        (["list", "--site", "x"], 2, "--site and --node choose among backups"),
        (["list", "--repository", "/does/not/exist"], 8, "there is no directory /does/not/exist"),
        (["shwo"], 2, "invalid choice: 'shwo'"),
        (["list", "--jsn"], 2, "unrecognized arguments: --jsn"),
        (["list", "--js"], 2, "unrecognized arguments: --js"),
        ([], 2, "required"),
        (["restore", "latest"], 2, "required: --to"),
        (["restore", "latest", "--to", "/nowhere", "--only", "dsn"], 2, "'dsn' is no source; did you mean dns?"),
        (["restore", "latest", "--to", "/nowhere", "--only", "x"], 2, "the sources are serviceaccounts, "),
        (["restore", "latest", "--to", "/nowhere"], 6, "no identity was given"),
        (["restore", "latest", "--to", "/nowhere", "--identity", "/no/key"], 6, "cannot read the identity /no/key"),
        (["restore", "latest", "--to", "/nowhere", "--identity", "{key}", "--only", "etcd"], 9, "holds no etcd"),
        (["restore", "latest", "--to", "{dir}", "--identity", "{key}"], 9, "is not empty"),
        (["restore", "latest", "--to", "{key}", "--identity", "{key}"], 9, "is not a directory"),
        (
            ["restore", "latest", "--to", "/nowhere", "--identity", "{key}", "--trust-signer", "x"],
            2,
            "not a fingerprint",
        ),
        (["keys", "prove", "!!!", "--identity", "{key}"], 2, "this is no challenge"),
        (["keys", "prove", "", "--identity", "{key}"], 2, "this is no challenge"),
        (["keys", "prove", "é", "--identity", "{key}"], 2, "this is no challenge"),
        (["keys", "prove", "YWdl", "--identity", "{key}"], 2, "this is no challenge"),
        (["keys", "prove", "YWdlLWVuY3J5cHRpb24ub3JnL3YxCg=="], 6, "no identity was given"),
        (["keys", "prove", "YWdlLWVuY3J5cHRpb24ub3JnL3YxCg==", "--identity", "{key}"], 7, "damaged"),
        (["list", "--repository", "{repository}", "--node", "cp-9"], 8, "there are backups of plant-7/cp-1"),
        (["list", "--repository", "{repository}", "--site", "x", "--json"], 8, "there is no backup of x/* here"),
        (["list", "--repository", "{repository}/v1"], 8, "name the directory that holds v1/"),
        (["list", "--repository", "{dir}"], 8, "there is no v1/ in {dir}"),
    ],
)
def test_mistakes_are_named(look: Said, words: list[str], code: int, expected: str) -> None:
    """Each ends with its code, one error, and a hint; and nothing was made."""
    operator = look.operator
    names = {"key": operator.identity, "dir": operator.root, "repository": operator.repository}
    said = look(*(word.format(**names) for word in words), code=code)
    assert expected.format(**names) in said
    assert not Path("/nowhere").exists()


def test_no_configuration(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Before init, commands say that there is no configuration, and how to get one."""
    said = Said(node, capsys)
    for words in (["backup"], ["list"], ["verify"], ["config", "check"]):
        assert "edgedr init" in said(*words, code=2)


def test_an_empty_repository(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing there is not an error to list, and one to everything else."""
    said = Said(node, capsys)
    node.init()
    assert "no backups in" in said("list")
    assert said.json("list") == []
    for words in (
        ["show"],
        ["verify"],
        ["verify", "--all"],
        ["restore", "--to", "/nowhere", "--identity", node.identity],
    ):
        assert "there is no backup here" in said(*words, code=8)


def test_a_repository_needs_no_configuration(look: Said, scratch: Path) -> None:
    """On another machine a copy of the repository, the identity and the node's line are enough."""
    operator = look.operator
    copy = scratch / "usb"
    shutil.copytree(operator.repository, copy)
    here = ["--repository", str(copy)]
    assert len(json.loads(look("list", "--json", *here, config=False))) == 2
    assert "ok" in look("verify", "--all", *here, "--identity", operator.identity, config=False)
    target = scratch / "restored"
    said = look("restore", *here, "--identity", operator.identity, "--to", target, config=False)
    assert "signed by cp-1" in said
    assert (target / "files/etc/kubernetes/new.yaml").read_text() == "kind: New\n"
    assert (target / "files/etc/kubernetes/pki/sa.key").read_text().startswith(CANARY)


def test_a_stranger_s_backup_is_not_restored_without_a_word(look: Said, scratch: Path) -> None:
    """Without the node's line a restore names the fingerprint and stops, unless told to trust it or not to ask."""
    operator = look.operator
    key = scratch / "key.txt"
    shutil.copy(operator.identity, key)
    words: list[str | Path] = ["restore", "latest", "--repository", operator.repository, "--identity", key]
    words += ["--only", "files"]
    said = look(*words, "--to", scratch / "a", code=9)
    (told,) = set(re.findall(r"--trust-signer (SHA256:\S+)", said))
    assert not (scratch / "a").exists()
    look(*words, "--to", scratch / "a", "--trust-signer", told)
    look(*words, "--to", scratch / "b", "--allow-unsigned")
    shutil.copy(operator.keys / "allowed_signers", scratch)
    look(*words, "--to", scratch / "c")


def test_a_file_of_signers_replaces_the_one_beside_the_identity(look: Said, scratch: Path) -> None:
    """Who names a file of signers believes nobody else, whatever lies beside the identity."""
    operator = look.operator
    nobody = scratch / "signers"
    nobody.write_text(f"cp-2@plant-7 {(operator.state / 'signing.key.pub').read_text()}")
    words: list[str | Path] = ["verify", "--repository", operator.repository, "--identity", operator.identity]
    look(*words)
    assert "signed by somebody unknown here" in look(*words, "--allowed-signers", nobody, code=9)
    nobody.write_text("")
    assert "knows none of the signers" in _warnings(look, *words, "--allowed-signers", nobody)


def _warnings(look: Said, *words: str | Path) -> str:
    look.capsys.readouterr()
    assert main(look.operator.words(*words)) == 0
    return look.capsys.readouterr().err


def test_what_is_damaged_is_not_said_to_be_proven(look: Said, scratch: Path) -> None:
    """The level of a damaged backup is what was once; of signatures it is said only that those that hold, hold."""
    copy = scratch / "usb"
    shutil.copytree(look.operator.repository, copy)
    here = ["--repository", str(copy)]
    assert "L1 when it was made: signature and ciphertext hashes hold" in look("show", *here)
    (segment,) = copy.glob("v1/delta/*/*/*/node.tar.000.zst.age")
    segment.unlink()
    full, delta = (line.split() for line in look("list", *here).splitlines()[1:3])
    assert (full[-1], delta[-1]) == ("L1", "-")
    assert [row["proof"] for row in look.json("list", *here)] == ["L1", "L1"]
    assert "L1 when it was made: " in look("show", *here)
    assert "the signatures of the intact ones hold" in look("verify", "--all", *here, code=7)
    (signature,) = copy.glob("v1/full/*/*/*/manifest.json.sig")
    signature.unlink()
    said = look("verify", "1", *here, code=7)
    assert f"error: {full[0]} cannot be restored: it is not signed: manifest.json.sig is missing\n" in said
    assert "signatures" not in said
    assert "error: 2 of 2 backups cannot be restored; the first is " in look("verify", "--all", *here, code=7)


def test_restore_only_one_source(look: Said, scratch: Path) -> None:
    """``--only`` takes what it names, and nothing else."""
    operator = look.operator
    words: list[str | Path] = ["restore", "latest", "--identity", operator.identity, "--only", "certificates"]
    found = look.json(*words, "--to", scratch / "some")
    assert found["missing"] == []
    assert (scratch / "some/files/etc/kubernetes/pki/ca.crt").exists()
    assert not (scratch / "some/files/etc/kubernetes/manifests/etcd.yaml").exists()
    assert "certificates" in look(*words, "--to", scratch / "text")


def test_only_offers_every_source() -> None:
    """The choices of ``--only`` are the sources that there are."""
    for name in SOURCE_NAMES:
        line = ["restore", "--to", "/x", "--only", name]
        assert build_parser().parse_args(line).only == [name]


def test_a_wrong_identity(look: Said, scratch: Path) -> None:
    """It is told apart from damage, and nothing is made."""
    other = scratch / "other.txt"
    other.write_text(make_identity().secret + "\n")
    for words in (["verify", "--all"], ["restore", "latest", "--to", str(scratch / "x")]):
        assert "is not one that" in look(*words, "--identity", other, code=6)
    assert not (scratch / "x").exists()


def test_a_protected_identity_needs_a_terminal(look: Said, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can be asked for the passphrase, it says so at once."""
    protected = scratch / "key.age"
    protected.write_bytes(b"age-encryption.org/v1\n-> scrypt c2FsdA 10\nYm9k\n--- bWFj\nx")
    with Path(os.devnull).open() as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert "no terminal to ask" in look("verify", "--identity", protected, code=6)


def test_verify(look: Said) -> None:
    """L1 without a key, L2 with it; for scripts too."""
    operator = look.operator
    assert "2 of 2 intact; L1: signature and ciphertext hashes hold" in look("verify", "--all")
    assert "chain of 2 intact; L1: signature and ciphertext hashes hold" in look("verify", "latest")
    assert "1 of 1 intact" in look("verify", "1")
    assert "2 of 2 intact; L2: it decrypts" in look("verify", "--all", "--identity", operator.identity)
    assert [row["level"] for row in look.json("verify", "--all", "--identity", operator.identity)] == ["L2", "L2"]
