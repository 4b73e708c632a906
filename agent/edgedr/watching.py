"""Somebody who looks on while something long happens: a progress bar, or nobody."""

from typing import Protocol


class Watcher(Protocol):
    """Told what begins and how far it is."""

    def begin(self, act: str, total: int | None) -> None:
        """Note that an act begins, of ``total`` bytes where that is known."""

    def advance(self, count: int) -> None:
        """Note that ``count`` more bytes are done."""
