"""The recipe of a backup: what is whole goes in, what is half stays out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from edgedr.errors import SourceError
from edgedr.model import Class, EtcdFacts, Finding, Severity, Status
from edgedr.node.node import Node
from edgedr.sources.base import Captured, Count, Stream, TakePath
from edgedr.storage.base import Spool
from edgedr.storage.memory import MemoryStorage
from tests.lab.fake_source import BLOB, BlobSource, Lab, bytes_of, expect

DATA = bytes_of(1, 9000)


@dataclass(frozen=True, slots=True)
class _Half(BlobSource):
    """A source that fails once all it has was captured, or in the middle of it."""

    needed: bool = False
    midway: bool = False

    @property
    def name(self) -> str:
        return "half"

    @property
    def required(self) -> bool:
        return self.needed

    def capture(self, node: Node) -> Iterator[Captured]:
        yield Finding(Severity.WARN, "half", "looks ill")
        yield Stream("half.img", self._write)
        yield TakePath(PurePosixPath("/etc/site.conf"))
        yield Count("things", 7)
        raise SourceError("it broke at 10.0.0.7", hint="look at it")

    def _write(self, spool: Spool) -> None:
        spool.write(DATA)
        if self.midway:
            raise SourceError("it broke at 10.0.0.7", hint="look at it")


@pytest.mark.parametrize("midway", [False, True])
def test_half_an_optional_source_is_none(tmp_path: Path, midway: bool) -> None:
    """An optional source that fails after its bytes were read is missing: no artifact, no count, no path of it."""
    lab = Lab(tmp_path)
    outcome = lab.back_up(DATA, sources=(_Half(midway=midway), BlobSource(DATA)))
    manifest, inventory = outcome.manifest, outcome.inventory
    assert outcome.missing == ("half",)
    assert [artifact.name for artifact in manifest.artifacts] == [BLOB, "node.tar"]
    assert (manifest.sources["half"].status, manifest.sources["half"].counts) == (Status.MISSING, {})
    assert "10.0.0.7" not in str(manifest.sources)
    assert inventory.sources["half"].reason == "it broke at 10.0.0.7"
    assert [finding.text for finding in inventory.sources["half"].findings] == ["looks ill"]
    assert {entry.source for entry in inventory.entries} == {"blob"}
    expect(lab, {manifest.id: DATA})
    assert lab.back_up(DATA).manifest.kind is Class.DELTA


def test_half_a_required_source_is_no_backup(tmp_path: Path) -> None:
    """A required source that fails ends the run, and nothing of it is kept."""
    lab = Lab(tmp_path)
    first = lab.back_up(DATA).manifest.id
    with pytest.raises(SourceError, match="it broke"):
        lab.back_up(DATA, sources=(BlobSource(DATA), _Half(needed=True)))
    expect(lab, {first: DATA})
    assert lab.leftovers() == []
    assert lab.back_up(DATA).manifest.kind is Class.DELTA


def test_a_source_that_breaks_its_promise_leaves_nothing(tmp_path: Path) -> None:
    """Whatever is raised, an interrupt or a bug, earlier backups and the cached parent stay."""

    @dataclass(frozen=True, slots=True)
    class Interrupted(BlobSource):
        failure: Callable[[], BaseException] = KeyboardInterrupt

        def capture(self, node: Node) -> Iterator[Captured]:
            yield Stream(BLOB, lambda spool: None)
            yield EtcdFacts("c", "m", 1, "3.5.1")
            raise self.failure()

    lab = Lab(tmp_path)
    first = lab.back_up(DATA).manifest.id
    for failure in (KeyboardInterrupt, RuntimeError):
        with pytest.raises(failure):
            lab.back_up(DATA, sources=(Interrupted(failure=failure),))
        assert lab.leftovers() == []
    expect(lab, {first: DATA})
    assert lab.back_up(DATA).manifest.kind is Class.DELTA


def test_any_storage_will_do(tmp_path: Path) -> None:
    """The recipe knows a storage only by its promises: in memory it makes the same chain."""
    lab = Lab(tmp_path, storage=MemoryStorage())
    contents = {lab.back_up(data).manifest.id: data for data in (DATA, DATA[::-1], DATA)}
    expect(lab, contents)
    assert {backup: lab.read(backup) for backup in contents} == contents
    lab.restore(lab.ids()[1], tmp_path / "target")
    assert (tmp_path / "target" / BLOB).read_bytes() == DATA[::-1]
