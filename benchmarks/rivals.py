"""Other tools that store versions of a file incrementally, as somebody would run them: encrypted, else as they come."""

from pathlib import Path
from typing import Protocol

from benchmarks.measured import Cost, run, version_of, weigh
from tests.lab.tools import need


class Rival(Protocol):
    """A backup tool with a repository of its own."""

    name: str

    def version(self) -> str:
        """Return its name and version."""

    def add(self, file: Path) -> tuple[int, Cost]:
        """Store a file, always under the same name; return by how many bytes the repository grew, and the cost."""


class Restic:
    """restic; its repository format 2 compresses by zstd of its own accord."""

    name = "restic"

    def __init__(self, directory: Path) -> None:
        self._repository = directory / "restic"
        self._secret = {"RESTIC_PASSWORD": "benchmark", "RESTIC_REPOSITORY": str(self._repository)}
        run([need("restic"), "init", "--no-cache", "--repository-version", "2"], environment=self._secret)

    def version(self) -> str:
        return " ".join(version_of([need("restic"), "version"]).split()[:2])

    def add(self, file: Path) -> tuple[int, Cost]:
        before = weigh(self._repository)
        command = [need("restic"), "--no-cache", "--quiet", "backup", "--host", "node", file.name]
        cost = run(command, cwd=file.parent, environment=self._secret)
        return weigh(self._repository) - before, cost


class Borg:
    """Borg, with its zstd compression."""

    name = "borg"

    def __init__(self, directory: Path) -> None:
        self._repository = directory / "borg"
        self._secret = {"BORG_PASSPHRASE": "benchmark", "BORG_BASE_DIR": str(directory / "borg-home")}
        (directory / "borg-home").mkdir()
        self._number = 0
        run([need("borg"), "init", "--encryption=repokey-blake2", self._repository], environment=self._secret)

    def version(self) -> str:
        return version_of([need("borg"), "--version"])

    def add(self, file: Path) -> tuple[int, Cost]:
        before = weigh(self._repository)
        self._number += 1
        archive = f"{self._repository}::{self._number}"
        cost = run(
            [need("borg"), "create", "--compression=zstd", archive, file.name],
            cwd=file.parent,
            environment=self._secret,
        )
        return weigh(self._repository) - before, cost
