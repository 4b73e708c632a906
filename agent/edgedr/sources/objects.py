"""Cluster objects: every kind that the API server can list, as YAML that one can apply after review."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from edgedr.errors import SourceError
from edgedr.inventory import Inventory
from edgedr.kubernetes_yaml import is_account_kind
from edgedr.layouts import UNKNOWN
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.kube import Kind, Kube, Object
from edgedr.node.node import Node
from edgedr.sources.base import Absent, Captured, Count, Document, Elsewhere, Lacking
from edgedr.sources.documents import (
    KindDocument,
    Lacks,
    Room,
    place_documents,
    prove_documents,
    prove_objects,
    take_documents,
)
from edgedr.steps import Step

_DIRECTORY = "kubernetes"
CONTENTS = f"{_DIRECTORY}/contents.txt"
"""The document that says what is in the others."""

DERIVED_KINDS = (
    "*.metrics.k8s.io",  # measurements
    "certificatesigningrequests.certificates.k8s.io",  # gone after an hour
    "componentstatuses",
    "controllerrevisions.apps",
    "csinodes.storage.k8s.io",  # each node's kubelet makes its own
    "csistoragecapacities.storage.k8s.io",
    "endpoints",
    "endpointslices.discovery.k8s.io",
    "events",
    "events.events.k8s.io",
    "ipaddresses.networking.k8s.io",  # follow from Services; the addresses source lists them
    "leases.coordination.k8s.io",
    "resourceslices.resource.k8s.io",
    "volumeattachments.storage.k8s.io",
)
"""Kinds whose objects a cluster makes anew from others, or that say what was going on at one moment."""

_MAX_BYTES = Bytes(256 << 20)

_HEAD = """\
Objects of the cluster, as YAML
===============================

One document per kind, KIND.yaml, its objects by namespace and name.
Secrets, service accounts and RBAC are in ../serviceaccounts.

The etcd snapshot brings all of this back at once. These documents are for
reading, for comparing, and for putting single things back:

  kubectl apply --server-side -f KIND.yaml

Review first. Into an empty cluster: namespaces and custom resource definitions
before the rest. Left out of each object is what a cluster sets itself: status,
uid, resource version, owners, and who manages which field.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectsSource:
    """Take every object of every kind, but for what a cluster makes anew from others."""

    exclude: tuple[str, ...] = DERIVED_KINDS
    """Kinds to leave out, as kubectl writes them, or globs: ``events``, ``*.metrics.k8s.io``."""

    include_kinds: tuple[str, ...] = ()
    """Kinds to take although ``exclude`` names them, written in the same way."""

    derived: bool = False
    """Whether to take objects, too, that a controller makes anew: those with an owner that is taken itself, as a
    Deployment's pods, and those that Kubernetes makes by itself, as ``kube-root-ca.crt``."""

    max_bytes: Bytes = _MAX_BYTES
    """What all documents of objects may have together. A kind that does not fit in any more is said to be lacking."""

    required: bool = False
    """Whether a backup without cluster objects is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "objects"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield a document for each kind, what could not be read, and what is in it all. See ``Source``."""
        if node.elsewhere:
            yield Elsewhere(node.elsewhere)
            return
        if node.kube is None:
            if node.layout is not UNKNOWN:
                raise SourceError("no Kubernetes API is known on this node", hint="set [kubernetes] kubeconfig")
            yield Absent("no Kubernetes API is known on this node")
            return
        yield from self._take(node.kube)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its documents, for a person to apply. See ``Source``."""
        return place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Check that the documents are as written, that they parse, and how many objects there are. See ``Source``."""
        del artifacts  # all of it is in documents
        yield from prove_documents(self.name, restored, inventory)
        yield from prove_objects(self.name, restored, inventory)

    def _take(self, kube: Kube) -> Iterator[Captured]:
        kinds = kube.kinds()
        wanted = [kind for kind in kinds.listable if not is_account_kind(kind) and self._wants(kind.name)]
        lacking = Lacks()
        for group, reason in kinds.broken:
            if self._wants(f"*.{group.partition('/')[0]}"):
                lacking.add(f"the kinds of {group.strip('/')}", reason)
        taken = frozenset((kind.group, kind.kind) for kind in wanted)
        room = Room(self.max_bytes, "[sources.objects] max_bytes")
        by_name: dict[str, KindDocument[None]] = {}
        for kind in wanted:
            if kind.name in by_name:
                lacking.add(f"{kind.plural} of {kind.group}", "another kind has the same name")
                continue
            by_name[kind.name] = KindDocument(kube, kind, room, keep=_Choice(kind, taken, derived=self.derived).keep)
        documents = tuple(by_name.values())
        yield from take_documents(_DIRECTORY, documents, lacking)
        read = [document for document in documents if document.done]
        if not read and any(document.error for document in documents):
            raise SourceError(f"no kind could be read: {lacking.first}")
        yield Document(CONTENTS, _contents(documents, self._left_out(kinds.listable), lacking).encode())
        yield Count("objects", sum(document.objects for document in read))
        yield Count("kinds", len(read))
        yield from (Lacking(reason) for reason in lacking.reasons())
        yield from self._doubts(kinds.listable)

    def _wants(self, name: str) -> bool:
        if any(fnmatchcase(name, pattern) for pattern in self.include_kinds):
            return True
        return not any(fnmatchcase(name, pattern) for pattern in self.exclude)

    def _left_out(self, listable: Iterable[Kind]) -> list[str]:
        return [kind.name for kind in listable if not is_account_kind(kind) and not self._wants(kind.name)]

    def _doubts(self, listable: Iterable[Kind]) -> Iterator[Finding]:
        names = [kind.name for kind in listable]
        for pattern in self.include_kinds:
            if not any(fnmatchcase(name, pattern) for name in names):
                yield Finding(Severity.WARN, pattern, "is configured, but the API server has no such kind")


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which objects of a kind to keep. ``taken`` are the groups and kinds that are captured."""

    kind: Kind
    taken: frozenset[tuple[str, str]]
    derived: bool

    def keep(self, item: Object) -> bool:
        return self.derived or not (self._is_owned(item) or self._is_automatic(item))

    def _is_owned(self, item: Object) -> bool:
        for owner in item["metadata"].get("ownerReferences") or ():
            if not owner.get("controller"):
                continue
            group, _, _ = str(owner.get("apiVersion") or "").rpartition("/")
            # a claim stands for data: only one that lives and dies with a pod is made anew as it was
            if self.kind.name == "persistentvolumeclaims" and owner.get("kind") != "Pod":
                return False
            return (group, owner.get("kind")) in self.taken
        return False

    def _is_automatic(self, item: Object) -> bool:
        metadata = item["metadata"]
        match self.kind.name:
            case "configmaps":
                return bool(metadata.get("name") == "kube-root-ca.crt")
            case "apiservices.apiregistration.k8s.io":
                return "kube-aggregator.kubernetes.io/automanaged" in (metadata.get("labels") or {})
            case (
                "flowschemas.flowcontrol.apiserver.k8s.io" | "prioritylevelconfigurations.flowcontrol.apiserver.k8s.io"
            ):
                annotations = metadata.get("annotations") or {}
                return bool(annotations.get("apf.kubernetes.io/autoupdate-spec") == "true")
        return False


def _contents(documents: Iterable[KindDocument[None]], left_out: list[str], lacking: Lacks) -> str:
    lines = [_HEAD, f"{'objects':>7} {'left out':>8}  kind"]
    empty = []
    for document in documents:
        if document.objects or document.left_out or not document.done:
            numbers = f"{document.objects:7} {document.left_out:8}" if document.done else f"{'?':>7} {'?':>8}"
            lines.append(f"{numbers}  {document.kind.name}")
        else:
            empty.append(document.kind.name)
    lines += ["", "What is left out is made anew by its owner, or by Kubernetes itself."]
    for title, names in (("Kinds without objects", empty), ("Kinds left out by configuration", left_out)):
        if names:
            lines += ["", f"{title}:", _wrapped(", ".join(names))]
    reasons = list(lacking.reasons())
    if reasons:
        lines += ["", "What could not be read:", *map(_wrapped, reasons)]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, 79, initial_indent="  ", subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
