"""What is in a snapshot of etcd, read from the file itself: live keys under a prefix, and what values are sealed with.

A snapshot is a bbolt database: pages of one size, of which the first two are meta pages; the one with the higher
transaction counts. A B+ tree of pages maps bucket names to buckets, and in the bucket ``key`` revisions to what etcd
stored at them. Nothing is mapped into memory, and nothing read is trusted: what does not add up is ``Damaged``.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn, Self, TypeAlias

from edgedr import durable
from edgedr.errors import Damaged

SEALED = re.compile(rb"k8s:enc:[a-z0-9]{1,32}:v[0-9]{1,2}:[^:\x00-\x1f]{1,253}:")
"""What the API server writes before a value that it encrypted: provider, version, and the name of the key."""

_PREFIX = b"k8s:enc:"
_CHUNK = 4 << 20
_OVERLAP = 512  # longer than any prefix
_HEADER = struct.Struct("<QHHI")  # page: id, flags, count, overflow
_META = struct.Struct(
    "<IIIIQQQQQQ"
)  # magic, version, page size, flags, root, sequence, freelist, high water, txid, sum
_LEAF = struct.Struct("<IIII")  # flags, position, key size, value size
_BRANCH = struct.Struct("<IIQ")  # position, key size, page
_BUCKET = struct.Struct("<QQ")
_MAGIC, _VERSION = 0xED0CDAED, 2
_IS_BRANCH, _IS_LEAF, _IS_BUCKET = 0x01, 0x02, 0x01
_PAGE_SIZES = frozenset(1 << power for power in range(10, 17))
_MAX_DEPTH = 32
_MAX_PAGE = 64 << 20  # bytes of one page with its overflow: far beyond the largest value that etcd takes
_REVISION = 17  # bytes of a key in the bucket: revision, "_", sub-revision; a "t" behind it marks a deletion
_KEY, _VALUE = 1, 5  # fields of mvccpb.KeyValue

_Refuse: TypeAlias = Callable[[str], NoReturn]


@dataclass(frozen=True, slots=True)
class _Page:
    flags: int
    count: int
    data: bytes


class EtcdFile:
    """A snapshot on disk, with its trailer or without; a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        try:
            self._file: BinaryIO = durable.open_for_reading(self._path)
        except OSError as error:
            raise durable.storage_error(error, "read", self._path) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def sealed_with(self, prefix: bytes = b"") -> dict[str, int]:
        """Count the live values of keys below ``prefix`` by their seal: ``k8s:enc:secretbox:v1:key1:`` and how many.

        Raises ``Damaged`` for a file that is no whole database.
        """
        counted: Counter[str] = Counter()
        live: dict[bytes, str] = {}  # of all keys, only those whose last value was sealed
        for key, value in self._history():
            if not key.startswith(prefix):
                continue
            match = SEALED.match(value) if value is not None and value.startswith(_PREFIX) else None
            if match is not None:
                live[key] = match[0].decode(errors="replace")
            else:
                live.pop(key, None)
        counted.update(live.values())
        return dict(sorted(counted.items()))

    def mentions(self) -> frozenset[str]:
        """Return every seal that appears anywhere in the file, of live values or not: fast, and never too few."""
        found: set[bytes] = set()
        before, at = b"", 0
        while chunk := self._read(at, _CHUNK):
            at += len(chunk)
            window = before + chunk
            found.update(SEALED.findall(window))
            before = window[-_OVERLAP:]
        return frozenset(seal.decode(errors="replace") for seal in found)

    def values(self, prefix: bytes) -> dict[bytes, bytes]:
        """Return the live keys that begin with ``prefix``, and their values. Raises ``Damaged``."""
        live: dict[bytes, bytes] = {}
        for key, value in self._history():
            if not key.startswith(prefix):
                continue
            if value is None:
                live.pop(key, None)
            else:
                live[key] = value
        return dict(sorted(live.items()))

    def _history(self) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield every revision of every key, oldest first: the key, and its value or ``None`` where it was deleted."""
        self._size = os.fstat(self._file.fileno()).st_size
        page_size, root = self._meta()
        for key, value, flags in self._tree(page_size, root):
            if flags & _IS_BUCKET and key == b"key":
                yield from self._revisions(page_size, value)

    def _revisions(self, page_size: int, bucket: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        if len(bucket) < _BUCKET.size:
            self._refuse("a bucket without a header")
        root, _ = _BUCKET.unpack_from(bucket)
        items = self._tree(page_size, root) if root else _leaves(self._page_of(bucket[_BUCKET.size :]), self._refuse)
        for revision, stored, _ in items:
            if not stored:
                continue  # the mark that a restore with a bumped revision leaves
            key, value = _key_value(stored, self._refuse)
            yield key, None if len(revision) > _REVISION else value

    def _meta(self) -> tuple[int, int]:
        """Return the page size and the root page of the newer valid meta page."""
        found = []
        for size in sorted(_PAGE_SIZES):
            for at in (0, size):
                fields = self._meta_at(at)
                if fields is not None and fields[0] == size:
                    found.append(fields)
        if not found:
            self._refuse("it has no valid meta page")
        page_size, root, _ = max(found, key=lambda fields: fields[2])
        return page_size, root

    def _meta_at(self, at: int) -> tuple[int, int, int] | None:
        data = self._read(at, _HEADER.size + _META.size)
        if len(data) < _HEADER.size + _META.size:
            return None
        magic, version, size, _, root, _, _, _, transaction, checksum = _META.unpack_from(data, _HEADER.size)
        body = data[_HEADER.size : _HEADER.size + _META.size - 8]
        if magic != _MAGIC or version != _VERSION or size not in _PAGE_SIZES or _fnv64a(body) != checksum:
            return None
        return size, root, transaction

    def _tree(self, page_size: int, root: int) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield what the leaves below a page hold, in order: key, value, flags."""
        pages_left = self._size // page_size + 1  # a tree that leads in circles is no tree
        todo = [(root, 0)]
        while todo:
            number, depth = todo.pop()
            pages_left -= 1
            if pages_left < 0 or depth > _MAX_DEPTH:
                self._refuse("its pages lead in circles")
            page = self._page(page_size, number)
            if page.flags & _IS_LEAF:
                yield from _leaves(page, self._refuse)
            elif page.flags & _IS_BRANCH:
                below = [_slot(_BRANCH, page, index, self._refuse)[2] for index in range(page.count)]
                todo += [(child, depth + 1) for child in reversed(below)]
            else:
                self._refuse(f"page {number} is neither branch nor leaf")

    def _page(self, page_size: int, number: int) -> _Page:
        at = number * page_size
        if at + page_size > self._size:
            self._refuse(f"page {number} is beyond its end")
        head = self._read(at, page_size)
        length = (_HEADER.unpack_from(head)[3] + 1) * page_size
        if length > min(_MAX_PAGE, self._size - at):
            self._refuse(f"page {number} goes on beyond its end")
        return self._page_of(head if length == page_size else self._read(at, length))

    def _page_of(self, data: bytes) -> _Page:
        if len(data) < _HEADER.size:
            self._refuse("a page without a header")
        _, flags, count, _ = _HEADER.unpack_from(data)
        return _Page(flags, count, data)

    def _read(self, at: int, size: int) -> bytes:
        try:
            self._file.seek(at)
            return self._file.read(size)
        except OSError as error:
            raise durable.storage_error(error, "read", self._path) from error

    def _refuse(self, why: str) -> NoReturn:
        raise Damaged(f"{self._path.name} is not a whole etcd database: {why}", hint="look at the member's disk")


def _leaves(page: _Page, refuse: _Refuse) -> Iterator[tuple[bytes, bytes, int]]:
    for index in range(page.count):
        flags, position, key_size, value_size = _slot(_LEAF, page, index, refuse)
        start = _HEADER.size + index * _LEAF.size + position
        middle, end = start + key_size, start + key_size + value_size
        if end > len(page.data):
            refuse("an item goes on beyond its page")
        yield page.data[start:middle], page.data[middle:end], flags


def _slot(form: struct.Struct, page: _Page, index: int, refuse: _Refuse) -> tuple[int, ...]:
    at = _HEADER.size + index * form.size
    if at + form.size > len(page.data):
        refuse("a page says that it holds more than it can")
    return form.unpack_from(page.data, at)


def _key_value(stored: bytes, refuse: _Refuse) -> tuple[bytes, bytes]:
    """Read the two fields that matter of an ``mvccpb.KeyValue``."""
    found = {_KEY: b"", _VALUE: b""}
    at, end = 0, len(stored)
    while at < end:
        tag, at = _varint(stored, at, refuse)
        if tag & 7 == 0:
            _, at = _varint(stored, at, refuse)
        elif tag & 7 == 2:  # noqa: PLR2004 - length-delimited
            size, at = _varint(stored, at, refuse)
            if at + size > end:
                refuse("a stored value is cut")
            if tag >> 3 in found:
                found[tag >> 3] = stored[at : at + size]
            at += size
        else:
            refuse("what is stored is no key and value")
    return found[_KEY], found[_VALUE]


def _varint(data: bytes, at: int, refuse: _Refuse) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:  # noqa: PLR2004 - bits
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte of a number has its high bit clear
            return number, at
        shift += 7
    return refuse("a number is cut")


def _fnv64a(data: bytes) -> int:
    digest = 0xCBF29CE484222325
    for byte in data:
        digest = (digest ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return digest
