"""Where a bucket is, and how it is asked: values, checked without any client."""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from edgedr.credentials import Credential
from edgedr.errors import ConfigurationError

SCHEME = "s3://"
INSTANCE = "instance-role"
"""The credential of the machine: whatever boto3 finds by itself (environment, ~/.aws, container, instance)."""

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", re.ASCII)
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Style(StrEnum):
    """Whether the bucket is part of the path or of the host name; ``auto`` leaves it to boto3."""

    AUTO = "auto"
    PATH = "path"
    VIRTUAL = "virtual"


@dataclass(frozen=True, slots=True)
class S3Options:
    """A bucket, the prefix below which our names are, and all that it takes to talk to it.

    ``credential`` is where the key is kept; ``None`` leaves it to boto3: environment,
    ``~/.aws``, or the machine's role.
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    style: Style = Style.AUTO
    ca: Path | None = None
    proxy: str | None = None
    credential: Credential | None = None
    sse: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    timeout: timedelta = timedelta(seconds=60)

    @property
    def url(self) -> str:
        """What people call it."""
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")


def parse_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix``. Raises ``ConfigurationError``."""
    bucket, _, prefix = url.removeprefix(SCHEME).partition("/")
    prefix = prefix.rstrip("/")
    if not url.startswith(SCHEME) or not _BUCKET.fullmatch(bucket):
        hint = "write it like s3://bucket/prefix; the bucket is 3 to 63 lower case letters, digits, dots, hyphens"
        raise ConfigurationError("it is not a URL of a bucket", hint=hint)
    if prefix and not all(_PART.fullmatch(part) for part in prefix.split("/")):
        hint = "parts of a prefix are letters, digits, dots, hyphens and underscores, as in s3://bucket/edge"
        raise ConfigurationError("its prefix cannot be used", hint=hint)
    return bucket, prefix


def why_no_endpoint(text: str) -> str | None:
    """Say why a text is no endpoint or proxy that may be used; ``None`` if it is one. TLS is never left out."""
    if "@" in text:  # not shown: a password may stand before it
        return "a user or a password is in it"
    try:
        url = urlsplit(text)
        local = (url.hostname or "") in _LOOPBACK
        bare = url.path in {"", "/"} and not url.query and not url.fragment
        if url.hostname and (url.port is None or url.port > 0) and bare:
            if url.scheme == "https" or (url.scheme == "http" and local):
                return None
            if url.scheme == "http":
                return "it is not https; `ca` names a private authority"
    except ValueError:
        pass
    return "it is not a URL like https://s3.example.net:9000"
