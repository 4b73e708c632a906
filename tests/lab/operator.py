"""Somebody at a terminal: a kubeadm node, an identity, and commands that are checked for how they end."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgedr.cli.main import main
from edgedr.sealing.identities import make_identity
from edgedr.sources.table import SOURCE_NAMES
from tests.lab import kubeadm

CANARY = "c4n4ry-in-a-captured-key"
NOT_HERE = [name for name in SOURCE_NAMES if name not in {"certificates", "files"}]
"""Sources that want servers, or a machine that runs."""


class Operator:
    """Somebody at a terminal of a kubeadm node, or of another, with an identity and all else below one directory."""

    def __init__(self, directory: Path, root: Path | None = None) -> None:
        self.directory = directory
        self.config = directory / "etc" / "edgedr.toml"
        self.state = directory / "state"
        self.repository = self.state / "repository"
        self.root = root or kubeadm.unpack(directory / "root")
        (self.root / "etc/hostname").write_text("cp-1\n")
        if root is None:
            key = self.root / "etc/kubernetes/pki/sa.key"
            key.write_text(f"{CANARY}\n{key.read_text()}")  # what stands before a key is no part of it
        self.keys = directory / "keys"
        self.keys.mkdir()
        self.identity = self.keys / "key.txt"
        made = make_identity()
        self.secret, self.recipient = made.secret, made.recipient
        self.identity.write_text(f"{made.secret}\n")
        self.printed: list[str] = []

    def words(self, *words: str | Path) -> list[str]:
        return ["--config", str(self.config), *map(str, words)]

    def run(self, *words: str | Path, code: int = 0, stdin: str = "", **environment: str) -> tuple[str, str]:
        """Run a command as a process; return what it printed."""
        command = [sys.executable, "-m", "edgedr", *self.words(*words)]
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
        self.printed += [done.stdout, done.stderr]
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout, done.stderr

    def init_words(self) -> list[str]:
        options = ["--site", "plant-7", "--root", str(self.root), "--state", str(self.state)]
        return ["init", *options, "--recipient", self.recipient]

    def init(self, without: Sequence[str] = NOT_HERE) -> None:
        """Set the node up without proof, and leave sources out: there is no server here."""
        self.run(*self.init_words(), "--unproven")
        text = self.config.read_text()
        assert "# disabled = []" in text
        self.config.write_text(text.replace("# disabled = []", f"disabled = {json.dumps(list(without))}"))

    def signers(self) -> None:
        """Keep the node's line beside the identity."""
        said, _ = self.run("init", "--site", "plant-7", "--unproven")
        line = next(line for line in said.splitlines() if 'namespaces="edgedr"' in line)
        (self.keys / "allowed_signers").write_text(line.strip() + "\n")


class Said:
    """Runs commands in this process: what they print, by capsys."""

    def __init__(self, operator: Operator, capsys: pytest.CaptureFixture[str]) -> None:
        self.operator = operator
        self.capsys = capsys

    def __call__(self, *words: str | Path, code: int = 0, config: bool = True) -> str:
        self.capsys.readouterr()
        ended = main(self.operator.words(*words) if config else [str(word) for word in words])
        said = self.capsys.readouterr()
        assert ended == code, said.out + said.err
        assert "Traceback" not in said.err
        if code in {0, 3}:
            assert not re.search("^error: bug", said.err)
        else:
            lines = said.err.splitlines()
            assert lines[-1] == f"(exit {code})"
            assert lines[-2].startswith("  hint: ")
            assert any(line.startswith("error: ") for line in lines)
        return said.out if code == 0 else said.out + said.err

    def json(self, *words: str | Path) -> Any:
        return json.loads(self(*words, "--json"))


def with_two_backups(directory: Path) -> Operator:
    """Make a node with a full and a delta, only to look at."""
    operator = Operator(directory)
    operator.init()
    operator.run("backup")
    (operator.root / "etc/kubernetes/new.yaml").write_text("kind: New\n")
    operator.run("backup")
    operator.signers()
    return operator


def files_with(directory: Path, secret: str) -> list[Path]:
    return [path for path in _files(directory) if secret.encode() in path.read_bytes()]


def _files(directory: Path) -> Iterator[Path]:
    yield from (path for path in sorted(directory.rglob("*")) if path.is_file() and not path.is_symlink())
