"""Reading a bucket: objects, whole or from where a download stopped, their older versions, and what there is."""

from collections.abc import Iterator
from contextlib import closing, suppress
from itertools import islice
from typing import Any, BinaryIO

from edgedr.errors import ObjectMissing, Refused, StorageError, TooLong, Unreachable
from edgedr.storage.base import Spool, Stored, refuse_name
from edgedr.storage.pacing import Patience
from edgedr.storage.s3_bodies import Held
from edgedr.storage.s3_client import S3Client
from edgedr.storage.s3_options import SCHEME, S3Options
from edgedr.storage.s3_trouble import OutOfRange, Taken, Unable, not_s3, translated

_BLOCK = 256 << 10
_RESUMES = 20  # times that one download goes on where it stopped, as long as each brings some bytes
_MOST_VERSIONS = 50  # of one object: whoever writes more does not want them to be read


class S3Reader:
    """The objects below one prefix of a bucket, to be read.

    With ``deleted``, what was deleted from a bucket that keeps versions is listed and opened as if it were there.
    """

    at_once = 8

    def __init__(self, options: S3Options, *, patience: Patience | None = None, deleted: bool = False) -> None:
        self.client = S3Client(options, patience)
        self._options = options
        self._deleted = deleted

    @property
    def clock_offset(self) -> float | None:
        """Seconds by which this clock is ahead of the server's."""
        return self.client.offset

    def describe(self) -> str:
        """Say where this is."""
        return self._options.url

    def open(self, name: str, *, limit: int | None = None) -> BinaryIO:
        """Open an object for reading, downloaded."""
        refuse_name(name)
        held = Held()
        try:
            self.fetch(name, held, limit=limit)
        except BaseException:
            held.close()
            raise
        held.file.seek(0)
        return held.file

    def fetch(self, name: str, spool: Spool, *, limit: int | None = None) -> None:
        """Append to a spool what of an object it does not hold yet."""
        refuse_name(name)
        try:
            self._fetch(name, spool, None, limit)
        except ObjectMissing:
            newest = next(self._versions(name), None) if self._deleted else None
            if newest is None:
                raise
            self._fetch(name, spool, newest, limit)

    def _fetch(self, name: str, spool: Spool, version: str | None, limit: int | None) -> None:
        """Download, going on where a connection broke as long as it is the same object."""
        seen: dict[str, str] = {}
        for _ in range(_RESUMES):
            before = spool.size
            try:
                self.client.persist(lambda _: self._receive(name, spool, version, seen, limit))
            except Unreachable:
                if spool.size == before:
                    raise
                continue
            return
        raise Unreachable(f"cannot get {self._where(name)}: the connection breaks again and again")

    def _receive(self, name: str, spool: Spool, version: str | None, seen: dict[str, str], limit: int | None) -> None:
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
        if limit is not None and expected is not None and spool.size + expected > limit:
            reply["Body"].close()
            raise TooLong(f"{where} has {spool.size + expected} bytes, which is more than belongs there")
        with translated("get", where), closing(reply["Body"]) as body:
            while block := body.read(_BLOCK):
                spool.write(block)
                expected = None if expected is None else expected - len(block)
        if expected:
            raise Unreachable(f"cannot get {where}: {expected} bytes are missing at its end")

    def others(self, name: str, *, limit: int | None = None) -> Iterator[BinaryIO]:
        """Open an object once more, then its older contents where the bucket keeps versions and lets us see them."""
        with suppress(TooLong):
            yield self.open(name, limit=limit)
        for version in islice(self._versions(name, older=True, limit=limit), _MOST_VERSIONS):
            held = Held()
            try:
                self._fetch(name, held, version, limit)
            except Unreachable:  # it may be the good one: that is not known
                held.close()
                raise
            except StorageError:
                held.close()
                continue
            held.file.seek(0)
            yield held.file

    def _versions(self, name: str, *, older: bool = False, limit: int | None = None) -> Iterator[str]:
        """Yield the ids of the versions of a name, newest first; with ``older``, without the one that is opened."""
        refuse_name(name)
        key = self._key(name)
        try:
            for page in self._pages("list_object_versions", Prefix=key):
                for each in page.get("Versions", ()):
                    fits = limit is None or int(each["Size"]) <= limit
                    if each["Key"] == key and fits and not (older and each.get("IsLatest")):
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
