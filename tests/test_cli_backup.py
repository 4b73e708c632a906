"""`edgedr backup`: every way in which it ends, and what never leaves it."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edgedr.settings import load
from edgedr.wiring import open_state
from tests.lab.operator import CANARY, NOT_HERE, Operator, Said, files_with


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damage_is_found_said_and_followed_by_a_full(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Verify ends with 7 and names what is lost with it; list and show mark it; restore offers another; then a full."""
    said = Said(node, capsys)
    node.init()
    ids = [said.json("backup")["id"] for _ in range(3)]
    (damaged,) = node.repository.glob(f"v1/delta/*/*/{ids[1]}/node.tar.000.zst.age")
    _flip(damaged)
    text = said("verify", "--all", code=7)
    assert f"{ids[0]} is intact" in text
    assert f"takes {ids[2]} down with it" in text
    text = said("restore", ids[2], "--identity", node.identity, "--to", node.directory / "x", code=7)
    assert f"{ids[0]} is intact" in text
    assert not (node.directory / "x").exists()
    found = said.json("backup")
    assert found["class"] == "full"
    assert "a verification found it damaged" in " ".join(found["reasons"])
    damaged.unlink()
    text = said("list")
    assert "damaged: node.tar.000.zst.age is missing" in text
    assert max(map(len, text.splitlines())) <= 80
    assert "damaged: node.tar.000.zst.age is missing" in said("show", ids[1])
    (manifest,) = node.repository.glob(f"v1/delta/*/*/{ids[1]}/manifest.json")
    manifest.write_text("{}")
    assert "the manifest of" in said("show", ids[1], code=7)
    assert "-" in said("list")


def test_a_missing_optional_source_ends_with_3(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """The backup is stored, says what is missing and why, and a restore says it again."""
    said = Said(node, capsys)
    node.init()
    section = "[sources.certificates]\n"
    text = node.config.read_text().replace(section, f"{section}required = false\n")
    node.config.write_text(text.replace("[sources.files]\n", "[sources.files]\nrequired = true\n"))
    for path in (node.root / "etc/kubernetes").rglob("*"):
        if path.suffix in {".crt", ".key", ".pub", ".conf"}:
            path.unlink()
    shutil.rmtree(node.root / "var/lib/kubelet/pki", ignore_errors=True)
    text = said("backup", code=3)
    assert "is stored, but lacks certificates, " in text
    assert "incomplete" in said("list")
    assert said.json("show")["sources"]["certificates"]["status"] == "missing"
    target = node.directory / "restored"
    shown = said("show").splitlines()
    assert "certificates  missing" in shown
    assert [line for line in shown if line.startswith("missing          certificates: ")]
    assert max(map(len, shown)) <= 80
    words: list[str | Path] = ["restore", "--identity", node.identity, "--to", target]
    text = said(*words, code=3)
    assert "missing          certificates: " in text
    assert "is restored; it held nothing of: certificates\n" in text
    assert "hint: no backup here is better for certificates: look at another copy" in text
    assert "holds no certificates" in said(*words, "--only", "certificates", code=9)


def test_a_missing_required_source_ends_with_4(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """Without etcd there is no backup, and nothing is listed."""
    said = Said(node, capsys)
    node.init()
    without = [name for name in NOT_HERE if name != "etcd"]
    text = node.config.read_text().replace(f"disabled = {json.dumps(NOT_HERE)}", f"disabled = {json.dumps(without)}")
    node.config.write_text(text)
    text = node.config.read_text().replace("# endpoints = [", "endpoints = [").replace(":2379", ":1")
    node.config.write_text(text.replace('# answer = "5 s"', 'answer = "1 s"'))
    assert "etcd" in said("backup", code=4)
    assert said.json("list") == []


def test_a_repository_that_cannot_be_written_ends_with_5(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in the repository's place, and a floor of free space that is not there, are named."""
    said = Said(node, capsys)
    node.init()
    node.repository.write_text("in the way")
    assert str(node.repository) in said("backup", code=5)
    node.repository.unlink()
    node.config.write_text(node.config.read_text().replace('# keep_free = "256 MiB"', 'keep_free = "900 TiB"'))
    assert "are kept free" in said("backup", code=5)


def test_a_second_run_ends_with_11(node: Operator, capsys: pytest.CaptureFixture[str]) -> None:
    """While one is at work, another does nothing."""
    said = Said(node, capsys)
    node.init()
    with open_state(load(node.config)).lock():
        assert "another edgedr holds" in said("backup", code=11)
        assert said.json("list") == []


def test_nothing_leaks(node: Operator) -> None:
    """Neither captured secrets, nor the identity, nor the signing key are in any output, log or manifest."""
    node.init()
    signing = (node.state / "signing.key").read_text().splitlines()[2]
    for words in (
        ["backup"],
        ["backup", "--json"],
        ["list", "--json"],
        ["show", "--json"],
        ["show"],
        ["config", "check", "--json"],
        ["verify", "--all", "--identity", node.identity],
        ["restore", "--identity", node.identity, "--to", node.directory / "b", "--json"],
    ):
        node.run(*words, EDGEDR_LOG="json")
    everything = "".join(node.printed)
    assert "backup.decided" in everything
    for secret in (CANARY, node.secret, signing):
        assert secret not in everything
        stored = files_with(node.repository, secret)
        assert stored == []
    in_the_clear = files_with(node.state, CANARY)
    assert all(path.is_relative_to(node.state / "parent") for path in in_the_clear)
    assert files_with(node.state, node.secret) == []


def test_a_careless_umask_opens_nothing(node: Operator) -> None:
    """With umask 000 every file is 0600 and every directory 0700, but for the public key."""
    command = [sys.executable, "-m", "edgedr", "--config", str(node.config)]
    script = 'umask 000; "$@"'
    loosely = ["sh", "-c", script, "sh", *command]
    subprocess.run([*loosely, *node.init_words(), "--unproven"], capture_output=True, check=True)
    node.config.write_text(node.config.read_text().replace("# disabled = []", f"disabled = {json.dumps(NOT_HERE)}"))
    restored = node.directory / "restored"
    for words in (["backup"], ["restore", "--identity", str(node.identity), "--to", str(restored)]):
        subprocess.run([*loosely, *words], capture_output=True, check=True)
    for path in [node.state, *node.state.rglob("*"), restored, restored / "files"]:
        mode = stat.S_IMODE(path.stat().st_mode)
        allowed = 0o700 if path.is_dir() else 0o644 if path.name == "signing.key.pub" else 0o600
        assert mode == allowed, path


def test_odd_names_do_not_end_a_command(node: Operator) -> None:
    """Names that are no text, or steer a terminal, are shown by number; no backup fails over its report."""
    node.init()
    odd = os.fsencode(node.root / "etc/kubernetes") + b"/\xff\x1b[31m\n.sock"
    os.mkfifo(odd)
    said, _ = node.run("backup", PYTHONIOENCODING="ascii")
    assert "left out" in said
    assert "\x1b" not in said
