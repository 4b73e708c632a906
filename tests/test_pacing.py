"""How fast, and how soon again: the wait between two attempts, and the limit of bytes a second."""

import math
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.storage.pacing import Patience, Throttle, wait_before
from tests.lab.clock import Clock

CHANCES = st.floats(0, 1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Size(int):
    """A size that takes its time to be reckoned with: another thread has its turn meanwhile."""

    def __truediv__(self, other: float) -> float:
        time.sleep(0)
        return int(self) / other


def test_the_wait_doubles_up_to_the_longest() -> None:
    """Each wait is twice the one before, until it is as long as a wait may be."""
    assert [wait_before(attempt, None, 1.0) for attempt in range(2, 10)] == [1, 2, 4, 8, 16, 30, 30, 30]
    assert [wait_before(attempt, None, 1.0, longest=5) for attempt in range(2, 6)] == [1, 2, 4, 5]


@given(attempt=st.integers(1, 50), chance=CHANCES)
def test_the_wait_is_anywhere_in_the_upper_half(attempt: int, chance: float) -> None:
    """A thousand nodes that failed together do not come back together, and none of them at once."""
    full = wait_before(attempt, None, 1.0)
    assert wait_before(attempt, None, 0.0) == full / 2
    assert full / 2 <= wait_before(attempt, None, chance) <= full
    if 0.01 < chance < 0.99:
        assert full / 2 < wait_before(attempt, None, chance) < full


@given(asked=st.floats(0, 20), attempt=st.integers(2, 50), chance=CHANCES)
def test_retry_after_is_honoured(asked: float, attempt: int, chance: float) -> None:
    """Nobody comes sooner than the server asked; the spread is on top of it."""
    assert wait_before(attempt, asked, 0.0) == asked
    wait = wait_before(attempt, asked, chance)
    assert asked <= wait <= asked + wait_before(attempt, None, 1.0) / 2
    assert wait_before(attempt, asked, 1.0) > asked


@pytest.mark.parametrize(
    ("asked", "expected"), [(86400.0, 30.0), (math.inf, 30.0), (-5.0, 0.0), (-math.inf, 0.0), (math.nan, 0.0)]
)
def test_no_server_makes_us_wait_for_days(asked: float, expected: float) -> None:
    """What is asked is capped; a time in the past, and what is no number, is no wait."""
    assert wait_before(2, asked, 0.0) == expected
    assert expected < wait_before(2, asked, 1.0) <= expected + 0.5


@pytest.mark.parametrize("attempt", [31, 32, 1000, 10**6, 10**12])
@pytest.mark.parametrize("asked", [None, 3.0])
def test_however_many_attempts_there_were(attempt: int, asked: float | None) -> None:
    """A number of attempts that no power of two can follow is a number like any other."""
    assert wait_before(attempt, asked, 1.0) == (30 if asked is None else 3 + 15)


def test_somebody_patient_waits_for_as_long_as_is_written() -> None:
    """Without being told, a request is made five times, and put off for half a minute at the longest."""
    assert (Patience().attempts, Patience().longest) == (5, wait_before(50, None, 1.0))


def test_the_rate_is_kept(clock: Clock) -> None:
    """What goes first goes at once; each piece then waits for all that went before it, whatever their sizes."""
    throttle = Throttle(100, clock=clock, sleep=clock.sleep)
    for count in (200, 50, 50, 0, 100):
        throttle.take(count)
    assert clock.slept == [2.0, 0.5, 0.5]
    throttle.take(1)
    assert clock.slept[-1] == 1.0
    assert clock.now == 1004.0


def test_nothing_is_saved_up(clock: Clock) -> None:
    """After an idle hour the link is not flooded with what an hour could have carried."""
    throttle = Throttle(100, clock=clock, sleep=clock.sleep)
    clock.now += 3600
    throttle.take(100)
    assert clock.slept == []
    for _ in range(3):
        throttle.take(100)
    assert clock.slept == [1.0, 1.0, 1.0]


def test_what_has_passed_meanwhile_counts(clock: Clock) -> None:
    """Whoever comes late waits only for what is left."""
    throttle = Throttle(100, clock=clock, sleep=clock.sleep)
    throttle.take(100)
    clock.now += 0.75
    throttle.take(100)
    assert clock.slept == [0.25]


def test_threads_share_one_rate() -> None:
    """However many send at once, no two get the same moment: together they are as fast as one."""
    waits: list[float] = []
    throttle = Throttle(1, clock=lambda: 0.0, sleep=waits.append)

    def send() -> None:
        for _ in range(200):
            throttle.take(Size(1))

    _together(send, 4)
    assert sorted(waits) == [float(second) for second in range(1, 800)]


def test_one_that_waits_holds_nobody_up() -> None:
    """Another thread learns when it is its turn while the first one sleeps."""
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            other = threading.Thread(target=throttle.take, args=(10,), daemon=True)
            other.start()
            other.join(10)

    throttle = Throttle(10, clock=lambda: 0.0, sleep=sleep)
    throttle.take(10)
    throttle.take(10)
    assert waits == [1.0, 2.0]


def test_without_a_rate_nobody_waits() -> None:
    """No limit is no limit."""

    def sleep(_: float) -> None:
        raise AssertionError("it waited")

    throttle = Throttle(None, clock=lambda: 0.0, sleep=sleep)
    for _ in range(10):
        throttle.take(1 << 40)


def _together(act: Callable[[], None], count: int) -> None:
    threads = [threading.Thread(target=act) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
