"""Faults at the door of the disk: every call that changes one is counted; at the n-th the process dies, or it fails.

``os.fsync`` is counted and left out: a killed process loses nothing that the kernel has.
"""

import itertools
import os
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

from edgedr.errors import EdgedrError

KILLED = 137
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGING = (
    "write", "fsync", "open", "link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "chmod", "fchmod",
    "chown", "fchown", "lchown", "ftruncate", "truncate", "symlink", "utime", "setxattr", "pwrite", "writev", "mknod",
    "mkfifo", "fdatasync", "posix_fallocate", "copy_file_range", "sendfile", "removexattr",
)  # fmt: skip
_AUDITED = {
    "os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.chown", "os.truncate", "os.symlink",
    "os.utime", "os.setxattr", "os.removexattr",
}  # fmt: skip


class Deed(Protocol):
    """What happens at a call: ``real`` would do it; ``first`` says whether this is the n-th, or a later one."""

    def __call__(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, *, first: bool) -> Any:
        """Do it, or not."""


def die_before(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, *, first: bool) -> NoReturn:
    """Kill the process before the call."""
    os._exit(KILLED)


def die_within(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, *, first: bool) -> NoReturn:
    """Kill the process after the call; of a write, only half was done."""
    if name == "write":
        args = (args[0], args[1][: len(args[1]) // 2])
    real(*args, **kwargs)
    os._exit(KILLED)


def failing(code: int, *, for_good: bool) -> Deed:
    """Return a deed that fails with an errno: once, or from then on, as a disk that is full or dead."""

    def fail(name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: Any, *, first: bool) -> Any:
        if first or (for_good and name not in {"unlink", "rmdir"}):  # a full disk lets go, if of nothing else
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return fail


@dataclass(slots=True)
class Seen:
    """The calls that changed a disk, by name, and what they were to name; and changes past them, which must not be."""

    calls: list[str] = field(default_factory=list)
    named: list[tuple[str, str]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)


@contextmanager
def watched(at: int = 0, deed: Deed | None = None) -> Iterator[Seen]:
    """Count the calls of this thread, and let ``deed`` happen from the ``at``-th (from 1) on."""
    seen = Seen()
    thread = threading.get_ident()
    real = {name: getattr(os, name) for name in _CHANGING}

    def door(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != thread or (name == "open" and not args[1] & _WRITING):
                return real[name](*args, **kwargs)
            seen.calls.append(name)
            seen.named += [(name, str(args[1]))] if name in {"link", "rename"} else []
            _inside.append(name)
            try:
                if deed is not None and len(seen.calls) >= at:
                    return deed(name, _undurable(name, real), args, kwargs, first=len(seen.calls) == at)
                return _undurable(name, real)(*args, **kwargs)
            finally:
                _inside.pop()

        return call

    for name in _CHANGING:
        setattr(os, name, door(name))
    try:
        yield seen
    finally:
        for name, function in real.items():
            setattr(os, name, function)


_inside: list[str] = []


def _undurable(name: str, real: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    return (lambda *_: None) if name == "fsync" else real[name]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: ``code`` is its exit code, or minus the signal; ``said`` are its calls, or what went wrong."""

    code: int
    said: list[str]

    @property
    def killed(self) -> bool:
        """Whether it died of the fault."""
        return self.code == KILLED


def in_child(act: Callable[[], int | None], at: int = 0, deed: Deed | None = None, *, audit: bool = False) -> Ended:
    """Do ``act`` in a child that may die of it. With ``audit``, what bypasses the door is reported as a failure."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # the test process has threads; none holds a lock of ours
        child = os.fork()
    if child == 0:
        os.close(reading)
        _live(act, at, deed, writing, audit=audit)
    os.close(writing)
    with os.fdopen(reading, "r") as pipe:
        said = pipe.read().splitlines()
    ended = Ended(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said)
    assert ended.code in {0, KILLED} or ended.code in range(2, 12), "\n".join(ended.said)
    return ended


def _live(act: Callable[[], int | None], at: int, deed: Deed | None, writing: int, *, audit: bool) -> NoReturn:
    code = 1
    try:
        signal.alarm(120)  # nothing here takes a second; what hangs is found
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        with watched(at, deed) as seen:
            if audit:
                sys.addaudithook(lambda event, args: _audit(seen, event, args))
            try:
                code = act() or 0
                said = seen.calls
            except EdgedrError as error:
                code, said = error.exit_code, [str(error)]
        if seen.unseen:
            code, said = 1, seen.unseen
        os.write(writing, "\n".join(said).encode())
    except BaseException:  # noqa: BLE001 - nothing of the child may run in the parent's place
        os.write(writing, traceback.format_exc().encode())
        code = 1
    finally:
        os._exit(code)


def _audit(seen: Seen, event: str, args: tuple[Any, ...]) -> None:
    if _inside:
        return
    if event in _AUDITED or (event == "open" and isinstance(args[2], int) and args[2] & _WRITING):
        seen.unseen.append(f"{event} {args!r}")


def copies(origin: Path, to: Path) -> Iterator[tuple[int, Path]]:
    """Yield 1, 2, 3, … and each time a fresh copy of ``origin``."""
    for number in itertools.count(1):
        copy = to / str(number)
        shutil.copytree(origin, copy, symlinks=True)
        yield number, copy
        shutil.rmtree(copy)
