"""kine's database: its table and indexes, rows as it writes them, and a process that writes without a pause.

``python -m tests.lab.kine <database>`` writes until its standard input ends.
"""

import os
import random
import sqlite3
import sys
import threading
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER,
 create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB);
CREATE INDEX IF NOT EXISTS kine_name_index ON kine (name);
CREATE INDEX IF NOT EXISTS kine_name_id_index ON kine (name,id);
CREATE INDEX IF NOT EXISTS kine_id_deleted_index ON kine (id,deleted);
CREATE INDEX IF NOT EXISTS kine_prev_revision_index ON kine (prev_revision);
CREATE UNIQUE INDEX IF NOT EXISTS kine_name_prev_revision_uindex ON kine (name, prev_revision);
CREATE INDEX IF NOT EXISTS kine_id_compact_rev_key_with_prev_revision_index ON kine(id, name, prev_revision)
 WHERE name != 'compact_rev_key' AND prev_revision != 0;
"""
_COMPACT = "DELETE FROM kine WHERE id IN (SELECT prev_revision FROM kine WHERE prev_revision != 0 AND id <= ?)"
_NEWEST = "SELECT id, create_revision, deleted, value FROM kine WHERE name = ? ORDER BY id DESC LIMIT 1"
TOTAL = 1_000_000
LEDGER = ("/registry/ledger/debit", "/registry/ledger/credit")
"""Two keys that are always written in one transaction, and whose values always have the sum ``TOTAL``."""


def open_database(path: Path) -> sqlite3.Connection:
    """Open a datastore as kine does, but never wait for a lock."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def create(path: Path, keys: Mapping[bytes, bytes]) -> None:
    """Make a datastore that holds these keys, and the traces of others; no process has it open afterwards."""
    with closing(open_database(path)) as connection:
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN IMMEDIATE")
        put(connection, "compact_rev_key", b"")
        for key, value in keys.items():
            put(connection, key.decode(), value)
        for number in range(200):  # what an idle cluster does most: renew leases
            put(connection, "/registry/leases/kube-node-lease/server-1", b"k8s\0renewed %d" % number)
        for name in ("/registry/pods/default/gone-1", "/registry/pods/default/gone-2"):
            put(connection, name, b"k8s\0gone")
            put(connection, name, None)
        connection.execute("COMMIT")
    path.chmod(0o600)


def put(connection: sqlite3.Connection, name: str, value: bytes | None) -> int:
    """Append a row that sets a key, or deletes it, as kine does: nothing is ever changed in place."""
    before = connection.execute(_NEWEST, (name,)).fetchone()
    lives = before is not None and not before[2]
    row = (
        name,
        int(not lives and value is not None),
        int(value is None),
        before[1] if lives else 0,
        before[0] if before else 0,
        0,
        value if value is not None else before[3],
        before[3] if lives else None,
    )
    columns = "name, created, deleted, create_revision, prev_revision, lease, value, old_value"
    inserted = connection.execute(f"INSERT INTO kine ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
    assert inserted.lastrowid is not None
    return inserted.lastrowid


def live(path: Path) -> dict[str, bytes]:
    """Read what a datastore that nobody has open holds, row by row, with none of edgedr's queries."""
    found: dict[str, bytes] = {}
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        for name, deleted, value in connection.execute("SELECT name, deleted, value FROM kine ORDER BY id"):
            found[name] = value
            if deleted:
                del found[name]
    found.pop("compact_rev_key", None)
    return found


def torn(path: Path) -> str | None:
    """Say what in a copy of a hammered datastore was never true at any moment; ``None`` if nothing."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as connection:
        rows = [connection.execute(_NEWEST, (name,)).fetchone() for name in LEDGER]
        last = connection.execute("SELECT max(id) FROM kine").fetchone()[0]
        marked = int(connection.execute(_NEWEST, ("/registry/ledger/last",)).fetchone()[3])
    amounts = [int(row[3]) for row in rows]
    if sum(amounts) != TOTAL:
        return f"the ledger is {amounts}"
    if rows[1][0] != rows[0][0] + 1:
        return "one of two rows that were written together is older"
    return None if marked == last else f"the last row is {last}, and {marked} was written last"


def hammer(path: Path, ended: threading.Event) -> None:
    """Write, compact and checkpoint until ``ended``; ``sqlite3.OperationalError`` where something is locked."""
    chooser = random.Random(1)
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 20")
        turn = 0
        while not ended.is_set():
            turn += 1
            debit = chooser.randrange(TOTAL)
            connection.execute("BEGIN IMMEDIATE")
            put(connection, f"/registry/events/default/e{chooser.randrange(300)}", os.urandom(chooser.randrange(6000)))
            first = put(connection, LEDGER[0], b"%d" % debit)
            put(connection, LEDGER[1], b"%d" % (TOTAL - debit))
            put(connection, "/registry/ledger/last", b"%d" % (first + 2))
            if turn % 50 == 0:  # kine's compaction: rows that a later one replaced
                connection.execute(_COMPACT, (first - 400,))
            connection.execute("COMMIT")
            if turn % 70 == 0:
                connection.execute(
                    f"PRAGMA wal_checkpoint({chooser.choice(('FULL', 'TRUNCATE', 'RESTART'))})"
                ).fetchone()
            if turn == 5:
                print("writing", flush=True)


def _wait_for_end(ended: threading.Event) -> None:
    sys.stdin.read()
    ended.set()


if __name__ == "__main__":
    over = threading.Event()
    threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
    hammer(Path(sys.argv[1]), over)
