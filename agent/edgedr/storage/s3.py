"""Objects in an S3 bucket: each one PUT with the hash of what it carries, never two that count under one name.

``put`` sends ``If-None-Match``; a server that honours it never overwrites, and one that does not is found out by
`edgedr doctor`. Nothing here relies on it: names hold random ids, and readers take what a manifest signs for.
"""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from enum import Enum, auto
from http import HTTPStatus
from typing import Any, BinaryIO

from edgedr.errors import ObjectExists, ObjectMissing, Refused, Unreachable
from edgedr.storage.base import ByteSink, Progress, is_same, nobody, refuse_name
from edgedr.storage.pacing import Patience, Throttle
from edgedr.storage.s3_bodies import Body, Held
from edgedr.storage.s3_options import S3Options
from edgedr.storage.s3_reading import S3Reader
from edgedr.storage.s3_trouble import Denied, Taken, Unable, not_s3

_HASH = "edgedr-sha256"
"""The metadata that says which bytes we sent: all that a retry compares, where it may look at all."""


class _There(Enum):
    NOTHING = auto()
    OURS = auto()
    OTHER = auto()
    UNSEEN = auto()


class S3Storage(S3Reader):
    """The objects below one prefix of a bucket. Threads may share it."""

    def __init__(
        self,
        options: S3Options,
        *,
        throttle: Throttle | None = None,
        patience: Patience | None = None,
        deleted: bool = False,
    ) -> None:
        super().__init__(options, patience=patience, deleted=deleted)
        self._throttle = throttle or Throttle(None)
        self._conditional = True
        self._blind = False

    @contextmanager
    def create(self, name: str) -> Iterator[ByteSink]:
        """Open a new object for writing; it travels when the block ends."""
        refuse_name(name)
        with closing(Held()) as held:
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
        body = Body(source, start, size, sha256, name, self._throttle, progress)

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

    def _send(self, name: str, body: Body, sha256: str) -> None:
        conditional = {"IfNoneMatch": "*"} if self._conditional else {}
        try:
            self._put(name, Body=body, ContentLength=body.size, **_marks(sha256), **conditional)
        except Unable:
            if not self._conditional:
                raise
            self._conditional = False  # it refuses what it does not know, instead of passing over it
            body.restart()
            self._send(name, body, sha256)

    def _put(self, name: str, **what: Any) -> None:
        """Make one PUT. That what is to be put is missing says nobody who knows S3."""
        try:
            reply = self.client.call("put_object", self._where(name), Key=self._key(name), **what, **self._kept_how())
        except ObjectMissing as error:
            hint = "something else answers there: look at `endpoint` and `url`"
            raise Refused(f"{error.message}, of something that was to be put", hint=hint) from error
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
        marks = _marks(hashlib.sha256(data).hexdigest())
        self.client.persist(lambda _: self._put(name, Body=data, **marks))

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


def _marks(sha256: str) -> dict[str, Any]:
    """Return what says which bytes these are: for the server to check, and for ourselves later."""
    return {
        "ChecksumAlgorithm": "SHA256",  # some servers ask for its name where Object Lock keeps what is put
        "ChecksumSHA256": base64.b64encode(bytes.fromhex(sha256)).decode(),
        "Metadata": {_HASH: sha256},
    }
