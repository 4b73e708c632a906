"""Ways in which a file comes back other than it was written: by power cuts, by rot, by hand."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Damage: TypeAlias = Callable[[Path], None]


def flipped(path: Path, at: float = 0.5, bit: int = 1) -> None:
    """Flip one bit, by default in the middle."""
    data = bytearray(path.read_bytes())
    data[int((len(data) - 1) * at)] ^= bit
    path.write_bytes(data)


def cut(path: Path, size: int) -> None:
    """Truncate to ``size`` bytes."""
    os.truncate(path, size)


def zeroed(path: Path, start: float) -> None:
    """Zero the end, as file systems do that write names before bytes."""
    data = path.read_bytes()
    keep = int(len(data) * start)
    path.write_bytes(data[:keep] + bytes(len(data) - keep))


def _eighth(number: int) -> Damage:
    return lambda path: cut(path, path.stat().st_size * number // 8)


def _longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")


TORN: dict[str, Damage] = {
    **{f"cut to {number}/8": _eighth(number) for number in range(8)},
    "cut by a byte": lambda path: cut(path, path.stat().st_size - 1),
    "zeroed": lambda path: zeroed(path, 0),
    "zeroed tail": lambda path: zeroed(path, 0.5),
    "first bit": lambda path: flipped(path, 0),
    "middle bit": flipped,
    "a byte more": _longer,
    "gone": Path.unlink,
}
