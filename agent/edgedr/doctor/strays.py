"""Identities that lie on the node: one that opens its backups makes all sealing pointless.

Where they lie is told, never what they are.
"""

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edgedr import durable
from edgedr.doctor.judging import bad, good, warn
from edgedr.errors import StorageError, WrongKey
from edgedr.model import Finding
from edgedr.sealing.identities import load_identities

_MARK = re.compile(rb"AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{50}", re.IGNORECASE)
_MAX_BYTES = 64 << 10  # of a file: identities are a few lines
_MAX_DEPTH = 4
_MAX_FILES = 20_000


@dataclass(slots=True)
class _Walk:
    """What was looked at, and what was not."""

    files: int = 0
    unread: int = 0
    ended: bool = False


def check_strays(
    places: Sequence[Path], recipients: Collection[str], *, leave_out: Collection[Path] = ()
) -> Iterator[Finding]:
    """Look below ``places`` for age identities; ``recipients`` are the fingerprints of this node's.

    ``leave_out`` are directories that are not looked into: those full of ciphertext, say.
    """
    walk = _Walk()
    paths = [path for path in _files(places, set(leave_out), walk) if _holds_identity(path, walk)]
    for path in dict.fromkeys(paths):
        if _may_open(path, recipients):
            text = f"{path} holds an age identity that may open this node's backups"
            hint = "take it off this node, and consider it exposed: make another one, and change [sealing] recipients"
            yield bad("identities", text, hint)
        else:
            text = f"{path} holds an age identity, of none of this node's recipients"
            yield warn("identities", text, "look whether it has to be on this node")
    if walk.unread:
        text = f"{walk.unread} of what is below {_named(places)} could not be read"
        yield warn("identities", text, "run `edgedr doctor` as root")
    elif walk.ended:
        text = f"only {_MAX_FILES} files below {_named(places)} were looked at"
        yield warn("identities", text, "look yourself: grep -rl AGE-SECRET-KEY-1 there")
    elif not paths:
        yield good("identities", f"none below {_named(places)}")


def _named(places: Iterable[Path]) -> str:
    return ", ".join(dict.fromkeys(map(str, places)))


def _files(places: Iterable[Path], leave_out: Collection[Path], walk: _Walk) -> Iterator[Path]:
    waiting = [(place, 0) for place in dict.fromkeys(places)]
    while waiting:
        place, depth = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except FileNotFoundError:
            continue
        except OSError:
            walk.unread += 1
            continue
        for entry in entries:
            path = Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                if depth < _MAX_DEPTH and path not in leave_out:
                    waiting.append((path, depth + 1))
            elif entry.is_file(follow_symlinks=False):
                walk.files += 1
                if walk.files > _MAX_FILES:
                    walk.ended = True
                    return
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_size <= _MAX_BYTES:
                        yield path


def _holds_identity(path: Path, walk: _Walk) -> bool:
    try:
        with durable.open_for_reading(path) as file:
            return _MARK.search(file.read(_MAX_BYTES)) is not None
    except FileNotFoundError:
        return False
    except (OSError, StorageError):
        walk.unread += 1
        return False


def _may_open(path: Path, recipients: Collection[str]) -> bool:
    """Say whether a file may hold the identity of one of these recipients; one that is no identity file may."""
    try:
        found = load_identities(path, _no_passphrase)
    except WrongKey:
        return True
    return any(identity.fingerprint is None or identity.fingerprint in recipients for identity in found)


def _no_passphrase(prompt: str) -> NoReturn:
    del prompt
    raise WrongKey("it is protected", hint="nobody is asked here")
