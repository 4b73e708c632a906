"""How fast, and how soon again: a limit of bytes a second, and the wait between two attempts."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_FIRST, _MOST = 0.5, 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Patience:
    """How often a request is made in all, and how long one may be put off, in seconds."""

    attempts: int = 5
    longest: float = _MOST


def wait_before(attempt: int, asked: float | None, chance: float, longest: float = _MOST) -> float:
    """Return the seconds to wait before attempt ``attempt`` (the second is 2). Pure; ``chance`` is from 0 to 1.

    Twice as long each time, and anywhere in the upper half of that, so that a thousand nodes do not come back at once.
    What the server ``asked`` for (Retry-After) goes before it, up to ``longest``, with the same spread on top.
    """
    full = min(longest, _FIRST * 2.0 ** min(attempt - 1, 30))
    if asked is not None:
        return min(longest, max(0.0, asked)) + full / 2 * chance
    return full * (0.5 + chance / 2)


class Throttle:
    """Lets so many bytes a second through, over all threads together; ``None`` lets everything through."""

    def __init__(
        self,
        rate: int | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock = clock
        self._sleep = sleep
        self._free_at = clock()
        self._lock = threading.Lock()

    def take(self, count: int) -> None:
        """Wait until ``count`` more bytes may go. What was not used is not saved up."""
        if not self._rate:
            return
        with self._lock:
            now = self._clock()
            begins = max(now, self._free_at)
            self._free_at = begins + count / self._rate
        if begins > now:
            self._sleep(begins - now)
