"""What is in a captured SQLite datastore of k3s: the live keys of kine, and what their values are sealed with.

kine keeps every revision of every key as a row of one table; the newest row of a key counts, unless it is a deletion.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from edgedr.errors import Damaged
from edgedr.etcdfile import SEALED

_LIVE = """
SELECT name, value FROM kine
WHERE id IN (SELECT MAX(id) FROM kine WHERE name >= ? AND name < ? GROUP BY name) AND deleted = 0
ORDER BY name
"""
_LAST = "\U0010ffff"


class KineFile:
    """A copy of ``state.db`` that nobody writes to; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        import sqlite3  # noqa: PLC0415 - only nodes of k3s pay for it

        self._connection: sqlite3.Connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=ro&immutable=1", uri=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def sealed_with(self, prefix: bytes = b"") -> dict[str, int]:
        """Count the live values of keys below ``prefix`` by what they are sealed with. Raises ``Damaged``."""
        counted = Counter(
            match[0].decode(errors="replace")
            for _, value in self._live(prefix.decode())
            if (match := SEALED.match(value)) is not None
        )
        return dict(sorted(counted.items()))

    def mentions(self) -> frozenset[str]:
        """Return what live values are sealed with. Raises ``Damaged``."""
        return frozenset(self.sealed_with())

    def values(self, prefix: bytes) -> dict[bytes, bytes]:
        """Return the live keys that begin with ``prefix``, and their values. Raises ``Damaged``."""
        return {name.encode(): value for name, value in self._live(prefix.decode())}

    def _live(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        import sqlite3  # noqa: PLC0415 - see above

        try:
            with closing(self._connection.execute(_LIVE, (prefix, prefix + _LAST))) as rows:
                for name, value in rows:
                    yield str(name), value if isinstance(value, bytes) else str(value or "").encode()
        except sqlite3.DatabaseError as error:
            text = f"{self._path.name} is not a whole database of kine: {error}"
            raise Damaged(text, hint="look at the disk, and at `PRAGMA integrity_check`") from error
