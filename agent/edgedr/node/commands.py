"""Commands of the machine we stand on: read-only questions, answered within a deadline, or not asked at all."""

import subprocess
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol

from edgedr.errors import SourceError
from edgedr.node.files import Files

WITHIN = timedelta(seconds=10)
_LIMIT = 16 << 20  # bytes of one answer
_BOOT_ID = PurePosixPath("/proc/sys/kernel/random/boot_id")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/var/lib/rancher/rke2/bin"


class Commands(Protocol):
    """Whoever runs commands on the node, or refuses to."""

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        """Run a command without a shell, and return what it printed.

        Raises ``SourceError`` if it cannot be run here, fails, or takes longer than ``within``.
        """


@dataclass(frozen=True, slots=True)
class NoCommands:
    """Refuses every command, and says why."""

    reason: str = "no commands are run here"

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        """Refuse. See ``Commands``."""
        del within
        raise SourceError(f"`{' '.join(words)}` was not run: {self.reason}")


@dataclass(frozen=True, slots=True)
class HostCommands:
    """Runs commands on this machine."""

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        """Run a command. See ``Commands``."""
        shown = f"`{' '.join(words)}`"
        environment = {"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/"}
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env=environment,
                timeout=within.total_seconds(),
                check=False,
            )
        except FileNotFoundError as error:
            raise SourceError(f"there is no {words[0]} on this machine") from error
        except subprocess.TimeoutExpired as error:
            raise SourceError(f"{shown} was not done within {within.total_seconds():g} s") from error
        except OSError as error:
            raise SourceError(f"{shown} cannot be run: {error.strerror}") from error
        if done.returncode:
            said = done.stderr[:2000].decode(errors="replace").strip().splitlines()
            raise SourceError(f"{shown} ended with {done.returncode}{': ' + said[-1] if said else ''}")
        if len(done.stdout) > _LIMIT:
            raise SourceError(f"{shown} printed more than {_LIMIT >> 20} MiB")
        return done.stdout.decode(errors="replace")


def commands_of(files: Files) -> Commands:
    """Return who runs commands for the node with these files: only this machine can, while it runs.

    The node is this machine where its ``/proc`` tells the same boot: ``/`` itself, or ``/`` mounted into a container.
    """
    ours = Files(Path("/")).text(_BOOT_ID)
    if ours is not None and files.text(_BOOT_ID) == ours:
        return HostCommands()
    return NoCommands(f"{files.root} is not the / of a running machine")
