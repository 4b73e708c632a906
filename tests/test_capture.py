"""The first half of a backup: what a source said and wrote is kept whole, or as if it had never run."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

import pytest

from edgedr import durable
from edgedr.archive import INVENTORY, NODE_TAR, ArchiveReader
from edgedr.backup import Outcome
from edgedr.errors import SourceError, StorageError
from edgedr.inventory import Inventory, SourceRecord
from edgedr.model import EtcdFacts, Finding, Severity, Status
from edgedr.node.node import Node
from edgedr.repository.contents import cached_inventory
from edgedr.repository.parents import ParentCache
from edgedr.sources.base import Captured, Copy, Count, Document, Fact, Lacking, Listing
from edgedr.sources.documents import place_documents
from edgedr.steps import Step
from edgedr.storage.base import Spool
from tests.lab.fake_source import BlobSource, Lab, bytes_of

DATA = bytes_of(1, 9000)
PLAN, NOTES = "plan/addresses.txt", "plan/notes.txt"
LONG = 8 << 10
TOO_LONG = 200_000
"""Characters: more than the inventory could be read back with."""


@dataclass(frozen=True, slots=True)
class Saying(BlobSource):
    """An optional source that yields what it is told to, then fails if it is told why."""

    items: tuple[Captured, ...] = ()
    failure: str | None = None
    called: str = "saying"

    @property
    def name(self) -> str:
        return self.called

    @property
    def required(self) -> bool:
        return False

    def capture(self, node: Node) -> Iterator[Captured]:
        yield from self.items
        if self.failure is not None:
            raise SourceError(self.failure, hint="look at it")

    def put_back(self, inventory: Inventory) -> Iterator[Step]:
        return place_documents(self.called, inventory)


def back_up(lab: Lab, *sources: Saying) -> Outcome:
    return lab.back_up(DATA, sources=(*sources, BlobSource(DATA)))


def documents(lab: Lab, outcome: Outcome) -> dict[str, bytes]:
    """Return the documents of a backup, out of what was sealed."""
    data = lab.read(outcome.manifest.id, NODE_TAR)
    reader = ArchiveReader(io.BytesIO(data), max_bytes=len(data))
    assert reader.inventory == outcome.inventory
    return {
        member.name: b"".join(content) for member, content in reader.members() if not member.name.startswith("files/")
    }


def record(outcome: Outcome, source: str = "saying") -> SourceRecord:
    return outcome.inventory.sources[source]


def written(text: bytes, failure: str | None = None) -> Callable[[Spool], None]:
    def pump(spool: Spool) -> None:
        spool.write(text)
        if failure is not None:
            raise SourceError(failure)

    return pump


def test_documents_of_half_a_source_are_no_documents(tmp_path: Path) -> None:
    """An optional source that failed leaves no document behind: nobody would know that it is but half of a plan."""
    lab = Lab(tmp_path)
    half = Saying(items=(Document(PLAN, b"half"), Listing(NOTES, written(b"half too"))), failure="it broke")
    outcome = back_up(lab, half)
    assert record(outcome).status is Status.MISSING
    assert record(outcome).facts == {}
    assert documents(lab, outcome) == {}
    lab.restore(outcome.manifest.id, tmp_path / "target", sources=(Saying(), BlobSource()))
    assert sorted(path.name for path in (tmp_path / "target/files/.edgedr").iterdir()) == [INVENTORY]


def test_the_name_of_a_document_that_was_dropped_is_free(tmp_path: Path) -> None:
    """Another source may write what the one that failed began, and its document is the one that comes back."""
    lab = Lab(tmp_path)
    half = Saying(items=(Document(PLAN, b"half"),), failure="it broke")
    other = Saying(items=(Document(PLAN, b"whole"), Listing(NOTES, written(b"whole too"))), called="other")
    outcome = back_up(lab, half, other)
    assert documents(lab, outcome) == {PLAN: b"whole", NOTES: b"whole too"}
    lab.restore(outcome.manifest.id, tmp_path / "target", sources=(Saying(), other, BlobSource()))
    assert (tmp_path / "target/files/.edgedr" / PLAN).read_bytes() == b"whole"


def test_a_listing_that_broke_off_is_no_document(tmp_path: Path) -> None:
    """Of a text that could not be written to its end, nothing is kept, and its name is free."""
    lab = Lab(tmp_path)
    half = Saying(items=(Document(PLAN, b"first"), Listing(NOTES, written(b"half", "it broke"))))
    other = Saying(items=(Document(NOTES, b"whole"),), called="other")
    outcome = back_up(lab, half, other)
    assert record(outcome).reason == "it broke"
    assert documents(lab, outcome) == {NOTES: b"whole"}


def test_what_other_sources_wrote_stays(tmp_path: Path) -> None:
    """Only what the source that failed had written goes with it."""
    lab = Lab(tmp_path)
    before = Saying(items=(Document(NOTES, b"before"),), called="before")
    half = Saying(items=(Document(PLAN, b"half"),), failure="it broke")
    assert documents(lab, back_up(lab, before, half)) == {NOTES: b"before"}


def test_the_first_thing_that_is_lacking_is_the_reason(tmp_path: Path) -> None:
    """What else is lacking is kept beside it: the second reason is as true as the first."""
    lab = Lab(tmp_path)
    outcome = back_up(lab, Saying(items=(Lacking("no zones"), Count("zones", 0), Lacking("no hosts"), Lacking("why"))))
    assert outcome.missing == ("saying",)
    found = record(outcome)
    assert (found.status, found.reason) == (Status.PARTIAL, "no zones")
    assert found.findings == tuple(Finding(Severity.WARN, "also lacking", text) for text in ("no hosts", "why"))


def test_what_is_lacking_stays_if_the_source_fails_afterwards(tmp_path: Path) -> None:
    """Findings are kept of a source that is missing, and why it is missing is the reason."""
    lab = Lab(tmp_path)
    outcome = back_up(lab, Saying(items=(Lacking("no zones"), Lacking("no hosts")), failure="it broke"))
    found = record(outcome)
    assert (found.status, found.reason) == (Status.MISSING, "it broke")
    assert found.findings == (Finding(Severity.WARN, "also lacking", "no hosts"),)


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (lambda text: Saying(items=(Fact(text, "x"),)), lambda found: next(iter(found.facts))),
        (lambda text: Saying(items=(Fact("x", text),)), lambda found: found.facts["x"]),
        (lambda text: Saying(items=(_finding(text, "x"),)), lambda found: found.findings[0].subject),
        (lambda text: Saying(items=(_finding("x", text),)), lambda found: found.findings[0].text),
        (lambda text: Saying(items=(_finding("x", "x", text),)), lambda found: found.findings[0].hint),
        (lambda text: Saying(items=(Lacking(text),)), lambda found: found.reason),
        (lambda text: Saying(items=(Lacking("x"), Lacking(text))), lambda found: found.findings[0].text),
        (lambda text: Saying(failure=text), lambda found: found.reason),
    ],
    ids=["fact", "value", "subject", "text", "hint", "lacking", "also lacking", "missing"],
)
def test_a_text_is_as_long_as_the_inventory_can_hold(
    tmp_path: Path, said: Callable[[str], Saying], seen: Callable[[SourceRecord], str]
) -> None:
    """Whoever may name an object decides on some texts; none of them makes a backup that cannot be read again."""
    lab = Lab(tmp_path)
    outcome = back_up(lab, said("x" * TOO_LONG))
    assert seen(record(outcome)) == f"{'x' * LONG}… ({TOO_LONG} characters)"
    documents(lab, outcome)
    whole = "ä" * LONG
    outcome = back_up(lab, said(whole))
    assert seen(record(outcome)) == whole


def _finding(subject: str, text: str, hint: str | None = None) -> Finding:
    return Finding(Severity.WARN, subject, text, hint)


def never(path: Path) -> NoReturn:
    raise AssertionError(f"{path} was made")


def free(lab: Lab) -> int:
    return durable.free_space_of(lab.path)


@pytest.mark.parametrize("percent", [100, 60])
def test_without_room_for_a_copy_none_is_begun(tmp_path: Path, percent: int) -> None:
    """A copy lies beside the artifact made of it: a disk with room for less than both is not filled up with one."""
    lab = Lab(tmp_path)
    size = free(lab) * percent // 100
    with pytest.raises(StorageError, match=r"no room in .* for a copy of own\.db") as refused:
        back_up(lab, Saying(items=(Copy("own.db", size, never),)))
    assert "keep_free" in (refused.value.hint or "")
    assert lab.leftovers() == []


def test_a_copy_leaves_what_is_to_be_kept_free(tmp_path: Path) -> None:
    """What is kept free for others counts as taken."""
    lab = Lab(tmp_path)
    lab.cache = ParentCache(lab.cache.directory, keep_free=free(lab) // 2)
    with pytest.raises(StorageError, match="no room in"):
        back_up(lab, Saying(items=(Copy("own.db", free(lab) // 3, never),)))


def test_a_copy_is_an_artifact_and_nothing_beside_it(tmp_path: Path) -> None:
    """What a library wrote is taken in whole; its own file goes, also where the library failed half-way."""
    lab = Lab(tmp_path)
    large = bytes_of(2, (2 << 20) + 7)

    def whole(path: Path) -> None:
        path.write_bytes(large)

    outcome = back_up(lab, Saying(items=(Copy("own.db", len(large), whole),)))
    assert lab.read(outcome.manifest.id, "own.db") == large
    assert lab.leftovers() == []

    def broken(path: Path) -> None:
        path.write_bytes(large)
        raise SourceError("it broke")

    outcome = back_up(lab, Saying(items=(Copy("own.db", len(large), broken),)))
    assert record(outcome).reason == "it broke"
    assert outcome.manifest.artifact("own.db") is None
    assert lab.leftovers() == []


def test_the_cached_inventory_is_that_of_the_manifest(tmp_path: Path) -> None:
    """The plaintext that the node kept is believed as long as it is what was signed, to the last byte."""
    lab = Lab(tmp_path)
    outcome = back_up(lab)
    manifest = outcome.manifest
    assert cached_inventory(lab.cache, manifest) == outcome.inventory
    path = lab.cache.path(manifest.id, NODE_TAR)
    data = path.read_bytes()
    other = data.replace(b'"node": "cp-1"', b'"node": "cp-9"', 1)
    assert other != data
    assert ArchiveReader(io.BytesIO(other), max_bytes=len(other)).inventory.node == "cp-9"
    for changed in (other, data[:-1] + b"x", data + bytes(512), data[:-512], b""):
        path.write_bytes(changed)
        assert cached_inventory(lab.cache, manifest) is None
    path.write_bytes(data)
    assert cached_inventory(lab.cache, manifest) == outcome.inventory
    path.unlink()
    assert cached_inventory(lab.cache, manifest) is None
    assert cached_inventory(lab.cache, replace(manifest, artifacts=())) is None


def test_an_inventory_is_json_that_anybody_can_read(tmp_path: Path) -> None:
    """The record with all that was cut is still one that stock tools read."""
    lab = Lab(tmp_path)
    outcome = back_up(lab, Saying(items=(Fact("x", "\udcff" * TOO_LONG),)))
    data = lab.read(outcome.manifest.id, NODE_TAR)
    size = int(data[124:135], 8)
    found = json.loads(data[512 : 512 + size])
    assert found["sources"]["saying"]["facts"]["x"].startswith("\udcff" * LONG)


def etcd(revision: int, member: str = "8e9e05c52164694d", cluster: str = "cdf818194e3a8c32") -> Saying:
    return Saying(items=(EtcdFacts(cluster, member, revision, "3.5.1"),), called="etcd")


def sqlite(revision: str | None) -> Saying:
    items = () if revision is None else (Fact("revision", revision),)
    return Saying(items=items, called="sqlite")


def turned(lab: Lab, *sources: Saying) -> str | None:
    """Back up what the sources say, and return why a new lineage began with it, if one did."""
    outcome = lab.back_up(DATA, sources=sources)
    assert (outcome.manifest.lineage == lab.task(DATA).identity.lineage) is (outcome.turned is None)
    assert outcome.turned is None or outcome.turned in outcome.manifest.reasons
    return outcome.turned


def test_etcd_is_compared_with_the_last_backup_that_has_any(tmp_path: Path) -> None:
    """Another node captured it meanwhile: what this one knows of before counts, and only that."""
    lab = Lab(tmp_path)
    assert turned(lab, etcd(1000)) is None
    assert turned(lab, etcd(1200)) is None
    assert turned(lab, Saying()) is None
    assert "from revision 1200 to 1100" in (turned(lab, etcd(1100)) or "")


def test_another_member_may_be_a_little_behind(tmp_path: Path) -> None:
    """The election moved to a node whose member lags by a few revisions: that is no restore."""
    lab = Lab(tmp_path)
    assert turned(lab, etcd(1000)) is None
    assert turned(lab, etcd(950, member="9372538179322589")) is None
    assert "from revision 950 to 1" in (turned(lab, etcd(1)) or "")


def test_sqlite_is_compared_with_the_last_backup(tmp_path: Path) -> None:
    """The same revision again is no step back; what was not known then, or is not now, tells nothing."""
    lab = Lab(tmp_path)
    for revision in ("20", "20", "21"):
        assert turned(lab, sqlite(revision)) is None
    assert "from revision 21 to 20" in (turned(lab, sqlite("20")) or "")
    lab = Lab(tmp_path / "another")
    for unknown in ("20", None, "10", "", "9", "many", "8"):
        assert turned(lab, sqlite(unknown)) is None
