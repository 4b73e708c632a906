"""What a snapshot must keep to while it streams by: it goes on, and the SHA-256 behind it holds."""

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

from edgedr.errors import SourceError

T = TypeVar("T")

TRAILER = 32
"""Bytes of the SHA-256 at the end. It covers the bytes before it as sent: it proves the transport, not the database."""
_BLOCK = 512
"""Every page size that etcd's database may have is a multiple of this, so the rest tells whether a trailer follows."""


class Trailer:
    """Takes a snapshot piece by piece, and tells in the end whether all of it came as it was sent.

    Only the last 32 bytes are kept.
    """

    def __init__(self) -> None:
        self._content = hashlib.sha256()
        self._tail = b""
        self._announced: int | None = None
        self._remaining = 0
        self.size = 0

    def update(self, piece: bytes, *, remaining: int | None = None) -> None:
        """Take the next piece; ``remaining`` is what the server says is still to come, the trailer not counted."""
        self.size += len(piece)
        held = self._tail + piece
        self._content.update(memoryview(held)[:-TRAILER])
        self._tail = held[-TRAILER:]
        if remaining is not None:
            self._remaining = remaining
            if self._announced is None:
                self._announced = self.size + remaining

    @property
    def surplus(self) -> bool:
        """Whether more came than the server announced with its first piece."""
        return self._announced is not None and self.size > self._announced + TRAILER

    @property
    def sha256(self) -> str:
        """Hash of everything so far, the trailer included, in hex."""
        whole = self._content.copy()
        whole.update(self._tail)
        return whole.hexdigest()

    def problem(self) -> str | None:
        """Say what is wrong with a snapshot that ends here; ``None`` if nothing is."""
        if self.surplus:
            return "more came than was announced"
        if self._remaining:
            return f"it ends {self._remaining} bytes early"
        if self.size % _BLOCK == 0:
            return "it has no SHA-256 trailer"
        if self.size % _BLOCK != TRAILER:
            return f"{self.size} bytes cannot be whole pages and a SHA-256 trailer"
        if self._content.digest() != self._tail:
            return "its SHA-256 trailer does not hold"
        return None


class Progress:
    """Watches that a stream goes on. Only time spent waiting for the server counts, not what we do with its bytes."""

    def __init__(self, endpoint: str, min_progress: int, patience: timedelta) -> None:
        self._endpoint = endpoint
        self._min_progress = min_progress
        self._patience = patience.total_seconds()
        self._waiting_since: float | None = None
        self.silent = False

    @contextmanager
    def watching(self, cancel: Callable[[], object]) -> Iterator[None]:
        """Call ``cancel`` if the server is silent for too long during the block; ``silent`` tells that it was."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(self._patience / 4):
                since = self._waiting_since
                if since is not None and time.monotonic() - since > self._patience:
                    self.silent = True  # before the cancel, so that whoever it wakes sees why
                    cancel()
                    return

        watcher = threading.Thread(target=watch, name="etcd-snapshot-watch", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()

    def timed(self, stream: Iterator[T], size: Callable[[T], int]) -> Iterator[T]:
        """Yield what ``stream`` yields; raise ``SourceError`` when that is too little for too long."""
        waited, received, total = 0.0, 0, 0
        while True:
            since = time.monotonic()
            self._waiting_since = since
            try:
                message = next(stream, None)
            finally:
                self._waiting_since = None
            if message is None:
                return
            waited += time.monotonic() - since
            received += size(message)
            total += size(message)
            if waited >= self._patience:
                if received < self._min_progress * waited:
                    raise self.failure(total)
                waited, received = 0.0, 0
            yield message

    def failure(self, total: int) -> SourceError:
        """Say that the stream was given up after ``total`` bytes."""
        what = "sent nothing" if self.silent else f"sent less than {self._min_progress} bytes per second"
        return SourceError(
            f"{self._endpoint} {what} for {self._patience:g} s, after {total} bytes of a snapshot",
            hint="look at that member's disk and the network, or change [sources.etcd] patience and min_progress",
        )
