"""One request, one answer: yes, no, or nobody knows; and a list of what was put, until it is gone again."""

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Any

from edgedr.errors import ObjectMissing, StorageError, Unreachable
from edgedr.storage.pacing import Patience
from edgedr.storage.s3_client import S3Client
from edgedr.storage.s3_facts import Answer, Told
from edgedr.storage.s3_options import S3Options
from edgedr.storage.s3_trouble import Throttled, Unable, not_s3

YES = Told(Answer.YES)
_NO_VERSION = "null"
_PATIENCE = Patience(attempts=3, longest=5.0)
_ONCE = Patience(attempts=1)


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: the answer, its fields, and the error that it was."""

    told: Told
    fields: dict[str, Any] = field(default_factory=dict)
    error: StorageError | None = None

    @property
    def version(self) -> str | None:
        """The id of a version, where the server made one."""
        version = self.fields.get("VersionId")
        return None if version in {None, _NO_VERSION} else str(version)


class Asking:
    """Asks one bucket: with a credential, with what is taken for another one, or as nobody."""

    def __init__(self, options: S3Options, forged: S3Options) -> None:
        self.options = options
        self.root = f"{options.prefix}/" if options.prefix else ""
        self.ours = S3Client(options, _PATIENCE)
        self.forged = S3Client(forged, _ONCE)
        self.nobody = S3Client(options, _ONCE, unsigned=True)
        self.conditional = True
        self.made: dict[tuple[str, str | None], int] = {}
        """What was put and is still there: name and version, and its bytes."""

    def ask(self, operation: str, *, by: S3Client | None = None, **parameters: Any) -> Reply:
        """Ask for something. To be refused is an answer, and so is an error of the server's own; silence is none."""
        client, what = by or self.ours, self.options.url
        try:
            return Reply(YES, client.persist(lambda _: client.call(operation, what, **parameters)))
        except Unreachable as error:
            if not isinstance(error, Throttled):
                raise
            return Reply(Told(Answer.UNKNOWN, _said(error, what)), error=error)
        except (Unable, ObjectMissing) as error:
            return Reply(Told(Answer.UNKNOWN, _said(error, what)), error=error)
        except StorageError as error:
            return Reply(Told(Answer.NO, _said(error, what)), error=error)

    def put(self, key: str, data: bytes, *, by: S3Client | None = None, **more: Any) -> Reply:
        """Put as backups are put, but in place of whatever has that name."""
        checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
        kept = {
            "ServerSideEncryption": self.options.sse,
            "SSEKMSKeyId": self.options.kms_key,
            "StorageClass": self.options.storage_class,
        }
        more |= {name: value for name, value in kept.items() if value is not None}
        reply = self.ask("put_object", by=by, Key=key, Body=data, ChecksumSHA256=checksum, **more)
        if reply.told.yes:
            if "ETag" not in reply.fields:
                raise not_s3("put object", self.options.url, "its answer is no S3")
            self.made[key, reply.version] = len(data)
        return reply

    def put_new(self, key: str, data: bytes, *, by: S3Client | None = None, **more: Any) -> Reply:
        """Put with If-None-Match, unless the server does not take that at all."""
        condition = {"IfNoneMatch": "*"} if self.conditional else {}
        return self.put(key, data, by=by, **condition, **more)

    def put_retained(self, key: str, data: bytes, retention: dict[str, Any]) -> Reply:
        """Put what is to be kept for a while; S3 asks for another digest there."""
        digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        lock = {"ObjectLockMode": retention["Mode"], "ObjectLockRetainUntilDate": retention["RetainUntilDate"]}
        return self.put_new(key, data, ContentMD5=digest, **lock)

    def get(self, *, by: S3Client | None = None, **asked: Any) -> Reply:
        """Ask for an object, and take none of it."""
        reply = self.ask("get_object", by=by, **asked)
        if reply.told.yes:
            reply.fields["Body"].close()
        return reply

    def delete(self, key: str) -> Reply:
        """Delete a name. Where that makes a mark, the mark is one thing more that was made."""
        reply = self.ask("delete_object", Key=key)
        if reply.told.yes:
            if reply.version is not None:
                self.made[key, reply.version] = 0
            else:
                self.made.pop((key, None), None)
        return reply

    def delete_version(self, key: str, version: str | None) -> Reply:
        """Delete one version for good."""
        reply = self.ask("delete_object", Key=key, VersionId=version or _NO_VERSION)
        if reply.told.yes:
            self.made.pop((key, version), None)
        return reply

    def clean_up(self, *, versions: bool) -> None:
        """Take away what was put, as far as the credential may; with ``versions``, each version of it for good."""
        for key, version in list(self.made):
            if version is None:
                self.delete(key)
            elif versions:
                self.delete_version(key, version)


def _said(error: StorageError, what: str) -> str:
    """Return what the server said, without what we asked it for."""
    return error.message.partition(f"{what}: ")[2] or error.message
