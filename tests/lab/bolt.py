"""A tiny writer of bbolt databases, page by page, for what a real etcd never writes, or only on other machines."""

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

BRANCH, LEAF, META, FREELIST = 0x01, 0x02, 0x04, 0x10
BUCKET = 0x01
"""The flag of an item that is a bucket."""

_PAGE = struct.Struct("<QHHI")  # id, flags, count, overflow
_MAGIC, _VERSION = 0xED0CDAED, 2


@dataclass(frozen=True, slots=True)
class Page:
    """What is on a page, behind its header; ``overflow`` pages follow it, or as many as its content takes."""

    flags: int
    count: int
    content: bytes = b""
    overflow: int | None = None


def leaf(items: Iterable[tuple[bytes, bytes, int]]) -> Page:
    """Return a page of items: key, value, flags."""
    listed = list(items)
    heads, data = b"", b""
    for index, (key, value, flags) in enumerate(listed):
        position = 16 * (len(listed) - index) + len(data)  # from its own head
        heads += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return Page(LEAF, len(listed), heads + data)


def branch(children: Iterable[int]) -> Page:
    """Return a page that leads to others; keys do not matter to somebody who reads all of them."""
    listed = list(children)
    return Page(BRANCH, len(listed), b"".join(struct.pack("<IIQ", 16 * len(listed), 0, child) for child in listed))


def bucket(root: int) -> bytes:
    """Return the value of a bucket whose items are below a page."""
    return struct.pack("<QQ", root, 0)


def inline(page: Page) -> bytes:
    """Return the value of a bucket that is small enough to hold its page itself."""
    return bucket(0) + _PAGE.pack(0, page.flags, page.count, 0) + page.content


def revision(main: int, sub: int = 0, *, deleted: bool = False) -> bytes:
    """Return a key of etcd's bucket ``key``."""
    return struct.pack(">QcQ", main, b"_", sub) + (b"t" if deleted else b"")


def key_value(key: bytes, value: bytes = b"", *, at: int = 1) -> bytes:
    """Return an ``mvccpb.KeyValue``: key, two revisions, version, value; of a deletion, the key alone."""
    if not value:
        return _field(1, key)
    return _field(1, key) + b"".join(_varint(number << 3) + _varint(at) for number in (2, 3, 4)) + _field(5, value)


def history(*changes: tuple[bytes, bytes | None]) -> list[tuple[bytes, bytes, int]]:
    """Return the items of the bucket ``key``: a change for each revision, ``None`` for a deletion."""
    return [
        (revision(at, deleted=value is None), key_value(key, value or b"", at=at), 0)
        for at, (key, value) in enumerate(changes, 2)
    ]


def meta(*, root: int, transaction: int, page_size: int = 4096) -> Page:
    """Return a meta page with a checksum that holds."""
    body = struct.pack("<IIIIQQQQQ", _MAGIC, _VERSION, page_size, 0, root, 0, 2, 64, transaction)
    return Page(META, 0, body + struct.pack("<Q", fnv64a(body)))


def torn(page: Page) -> Page:
    """Return a page with one bit of its last byte, of a meta page that of its checksum, turned."""
    return Page(page.flags, page.count, page.content[:-1] + bytes([page.content[-1] ^ 1]), page.overflow)


def write(path: Path, pages: Mapping[int, Page], *, page_size: int = 4096, size: int = 0) -> Path:
    """Write pages by number, each where it belongs, into a file of at least ``size`` bytes, and return its path."""
    with path.open("wb") as file:
        for number, page in pages.items():
            taken = -(-(_PAGE.size + len(page.content)) // page_size)
            overflow = taken - 1 if page.overflow is None else page.overflow
            file.seek(number * page_size)
            file.write(_PAGE.pack(number, page.flags, page.count, overflow) + page.content)
            size = max(size, (number + taken) * page_size)
        file.truncate(size)
    return path


def database(root: Page, *further: Page, page_size: int = 4096) -> dict[int, Page]:
    """Return the pages of a database: two meta pages of which the second is newer, a freelist, the root, then more."""
    metas = {n: meta(root=3, transaction=6 + n, page_size=page_size) for n in (0, 1)}
    return {**metas, 2: Page(FREELIST, 0), **dict(enumerate((root, *further), 3))}


def fnv64a(data: bytes) -> int:
    """Return the FNV-1a hash of 64 bits."""
    digest = 14695981039346656037
    for byte in data:
        digest = (digest ^ byte) * 1099511628211 % (1 << 64)
    return digest


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 0x7F:
        encoded += bytes([number & 0x7F | 0x80])
        number >>= 7
    return encoded + bytes([number])
