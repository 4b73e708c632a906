"""Fault 32: databases that shrink, grow, empty and change hands. The right class, and the same bytes back."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from edgedr.model import Class
from tests.lab.fake_source import BLOB, EVERY, SEGMENT, START, BlobSource, Lab, bytes_of, churned, expect

pytestmark = pytest.mark.usefixtures("no_fsync")

SHAPES: dict[str, Sequence[int]] = {
    "grows": (9000, SEGMENT, SEGMENT + 1, 3 * SEGMENT, 3 * SEGMENT + 9000),
    "shrinks": (3 * SEGMENT + 9000, 3 * SEGMENT, SEGMENT + 1, SEGMENT, SEGMENT - 1, 9000),
    "empties and fills": (SEGMENT + 9000, 0, 0, SEGMENT + 9000, 9000),
    "begins empty": (0, 1, 0, 3 * SEGMENT),
    "loses a segment and gets it back": (2 * SEGMENT, SEGMENT, 2 * SEGMENT, 9, 2 * SEGMENT),
    "is smaller than a prefix may be": (1, 7, 8, 9, 7, SEGMENT + 7, SEGMENT + 9),
}


def shaped(size: int, number: int) -> bytes:
    """Return a database of that size, a little different each time."""
    return churned(bytes_of(1, size), number)[:size]


@pytest.mark.parametrize("kind", [Class.FULL, Class.DELTA])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_shape_comes_back(shape: str, kind: Class, scratch: Path) -> None:
    """Whatever a database does between two backups, each is of the class that was due and restores byte for byte."""
    lab = Lab(scratch / "lab")
    contents = {}
    large, full = False, None
    for number, size in enumerate(SHAPES[shape]):
        manifest = lab.back_up(data := shaped(size, number), full=kind is Class.FULL).manifest
        contents[manifest.id] = data
        due = Class.FULL if kind is Class.FULL or number == 0 or large else Class.DELTA
        assert manifest.kind is due, manifest.reasons
        full = manifest if due is Class.FULL or full is None else full
        large = manifest is not full and manifest.sealed_size * 100 > full.sealed_size * 60
        artifact = manifest.artifact(BLOB)
        assert artifact is not None
        assert len(artifact.segments) == max(-(-size // SEGMENT), 1)
    expect(lab, contents)
    assert {backup: lab.read(backup) for backup in contents} == contents
    newest = lab.ids()[-1]
    lab.restore(newest, scratch / "target")
    assert (scratch / "target" / BLOB).read_bytes() == contents[newest]


def test_a_small_change_is_a_small_delta(scratch: Path) -> None:
    """What did not change is not sent again."""
    lab = Lab(scratch)
    first = bytes_of(1, 4 * SEGMENT)
    full = lab.back_up(first).manifest
    delta = lab.back_up(churned(first, 2)).manifest
    assert (full.kind, delta.kind) == (Class.FULL, Class.DELTA)
    assert delta.sealed_size * 20 < full.sealed_size


def test_another_cluster_begins_a_new_chain(scratch: Path) -> None:
    """Another cluster id is another database: a full, whatever the bytes."""
    lab = Lab(scratch)
    data = bytes_of(1, 9000)
    first = lab.back_up(data).manifest
    second = lab.back_up(data, sources=(BlobSource(data, cluster_id="ffffffffffffffff"),)).manifest
    assert second.kind is Class.FULL
    assert "cluster id changed from cdf818194e3a8c32 to ffffffffffffffff" in second.reasons[0]
    expect(lab, {first.id: data, second.id: data})


def test_a_clock_between_two_ticks_names_what_is_stored(scratch: Path) -> None:
    """The id that a run reports is the one that the repository lists, whatever fraction of a second it began at."""
    lab = Lab(scratch)
    outcome = lab.back_up(b"data", now=(START + EVERY).replace(microsecond=123456))
    assert lab.ids() == [outcome.manifest.id]
    assert lab.get(outcome.manifest.id).manifest == outcome.manifest
