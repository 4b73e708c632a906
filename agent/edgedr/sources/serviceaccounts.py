"""Service accounts: what signs their tokens, accounts, roles, and Secrets, with the keys that seal those in etcd."""

import base64
import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgedr.account_summary import Bootstrap, Cluster, Token, account_of, binding_of, summary, token_of
from edgedr.encryption import EncryptionConfiguration, read_encryption
from edgedr.errors import SourceError
from edgedr.inventory import EntryKind, Inventory
from edgedr.kubernetes_yaml import ACCOUNT_KINDS, one_line
from edgedr.layouts import UNKNOWN
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.components import Component, components
from edgedr.node.files import Files, matches
from edgedr.node.kube import Kube, Object
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.pki import examine, public_keys
from edgedr.sources.base import Absent, Captured, Count, Document, Elsewhere, Fact, Lacking, TakePath
from edgedr.sources.documents import (
    KindDocument,
    Lacks,
    Room,
    place_documents,
    place_files,
    prove_documents,
    prove_files,
    prove_objects,
    take_documents,
)
from edgedr.steps import Step

_DIRECTORY = "serviceaccounts"
_KEY_FLAGS = ("service-account-key-file", "service-account-signing-key-file", "service-account-private-key-file")
_ENCRYPTION_FLAG = "encryption-provider-config"
_SIGNING_KEY, _ENCRYPTION_KEYS = "signing key ", "encryption keys "
_MAX_BYTES = Bytes(256 << 20)
"""What all documents of the source may have together: no cluster on one node's etcd has more of this."""
_NO_API = "no Kubernetes API is known on this node"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountsSource:
    """Take what tokens and Secrets hang on: files of the node, and objects of the cluster."""

    paths: tuple[str, ...] = ()
    """Further keys and credentials: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of the node's files: absolute paths or globs; a directory stands for all below it."""

    required: bool = False
    """Whether a backup without service accounts is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "serviceaccounts"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield files first, then a document for each kind, and a summary of it all. See ``Source``."""
        told, _ = components(node.files, node.layout)
        keys = self._chosen(node, (*node.layout.signing_keys, *_named(told, *_KEY_FLAGS)))
        sealed = self._chosen(node, (*filter(None, (node.layout.encryption,)), *_named(told, _ENCRYPTION_FLAG)))
        others = self._chosen(node, (*node.layout.credentials, *self.paths))
        paths = list(dict.fromkeys((*keys, *sealed, *others)))
        if not paths and (node.elsewhere or node.kube is None):
            yield _nothing(node)
            return
        yield from map(TakePath, paths)
        found = _Found(_fingerprints(node.files, keys), _configurations(node.files, sealed), _issuers(told))
        yield from found.facts()
        yield from self._doubts(node)
        cluster = Cluster()
        if node.elsewhere:
            cluster.missing = f"captured by {node.elsewhere}"
            yield Fact("cluster part", cluster.missing)
        elif node.kube is None:
            cluster.missing = _NO_API
            yield Lacking(_NO_API)
        else:
            yield from _take(node.kube, cluster, alone=not paths)
        text = summary(found.fingerprints, found.configurations, found.issuers, cluster)
        yield Document(f"{_DIRECTORY}/summary.txt", text.encode())

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files, and its documents for a person to apply. See ``Source``."""
        yield from place_files(self.name, inventory)
        yield from place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check files and documents, that keys are those of the capture, and that they pair. See ``Source``."""
        del artifacts  # all of it is in files and documents
        yield from prove_files(self.name, restored, inventory)
        yield from self._prove_keys(restored, inventory)
        yield from prove_documents(self.name, restored, inventory)
        yield from prove_objects(self.name, restored, inventory)

    def _chosen(self, node: Node, patterns: Iterable[str]) -> list[PurePosixPath]:
        found = node.files.expand(patterns)
        return [path for path in found if not any(matches(path, pattern) for pattern in self.exclude)]

    def _doubts(self, node: Node) -> Iterator[Finding]:
        for pattern in self.paths:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")

    def _prove_keys(self, restored: Path, inventory: Inventory) -> Iterator[Finding]:
        record = inventory.sources.get(self.name)
        files = Files(restored)
        sources = {entry.path: entry.source for entry in inventory.entries}
        contents: dict[PurePosixPath, bytes] = {}
        checked, bad = 0, False
        for fact, value in (record.facts if record else {}).items():
            kind = next((kind for kind in (_SIGNING_KEY, _ENCRYPTION_KEYS) if fact.startswith(kind)), None)
            if kind is None:
                continue
            path = PurePosixPath(fact.removeprefix(kind))
            content = files.contents(path)
            if content is None:
                if (finding := _lost(str(path), sources.get(str(path)), self.name)) is not None:
                    bad = bad or finding.severity is Severity.BAD
                    yield finding
            elif value != (_fingerprint(path, content) if kind == _SIGNING_KEY else _key_names(_read(content))):
                bad = True
                yield Finding(Severity.BAD, str(path), "has other keys than it had", "restore once more")
            else:
                checked += 1
                contents.update({path: content} if kind == _SIGNING_KEY else {})
        ledger = examine(contents, thorough=True)
        yield from ledger.findings
        if checked and not bad and not any(finding.severity is Severity.BAD for finding in ledger.findings):
            text = f"files with the keys that they had: {checked}, key pairs that fit: {ledger.paired}"
            yield Finding(Severity.GOOD, self.name, text)


@dataclass(frozen=True, slots=True)
class _Found:
    """What the node's files say: fingerprints of signing keys and encryption by path, and who issues tokens."""

    fingerprints: dict[str, str]
    configurations: dict[str, EncryptionConfiguration]
    issuers: tuple[str, ...]

    def facts(self) -> Iterator[Fact]:
        for path, fingerprint in self.fingerprints.items():
            yield Fact(_SIGNING_KEY + path, fingerprint)
        for path, configuration in self.configurations.items():
            yield Fact(_ENCRYPTION_KEYS + path, _key_names(configuration) or "none")
        if self.issuers:
            yield Fact("token issuer", ", ".join(self.issuers))


def _take(kube: Kube, cluster: Cluster, *, alone: bool) -> Iterator[Captured]:
    """Yield the documents, and fill ``cluster``. Raises ``SourceError`` if none can be had and they stand ``alone``."""
    readers: dict[str, Callable[[Object], object]] = {
        "ServiceAccount": account_of,
        "Secret": token_of,
        "RoleBinding": binding_of,
        "ClusterRoleBinding": binding_of,
    }
    room = Room(_MAX_BYTES)
    documents = {
        kind.kind: KindDocument[Any](kube, kind, room, note=readers.get(kind.kind, _nothing_of))
        for kind in ACCOUNT_KINDS
    }
    lacking = Lacks()
    yield from take_documents(_DIRECTORY, tuple(documents.values()), lacking)
    if alone and lacking.first and not any(document.done for document in documents.values()):
        raise SourceError(lacking.first)
    bindings = (documents["RoleBinding"], documents["ClusterRoleBinding"])
    cluster.accounts = documents["ServiceAccount"].notes
    cluster.tokens = [note for note in documents["Secret"].notes if isinstance(note, Token)]
    cluster.bootstraps = [note for note in documents["Secret"].notes if isinstance(note, Bootstrap)]
    cluster.bindings = [note for document in bindings for note in document.notes]
    cluster.missing = "; ".join((*lacking.reasons(), *_not_on_the_page(documents.values()))) or None
    if documents["ServiceAccount"].done:
        yield Count("accounts", documents["ServiceAccount"].objects)
    if documents["Secret"].done:
        yield Count("secrets", documents["Secret"].objects)
        yield Count("tokens", len(cluster.tokens))
    if all(document.done for document in bindings):
        yield Count("bindings", sum(document.objects for document in bindings))
    yield from map(Lacking, lacking.reasons())


def _not_on_the_page(documents: Iterable[KindDocument[Any]]) -> Iterator[str]:
    for document in documents:
        if document.notes_end:
            yield f"{document.kind.name}: only the first of them are on this page, all are in {document.name}"


def _nothing_of(item: Object) -> None:
    del item


def _nothing(node: Node) -> Captured:
    """Say why there is nothing to take."""
    if node.elsewhere:
        return Elsewhere(node.elsewhere)
    if node.layout is UNKNOWN:
        return Absent(f"no signing key is on this node, and {_NO_API}")
    raise SourceError(f"no signing key is on this node, and {_NO_API}", hint="set [kubernetes] kubeconfig")


def _named(told: Iterable[Component], *flags: str) -> Iterator[str]:
    """Yield the paths that some flags name, each as a pattern."""
    for each in told:
        yield from (glob.escape(path) for flag, path in each.named_paths() if flag in flags)


def _issuers(told: Iterable[Component]) -> tuple[str, ...]:
    found = (value for each in told for flag, value in each.flags if flag == "service-account-issuer" and value)
    return tuple(dict.fromkeys(map(one_line, found)))


def _contents(files: Files, paths: Iterable[PurePosixPath]) -> Iterator[tuple[PurePosixPath, bytes]]:
    for path in paths:
        seen = files.look(path)
        content = files.contents(path) if isinstance(seen, Seen) and seen.kind is EntryKind.FILE else None
        if content is not None:
            yield path, content


def _fingerprints(files: Files, paths: Iterable[PurePosixPath]) -> dict[str, str]:
    found = {str(path): _fingerprint(path, content) for path, content in _contents(files, paths)}
    return {path: fingerprint for path, fingerprint in found.items() if fingerprint}


def _fingerprint(path: PurePosixPath, content: bytes) -> str:
    """Return the SHA-256 of each public half in a file, as OpenSSH writes it."""
    digests = (hashlib.sha256(key).digest() for key in public_keys(path, content))
    return ", ".join(f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}" for digest in digests)


def _configurations(files: Files, paths: Iterable[PurePosixPath]) -> dict[str, EncryptionConfiguration]:
    found = {str(path): _read(content) for path, content in _contents(files, paths)}
    return {path: configuration for path, configuration in found.items() if configuration is not None}


def _read(content: bytes) -> EncryptionConfiguration | None:
    try:
        return read_encryption(content.decode())
    except ValueError:  # closure says what that means
        return None


def _key_names(configuration: EncryptionConfiguration | None) -> str | None:
    return None if configuration is None else ", ".join(configuration.keys()) or "none"


def _lost(path: str, owner: str | None, source: str) -> Finding | None:
    """Say why a key is not among what came back; nothing if that is said already."""
    if owner is None:
        return Finding(Severity.BAD, path, "is not in the backup", "take the key from an older backup")
    if owner == source:
        return None
    return Finding(Severity.WARN, path, f"came into the backup with {owner}, and was not restored")
