"""An artifact that is its parent's is not shipped: readers, verifiers and the recipe by hand take the parent's."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgedr import backup as recipe_of_backup
from edgedr.errors import Damaged
from edgedr.model import Artifact, Class, Manifest
from tests.lab.fake_source import BLOB, Lab, bytes_of, churned

FIRST = bytes_of(1, 300_000)
SECOND = churned(FIRST, 3)


@pytest.fixture
def lab(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A place where even small artifacts are worth leaving out."""
    monkeypatch.setattr(recipe_of_backup, "UNCHANGED_FROM", 1)
    return Lab(scratch)


def artifact(manifest: Manifest) -> Artifact:
    found = manifest.artifact(BLOB)
    assert found is not None
    return found


def test_it_is_restored_from_its_parent(lab: Lab) -> None:
    """Through two unchanged links, and as the parent of one that changed: each backup gives what it captured."""
    states = [FIRST, FIRST, FIRST, SECOND, SECOND, FIRST]
    made = [lab.back_up(state).manifest for state in states]
    assert [artifact(manifest).unchanged for manifest in made] == [False, True, True, False, True, False]
    assert [artifact(manifest).sealed_size for manifest in made][1:3] == [0, 0]
    assert {manifest.kind for manifest in made[1:]} == {Class.DELTA}
    for state, manifest in zip(states, made, strict=True):
        assert lab.read(manifest.id) == state
    assert all(verdict.intact for verdict in lab.verify().values())


def test_what_is_small_is_shipped(scratch: Path) -> None:
    """Below 8 MiB a delta between equals is a few hundred bytes, and no special case."""
    lab = Lab(scratch)
    lab.back_up(FIRST)
    second = artifact(lab.back_up(FIRST).manifest)
    assert not second.unchanged
    assert second.sealed_size < 3000


def test_the_loss_of_its_parent_is_its_own(lab: Lab) -> None:
    """It stands on its parent's segments: what damages those takes it down too."""
    first, second = (lab.back_up(FIRST).manifest for _ in range(2))
    path = lab.object(first.id, artifact(first).segments[0].object)
    path.write_bytes(path.read_bytes()[:-1])
    verdicts = lab.verify()
    assert not verdicts[first.id].intact
    assert verdicts[second.id].broken_by == first.id


def test_a_manifest_that_claims_another_content_is_refused(lab: Lab) -> None:
    """No segments and a hash that is not the parent's: nothing is given out under that hash."""
    lab.back_up(FIRST)
    honest = lab.back_up(FIRST).manifest

    def forged(manifest: Manifest) -> Manifest:
        lies = (replace(a, sha256="0" * 64) if a.name == BLOB else a for a in manifest.artifacts)
        return replace(manifest, artifacts=tuple(lies))

    lab.resign(honest.id, forged)
    with pytest.raises(Damaged, match="said to be that of its parent, and is another"):
        lab.read(honest.id)


def test_a_full_without_segments_is_refused(lab: Lab) -> None:
    """What stands alone has its own bytes."""
    full = lab.back_up(FIRST).manifest
    lab.resign(full.id, lambda m: replace(m, artifacts=tuple(replace(a, segments=()) for a in m.artifacts)))
    (listed,) = lab.listed()
    assert "stands alone, and has no segments" in listed.damage[0]
