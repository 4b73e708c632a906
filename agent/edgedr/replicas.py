"""A replica, a further place that receives committed backups: its settings, their contradictions, and its opening."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from edgedr.credentials import Credential
from edgedr.decoding import shown
from edgedr.errors import ConfigurationError, Unreachable
from edgedr.model import NAME, Bytes
from edgedr.storage.base import Storage
from edgedr.storage.directory import DirectoryStorage
from edgedr.storage.s3_options import INSTANCE, SCHEME, S3Options, Style, parse_url, why_no_endpoint

_REGION = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_SSE = ("AES256", "aws:kms")
_MOST_AT_ONCE = 16
_MIN_RATE = 1 << 10


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """``[[replicas]]``: a bucket, or a directory on another disk."""

    name: str
    url: str
    """``s3://bucket/prefix``, or the path of a directory that exists."""
    endpoint: str | None = None
    region: str | None = None
    style: Style = Style.AUTO
    ca: str | None = None
    proxy: str | None = None
    credential: str | None = None
    sse: str | None = None
    kms_key: str | None = None
    storage_class: str | None = None
    timeout: timedelta = timedelta(seconds=60)
    bandwidth: Bytes | None = None
    """Bytes a second."""
    daily_budget: Bytes | None = None
    at_once: int = 2
    catch_up: timedelta = timedelta(hours=24)
    full_lifetime: timedelta | None = None
    delta_lifetime: timedelta | None = None
    same_disk: bool = False

    @property
    def is_bucket(self) -> bool:
        """Whether it is reached over a network, and may not let us look."""
        return self.url.startswith(SCHEME)

    @property
    def options(self) -> S3Options:
        """The bucket as S3 wants it."""
        bucket, prefix = parse_url(self.url)
        kept = None if self.credential in {None, INSTANCE} else Credential.parse(self.credential or "")
        return S3Options(
            bucket=bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            region=self.region,
            style=self.style,
            ca=Path(self.ca) if self.ca else None,
            proxy=self.proxy,
            credential=kept,
            sse=self.sse,
            kms_key=self.kms_key,
            storage_class=self.storage_class,
            timeout=self.timeout,
        )


def open_replica(replica: ReplicaSettings, *, repository: Path, keep_free: int) -> Storage:
    """Return where a replica's objects go. Raises ``Unreachable`` for a directory that is not there now.

    A directory on the repository's own disk is one whose disk is not mounted, unless ``same_disk`` says otherwise.
    """
    if replica.is_bucket:
        from edgedr.storage.pacing import Throttle  # noqa: PLC0415
        from edgedr.storage.s3 import S3Storage  # noqa: PLC0415 - with boto3

        return S3Storage(replica.options, throttle=Throttle(replica.bandwidth))
    path = Path(replica.url)
    try:
        there = path.is_dir()
        same = there and not replica.same_disk and os.stat(path).st_dev == _device(repository)  # noqa: PTH116
    except OSError as error:  # a disk that is dying, a share whose server is away
        raise Unreachable(
            f"{path} is not there: {error.strerror}", hint="look at the disk, and mount it anew"
        ) from error
    if not there:
        raise Unreachable(f"{path} is not there", hint="plug the disk in, mount it, and make the directory once")
    if same:
        raise Unreachable(
            f"{path} is on the same disk as the repository",
            hint="mount the other disk; `same_disk = true` if this is meant",
        )
    return DirectoryStorage(path, keep_free=keep_free)


def _device(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return path.stat().st_dev


def replica_problems(replicas: Sequence[ReplicaSettings], *, full_every: timedelta) -> Iterator[tuple[str, str]]:
    """Yield what cannot be meant: where, and what is wrong with it."""
    names: set[str] = set()
    for number, replica in enumerate(replicas, 1):
        where = f"replicas #{number}"
        if not NAME.fullmatch(replica.name):
            yield f"{where} name", f"{shown(replica.name)} is not a name: lower case letters, digits, dots and hyphens"
        elif replica.name in names:
            yield f"{where} name", f"{replica.name} is there twice"
        names.add(replica.name)
        yield from ((f"{where} {field}", text) for field, text in _place_problems(replica))
        yield from ((f"{where} {field}", text) for field, text in _manner_problems(replica))
        yield from ((f"{where} {field}", text) for field, text in _lifetime_problems(replica, full_every))


def _place_problems(replica: ReplicaSettings) -> Iterator[tuple[str, str]]:
    if replica.is_bucket:
        yield from _bucket_problems(replica)
        return
    if not replica.url.startswith("/") or ".." in Path(replica.url).parts:
        yield "url", "it is neither a bucket like s3://bucket/prefix nor the absolute path of a directory"
    for field in ("endpoint", "region", "ca", "proxy", "credential", "sse", "kms_key", "storage_class"):
        if getattr(replica, field) is not None:
            yield field, "it is for buckets; this replica is a directory"


def _bucket_problems(replica: ReplicaSettings) -> Iterator[tuple[str, str]]:
    try:
        parse_url(replica.url)
    except ConfigurationError as error:
        yield "url", f"{error.message} ({error.hint})"
    for field, plain in (("endpoint", False), ("proxy", True)):  # what goes through a proxy is TLS within
        text: str | None = getattr(replica, field)
        reason = None if text is None else why_no_endpoint(text.replace("http://", "https://", 1) if plain else text)
        if reason is not None:
            yield field, reason
    if replica.credential not in {None, INSTANCE}:
        try:
            Credential.parse(replica.credential or "")
        except ConfigurationError as error:
            yield "credential", f"{error.message} ({error.hint}; or {INSTANCE!r})"
    if replica.region is not None and not _REGION.fullmatch(replica.region):
        yield "region", "it is not the name of a region, like eu-central-1"
    if replica.ca is not None and not replica.ca.startswith("/"):
        yield "ca", "it is not an absolute path"
    if replica.sse is not None and replica.sse not in _SSE:
        yield "sse", f"it is none of {', '.join(_SSE)}"
    if replica.kms_key is not None and replica.sse != "aws:kms":
        yield "kms_key", 'it is used with sse = "aws:kms" only'


def _manner_problems(replica: ReplicaSettings) -> Iterator[tuple[str, str]]:
    if not 1 <= replica.at_once <= _MOST_AT_ONCE:
        yield "at_once", f"{replica.at_once} is not between 1 and {_MOST_AT_ONCE}"
    for field in ("bandwidth", "daily_budget"):
        value = getattr(replica, field)
        if value is not None and value < _MIN_RATE:
            yield field, "it is less than 1 KiB: nothing would ever arrive"
    if replica.daily_budget is not None and replica.catch_up < timedelta(days=1):
        yield "catch_up", "it is less than a day, and daily_budget counts by days: make it 24 h or more"


def _lifetime_problems(replica: ReplicaSettings, full_every: timedelta) -> Iterator[tuple[str, str]]:
    """See that a bucket's lifecycle rules never remove a full before a delta that needs it."""
    full, delta = replica.full_lifetime, replica.delta_lifetime
    if full is None and delta is None:
        return
    if full is None or delta is None:
        yield "full_lifetime" if full is None else "delta_lifetime", "it is missing: the two belong together"
        return
    least = delta + full_every + timedelta(days=2)  # buckets count in days, from midnight on, and remove with delay
    if full < least:
        days = -(-least // timedelta(days=1))
        yield "full_lifetime", f"deltas would outlive the full that they need: make it {days} d or more"
