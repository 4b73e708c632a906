"""What ``node.tar`` is, and how to read it: PAX, sorted.

Members, in this order: ``inventory.json``; documents by name; ``files/<absolute path>`` by path, so that a directory
comes before what is in it. Owners are numbers, times have nanoseconds, extended attributes are ``SCHILY.xattr.*``, a
hard link points to the first name of its inode: stock ``tar --xattrs -xpf`` understands it all. Sparse files are dense.
"""

import re
from collections.abc import Iterator
from typing import BinaryIO, NoReturn

from edgedr import members, strictjson
from edgedr.errors import Damaged
from edgedr.inventory import EntryKind, Inventory
from edgedr.members import BLOCK, Member

NODE_TAR = "node.tar"
INVENTORY = "inventory.json"
OWN = "/.edgedr"
"""Where extraction puts the inventory and the documents, below the target. A node's path of that name is left out."""
MAX_INVENTORY = 64 << 20
MAX_MEMBERS = 200_000

RECORD = 20 * BLOCK  # the length of an archive is a multiple of it, as tar has always written
CHUNK = 1 << 20
DOCUMENT = re.compile(r"(?!files/)[a-z][a-z0-9-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+", re.ASCII)


class ArchiveReader:
    """Read an archive of ours, and nothing else: what ``ArchiveWriter`` never writes is ``Damaged``.

    Reads ``stream`` once, from where it stands, never more than ``max_bytes`` of it. ``inventory`` is there at once.
    """

    def __init__(self, stream: BinaryIO, *, max_bytes: int, what: str = "node.tar") -> None:
        self._stream = stream
        self._left = max_bytes
        self.what = what
        first = members.read(self._read, self.what)
        if first is None or first.name != INVENTORY or first.kind is not EntryKind.FILE:
            raise Damaged(f"{what} does not begin with {INVENTORY}", hint="it is not an archive of edgedr, or damaged")
        if first.size > MAX_INVENTORY:
            members.refuse(self.what, first.name, f"{first.size} bytes long")
        record = b"".join(self._content(first))
        self.inventory = strictjson.decode(Inventory, record, what=f"{what}: {INVENTORY}", max_bytes=MAX_INVENTORY)

    def members(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Yield each further member with its content in chunks, which may be left unread."""
        count = 0
        while (member := members.read(self._read, self.what)) is not None:
            count += 1
            if count > MAX_MEMBERS:
                members.refuse(self.what, member.name, f"more than {MAX_MEMBERS} members")
            content = self._content(member)
            yield member, content
            for _ in content:
                pass
        self._end()

    def _content(self, member: Member) -> Iterator[bytes]:
        left = member.size
        while left:
            chunk = self._read(min(left, CHUNK))
            left -= len(chunk)
            yield chunk
        self._read(-member.size % BLOCK)

    def _end(self) -> None:
        """Two empty blocks, padding, nothing else: what follows would be seen by one reader and not by another."""
        size = 0
        while chunk := self._stream.read(RECORD):
            size += len(chunk)
            if chunk.strip(b"\0") or size > RECORD:
                raise Damaged(f"{self.what} goes on after its end", hint="take another backup")
        if size < BLOCK:
            self._cut()

    def _read(self, size: int) -> bytes:
        if size > self._left:
            raise Damaged(f"{self.what} is longer than its manifest says", hint="take another backup")
        self._left -= size
        parts = []
        while size:
            part = self._stream.read(size)
            if not part:
                self._cut()
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _cut(self) -> NoReturn:
        raise Damaged(f"{self.what} ends too early", hint="take another backup")
