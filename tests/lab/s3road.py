"""The way to a bucket: storages on real servers, and one whose way leads through a proxy that breaks what a test names.

A storage's client takes longer to make than most tests run, so the storages of one bucket share it, each below a prefix
of its own.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import botocore.loaders  # type: ignore[import-untyped,unused-ignore]
import botocore.session  # type: ignore[import-untyped,unused-ignore]
import pytest

from edgedr.credentials import Credential
from edgedr.storage import s3_client
from edgedr.storage.pacing import Patience
from edgedr.storage.s3 import S3Storage
from edgedr.storage.s3_client import S3Client
from edgedr.storage.s3_options import S3Options, Style
from tests.lab.policies import PREFIX, tenant
from tests.lab.s3faults import Faults, Request
from tests.lab.s3proxy import S3Proxy
from tests.lab.s3servers import Ceph, S3Server

PATIENCE = Patience(attempts=4, longest=8.0)
EAGER = Patience(attempts=3, longest=0.01)
_LOADER = botocore.loaders.create_loader()


def options(server: S3Server, bucket: str, **changes: Any) -> S3Options:
    """Return the administrator's way to a bucket, below a new prefix."""
    credential = key_file(server.directory / "key", server.access_key, server.secret_key)
    there = S3Options(bucket, fresh_prefix(), server.endpoint, ca=server.ca, style=Style.PATH, credential=credential)
    return replace(there, **changes)


def key_file(path: Path, *key: str) -> Credential:
    """Write a key where a credential refers to it."""
    path.write_text(":".join(key))
    return Credential.parse(f"file:{path}")


def fresh_prefix() -> str:
    """Return a prefix that nothing is below."""
    return f"edge-{secrets.token_hex(4)}"


def shared(client: S3Client, prefix: str, **changes: Any) -> S3Storage:
    """Return a storage below a prefix, with a client that others have, too."""
    storage = S3Storage(replace(client.options, prefix=prefix), **changes)
    storage.client = client
    return storage


@dataclass
class Road:
    """Two storages of one place: ``storage`` is reached through the proxy, ``past`` is not, and shows what is there."""

    proxy: S3Proxy
    storage: S3Storage
    past: S3Storage

    def breaks(self, faults: Faults) -> None:
        """Let this happen to requests from now on; those so far are forgotten."""
        self.proxy.faults = faults
        self.proxy.requests.clear()

    def seen(self, method: str, name: str = "") -> list[Request]:
        """Return the requests of a method, for what ends with that name."""
        return [each for each in self.proxy.requests if each.method == method and each.path.endswith(name)]


class Junction:
    """One bucket behind one proxy; each test takes a road of its own from here."""

    def __init__(self, server: S3Server, proxy: S3Proxy) -> None:
        self.proxy = proxy
        self.direct = S3Client(options(server, server.bucket()))
        self.through = S3Client(by_way_of(proxy, self.direct.options), PATIENCE)

    @contextmanager
    def road(self) -> Iterator[Road]:
        """Give a road without faults to an empty place."""
        prefix = fresh_prefix()
        made = Road(self.proxy, shared(self.through, prefix), shared(self.direct, prefix))
        made.breaks(lambda _: None)
        yield made
        made.breaks(lambda _: None)


@contextmanager
def junction(server: S3Server) -> Iterator[Junction]:
    """Make a bucket, and a proxy on the way to it."""
    with S3Proxy(server.endpoint, server.ca) as proxy:
        yield Junction(server, proxy)


def by_way_of(proxy: S3Proxy, there: S3Options, **changes: Any) -> S3Options:
    """Return the same place, by way of the proxy."""
    return replace(there, endpoint=proxy.endpoint, ca=proxy.ca, **changes)


def node_road(proxy: S3Proxy, ceph: Ceph, *, locked: bool) -> Road:
    """Return the road of a node that may only put, as the shipped policy says; a monitor looks past it."""
    there = tenant(ceph, locked=locked, roles=("node", "monitor"))
    node, monitor = (
        options(ceph, there.bucket, prefix=PREFIX, credential=key_file(ceph.directory / f"{role}-{there.bucket}", *key))
        for role, key in ((role, there.keys[role]) for role in ("node", "monitor"))
    )
    made = Road(proxy, S3Storage(by_way_of(proxy, node), patience=PATIENCE), S3Storage(monitor))
    made.breaks(lambda _: None)
    return made


def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the list that the clients' waits are written to from now on, instead of being waited for."""
    found: list[float] = []
    monkeypatch.setattr(s3_client, "time", SimpleNamespace(sleep=found.append))
    return found


def as_replica(there: S3Options, name: str = "far", **more: str | int) -> str:
    """Write a place as a configuration has it."""
    fields = {
        "name": name,
        "url": there.url,
        "endpoint": there.endpoint,
        "ca": str(there.ca),
        "style": str(there.style),
        "credential": str(there.credential),
        **more,
    }
    return "\n[[replicas]]\n" + "".join(f"{field} = {json.dumps(value)}\n" for field, value in fields.items())


def light_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all clients of this process, and of its forks, read boto3's descriptions of S3 once."""
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: _LOADER)
