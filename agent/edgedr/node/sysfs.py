"""What the kernel and udev tell in small files: ``/proc``, ``/sys``, ``/run/udev``, below the node's root.

Nothing here raises: a file that is missing or unreadable tells nothing.
"""

import re
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from edgedr.node.files import Files

Described: TypeAlias = dict[str, Any]

_LONGEST = 300  # characters of one value


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return a text in one line that any screen can show, cut after ``longest`` characters."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.strip("\0 \n").split()))
    return shown[:longest]


def devices(files: Files, pattern: str) -> list[PurePosixPath]:
    """Return the directories, without links, of the files that ``pattern`` names."""
    last = PurePosixPath(pattern).name
    return [path.parent for path in files.expand((pattern,)) if path.name == last]


def udev(files: Files, device: str) -> dict[str, str]:
    """Return what udev recorded about a device when it came: ``b8:0``, ``n2``."""
    lines = text(files, f"/run/udev/data/{device}").splitlines()
    pairs = (line[2:].partition("=") for line in lines if line.startswith("E:"))
    return {name: one_line(value) for name, _, value in pairs if one_line(value)}


def text(files: Files, path: PurePosixPath | str) -> str:
    """Return what a file holds; nothing where there is none."""
    return (files.contents(path) or b"").decode(errors="replace")


def word(files: Files, path: PurePosixPath | str, longest: int = _LONGEST) -> str | None:
    """Return what a file holds, in one line; ``None`` where that is nothing."""
    return one_line(text(files, path), longest) or None


def number(files: Files, path: PurePosixPath | str) -> int:
    """Return the number in a file; 0 where there is none."""
    told = word(files, path) or ""
    return int(told) if re.fullmatch(r"\d{1,18}", told, re.ASCII) else 0


def natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``eth2`` before ``eth10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def known(**told: Any) -> Described:
    """Return what is known of all this."""
    return {key: value for key, value in told.items() if value not in (None, "", [], {})}
