"""Objects in an S3 bucket: each one PUT with the hash of what it carries, never two that count under one name.

``put`` sends ``If-None-Match``; a server that honours it never overwrites, and one that does not is found out by
`edgedr doctor`. Nothing here relies on it: names hold random ids, and readers take what a manifest signs for.
"""

import base64
import hashlib
import io
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, BinaryIO, cast

from edgedr.errors import Damaged, ObjectExists, ObjectMissing, Refused, StorageError, Unreachable
from edgedr.storage.base import ByteSink, Progress, Spool, Stored, is_same, nobody, refuse_name
from edgedr.storage.pacing import Patience, Throttle
from edgedr.storage.s3_client import S3Client
from edgedr.storage.s3_options import SCHEME, S3Options
from edgedr.storage.s3_trouble import Denied, OutOfRange, Taken, Unable, not_s3, translated

_HASH = "edgedr-sha256"
"""The metadata that says which bytes we sent: all that a retry compares, where it may look at all."""
_IN_MEMORY = 4 << 20  # bytes
_BLOCK = 256 << 10
_RESUMES = 20  # times that one download goes on where it stopped, as long as each brings some bytes


class _There(Enum):
    NOTHING = auto()
    OURS = auto()
    OTHER = auto()
    UNSEEN = auto()


class S3Storage:
    """The objects below one prefix of a bucket. Threads may share it.

    With ``deleted``, what was deleted from a bucket that keeps versions is listed and opened as if it were there.
    """

    at_once = 8

    def __init__(
        self,
        options: S3Options,
        *,
        throttle: Throttle | None = None,
        patience: Patience | None = None,
        deleted: bool = False,
    ) -> None:
        self.client = S3Client(options, patience)
        self._options = options
        self._throttle = throttle or Throttle(None)
        self._deleted = deleted
        self._conditional = True
        self._blind = False

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this clock is ahead of the server's."""
        return self.client.offset

    def describe(self) -> str:
        """Say where this is."""
        return self._options.url

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        """Open a new object for writing; it travels when the block ends."""
        refuse_name(name)
        with closing(_Held()) as held:
            yield held
            held.file.seek(0)
            if not self.put(name, held.file, held.size, held.digest.hexdigest()):
                raise ObjectExists(f"{self._where(name)} exists already", hint="names are never reused")

    def put(
        self,
        name: str,
        source: BinaryIO,
        size: int,
        sha256: str,
        *,
        again: bool = False,
        progress: Progress = nobody,
    ) -> bool:
        """Store what ``source`` holds, in one PUT."""
        refuse_name(name)
        start = source.tell()
        body = _Body(source, start, size, sha256, name, self._throttle, progress)

        sent = False

        def attempt(_: int) -> bool:
            nonlocal sent
            there = self._there(name, size, sha256)
            if there is _There.OURS:
                return sent
            if there is _There.OTHER:
                raise self._taken(name)
            body.restart()
            try:
                self._send(name, body, sha256)
            except Taken as error:
                self._blind = there is _There.UNSEEN
                there = self._there(name, size, sha256)
                if there is _There.OURS or (there is _There.UNSEEN and (again or sent)):
                    return sent
                raise self._taken(name) from error
            except Unreachable:
                sent = True  # for all that is known
                raise
            self._blind = there is _There.UNSEEN  # as it should be for a node: what counts for a put may not look
            return True

        try:
            return self.client.persist(attempt)
        except BaseException:
            body.restart()  # what travelled counts for nothing
            raise

    def _send(self, name: str, body: "_Body", sha256: str) -> None:
        conditional = {"IfNoneMatch": "*"} if self._conditional else {}
        try:
            reply = self.client.call(
                "put_object",
                self._where(name),
                Key=self._key(name),
                Body=body,
                ContentLength=body.size,
                ChecksumSHA256=base64.b64encode(bytes.fromhex(sha256)).decode(),
                Metadata={_HASH: sha256},
                **conditional,
                **self._kept_how(),
            )
        except Unable:
            if not self._conditional:
                raise
            self._conditional = False  # it refuses what it does not know, instead of passing over it
            body.restart()
            self._send(name, body, sha256)
            return
        if "ETag" not in reply:
            raise not_s3("put", self._where(name), "its answer is no S3")

    def _kept_how(self) -> dict[str, str]:
        wanted = {
            "ServerSideEncryption": self._options.sse,
            "SSEKMSKeyId": self._options.kms_key,
            "StorageClass": self._options.storage_class,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def _taken(self, name: str) -> ObjectExists:
        return ObjectExists(
            f"{self._where(name)} exists already, and is not known to be what was to be stored",
            hint="names are never reused: look who wrote it",
        )

    def _there(self, name: str, size: int, sha256: str) -> "_There":
        """Say what has a name, as far as we may look; who may not once is not asked again."""
        if self._blind:
            return _There.UNSEEN
        try:
            head = self.client.call("head_object", self._where(name), Key=self._key(name))
            if "ETag" not in head:
                raise not_s3("look at", self._where(name), "its answer is no S3")
            told = head.get("Metadata", {}).get(_HASH)
            if head.get("ContentLength") != size or (told is not None and told != sha256):
                return _There.OTHER
            if told is None:
                with self.open(name) as there:
                    return _There.OURS if is_same(there, size, sha256) else _There.OTHER
        except ObjectMissing:
            return _There.NOTHING
        except Denied:
            return _There.UNSEEN
        return _There.OURS

    def replace(self, name: str, data: bytes) -> None:
        """Put a small object in place of what has that name."""
        refuse_name(name)
        sha256 = hashlib.sha256(data).hexdigest()
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        reply = self.client.persist(
            lambda _: self.client.call(
                "put_object",
                self._where(name),
                Key=self._key(name),
                Body=data,
                ChecksumSHA256=checksum,
                Metadata={_HASH: sha256},
                **self._kept_how(),
            )
        )
        if "ETag" not in reply:
            raise not_s3("put", self._where(name), "its answer is no S3")

    def open(self, name: str) -> BinaryIO:
        """Open an object for reading, downloaded."""
        refuse_name(name)
        held = _Held()
        try:
            self.fetch(name, held)
        except BaseException:
            held.close()
            raise
        held.file.seek(0)
        return held.file

    def fetch(self, name: str, spool: Spool) -> None:
        """Append to a spool what of an object it does not hold yet."""
        refuse_name(name)
        try:
            self._fetch(name, spool, None)
        except ObjectMissing:
            newest = next(self._versions(name), None) if self._deleted else None
            if newest is None:
                raise
            self._fetch(name, spool, newest)

    def _fetch(self, name: str, spool: Spool, version: str | None) -> None:
        """Download, going on where a connection broke as long as it is the same object."""
        seen: dict[str, str] = {}
        for _ in range(_RESUMES):
            before = spool.size
            try:
                self.client.persist(lambda _: self._receive(name, spool, version, seen))
            except Unreachable:
                if spool.size == before:
                    raise
                continue
            return
        raise Unreachable(f"cannot get {self._where(name)}: the connection breaks again and again")

    def _receive(self, name: str, spool: Spool, version: str | None, seen: dict[str, str]) -> None:
        """Make one request, and append what it brings. ``seen`` keeps which object the spool's bytes are of."""
        asked: dict[str, Any] = {} if version is None else {"VersionId": version}
        if spool.size:
            asked["Range"] = f"bytes={spool.size}-"
            asked |= {"IfMatch": seen["etag"]} if "etag" in seen else {}
        where = self._where(name)
        try:
            reply = self.client.call("get_object", where, Key=self._key(name), **asked)
        except (Taken, OutOfRange) as error:
            spool.restart()  # another object has that name by now, or it is shorter than what we hold
            seen.clear()
            raise Unreachable(f"cannot get {where}: it changed meanwhile") from error
        if "ETag" not in reply:
            reply["Body"].close()
            raise not_s3("get", where, "its answer is no S3")
        if spool.size and "ContentRange" not in reply:
            spool.restart()
        seen["etag"] = reply["ETag"]
        expected = reply.get("ContentLength")
        with translated("get", where), closing(reply["Body"]) as body:
            while block := body.read(_BLOCK):
                spool.write(block)
                expected = None if expected is None else expected - len(block)
        if expected:
            raise Unreachable(f"cannot get {where}: {expected} bytes are missing at its end")

    def others(self, name: str) -> Iterator[BinaryIO]:
        """Open an object once more, then its older contents where the bucket keeps versions and lets us see them."""
        yield self.open(name)
        for version in self._versions(name, older=True):
            held = _Held()
            try:
                self._fetch(name, held, version)
            except Unreachable:  # it may be the good one: that is not known
                held.close()
                raise
            except StorageError:
                held.close()
                continue
            held.file.seek(0)
            yield held.file

    def _versions(self, name: str, *, older: bool = False) -> Iterator[str]:
        """Yield the ids of the versions of a name, newest first; with ``older``, without the one that is opened."""
        refuse_name(name)
        key = self._key(name)
        try:
            for page in self._pages("list_object_versions", Prefix=key):
                for each in page.get("Versions", ()):
                    if each["Key"] == key and not (older and each.get("IsLatest")):
                        yield each["VersionId"]
        except (Refused, Unable, ObjectMissing):
            return

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Yield the object ``prefix`` and those below it, sorted by name."""
        if prefix:
            refuse_name(prefix)
        if self._deleted:
            yield from self._list_deleted(prefix)
            return
        if prefix:
            for page in self._pages("list_objects_v2", Prefix=self._key(prefix), MaxKeys=1):
                yield from (stored for stored in self._stored(page.get("Contents", ())) if stored.name == prefix)
                break
        for page in self._pages("list_objects_v2", Prefix=f"{self._key(prefix)}/" if prefix else self._root()):
            yield from self._stored(page.get("Contents", ()))

    def _list_deleted(self, prefix: str) -> Iterator[Stored]:
        found: dict[str, Any] = {}
        for page in self._pages("list_object_versions", Prefix=self._key(prefix)):
            for each in page.get("Versions", ()):
                found.setdefault(each["Key"], each)  # the newest of a name comes first
        for stored in self._stored(found[key] for key in sorted(found)):
            if not prefix or stored.name == prefix or stored.name.startswith(f"{prefix}/"):
                yield stored

    def delete(self, name: str) -> None:
        """Take an object away; where the bucket keeps versions, they stay behind a mark."""
        refuse_name(name)

        def attempt(_: int) -> None:
            reply = self.client.call("delete_object", self._where(name), Key=self._key(name))
            if reply["ResponseMetadata"]["HTTPStatusCode"] != HTTPStatus.NO_CONTENT:
                raise not_s3("delete", self._where(name), "its answer is no S3")

        self.client.persist(attempt)

    def sweep(self, prefix: str = "") -> int:
        """Return 0: a PUT that is cut off leaves nothing."""
        if prefix:
            refuse_name(prefix)
        return 0

    def _stored(self, entries: Any) -> Iterator[Stored]:
        root = self._root()
        for entry in entries:
            name = entry["Key"].removeprefix(root)
            try:
                refuse_name(name)
            except StorageError:
                continue  # a stranger's, or the mark of a folder
            yield Stored(name, int(entry["Size"]))

    def _pages(self, operation: str, **parameters: Any) -> Iterator[Any]:
        """Yield the pages of a listing. An answer that is not the whole of one is an error, never an empty place."""
        what = f"{SCHEME}{self._options.bucket}/{parameters.get('Prefix', '')}"
        after: dict[str, Any] = {}
        while True:
            asked = {**parameters, **after}
            page = self.client.persist(lambda _, asked=asked: self.client.call(operation, what, **asked))  # type: ignore[misc]
            if "IsTruncated" not in page:
                raise not_s3("list", what, "its answer is no S3")
            yield page
            if not page["IsTruncated"]:
                return
            following = _following(operation, page)
            if not following or following == after:
                raise StorageError(f"{what} lists the same again and again", hint="this server's listing is broken")
            after = following

    def _root(self) -> str:
        return f"{self._options.prefix}/" if self._options.prefix else ""

    def _key(self, name: str) -> str:
        return self._root() + name

    def _where(self, name: str) -> str:
        return f"{self._options.url}/{name}"


def _following(operation: str, page: Any) -> dict[str, Any]:
    if operation == "list_objects_v2":
        token = page.get("NextContinuationToken")
        return {"ContinuationToken": token} if token else {}
    markers = {"KeyMarker": page.get("NextKeyMarker"), "VersionIdMarker": page.get("NextVersionIdMarker")}
    return {name: value for name, value in markers.items() if value}


class _Held:
    """Bytes on their way in or out: small ones in memory, others in a file without a name."""

    def __init__(self) -> None:
        self.file = cast("BinaryIO", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY))  # noqa: SIM115
        self.restart()

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.file.write(data)
        self.digest.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    def restart(self) -> None:
        self.file.seek(0)
        self.file.truncate()
        self.digest = hashlib.sha256()
        self.size = 0

    def close(self) -> None:
        self.file.close()


class _Body:
    """What a PUT carries. boto3 reads it twice: to sign its hash, and, from ``begin`` on, to send it."""

    def __init__(
        self, source: BinaryIO, start: int, size: int, sha256: str, name: str, throttle: Throttle, progress: Progress
    ) -> None:
        self.size = size
        self._source, self._start, self._sha256, self._name = source, start, sha256, name
        self._throttle, self._progress = throttle, progress
        self._at = self._read = 0
        self._sending = False
        self._told = 0

    def begin(self, signed: str) -> None:
        """Compare what was hashed with what it should be, before a byte of it leaves."""
        if (self._read, signed) != (self.size, self._sha256):
            raise Damaged(f"what was to be stored as {self._name} is not what its hash says")
        self._sending = True

    def restart(self) -> None:
        self._sending = False
        self._progress(-self._told)
        self._told = 0
        self.seek(0)

    def read(self, size: int | None = -1) -> bytes:
        left = self.size - self._at
        block = self._source.read(left if size is None or size < 0 else min(size, left))
        self._at += len(block)
        self._read = max(self._read, self._at)
        if self._sending:
            self._throttle.take(len(block))
            self._told += len(block)
            self._progress(len(block))
        return block

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence] + offset
        self._source.seek(self._start + self._at)
        return self._at
