"""The sqlite source on a k3s server that runs, has crashed or is stopped, and on what is no such thing."""

import hashlib
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from edgedr.errors import EdgedrError, SourceError, StorageError
from edgedr.layouts import UNKNOWN
from edgedr.model import Finding, Severity, Status
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.node.sqlite import copy_database, examine, size_of
from edgedr.sources.base import Absent, Captured, Copy, Count, Fact
from edgedr.sources.sqlite import SqliteSource
from edgedr.steps import PlaceArtifact
from tests.lab import k3s, kine, kubeadm
from tests.lab.k3s import K3sNode, hammered
from tests.lab.trees import picture
from tests.source_contract import Restored, SourceContract, restore

LONG = timedelta(minutes=1)
DIRTY = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for statement in sys.argv[2:]:
    connection.execute(statement).fetchall()
print("done", flush=True)
sys.stdin.read()
os._exit(0)
"""
"""Runs statements, says so, and ends without a farewell to the database when its standard input ends."""


def spoil(database: Path, table: str = "kine") -> None:
    """Change one bit of the page that a table begins with."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()[0]
        size = connection.execute("PRAGMA page_size").fetchone()[0]
    with database.open("r+b") as file:
        file.seek((page - 1) * size)
        kind = file.read(1)[0]
        file.seek((page - 1) * size)
        file.write(bytes([kind ^ 1]))


class TestSqliteSource(SourceContract):
    @pytest.fixture
    def source(self) -> SqliteSource:
        return SqliteSource()

    @pytest.fixture
    def node(self, tmp_path: Path) -> Node:
        return k3s.build(tmp_path / "node").node()

    def damage(self, restored: Restored, source: object) -> None:
        spoil(restored.artifacts["state.db"])

    def test_a_blank_node_is_told_in_words(self, source: object, tmp_path: Path) -> None:
        """Most clusters keep nothing in SQLite: that is no failure, and etcd, which is required too, says the rest."""
        (tmp_path / "blank").mkdir()
        (item,) = SqliteSource().capture(Node(Files(tmp_path / "blank"), UNKNOWN))
        assert item == Absent("no distribution is known here, and [sources.sqlite] database names no database")


@pytest.fixture
def server(tmp_path: Path) -> K3sNode:
    return k3s.build(tmp_path / "node")


def capture(server: K3sNode, to: Path, source: SqliteSource | None = None) -> tuple[list[Captured], Path]:
    """Capture into a directory of its own; nothing but the artifact may be there afterwards."""
    to.mkdir()
    items: list[Captured] = []
    for item in (source or SqliteSource(deadline=LONG)).capture(server.node()):
        items.append(item)
        if isinstance(item, Copy):
            item.make(to / item.artifact)
    assert [path.name for path in to.iterdir()] == ["state.db"]
    return items, to / "state.db"


def facts(items: list[Captured]) -> dict[str, str]:
    return {item.key: item.value for item in items if isinstance(item, Fact)}


def refused(server: K3sNode, to: Path, source: SqliteSource | None = None) -> EdgedrError:
    """Capture what cannot be captured; nothing may be left."""

    def all_of_it() -> None:
        for item in (source or SqliteSource(deadline=LONG)).capture(server.node()):
            assert isinstance(item, Copy)
            item.make(to / item.artifact)

    to.mkdir(exist_ok=True)
    with pytest.raises((SourceError, StorageError)) as caught:
        all_of_it()
    assert list(to.iterdir()) == []
    assert caught.value.hint
    return caught.value


@contextmanager
def opened(database: Path, *statements: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Let another process run statements, and keep the database open until the block ends."""
    command = [sys.executable, "-c", DIRTY, str(database), *statements]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        yield process
        process.communicate()


def crashed(database: Path, *statements: str) -> None:
    """Let another process run statements and die."""
    with opened(database, *statements) as process:
        process.kill()


def test_under_writes_each_copy_is_a_moment(server: K3sNode, tmp_path: Path) -> None:
    """While k3s writes, compacts and checkpoints, each restored copy passes its check and holds one true state.

    And no write is kept waiting, nor does it fail, because of a capture.
    """
    revisions: list[int] = []
    with hammered(server.database) as writer:
        for number in range(400):
            if len(set(revisions)) >= 40:
                break
            restored = restore(SqliteSource(deadline=LONG), server.node(), tmp_path / f"restored-{number}")
            copy = restored.artifacts["state.db"]
            assert kine.torn(copy) is None
            said = restored.inventory.sources["sqlite"].facts
            assert said["keys"] == str(len(kine.live(copy)))
            assert {finding.severity for finding in restored.findings(SqliteSource())} == {Severity.GOOD}
            revisions.append(int(said["revision"]))
        assert writer.poll() is None
    assert revisions == sorted(revisions)
    assert len(set(revisions)) >= 40


def test_a_copy_of_the_file_alone_would_be_torn(server: K3sNode, tmp_path: Path) -> None:
    """What the test above looks for is there to be found: the newest rows are in the log, not in the file."""
    with opened(
        server.database, "PRAGMA wal_autocheckpoint = 0", "DELETE FROM kine WHERE name LIKE '/registry/pods/%'"
    ):
        alone = tmp_path / "alone.db"
        alone.write_bytes(server.database.read_bytes())
        _, copy = capture(server, tmp_path / "copy")
    assert any(name.startswith("/registry/pods/") for name in kine.live(alone))
    assert not any(name.startswith("/registry/pods/") for name in kine.live(copy))


def test_it_is_known_what_was_captured(server: K3sNode, tmp_path: Path) -> None:
    """Facts and counts are those of the datastore, seen without edgedr's queries."""
    items, copy = capture(server, tmp_path / "copy")
    keys = kine.live(server.database)
    assert kine.live(copy) == keys
    assert {key.encode() for key in keys} == {*server.keys(), b"/registry/leases/kube-node-lease/server-1"}
    said = facts(items)
    assert said["database"] == "/var/lib/rancher/k3s/server/db/state.db"
    assert said["keys"] == str(len(keys))
    assert int(said["page size"]) * int(said["pages"]) == copy.stat().st_size
    assert Count("keys", len(keys)) in items
    with closing(sqlite3.connect(copy)) as connection:
        assert said["revision"] == str(connection.execute("SELECT seq FROM sqlite_sequence").fetchone()[0])


def test_the_copy_needs_nothing_beside_it(server: K3sNode, tmp_path: Path) -> None:
    """One file of 0600, which opens read-only without a log, and as kine opens it, and takes writes again."""
    with opened(server.database, "UPDATE kine SET lease = 0 WHERE id = 5"):
        _, copy = capture(server, tmp_path / "copy")
    assert copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(f"file:{copy}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert [path.name for path in copy.parent.iterdir()] == ["state.db"]
    with closing(kine.open_database(copy)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        before = connection.execute("SELECT max(id) FROM kine").fetchone()[0]
        assert kine.put(connection, "/registry/pods/default/after", b"k8s\0") == before + 1


@pytest.mark.parametrize("running", [True, False])
def test_the_same_state_gives_the_same_bytes(server: K3sNode, tmp_path: Path, *, running: bool) -> None:
    """So a second backup of an unchanged node ships next to nothing, whether k3s runs or is stopped."""
    digests = set()
    for name in ("first", "second"):
        if running:
            with opened(server.database, "SELECT count(*) FROM kine"):
                _, copy = capture(server, tmp_path / name)
        else:
            _, copy = capture(server, tmp_path / name)
        digests.add(hashlib.sha256(copy.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_little_change_changes_few_pages(server: K3sNode, tmp_path: Path) -> None:
    """Pages stay where they are, so that a delta against the last backup is small."""
    keys = {f"/registry/pods/default/many-{number}".encode(): os.urandom(2000) for number in range(1000)}
    server.database.unlink()
    kine.create(server.database, keys)
    _, first = capture(server, tmp_path / "first")
    with closing(kine.open_database(server.database)) as connection:
        for number in range(20):
            kine.put(connection, f"/registry/pods/default/many-{number}", os.urandom(2000))
    _, second = capture(server, tmp_path / "second")
    pages = [
        [path.read_bytes()[start : start + 4096] for start in range(0, path.stat().st_size, 4096)]
        for path in (first, second)
    ]
    equal = sum(before == after for before, after in zip(*pages, strict=False))
    assert first.stat().st_size % 4096 == second.stat().st_size % 4096 == 0
    assert len(pages[0]) > 500
    assert equal / len(pages[1]) > 0.9


def test_a_running_database_is_left_alone(server: K3sNode, tmp_path: Path) -> None:
    """Neither the file nor its log changes by being captured; only the log's index is shared with k3s."""
    with opened(server.database, "UPDATE kine SET lease = 1 WHERE id = 3"):
        before = picture(server.root)
        capture(server, tmp_path / "copy")
        after = picture(server.root)
    for seen in (before, after):
        assert seen.pop("var/lib/rancher/k3s/server/db/state.db-shm")
    assert after == before
    assert "var/lib/rancher/k3s/server/db/state.db-wal" in before


@pytest.mark.parametrize("lost", [None, "state.db-shm"])
def test_what_a_crash_left_is_recovered_elsewhere(server: K3sNode, tmp_path: Path, lost: str | None) -> None:
    """After a crash the log beside the database counts too, and nothing on the node is repaired, or even touched."""
    crashed(server.database, "PRAGMA wal_autocheckpoint = 0", "DELETE FROM kine WHERE name LIKE '/registry/pods/%'")
    assert server.database.with_name("state.db-wal").stat().st_size > 0
    if lost:
        server.database.with_name(lost).unlink()
    before = picture(server.root)
    _, copy = capture(server, tmp_path / "copy")
    assert picture(server.root) == before
    assert not any(name.startswith("/registry/pods/") for name in kine.live(copy))


def test_a_hot_journal_is_rolled_back_elsewhere(server: K3sNode, tmp_path: Path) -> None:
    """A database without a log that died within a transaction is captured as it was before that transaction."""
    with closing(sqlite3.connect(server.database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    keys = kine.live(server.database)
    crashed(server.database, "PRAGMA cache_size = 1", "BEGIN", "UPDATE kine SET value = zeroblob(3000)")
    assert server.database.with_name("state.db-journal").stat().st_size > 0
    before = picture(server.root)
    _, copy = capture(server, tmp_path / "copy")
    assert picture(server.root) == before
    assert kine.live(copy) == keys


def test_a_database_without_a_log_is_read_under_its_lock(server: K3sNode, tmp_path: Path) -> None:
    """The older way of writing is captured as well: between two transactions, and before one that is under way."""
    with closing(sqlite3.connect(server.database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    keys = kine.live(server.database)
    with opened(server.database, "BEGIN IMMEDIATE", "DELETE FROM kine"):
        _, copy = capture(server, tmp_path / "copy")
    assert kine.live(copy) == keys


@contextmanager
def as_nobody() -> Iterator[None]:
    """Lose the rights of root, if they are there."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


@pytest.mark.parametrize("running", [True, False])
def test_a_read_only_file_system_is_enough(*, running: bool) -> None:
    """Under systemd's ProtectSystem the database's directory cannot be written to: no file beside it can be made."""
    with tempfile.TemporaryDirectory() as directory:  # not below pytest's own, which only its owner can enter
        top = Path(directory)
        server = k3s.build(top / "node")
        keys = len(kine.live(server.database))
        with opened(server.database, "DELETE FROM kine WHERE id = 7") as process:
            if not running:
                process.kill()
                process.wait()
            for path in (top, *top.rglob("*")):
                if not path.is_symlink():
                    path.chmod(0o555 if path.is_dir() else 0o444)
            target = Path(tempfile.mkdtemp())
            if os.geteuid() == 0:
                os.chown(target, 65534, 65534)
            with as_nobody():
                assert not os.access(server.database.parent, os.W_OK, effective_ids=True)
                found = copy_database(server.database, target / "state.db", deadline=LONG)
                (target / "state.db").unlink()
            target.rmdir()
            for path in (top, *top.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o700)
        assert found.keys == keys - 1  # the deletion is in the log alone


def test_a_database_on_another_disk_is_followed(server: K3sNode, tmp_path: Path) -> None:
    """A link leads to where it would lead on the node, and the log lies beside what it leads to."""
    disk = server.at("/mnt/disk")
    disk.mkdir(parents=True)
    server.database.rename(disk / "state.db")
    server.database.symlink_to("/mnt/disk/state.db")
    with opened(disk / "state.db", "DELETE FROM kine WHERE name LIKE '/registry/pods/%'"):
        items, copy = capture(server, tmp_path / "copy")
    assert facts(items)["database"] == "/var/lib/rancher/k3s/server/db/state.db"
    assert not any(name.startswith("/registry/pods/") for name in kine.live(copy))


def test_a_database_may_be_larger_than_any_file(server: K3sNode, tmp_path: Path) -> None:
    """The limit for configuration files is none for a database."""
    node = Node(Files(server.root, max_file_bytes=4096), server.node().layout)
    assert restore(SqliteSource(), node, tmp_path / "restored").artifacts["state.db"].stat().st_size > 4096


def test_a_locked_database_has_a_deadline(server: K3sNode, tmp_path: Path) -> None:
    """Whoever keeps the database to himself does not keep edgedr for ever."""
    with opened(server.database, "PRAGMA locking_mode = EXCLUSIVE", "UPDATE kine SET lease = 1 WHERE id = 3"):
        error = refused(server, tmp_path / "copy", SqliteSource(deadline=timedelta(seconds=0.2)))
    assert error.message == f"{server.database} was not read within 0.2 s"


def test_a_slow_disk_has_a_deadline(server: K3sNode, tmp_path: Path) -> None:
    """Neither the copy nor its check goes on for ever, and half a copy is not left."""
    assert "was not read within" in refused(server, tmp_path / "copy", SqliteSource(deadline=timedelta(0))).message
    with pytest.raises(SourceError, match="was not read within"):
        examine(_many_instructions(tmp_path / "slow.db"), deadline=timedelta(0))


def _many_instructions(path: Path) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        numbers = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 200000) SELECT x FROM n"
        connection.execute(f"CREATE TABLE many AS {numbers}")
        connection.execute("CREATE INDEX by_x ON many (x)")
    return path


def test_a_full_disk_is_not_blamed_on_the_node(server: K3sNode, tmp_path: Path) -> None:
    """A copy that cannot be written is a fault of the place that it is written to."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        error = refused(server, tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(error, StorageError)
    assert error.message.startswith(f"cannot write a copy of {server.database}: ")


@pytest.mark.parametrize("table", ["kine", "kine_name_id_index"])
def test_a_damaged_database_is_refused(server: K3sNode, tmp_path: Path, table: str) -> None:
    """Damage on the node is said to be there; such a copy never becomes the newest good backup."""
    spoil(server.database, table)
    message = refused(server, tmp_path / "copy").message
    assert message.startswith("the database /var/lib/rancher/k3s/server/db/state.db on this node is damaged: ")
    assert "\n" not in message


def test_an_index_that_lost_a_row_is_damage(server: K3sNode, tmp_path: Path) -> None:
    """Pages that are each well may still contradict each other: a key that no list shows."""
    with closing(sqlite3.connect(server.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = sql || ' WHERE id != 9' WHERE name = 'kine_name_index'")
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("REINDEX kine_name_index")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_master SET sql = replace(sql, ' WHERE id != 9', '')")
    assert "missing from index kine_name_index" in refused(server, tmp_path / "copy").message


def test_what_is_no_database_is_named(server: K3sNode, tmp_path: Path) -> None:
    """An empty file, another file, a directory or a FIFO in its place is said, and nothing waits for it."""
    place = server.database
    for make, says in (
        (lambda: place.write_bytes(b""), "is empty"),
        (lambda: place.write_bytes(b"SQLite format 2\0" * 300), "is not an SQLite database"),
        (lambda: place.write_bytes(b"SQLite"), "is not an SQLite database"),
        (lambda: os.mkfifo(place), "is not a file"),
        (place.mkdir, "is not a file"),
    ):
        place.unlink()
        make()
        assert refused(server, tmp_path / "copy").message == f"{place} {says}"


def test_a_database_that_is_gone_is_no_empty_one(server: K3sNode, tmp_path: Path) -> None:
    """A k3s server of which no datastore can be seen is a failure, not a node that has none."""
    server.database.unlink()
    message = refused(server, tmp_path / "copy").message
    assert message.startswith(
        "this k3s server has no datastore that can be seen: neither /var/lib/rancher/k3s/server/db/"
    )
    set_path = SqliteSource(database="/var/lib/rancher/k3s/server/db/state.db")
    message = refused(server, tmp_path / "copy", set_path).message
    assert message == "there is no /var/lib/rancher/k3s/server/db/state.db on this node, or it cannot be reached"


def test_lacking_rights_are_told_apart() -> None:
    """Rights that lack are named: those to read it as the node's, those to write a copy as the state directory's."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        database = Path(directory, "state.db")
        kine.create(database, {})
        database.chmod(0o644)
        closed = Path(directory, "closed")
        closed.mkdir()
        closed.chmod(0o555)  # whatever the umask
        with as_nobody(), pytest.raises(StorageError, match=r"cannot write a copy of .*: permission denied"):
            copy_database(database, closed / "copy", deadline=LONG)
        database.chmod(0)
        with as_nobody(), pytest.raises(SourceError, match=r"cannot read .*: permission denied") as caught:
            size_of(database)
        assert caught.value.hint == "run edgedr as root"


def test_another_database_is_kept_and_doubted(server: K3sNode, tmp_path: Path) -> None:
    """A database that is not kine's is captured as it is asked for, proven, and said to be another."""
    other = server.at("/srv/other.db")
    other.parent.mkdir()
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE key_value (id INTEGER PRIMARY KEY)")
    source = SqliteSource(database="/srv/other.db")
    restored = restore(source, server.node(), tmp_path / "restored")
    warnings = [item for item in restored.items if isinstance(item, Finding)]
    assert [(item.severity, item.subject) for item in warnings] == [(Severity.WARN, "/srv/other.db")]
    assert not any(isinstance(item, Count) for item in restored.items)
    assert [finding.severity for finding in restored.findings(source)] == [Severity.GOOD]


def test_a_copy_of_another_day_is_not_this_one(server: K3sNode, tmp_path: Path) -> None:
    """A sound database that holds something else than at capture is found."""
    restored = restore(SqliteSource(), server.node(), tmp_path / "restored")
    with closing(kine.open_database(restored.artifacts["state.db"])) as connection:
        kine.put(connection, "/registry/pods/default/web-1", None)
    texts = [finding.text for finding in restored.findings(SqliteSource()) if finding.severity is Severity.BAD]
    assert any(text.startswith("keys is ") for text in texts)
    assert any(text.startswith("revision is ") for text in texts)


def test_it_is_placed_as_one_artifact(server: K3sNode, tmp_path: Path) -> None:
    """A restore puts one file; where it goes on the node is among the facts."""
    restored = restore(SqliteSource(), server.node(), tmp_path / "restored")
    assert list(SqliteSource().put_back(restored.inventory)) == [PlaceArtifact("sqlite", "state.db", "state.db")]
    assert restored.inventory.sources["sqlite"].status is Status.OK


def test_other_datastores_are_no_business_of_it(tmp_path: Path) -> None:
    """Where the cluster keeps its objects elsewhere there is nothing to capture, and that is known."""
    nodes = {
        "the datastore of this node is stacked etcd": kubeadm.node(kubeadm.unpack(tmp_path / "kubeadm")),
        "the datastore of this node is embedded etcd": k3s.build(tmp_path / "k3s", datastore="etcd").node(),
        "the datastore of this node is external database": k3s.build(tmp_path / "db", datastore="external").node(),
    }
    for reason, node in nodes.items():
        assert list(SqliteSource().capture(node)) == [Absent(reason)]


def test_no_other_node_can_capture_it(server: K3sNode) -> None:
    """It lies on this machine alone: whoever else captures the cluster's parts does not have it."""
    node = Node(Files(server.root), server.node().layout, elsewhere="server-2")
    assert isinstance(next(SqliteSource().capture(node)), Copy)


def test_it_is_found_where_k3s_was_told_to_keep_it(tmp_path: Path) -> None:
    """A moved data directory and a datastore option with a path of its own are both followed."""
    moved = k3s.build(tmp_path / "moved", data_dir="/mnt/disk/k3s")
    items, _ = capture(moved, tmp_path / "first")
    assert facts(items)["database"] == "/mnt/disk/k3s/server/db/state.db"
    moved.at("/srv").mkdir()
    moved.database.rename(moved.at("/srv/own.db"))
    moved.write("/etc/systemd/system/k3s.service.env", "K3S_DATASTORE_ENDPOINT='sqlite:///srv/own.db?_journal=WAL'\n")
    items, _ = capture(moved, tmp_path / "second")
    assert facts(items)["database"] == "/srv/own.db"


def test_it_says_nothing_of_what_it_holds(server: K3sNode, tmp_path: Path) -> None:
    """No key and no value of the datastore is in facts, findings or errors, even where a page of it is damaged."""
    items, _ = capture(server, tmp_path / "copy")
    spoil(server.database)
    said = repr(facts(items)) + refused(server, tmp_path / "other").message
    assert "/registry/" not in said
    assert server.password not in said
