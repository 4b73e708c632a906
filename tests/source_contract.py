"""What every source promises. Subclass ``SourceContract`` in a test module, and give it a ``source`` fixture.

A source that does not capture the kubeadm node overrides ``node`` too, and one whose proof looks elsewhere ``damage``.
"""

import dataclasses
import io
import re
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from edgedr import durable
from edgedr.archive_writer import ArchiveWriter
from edgedr.errors import SourceError
from edgedr.inventory import Inventory, SourceRecord
from edgedr.layouts import UNKNOWN
from edgedr.model import SCHEMA, Finding, Severity, Status
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.recovery.extract import extract
from edgedr.sources.base import Captured, Copy, Count, Document, Fact, Listing, Source, Stream, TakePath
from edgedr.sources.documents import document_fact, document_path, documents_of
from edgedr.steps import Step
from tests.lab import kubeadm
from tests.lab.trees import picture

EMPTY = Inventory(SCHEMA, "site", "node", {}, (), ())


@dataclasses.dataclass(frozen=True)
class Restored:
    """A capture that was put back: its items, and what ``prove`` is given."""

    items: tuple[Captured, ...]
    root: Path
    inventory: Inventory
    artifacts: Mapping[str, Path]

    def findings(self, source: Source) -> list[Finding]:
        return list(source.prove(self.root, self.inventory, self.artifacts))


class _Sink(io.BytesIO):
    size = 0


def restore(source: Source, node: Node, to: Path) -> Restored:
    """Capture, archive, extract: what a backup and an extraction do, without sealing."""
    items: list[Captured] = []
    artifacts: dict[str, Path] = {}
    written: dict[str, str] = {}
    sink = _Sink()
    to.mkdir(exist_ok=True)
    with ArchiveWriter(to / "spool", node.files) as archive:
        for item in source.capture(node):
            items.append(item)
            if isinstance(item, Stream):
                artifacts[item.artifact] = to / item.artifact
                with durable.create(artifacts[item.artifact]) as spool:
                    item.pump(spool)
            elif isinstance(item, TakePath):
                archive.take(item.path, source.name)
            elif isinstance(item, Copy):
                artifacts[item.artifact] = to / item.artifact
                item.make(artifacts[item.artifact])
            elif isinstance(item, Document):
                written[document_fact(item.member)] = archive.document(item.member, item.data)
            elif isinstance(item, Listing):
                written[document_fact(item.member)] = archive.document(item.member, item.pump)
        facts = {**{item.key: item.value for item in items if isinstance(item, Fact)}, **written}
        findings = tuple(item for item in items if isinstance(item, Finding))
        record = SourceRecord(Status.OK, None, facts, findings)
        inventory = archive.finish("site", "node", {source.name: record}, sink)
    extract(io.BytesIO(sink.getvalue()), to / "root", max_bytes=len(sink.getvalue()))
    return Restored(tuple(items), to / "root", inventory, artifacts)


def _comparable(item: Captured) -> object:
    """Return what of an item must be the same each time: of one that is pumped, its name."""
    if isinstance(item, Stream | Copy):
        return item.artifact
    return item.member if isinstance(item, Listing) else item


class SourceContract:
    """The promises of ``edgedr.sources.base.Source``."""

    @pytest.fixture
    def source(self) -> Source:
        raise NotImplementedError

    @pytest.fixture
    def node(self, tmp_path: Path) -> Node:
        return kubeadm.node(kubeadm.unpack(tmp_path / "node"))

    def damage(self, restored: Restored, source: Source) -> None:
        """Spoil what the source put back, as little as its proof must notice."""
        taken = (entry.path for entry in restored.inventory.entries if entry.source == source.name and entry.size)
        documents = (str(document_path(member)) for member in documents_of(source.name, restored.inventory))
        path = restored.root / next(chain(taken, documents))[1:]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def test_a_blank_node_can_build_it(self, source: Source) -> None:
        """Its fields are its settings, all with defaults, and nothing changes them later."""
        assert dataclasses.is_dataclass(source)
        assert type(source)() == type(source)()
        first = dataclasses.fields(source)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(source, first, None)

    def test_its_name_can_be_used_everywhere(self, source: Source) -> None:
        """Configuration keys, metric labels and manifests take the name as it is."""
        assert re.fullmatch(r"[a-z][a-z-]*", source.name)
        assert isinstance(source.required, bool)

    def test_it_yields_what_a_backup_can_hold(self, source: Source, node: Node, tmp_path: Path) -> None:
        """Only known items; paths absolute; no fact or count or document twice."""
        items = restore(source, node, tmp_path / "restored").items
        assert items
        assert all(isinstance(item, get_args(Captured)) for item in items)
        assert all(item.path.is_absolute() for item in items if isinstance(item, TakePath))
        for kind, key in ((Fact, "key"), (Count, "noun"), (Document | Listing, "member"), (Stream | Copy, "artifact")):
            keys = [getattr(item, key) for item in items if isinstance(item, kind)]
            assert len(keys) == len(set(keys))
        assert all(item.number >= 0 for item in items if isinstance(item, Count))

    def test_the_same_node_yields_the_same(self, source: Source, node: Node, tmp_path: Path) -> None:
        """Two captures of an unchanged node give the same items in the same order."""
        first, again = (restore(source, node, tmp_path / name) for name in ("first", "again"))
        assert [_comparable(item) for item in first.items] == [_comparable(item) for item in again.items]
        assert first.inventory.sources == again.inventory.sources

    def test_it_changes_nothing(self, source: Source, node: Node, tmp_path: Path) -> None:
        """Capturing leaves every file of the node as it was."""
        before = picture(node.root)
        restore(source, node, tmp_path / "restored")
        assert picture(node.root) == before

    def test_a_blank_node_is_told_in_words(self, source: Source, tmp_path: Path) -> None:
        """With nothing to capture, a required source raises ``SourceError``; an optional one may go on."""
        (tmp_path / "blank").mkdir()
        blank = Node(Files(tmp_path / "blank"), UNKNOWN)
        if not source.required:
            restore(type(source)(), blank, tmp_path / "restored")
            return
        with pytest.raises(SourceError) as caught:
            restore(type(source)(), blank, tmp_path / "restored")
        assert caught.value.hint

    def test_nothing_captured_plans_nothing(self, source: Source, tmp_path: Path) -> None:
        """A backup without this source gives no steps, and no claim that it was proven."""
        assert list(source.put_back(EMPTY)) == []
        assert [f for f in source.prove(tmp_path, EMPTY, {}) if f.severity is Severity.GOOD] == []

    def test_what_was_captured_is_planned(self, source: Source, node: Node, tmp_path: Path) -> None:
        """Every capture has a way back, as data."""
        steps = list(source.put_back(restore(source, node, tmp_path / "restored").inventory))
        assert steps
        assert all(isinstance(step, Step) for step in steps)

    def test_what_came_back_is_proven(self, source: Source, node: Node, tmp_path: Path) -> None:
        """What was put back untouched is found good, and nothing about it bad."""
        findings = restore(source, node, tmp_path / "restored").findings(source)
        severities = {finding.severity for finding in findings}
        assert Severity.GOOD in severities
        assert Severity.BAD not in severities

    def test_damage_is_found(self, source: Source, node: Node, tmp_path: Path) -> None:
        """A changed byte in what was put back is a bad finding, not a shrug."""
        restored = restore(source, node, tmp_path / "restored")
        self.damage(restored, source)
        assert Severity.BAD in {finding.severity for finding in restored.findings(source)}

    def test_loss_is_found(self, source: Source, node: Node, tmp_path: Path) -> None:
        """A file that did not come back is a bad finding."""
        restored = restore(source, node, tmp_path / "restored")
        for path in (*restored.root.rglob("*"), *restored.artifacts.values()):
            if path.is_file() or path.is_symlink():
                path.unlink()
        assert Severity.BAD in {finding.severity for finding in restored.findings(source)}
