"""Certificates, their keys, and the kubeconfigs that carry some: what a cluster's identity is made of."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath

from edgedr.errors import SourceError
from edgedr.inventory import EntryKind, Inventory
from edgedr.layouts import why_unknown
from edgedr.model import Finding, Severity
from edgedr.node.files import Files, matches
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.pki import Ledger, examine
from edgedr.sources.base import Captured, Count, Document, Fact, TakePath
from edgedr.sources.documents import place_documents, prove_documents
from edgedr.steps import PlaceFiles, Step

FIRST_TO_EXPIRE = "first to expire"
"""The fact that names the certificate with the earliest end."""

_WIDTH = 80
_PKI = "/etc/kubernetes/pki"
_KUBEADM_NAMES = {
    **{f"{_PKI}/{name}.crt": name for name in ("apiserver", "apiserver-etcd-client", "apiserver-kubelet-client")},
    f"{_PKI}/front-proxy-client.crt": "front-proxy-client",
    **{f"{_PKI}/etcd/{name}.crt": f"etcd-{name}" for name in ("server", "peer", "healthcheck-client")},
    **{f"/etc/kubernetes/{name}.conf": f"{name}.conf" for name in ("admin", "super-admin")},
    **{f"/etc/kubernetes/{name}.conf": f"{name}.conf" for name in ("controller-manager", "scheduler")},
}
"""What `kubeadm certs renew` calls each certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificatesSource:
    """Take the PKI trees and kubeconfigs of the layout, and know what is in them."""

    paths: tuple[str, ...] = ()
    """Further certificates and keys: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    warn_before: timedelta = timedelta(days=90)
    """Certificates that expire within this time are warned of: as long as backups are kept, or longer."""

    required: bool = True
    """Whether a backup without certificates is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "certificates"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the paths, a ledger of every certificate, and what is wrong or missing. See ``Source``."""
        paths = [
            path
            for path in node.files.expand((*node.layout.certificates, *self.paths))
            if not any(matches(path, pattern) for pattern in self.exclude)
        ]
        ledger = examine(_contents(node.files, paths), thorough=False)
        if not ledger.certificates:
            raise self._none(node)
        yield from map(TakePath, paths)
        yield from _facts(ledger)
        yield Document("certificates/ledger.txt", _readable(ledger).encode())
        yield Document("certificates/ledger.json", _data(ledger))
        yield Count("certificates", len(ledger.certificates))
        yield Count("keys", ledger.keys)
        yield from ledger.findings
        yield from self._doubts(node, ledger)
        yield from self._expiring(node, ledger)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files and its ledger. See ``Source``."""
        if any(entry.source == self.name for entry in inventory.entries):
            yield PlaceFiles(self.name)
        yield from place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check that they parse, that keys fit, and that authorities signed what they should. See ``Source``."""
        del artifacts  # all of it is in files
        yield from prove_documents(self.name, restored, inventory)
        files = Files(restored)
        kinds = {EntryKind.FILE, EntryKind.HARDLINK}
        entries = [entry for entry in inventory.entries if entry.source == self.name and entry.kind in kinds]
        if not entries:
            return
        paths = [PurePosixPath(entry.path) for entry in entries]
        contents = _contents(files, paths)
        lost = [path for path in paths if path not in contents and not files.exists(path)]
        for path in lost:
            yield Finding(Severity.BAD, str(path), "was not restored", "restore once more, into a new directory")
        ledger = examine(contents, thorough=True)
        yield from ledger.findings
        if not lost and not any(finding.severity is Severity.BAD for finding in ledger.findings):
            held = (
                _number(len(ledger.certificates), "certificate parses", "certificates parse"),
                _number(ledger.paired, "key pair fits", "key pairs fit"),
                _number(ledger.chained, "signature of an authority holds", "signatures of authorities hold"),
            )
            yield Finding(Severity.GOOD, self.name, ", ".join(held))

    def _none(self, node: Node) -> SourceError:
        places = ", ".join((*node.layout.certificates, *self.paths))
        looked = f": {places}" if places else ""
        reason = f"; {why_unknown(node.root)}" if not node.layout.is_known else ""
        return SourceError(
            f"there is no certificate on this node where one is expected{looked}{reason}",
            hint="name where they are: [sources.certificates] paths; or where the node's / is: [node] root",
        )

    def _doubts(self, node: Node, ledger: Ledger) -> Iterator[Finding]:
        if not any(issued.is_authority for issued in ledger.certificates):
            text = "there are certificates, but no authority among them"
            yield Finding(Severity.BAD, self.name, text, "know where the authority is kept, or name its path")
        for pattern in self.paths:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")

    def _expiring(self, node: Node, ledger: Ledger) -> Iterator[Finding]:
        """Warn of what is, or soon will be, of no use to a restore; dates are absolute, so that a backup stays true."""
        if node.now is None:
            return
        for issued in ledger.certificates:
            if issued.not_after <= node.now:
                text = f"expired on {issued.not_after:%Y-%m-%d}"
                yield Finding(Severity.BAD, str(issued.path), text, _renewal(node, issued.path))
        soon = [i for i in ledger.certificates if node.now < i.not_after <= node.now + self.warn_before]
        if soon:
            first = min(soon, key=lambda issued: (issued.not_after, issued.path))
            others = f", and {len(soon) - 1} more by {max(i.not_after for i in soon):%Y-%m-%d}" if len(soon) > 1 else ""
            text = f"expires on {first.not_after:%Y-%m-%d}{others}"
            yield Finding(Severity.WARN, str(first.path), text, _renewal(node, first.path))


def _number(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _renewal(node: Node, path: PurePosixPath) -> str:
    """Say how a certificate is renewed there."""
    if node.layout.name in {"k3s", "rke2"}:
        return f"restart {node.layout.name}: it renews what is about to expire when it starts"
    name = _KUBEADM_NAMES.get(str(path))
    return f"kubeadm certs renew {name}" if name else "renew it, then back up again"


def _readable(ledger: Ledger) -> str:
    """Write the ledger for people: a paragraph for each certificate, by path."""
    keys = {other: f"{path} {'fits' if fits else 'DOES NOT FIT'}" for path, other, fits in ledger.pairs}
    leaves = {issued.path for issued in ledger.certificates if not issued.is_authority}
    first = ledger.first_to_expire
    lines = [f"certificates: {len(ledger.certificates)}, keys: {ledger.keys}"]
    if first is not None:
        lines.append(f"first to expire: {first.path}, {first.not_after:%Y-%m-%d}")
    for issued in ledger.certificates:
        kind = "authority" if issued.is_authority else "leaf"
        lines += ["", str(issued.path)]
        facts = {
            "subject": issued.subject,
            "issuer": issued.issuer,
            "kind": f"{kind}, bound to its host" if issued.is_host_bound else kind,
            "valid": f"{issued.not_before:%Y-%m-%dT%H:%M:%SZ} to {issued.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "names": ", ".join(issued.names),
            "key": "" if issued.is_authority and issued.path in leaves else keys.get(issued.path, ""),
            "serial": issued.serial,
            "sha256": issued.fingerprint,
        }
        for label, fact in facts.items():
            lines += _paragraph(label, fact) if fact else []
    return "\n".join(lines) + "\n"


def _paragraph(label: str, fact: str) -> list[str]:
    rows = textwrap.wrap(fact, _WIDTH - 11, break_long_words=False, break_on_hyphens=False)
    return [f"  {label if number == 0 else '':<8} {row}" for number, row in enumerate(rows)]


def _data(ledger: Ledger) -> bytes:
    """Write the ledger for programs."""
    keys = {other: (path, fits) for path, other, fits in ledger.pairs}
    rows = [
        {
            "path": str(issued.path),
            "subject": issued.subject,
            "issuer": issued.issuer,
            "serial": issued.serial,
            "not_before": f"{issued.not_before:%Y-%m-%dT%H:%M:%SZ}",
            "not_after": f"{issued.not_after:%Y-%m-%dT%H:%M:%SZ}",
            "authority": issued.is_authority,
            "host_bound": issued.is_host_bound,
            "names": list(issued.names),
            "sha256": issued.fingerprint,
            "key": str(keys[issued.path][0]) if issued.path in keys else None,
            "key_fits": keys[issued.path][1] if issued.path in keys else None,
        }
        for issued in ledger.certificates
    ]
    return json.dumps(rows, indent=1, ensure_ascii=True).encode() + b"\n"


def _contents(files: Files, paths: Iterable[PurePosixPath]) -> dict[PurePosixPath, bytes]:
    """Read the regular files among ``paths``; one that is linked to is among them itself."""
    contents = {}
    for path in paths:
        seen = files.look(path)
        content = files.contents(path) if isinstance(seen, Seen) and seen.kind is EntryKind.FILE else None
        if content is not None:
            contents[path] = content
    return contents


def _facts(ledger: Ledger) -> Iterator[Fact]:
    counted: dict[PurePosixPath, int] = {}
    for issued in ledger.certificates:
        number = counted[issued.path] = counted.get(issued.path, 0) + 1
        yield Fact(f"certificate {issued.path}" + (f" #{number}" if number > 1 else ""), str(issued))
    first = ledger.first_to_expire
    if first is not None:
        yield Fact(FIRST_TO_EXPIRE, f"{first.path} {first.not_after:%Y-%m-%dT%H:%M:%SZ}")
