"""The configuration: a TOML file into frozen objects. Everything that is wrong is said at once, with "did you mean".

A section decodes into the object that does the work, so that a source's fields are its settings. Units are in the type:
durations are written like "24h" or "15 min", sizes like "64 MiB".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from edgedr.decoding import (
    Problem,
    Reading,
    decode,
    parse_table,
    read_table,
    refuse,
    shown,
    size_text,
    unknown,
    why_not_absolute,
)
from edgedr.errors import ConfigurationError
from edgedr.layouts import LAYOUTS, LayoutSettings
from edgedr.locations import NodeSettings, RepositorySettings, StateSettings, contradictions
from edgedr.model import Bytes
from edgedr.node.kube import KubeSettings
from edgedr.replicas import ReplicaSettings, replica_problems
from edgedr.repository.choice import ChainPolicy
from edgedr.sealing.recipients import Recipient, parse_recipient
from edgedr.sources.table import SOURCE_NAMES, SourceTable
from edgedr.zone_transfers import transfer_problems

_SEGMENT_MIN, _SEGMENT_MAX = 1 << 20, 1 << 30
_SEGMENT = Bytes(64 << 20)  # the largest whose deltas keep a worker below 256 MiB
_MAX_CHAIN = 10_000
_MAX_RATE, _MAX_PAGE = 1000, 5000
_ON_THE_NODE = (
    "[sources.etcd] ca",
    "[sources.etcd] cert",
    "[sources.etcd] key",
    "[sources.certificates] paths",
    "[sources.certificates] exclude",
    "[sources.files] include",
    "[sources.files] exclude",
    "[sources.serviceaccounts] paths",
    "[sources.serviceaccounts] exclude",
    "[sources.dns] zone_files",
    "[sources.dns] exclude",
    "[sources.addresses] include",
    "[sources.addresses] exclude",
    "[sources.machine] include",
    "[sources.machine] exclude",
    "[sources.sqlite] database",
    "[kubernetes] kubeconfig",
    *(f"[layout] {each.name}" for each in fields(LayoutSettings) if each.name != "name"),
)


@dataclass(frozen=True, slots=True)
class SealingSettings:
    """``[sealing]``: for whom backups are sealed, and in what pieces. Encryption has no off switch."""

    recipients: tuple[str, ...]
    segment: Bytes = _SEGMENT


@dataclass(frozen=True, slots=True)
class HeartbeatSettings:
    """``[heartbeat]``: how often this node is backed up, as its timer says, and who else is told that it lives."""

    backup_every: timedelta = timedelta(minutes=15)
    ping: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration."""

    node: NodeSettings
    sealing: SealingSettings
    repository: RepositorySettings = field(default_factory=RepositorySettings)
    state: StateSettings = field(default_factory=StateSettings)
    chain: ChainPolicy = field(default_factory=ChainPolicy)
    layout: LayoutSettings = field(default_factory=LayoutSettings)
    kubernetes: KubeSettings = field(default_factory=KubeSettings)
    sources: SourceTable = field(default_factory=SourceTable)
    replicas: tuple[ReplicaSettings, ...] = ()
    heartbeat: HeartbeatSettings = field(default_factory=HeartbeatSettings)

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """The recipients, parsed."""
        return tuple(parse_recipient(text) for text in self.sealing.recipients)


def load(path: Path) -> Settings:
    """Read and check a configuration file. Raises ``ConfigurationError`` that lists every problem."""
    table, where = read_table(path)
    return _settings(table, where)


def parse(data: bytes, where: str) -> Settings:
    """Read and check a configuration; ``where`` names it in errors."""
    return _settings(parse_table(data, where), where)


def _settings(table: dict[str, object], where: str) -> Settings:
    reading = Reading()
    settings = decode(Settings, table, "", reading)
    refuse([*reading.problems, *contradictions(reading.values), *_contradictions(reading.values)], where)
    assert isinstance(settings, Settings)
    return settings


def _contradictions(values: Mapping[str, Any]) -> Iterator[Problem]:
    if "[sealing] recipients" in values:
        yield from _recipient_problems(values["[sealing] recipients"])
    segment = values.get("[sealing] segment", _SEGMENT)
    if segment & (segment - 1) or not _SEGMENT_MIN <= segment <= _SEGMENT_MAX:
        yield Problem("[sealing] segment", f"{size_text(segment)} is not a power of two from 1 MiB to 1 GiB")
    deltas = values.get("[chain] max_chain", 0)
    if not 0 <= deltas <= _MAX_CHAIN:
        yield Problem("[chain] max_chain", f"{shown(deltas)} is not between 0 and {_MAX_CHAIN}")
    yield from _source_problems(values)
    yield from _etcd_problems(values)
    if values.get("[sources.dns] max_records", 1) < 1:
        yield Problem("[sources.dns] max_records", f"{shown(values['[sources.dns] max_records'])} is less than 1")
    yield from (Problem(*problem) for problem in transfer_problems(values.get("[sources.dns] transfers", ())))
    every = values.get("[chain] full_every", ChainPolicy().full_every)
    yield from (Problem(*problem) for problem in replica_problems(values.get("replicas", ()), full_every=every))
    yield from _heartbeat_problems(values)
    yield from _layout_problems(values)
    yield from _kubernetes_problems(values)


def _source_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    disabled = set(values.get("[sources] disabled", ()))
    for name in sorted(disabled - set(SOURCE_NAMES)):
        yield Problem("[sources] disabled", f"{shown(name)} is {unknown(name, dict.fromkeys(SOURCE_NAMES))}")
    left = [name for name in SOURCE_NAMES if name not in disabled]
    sure = [name for name in left if name != "sqlite"]  # required, but absent where the datastore is etcd
    if not left:
        yield Problem("[sources] disabled", "nothing would be left to back up")
    elif not any(values.get(f"[sources.{name}] required", True) for name in sure):
        text = f"nothing that is left is required ({', '.join(left)}), so that an empty backup would do: require one"
        yield Problem("[sources]", text)
    for place in _ON_THE_NODE:
        value = values.get(place) or ()
        for text in (value,) if isinstance(value, str) else value:
            reason = why_not_absolute(text)
            if reason:
                yield Problem(place, reason)


def _etcd_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    for endpoint in values.get("[sources.etcd] endpoints", ()):
        reason = _why_no_endpoint(endpoint)
        if reason:
            yield Problem("[sources.etcd] endpoints", reason)
    pair = {name: values.get(f"[sources.etcd] {name}", "") for name in ("cert", "key")}
    for name, other in (("cert", "key"), ("key", "cert")):
        if pair[name] is not None and pair[other] is None:
            yield Problem(f"[sources.etcd] {other}", f"it is missing: {name} is set, and they belong together")


def _heartbeat_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    ping = values.get("[heartbeat] ping")
    if ping is not None and not _is_https(ping):  # not shown: what stands in it lets others ping
        yield Problem("[heartbeat] ping", "it is not a URL that begins with https://")


def _layout_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    names = [layout.name for layout in LAYOUTS]
    name = values.get("[layout] name")
    if name is not None and name not in names:
        yield Problem("[layout] name", f"{shown(name)} is none of {', '.join(names)}")


def _kubernetes_problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    for name, most in (("requests_per_second", _MAX_RATE), ("page", _MAX_PAGE)):
        value = values.get(f"[kubernetes] {name}", 1)
        if not 1 <= value <= most:
            yield Problem(f"[kubernetes] {name}", f"{shown(value)} is not between 1 and {most}")
    server = values.get("[kubernetes] server")
    if server is not None and "@" in server:  # not shown: a password may stand before it
        yield Problem("[kubernetes] server", "a user or a password is in it: the kubeconfig says who asks")
    elif server is not None and not _is_https(server):
        yield Problem("[kubernetes] server", f"{shown(server)} is not a URL like https://127.0.0.1:6443")


def _is_https(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme == "https" and bool(url.hostname) and (url.port or 443) > 0
    except ValueError:
        return False


def _why_no_endpoint(text: str) -> str | None:
    if "@" in text:  # not shown: a password may stand before it
        return "a user or a password is in it: etcd is asked with a client certificate only"
    try:
        url = urlsplit(text)
        if url.scheme in {"http", "https"} and url.hostname and url.port and text.endswith(url.netloc):
            return None
    except ValueError:
        pass
    return f"{shown(text)} is not a URL of a member: write it like https://127.0.0.1:2379, with the port"


def _recipient_problems(recipients: tuple[str, ...]) -> Iterator[Problem]:
    where = "[sealing] recipients"
    if not recipients:
        yield Problem(where, "there is none; encryption has no off switch and there is no default key")
    seen = set()
    for text in recipients:
        try:
            recipient = parse_recipient(text)
        except ConfigurationError as error:
            yield Problem(where, f"{error.message} ({error.hint})")
            continue
        if recipient.fingerprint in seen:
            yield Problem(where, f"{recipient} is there twice")
        seen.add(recipient.fingerprint)
