"""SQLite: the datastore of a k3s server that is alone, copied while k3s writes to it, and checked page by page."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from edgedr.errors import SourceError
from edgedr.inventory import Inventory
from edgedr.layouts import Datastore
from edgedr.model import Finding, Severity, Status
from edgedr.node.components import datastore, sqlite_database
from edgedr.node.node import Node
from edgedr.sources.base import Absent, Captured, Copy, Count, Fact
from edgedr.steps import PlaceArtifact, Step

if TYPE_CHECKING:  # every command makes the table of sources; few open a database
    from edgedr.node.sqlite import DatabaseFacts

ARTIFACT = "state.db"

_HINT = "run edgedr as root, or name the database: [sources.sqlite] database"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteSource:
    """Take a consistent copy of the database. It lies on this node alone, so no other node captures it instead."""

    database: str | None = None
    """The database: an absolute path on the node. Not set: where k3s keeps it, if it uses SQLite."""

    deadline: timedelta = timedelta(minutes=10)
    """How long the copy may take, and how long its check; another program may keep the database locked."""

    required: bool = True
    """Whether a backup without the database is no backup, on a node that keeps one."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "sqlite"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the database, and what is in it. See ``Source``."""
        from edgedr.node.sqlite import copy_database, size_of  # noqa: PLC0415 - see above

        at = self.database or _database(node)
        if at is None:
            yield Absent(_why_absent(node))
            return
        real = node.files.real(at)
        if real is None:
            raise SourceError(f"there is no {at} on this node, or it cannot be reached", hint=_HINT)
        database = node.root / real.relative_to("/")
        taken: list[DatabaseFacts] = []

        def make(path: Path) -> None:
            with _blamed_on_node(at):
                taken.append(copy_database(database, path, deadline=self.deadline))

        yield Copy(ARTIFACT, size_of(database), make)
        yield Fact("database", at)
        yield from (Fact(key, value) for key, value in _facts(taken[0]).items())
        if taken[0].keys is None:
            text = "has no table kine: it is not the datastore of a Kubernetes server"
            yield Finding(Severity.WARN, at, text, "name the right one: [sources.sqlite] database")
        else:
            yield Count("keys", taken[0].keys)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place the database. See ``Source``."""
        if _captured(self.name, inventory):
            yield PlaceArtifact(self.name, ARTIFACT, ARTIFACT)

    def prove(
        self,
        restored: Path,  # noqa: ARG002 - nothing of it lies below the new root yet
        inventory: Inventory,
        artifacts: Mapping[str, Path],
    ) -> Iterable[Finding]:
        """Check every page, and that it holds what it held at capture. See ``Source``."""
        from edgedr.node.sqlite import examine  # noqa: PLC0415 - see above

        if not _captured(self.name, inventory):
            return
        path = artifacts.get(ARTIFACT)
        if path is None:
            yield Finding(Severity.BAD, ARTIFACT, "it is not among what was restored")
            return
        try:
            facts = _facts(examine(path, deadline=self.deadline))
        except SourceError as error:
            yield Finding(Severity.BAD, ARTIFACT, f"does not pass its check: {error.message}", "restore another backup")
            return
        recorded = inventory.sources[self.name].facts
        wrong = [key for key in facts if facts[key] != recorded.get(key)]
        for key in wrong:
            text = f"{key} is {facts[key]}, and was {recorded.get(key, 'not known')} at capture"
            yield Finding(Severity.BAD, ARTIFACT, text, "restore another backup")
        if not wrong:
            held = ", ".join(f"{key} {value}" for key, value in facts.items())
            yield Finding(Severity.GOOD, ARTIFACT, f"every page and index holds, as at capture: {held}")


def _database(node: Node) -> str | None:
    """Return where the datastore is; ``None`` if it is another. Raises ``SourceError`` where there is none at all."""
    kept = datastore(node.files, node.layout)
    if kept is Datastore.SQLITE:
        return sqlite_database(node.files, node.layout)
    if kept is Datastore.UNKNOWN and node.layout.sqlite:
        places = " nor ".join(filter(None, (node.layout.sqlite, node.layout.etcd_data)))
        raise SourceError(
            f"this {node.layout.name} server has no datastore that can be seen: neither {places}", hint=_HINT
        )
    return None


def _why_absent(node: Node) -> str:
    kept = datastore(node.files, node.layout)
    if kept is not Datastore.UNKNOWN:
        return f"the datastore of this node is {kept}"
    if not node.layout.is_known:
        return "no distribution is known here, and [sources.sqlite] database names no database"
    return f"{node.layout.name} keeps nothing in SQLite"


@contextmanager
def _blamed_on_node(at: str) -> Iterator[None]:
    """Say of damage that it is the node's own, not the backup's."""
    from edgedr.node.sqlite import DatabaseDamaged  # noqa: PLC0415 - see above

    try:
        yield
    except DatabaseDamaged as damage:
        raise SourceError(
            f"the database {at} on this node is damaged: {damage.message}",
            hint="the last good backup stays the newest: restore it, before k3s writes on",
        ) from damage


def _facts(facts: "DatabaseFacts") -> dict[str, str]:
    said = {"page size": facts.page_size, "pages": facts.pages, "revision": facts.revision, "keys": facts.keys}
    return {key: str(value) for key, value in said.items() if value is not None}


def _captured(name: str, inventory: Inventory) -> bool:
    record = inventory.sources.get(name)
    return record is not None and record.status is Status.OK
