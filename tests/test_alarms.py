"""What the absence of backups tells: said where somebody should look, and only there."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.model import Class
from edgedr.repository.alarms import alarms
from edgedr.repository.heartbeats import Heartbeat
from edgedr.repository.repository import Listed
from tests.test_backlog import ID, TWO, damaged, illegible
from tests.test_chains import NOW, listed, manifest
from tests.test_heartbeats import EVERY, composed

AT = manifest(6).created + timedelta(minutes=1)
BEAT = replace(composed(now=AT, newest=manifest(6), record=None), shipped=ID[6])
"""Sent when all was there, a minute after the newest backup."""
SOON = AT + EVERY


def without(*sequences: int) -> list[Listed]:
    return [one for one in TWO if one.id.sequence not in sequences]


def said(backups: Sequence[Listed], beat: Heartbeat | None = BEAT, now: datetime = SOON) -> list[str]:
    return list(alarms(backups, beat, now))


def test_nothing_wrong_nothing_said() -> None:
    """All that was shipped is there, and the node has spoken lately; or nothing is there, and nothing was said."""
    assert said(TWO) == []
    assert said(TWO[::-1]) == []
    assert said(TWO, None) == []
    assert said([], None) == []
    assert said([], replace(BEAT, shipped=None)) == []


@pytest.mark.parametrize(
    ("gone", "expected"),
    [
        ([5], f"1 backup is missing between {ID[4]} and {ID[6]}: removed, hidden, or never shipped"),
        ([2, 5], f"1 backup is missing between {ID[4]} and {ID[6]}: removed, hidden, or never shipped"),
        ([4, 5, 2], f"1 backup is missing between {ID[1]} and {ID[3]}: removed, hidden, or never shipped"),
    ],
)
@pytest.mark.parametrize("beat", [BEAT, None])
def test_a_gap_behind_the_newest_full(gone: list[int], expected: str, beat: Heartbeat | None) -> None:
    """A sequence that is not there is told with its neighbours, heartbeat or none."""
    assert said(without(*gone), beat)[0] == expected


def test_a_gap_is_counted() -> None:
    """Several in a row are one alarm, and each gap has its own."""
    backups = [listed(manifest(1)), *(listed(manifest(n, manifest(n - 1))) for n in (2, 6, 7, 9))]
    assert said(backups, None) == [
        f"3 backups are missing between {backups[1].id} and {backups[2].id}: removed, hidden, or never shipped",
        f"1 backup is missing between {backups[3].id} and {backups[4].id}: removed, hidden, or never shipped",
    ]


@pytest.mark.parametrize("gone", [[1], [2], [3], [1, 2], [2, 3], [1, 3], [1, 2, 3]])
def test_before_the_newest_full_gaps_are_usual(gone: list[int]) -> None:
    """Lifetimes expire deltas, quotas whole chains: nobody is woken for that."""
    assert said(without(*gone)) == []


def test_without_a_full_every_gap_counts() -> None:
    """Deltas alone do not stand: somebody removed what they stand on, or a part of it."""
    assert said(without(1, 4, 5), None) == [
        f"2 backups are missing between {ID[3]} and {ID[6]}: removed, hidden, or never shipped"
    ]


def test_damaged_ones_are_there() -> None:
    """A backup that cannot be read was not removed: `verify` says what it is."""
    assert said([*TWO[:4], damaged(TWO[4]), TWO[5]]) == []
    assert said([*TWO[:3], illegible(TWO[3]), *TWO[4:]]) == []


def test_a_copy_fills_no_gap_and_makes_none() -> None:
    """The same backup under the other class is one backup."""
    copy = replace(TWO[5], place=replace(TWO[5].place, kind=Class.FULL), manifest=None, damage=("another's",))
    assert said([*TWO, copy]) == []
    assert len(said([*without(5), copy])) == 1


@pytest.mark.parametrize("there", [without(6), without(4, 5, 6), []])
def test_what_was_shipped_and_is_not_there(there: list[Listed]) -> None:
    """The newest ones hidden, or the whole prefix deleted: the node's own word tells."""
    assert said(there) == [f"the node says that it shipped {ID[6]}, which is not here: removed or hidden"]


def test_an_old_heartbeat_that_was_put_back() -> None:
    """One from long before what is there was replayed, or the node can no longer write it.

    A heartbeat goes last: while a run ships, or was cut, one of shortly before is as it should be.
    """
    old = replace(BEAT, shipped=ID[5], next_due=AT + timedelta(minutes=1))
    assert said(TWO, replace(BEAT, shipped=ID[5])) == []
    assert said(TWO, replace(BEAT, shipped=ID[5], at=ID[6].created - EVERY), ID[6].created) == []
    much_later = replace(TWO[5], place=replace(TWO[5].place, id=replace(ID[6], created=AT + EVERY)), manifest=None)
    assert said([*without(6), much_later], old, AT + timedelta(minutes=1)) == [
        f"the heartbeat is older than {much_later.id}: an old one was put in its place, or the node cannot write it"
    ]
    # Replayed to hide that the newest was removed, it becomes silence.
    assert said(without(6), old, AT + timedelta(minutes=1)) == []
    assert len(said(without(6), old, AT + timedelta(days=1))) == 1


def test_silence_is_told_once_two_backups_are_overdue() -> None:
    """One that is late is no alarm; after that the node's last word is told, and when a backup was due."""
    patience = 2 * EVERY
    assert said(TWO, now=AT + patience) == []
    assert said(TWO, now=AT + patience + timedelta(seconds=1)) == [
        "the node's last word is of 2026-11-22 21:16:00Z: a backup was due 2026-11-22 21:30:00Z"
    ]
    assert said(TWO, now=AT - timedelta(days=365)) == [
        "the heartbeat is of 2026-11-22 21:16:00Z, which is yet to come: a clock is wrong, or it is forged"
    ]
    for at in (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)):
        said(TWO, replace(BEAT, at=at))
        said(TWO, replace(BEAT, next_due=at))
    assert len(said(TWO, replace(BEAT, captured_at=None, captured=None, shipped=None), AT + timedelta(days=1))) == 1
    for never in (None, AT + timedelta(days=3650)):  # whatever is promised, no word for weeks is silence
        assert said(TWO, replace(BEAT, next_due=never), AT + timedelta(days=14)) == []
        assert len(said(TWO, replace(BEAT, next_due=never), AT + timedelta(days=15))) == 1


def test_silence_of_a_node_that_never_made_a_backup() -> None:
    """A node that once said that it lives, and nothing since, is looked for too."""
    beat = composed(now=AT, newest=None, record=None)
    assert said([], beat, AT + 2 * EVERY) == []
    assert len(said([], beat, AT + 3 * EVERY)) == 1


def test_a_node_that_lives_and_makes_no_backups() -> None:
    """Heartbeats that go on while captures fail hide nothing."""
    late = manifest(6).created + 2 * EVERY
    assert said(TWO, replace(BEAT, at=late), late) == []
    assert said(TWO, replace(BEAT, at=late + timedelta(seconds=1)), late + timedelta(minutes=1)) == [
        f"the node lives, and has made no backup since {ID[6]}: a backup was due 2026-11-22 21:30:00Z"
    ]


def test_an_interval_that_makes_no_sense_is_a_minute() -> None:
    """A heartbeat whose times contradict each other, from a clock that jumped, does not alarm every second."""
    odd = replace(BEAT, captured_at=AT + timedelta(days=3650))
    assert said(TWO, odd, AT + timedelta(minutes=2)) == []


@given(gone=st.sets(st.integers(1, 6)), now=st.timedeltas(timedelta(days=-1000), timedelta(days=1000)))
def test_never_more_than_what_is_missing(gone: set[int], now: timedelta) -> None:
    """Whatever is gone, whenever one looks: each alarm is one of those above, and a whole chain raises no gap."""
    found = said(without(*gone), now=NOW + now)
    assert len([text for text in found if "missing between" in text]) <= len(gone)
    assert any("which is not here" in text for text in found) == (6 in gone)
    if gone <= {1, 2, 3}:
        assert not any("missing" in text for text in found)
