"""Commands of the machine we stand on: read-only questions, answered within a deadline, or not asked at all."""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Protocol

from edgedr.errors import SourceError
from edgedr.node.files import Files

WITHIN = timedelta(seconds=10)
_LIMIT = 16 << 20  # bytes of one answer
_SAID = 2000  # bytes of what it said last about its failure
_CHUNK = 64 << 10
_PAUSES = (0.0005, 0.05)  # seconds between two looks whether it has ended: the first one, and the longest
_BOOT_ID = PurePosixPath("/proc/sys/kernel/random/boot_id")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/var/lib/rancher/rke2/bin"


class Commands(Protocol):
    """Whoever runs commands on the node, or refuses to."""

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        """Run a command without a shell, and return what it printed.

        Raises ``SourceError`` if it cannot be run here, fails, takes longer than ``within``, or prints without an end.
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
    """Runs commands on this machine; whatever they began ends with them."""

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        """Run a command. See ``Commands``."""
        shown = f"`{' '.join(words)}`"
        try:
            code, out, said = _run(words, time.monotonic() + within.total_seconds())
        except FileNotFoundError as error:
            raise SourceError(f"there is no {words[0]} on this machine") from error
        except _TooLong as error:
            raise SourceError(f"{shown} printed more than {_LIMIT >> 20} MiB") from error
        except TimeoutError as error:
            raise SourceError(f"{shown} was not done within {within.total_seconds():g} s") from error
        except OSError as error:
            raise SourceError(f"{shown} cannot be run: {error.strerror}") from error
        if code:
            last = said.decode(errors="replace").strip().splitlines()
            raise SourceError(f"{shown} ended with {code}{': ' + last[-1] if last else ''}")
        return out.decode(errors="replace")


class _TooLong(Exception):
    """It printed more than ``_LIMIT``."""


def _run(words: tuple[str, ...], until: float) -> tuple[int, bytes, bytes]:
    """Return its exit code, what it printed, and the last that it said on the side.

    Raises ``TimeoutError``, ``_TooLong``, and ``OSError`` for what cannot be run.
    """
    with _begun(words) as process:
        out, said = _read(process, until)
        _await(process, until)
    return process.returncode, out, said


@contextmanager
def _begun(words: tuple[str, ...]) -> Iterator[subprocess.Popen[bytes]]:
    """Run it in a group of its own, and kill all of that at the end, before its number can be another's."""
    with subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"PATH": _PATH, "LC_ALL": "C.UTF-8", "HOME": "/"},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _read(process: subprocess.Popen[bytes], until: float) -> tuple[bytes, bytes]:
    """Read both its outputs to their ends: all of the first, the last bytes of the other."""
    out, said = bytearray(), bytearray()
    with selectors.DefaultSelector() as waiting:
        waiting.register(process.stdout, selectors.EVENT_READ, out)  # type: ignore[arg-type] # both are pipes
        waiting.register(process.stderr, selectors.EVENT_READ, said)  # type: ignore[arg-type]
        while waiting.get_map():
            for key, _ in waiting.select(_left(until)):
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    waiting.unregister(key.fileobj)
                key.data.extend(chunk)
            if len(out) > _LIMIT:
                raise _TooLong
            del said[:-_SAID]
    return bytes(out), bytes(said)


def _await(process: subprocess.Popen[bytes], until: float) -> None:
    """Wait until it has ended, but leave it there as long as its group may have others in it."""
    pause, longest = _PAUSES
    while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        time.sleep(min(pause, _left(until)))
        pause = min(2 * pause, longest)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def commands_of(files: Files) -> Commands:
    """Return who runs commands for the node with these files: only this machine can, while it runs.

    The node is this machine where its ``/proc`` tells the same boot: ``/`` itself, or ``/`` mounted into a container.
    """
    ours = Files(Path("/")).text(_BOOT_ID)
    if ours is not None and files.text(_BOOT_ID) == ours:
        return HostCommands()
    return NoCommands(f"{files.root} is not the / of a running machine")
