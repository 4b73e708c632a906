"""DNS: the cluster's own, the zones that nameservers hold, what the node resolves with, and who owns which records."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from edgedr.errors import SourceError
from edgedr.external_dns import ExternalDns, external_dns
from edgedr.inventory import Inventory
from edgedr.kubernetes_yaml import cleaned, one_line, written
from edgedr.layouts import UNKNOWN
from edgedr.model import Finding, Severity
from edgedr.node.files import Files, matches
from edgedr.node.kube import Kube, KubeError, Object
from edgedr.node.node import Node
from edgedr.node.zonefile import Zone, read_zone
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, TakePath
from edgedr.sources.documents import (
    document_path,
    objects_fact,
    place_documents,
    place_files,
    prove_documents,
    prove_files,
    prove_objects,
)
from edgedr.steps import Step
from edgedr.zone_transfers import Answer, Transfer, ask_for_zones

_FILES = (
    *("/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/resolvconf"),
    *("/etc/systemd/resolved.conf", "/etc/systemd/resolved.conf.d", "/run/systemd/resolve/resolv.conf"),
    *("/etc/dnsmasq.conf", "/etc/dnsmasq.d", "/etc/coredns", "/etc/unbound", "/etc/powerdns", "/etc/pdns"),
    *("/etc/bind", "/var/lib/bind", "/var/cache/bind/K*", "/etc/named*", "/var/named/*.*", "/var/named/dynamic"),
    *("/etc/knot", "/var/lib/knot/*.zone", "/var/lib/knot/zones", "/var/lib/knot/keys/data.mdb", "/etc/nsd"),
)
"""What resolvers and nameservers are told, zone files and zone keys, where Debian, Red Hat and systemd have them."""

_CORE_DNS = "dns/coredns.yaml"
_CONFIG_MAPS = "/api/v1/namespaces/kube-system/configmaps"
_HELM_CHART = "chart-content-"  # of rke2: what its own files bring, not what was configured
_EXTERNAL_DNS = "dns/external-dns.yaml"
_DEPLOYMENTS = "/apis/apps/v1/deployments"
_EXTERNAL_DNS_HEAD = """\
# Which records each external-dns takes for its own, and what it does to them.
# Give it the same owner id, prefix and key after a restore, or it owns nothing.
# With the policy sync it deletes what the restored cluster does not know (yet):
# start it with upsert-only first.
"""
_CORE_DNS_HEAD = "# What the cluster's DNS is told.\n# Review, then: kubectl apply --server-side -f coredns.yaml\n"

_ZONE = "zone "
_ZONE_VALUE = re.compile(r"serial (\d{1,10}), (\d{1,10}) records from .*", re.ASCII)
_MAX_ZONE = 256 << 20  # bytes of a zone file: more than a transfer may be
_UNSAFE = re.compile(r"[^a-z0-9_.-]|^[.-]", re.ASCII)
_MAX_STEM = 200  # of the 255 bytes that a file's name may have
_MOST, _MOST_BYTES = 64, 8 << 20  # objects that are looked for, and signs of what is kept of them
_MAX_SUBSTITUTED = 16 << 20  # signs that variables in the arguments of a Deployment may become

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSource:
    """Take CoreDNS's configuration, zones, resolver and nameserver files, and what external-dns calls its own."""

    zone_files: tuple[str, ...] = ()
    """Further zone files, or files of nameservers: absolute paths or globs; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all these files: absolute paths or globs; a directory stands for all below it."""

    transfers: tuple[Transfer, ...] = ()
    """Zones to ask nameservers for."""

    max_records: int = 100_000
    """A zone with more records is not taken, and said to be lacking."""

    required: bool = False
    """Whether a backup without DNS is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "dns"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield files, CoreDNS's configuration, owners, zones, and what could not be had. See ``Source``."""
        yield from self._files(node)
        if node.elsewhere is not None:
            yield Fact("cluster part", f"captured by {node.elsewhere}")
            return
        if node.kube is not None:
            yield from _core_dns(node.kube)
            yield from _owners(node.kube)
        elif node.layout is not UNKNOWN:
            yield Lacking("CoreDNS, external-dns: no API server is known")
        if self.transfers:
            yield from self._zones()

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files and documents. See ``Source``."""
        yield from place_files(self.name, inventory)
        yield from place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check that files and documents are as they were, and that zones load as they were served. See ``Source``."""
        del artifacts  # all of it is in files and documents
        yield from prove_documents(self.name, restored, inventory)
        yield from prove_files(self.name, restored, inventory)
        yield from prove_objects(self.name, restored, inventory)
        record = inventory.sources.get(self.name)
        facts = record.facts if record else {}
        zones = {key.removeprefix(_ZONE): value for key, value in facts.items() if key.startswith(_ZONE)}
        yield from _prove_zones(Files(restored), zones)

    def _files(self, node: Node) -> Iterator[Captured]:
        try:
            found = node.files.expand((*_FILES, *self.zone_files))
        except SourceError as error:
            yield Lacking(f"files: {error.message}")
            return
        yield from (TakePath(path) for path in found if not any(matches(path, pattern) for pattern in self.exclude))
        for pattern in self.zone_files:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")

    def _zones(self) -> Iterator[Captured]:
        came: list[Zone] = []
        for answer in ask_for_zones(self.transfers, self.max_records):
            if answer.zone is None:
                yield Lacking("; ".join(answer.reasons))
            else:
                came.append(answer.zone)
                yield from _zone(answer.zone, answer)
        yield Count("zones", len(came))
        yield Count("records", sum(zone.records for zone in came))


def zone_member(zone: str) -> str:
    """Return the document of a zone: a safe name that no other zone has."""
    name = zone.rstrip(".")
    stem = _UNSAFE.sub("_", name)[:_MAX_STEM].rstrip(".") or "root"
    if stem != name:  # what was written otherwise could be another zone's name
        stem += f"-{hashlib.sha256(zone.encode()).hexdigest()[:8]}"
    return f"dns/zones/{stem}.zone"


def _zone(zone: Zone, answer: Answer) -> Iterator[Captured]:
    subject = f"{_ZONE}{zone.name}"
    yield Document(zone_member(zone.name), zone.text.encode())
    yield Fact(subject, f"serial {zone.serial}, {zone.records} records from {answer.server}")
    for reason in answer.reasons:
        yield Finding(Severity.WARN, subject, f"came from {answer.server}, but {reason}")
    if zone.outside:
        text = f"{zone.outside} records that {answer.server} sent with it are not of this zone, and were left out"
        yield Finding(Severity.WARN, subject, text)


@dataclass(slots=True)
class _Few(Generic[Found]):
    """The first of what is looked for in a list, by name: whoever can make objects can make many, and large ones.

    ``odd`` could not be read, ``more`` were too many or too large.
    """

    found: dict[str, Found] = field(default_factory=dict)
    size: int = 0
    odd: int = 0
    more: int = 0

    def add(self, name: str, each: Found, size: int) -> None:
        if len(self.found) < _MOST and self.size + size <= _MOST_BYTES:
            self.found[name] = each
            self.size += size
        else:
            self.more += 1

    def forget(self) -> None:
        self.found.clear()
        self.size = self.odd = self.more = 0

    def lacking(self, what: str) -> Iterator[Lacking]:
        if self.odd:
            yield Lacking(f"{what}: {self.odd} objects of it are malformed, too large, or nested too deeply")
        if self.more:
            yield Lacking(f"{what}: {self.more} objects of it are more than {_MOST}, or {_MOST_BYTES >> 20} MiB")


def _core_dns(kube: Kube) -> Iterator[Captured]:
    few = _Few[str]()

    def take(item: Object) -> None:
        if not _is_core_dns(item):
            return
        try:
            text = written(cleaned(item))
        except (ValueError, LookupError, TypeError, AttributeError):
            few.odd += 1
        else:
            few.add(item["metadata"]["name"], text, len(text))

    try:
        kube.scan(_CONFIG_MAPS, take, few.forget)
    except KubeError as error:
        yield Lacking(f"CoreDNS: {error.message}")
        return
    yield from few.lacking("CoreDNS")
    if few.found:
        texts = (f"---\n{few.found[name]}" for name in sorted(few.found))
        yield Document(_CORE_DNS, (_CORE_DNS_HEAD + "".join(texts)).encode())
        yield Fact(objects_fact(_CORE_DNS), str(len(few.found)))
    elif not few.odd and not few.more:
        yield Fact("CoreDNS", "no ConfigMap of it in kube-system")


def _is_core_dns(item: Object) -> bool:
    name = item["metadata"]["name"]
    data = item.get("data")
    if isinstance(data, dict) and "Corefile" in data:
        return True
    return name == "node-local-dns" or ("coredns" in name and not name.startswith(_HELM_CHART))


def _owners(kube: Kube) -> Iterator[Captured]:
    few = _Few[ExternalDns]()

    def take(item: Object) -> None:
        try:
            each = external_dns(item) if _is_modest(item) else None
        except (ValueError, RecursionError):
            few.odd += 1
        else:
            if each is not None:
                few.add(each.name, each, len(written(each.as_object())))

    try:
        kube.scan(_DEPLOYMENTS, take, few.forget)
    except KubeError as error:
        yield Lacking(f"external-dns: {error.message}")
        return
    yield from few.lacking("external-dns")
    found = [few.found[name] for name in sorted(few.found)]
    if not found:
        return
    text = written({each.name: each.as_object() for each in found}, as_given=True)
    yield Document(_EXTERNAL_DNS, (_EXTERNAL_DNS_HEAD + text).encode())
    owners = (f"{each.owner} ({each.name}, policy {each.policy})" for each in found)
    yield Fact("external-dns owner", one_line("; ".join(owners)))
    for each in found:
        if not each.has_own_id:
            text = "has no owner id of its own: it takes the records of every cluster without one for its own"
            yield Finding(Severity.WARN, one_line(each.name), text, "give it --txt-owner-id, once for all")


def _is_modest(deployment: Object) -> bool:
    """Tell whether a Deployment may be one of external-dns, and be read. ``ValueError``, ``RecursionError``: not read.

    A reference of four signs stands for a variable that may be as long as all of it, and there may be many.
    """
    text = json.dumps(deployment)
    if "external-dns" not in text:
        return False
    if len(text) * text.count("$(") > _MAX_SUBSTITUTED:
        raise ValueError("too large")
    return True


def _prove_zones(files: Files, zones: Mapping[str, str]) -> Iterator[Finding]:
    good = total = 0
    for name, value in zones.items():
        member = zone_member(name)
        text = files.text(document_path(member), limit=_MAX_ZONE)
        problem = _why_another(text, name, value) if text is not None else "was not restored"
        if problem:
            yield Finding(Severity.BAD, member, problem, "restore once more, into a new directory")
        else:
            good += 1
            total += int(value.split()[2])
    if good:
        yield Finding(Severity.GOOD, "zones", f"zones that load as captured: {good}, with {total} records")


def _why_another(text: str, name: str, value: str) -> str | None:
    """Say why a zone file is not the zone that was served; ``None`` if it is."""
    match = _ZONE_VALUE.fullmatch(value)
    if match is None:
        return "nothing is known of how it was served"
    try:
        zone = read_zone(text, name)
    except ValueError as error:
        return str(error)
    if (zone.serial, zone.records) != (int(match[1]), int(match[2])):
        return f"has serial {zone.serial} and {zone.records} records, not {match[1]} and {match[2]} as at capture"
    return None
