"""Objects of a cluster as YAML that one can review and apply: cleaned, written as they are read, and counted again.

One document per kind, its objects parted by ``---``, in the order of the server: by namespace and name. What is read
back from the YAML of an object is the cleaned object, to the last byte of each string.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Generic, TypeVar

from edgedr.node.kube import Kind, Kube, KubeError, Object
from edgedr.storage.base import Spool

Note = TypeVar("Note")

ACCOUNT_KINDS = (
    Kind("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True),
    Kind("", "v1", "secrets", "Secret", namespaced=True),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role", namespaced=True),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", namespaced=True),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
)
"""What belongs to service accounts: in no other document."""

_OF_THE_SERVER = frozenset({
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "ownerReferences",  # by uid: the garbage collector of a new cluster would delete what has an unknown owner
    "resourceVersion",
    "selfLink",
    "uid",
})  # fmt: skip
_OF_CONTROLLERS = frozenset({
    "control-plane.alpha.kubernetes.io/leader",  # renewed every few seconds
    "kubectl.kubernetes.io/last-applied-configuration",  # the object once more
    "kubernetes.io/service-account.uid",
    "pv.kubernetes.io/bind-completed",  # with it, a claim whose volume knows no uid is "Lost"
    "pv.kubernetes.io/bound-by-controller",
})  # fmt: skip
_OF_JOBS = frozenset({"controller-uid", "batch.kubernetes.io/controller-uid"})
_JOB = ("batch/v1", "Job")
_OF_KINDS: dict[tuple[str, str], tuple[tuple[tuple[str, ...], frozenset[str]], ...]] = {
    ("v1", "PersistentVolume"): ((("spec", "claimRef"), frozenset({"uid", "resourceVersion"})),),
    ("v1", "Pod"): ((("spec",), frozenset({"nodeName"})),),
    _JOB: (
        (("spec",), frozenset({"selector"})),
        (("spec", "template", "metadata", "labels"), _OF_JOBS),
        (("metadata", "labels"), _OF_JOBS),
    ),
}
"""Where else a kind holds what only its cluster can set, and what that is."""

_SEPARATOR = b"\n---\n"
_MAX_OBJECT = 64 << 20  # bytes of YAML: etcd takes 1.5 MiB of a value
_TEXT = "tag:yaml.org,2002:str"
# What some reader of YAML takes for a number, a date or a truth value: kubectl's knows more of them than PyYAML.
_AMBIGUOUS = re.compile(r"y|n|yes|no|on|off|true|false|null|~|[-+.0-9][-+.0-9a-foptxz_:, ]*", re.IGNORECASE | re.ASCII)
_VERSION_OR_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){2,}", re.ASCII)
_LINE_BREAKS = re.compile("[\r\x85\u2028\u2029]")


def is_account_kind(kind: Kind) -> bool:
    """Tell whether a kind belongs to service accounts."""
    return any((kind.group, kind.plural) == (each.group, each.plural) for each in ACCOUNT_KINDS)


def named(item: Object) -> str:
    """Return what an object is called: ``namespace/name``, or ``name``."""
    metadata = item["metadata"]
    return one_line("/".join(str(part) for part in (metadata.get("namespace"), metadata.get("name")) if part))


def cleaned(item: Object) -> Object:
    """Return an object without what only its cluster can set, in the order that reads best. ``item`` stays as it is."""
    found = _without(item, (), frozenset({"status"}))
    found = _without(found, ("metadata",), _OF_THE_SERVER)
    found = _without(found, ("metadata", "annotations"), _OF_CONTROLLERS)
    kind = (str(item.get("apiVersion")), str(item.get("kind")))
    if kind != _JOB or not (item.get("spec") or {}).get("manualSelector"):
        for path, names in _OF_KINDS.get(kind, ()):
            found = _without(found, path, names)
    metadata = found["metadata"]
    if not metadata.get("annotations", True):
        metadata = _without(metadata, (), frozenset({"annotations"}))
    return _first({**found, "metadata": _first(metadata, "name", "namespace")}, "apiVersion", "kind", "metadata")


def written(item: Object) -> str:
    """Return an object as YAML, ending with a line break. Raises ``ValueError`` for one that is nested too deeply."""
    import yaml  # noqa: PLC0415 - only a capture pays for it

    try:
        text: str = yaml.dump(
            item, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=1 << 30, default_flow_style=False
        )
    except (RecursionError, yaml.YAMLError) as error:
        raise ValueError("nested too deeply") from error
    return text


def remarks(item: Object) -> Iterator[str]:
    """Yield what to know before an object is applied."""
    if item.get("type") == "kubernetes.io/service-account-token" and item.get("kind") == "Secret":
        yield "this token is valid only where its account came back from etcd; elsewhere drop data: it is made anew"
    if (item.get("apiVersion"), item.get("kind")) == _JOB:
        conditions = (item.get("status") or {}).get("conditions") or ()
        if any(each.get("type") in {"Complete", "Failed"} and each.get("status") == "True" for each in conditions):
            yield "this job has ended: applied, it runs once more"


@dataclass(slots=True, repr=False)
class KindDocument(Generic[Note]):
    """All objects of one kind on their way from the server into a document; one page of them in memory.

    ``keep`` tells which to write, ``note`` what to remember of each that is written. After ``pump``: ``objects`` were
    written, ``left_out`` were not kept, ``unwritable`` are the names of those that are malformed or nested too deeply;
    or ``error`` says why the kind could not be read, and the document says it too.
    """

    kube: Kube
    kind: Kind
    keep: Callable[[Object], bool] = lambda _: True
    note: Callable[[Object], Note | None] = lambda _: None
    objects: int = 0
    left_out: int = 0
    notes: list[Note] = field(default_factory=list)
    unwritable: list[str] = field(default_factory=list)
    done: bool = False
    error: KubeError | None = None

    @property
    def name(self) -> str:
        """The document's name in its directory."""
        return f"{self.kind.name}.yaml"

    def pump(self, spool: Spool) -> None:
        """Write the document. Raises nothing that the server is to blame for."""

        def begin() -> None:
            spool.restart()
            self.objects = self.left_out = 0
            self.notes.clear()
            self.unwritable.clear()
            spool.write(self._header().encode())

        begin()
        try:
            self.kube.scan(self.kind.path, lambda item: self._take(item, spool), begin)
        except KubeError as error:
            self.error = error
            spool.restart()
            spool.write(f"# {self.kind.name}: could not be read: {one_line(error.message)}\n".encode())
        else:
            spool.write(f"# end of {self.kind.name}: {self.objects} objects\n".encode())
            self.done = True

    def _header(self) -> str:
        return (
            f"# {one_line(self.kind.kind)}, {self.kind.api_version}: without what a cluster sets itself.\n"
            f"# Review, then: kubectl apply --server-side -f {self.name}\n"
        )

    def _take(self, item: Object, spool: Spool) -> None:
        item = {
            **item,
            "apiVersion": item.get("apiVersion") or self.kind.api_version,
            "kind": item.get("kind") or self.kind.kind,
        }
        try:
            kept = self.keep(item)
            said = "".join(f"# {remark}\n" for remark in remarks(item)) if kept else ""
            text = written(cleaned(item)) if kept else ""
            noted = self.note(item) if kept else None
        except (ValueError, LookupError, TypeError, AttributeError):
            # whoever may extend the API decides what comes here: one odd object must not cost all the others
            self.unwritable.append(named(item))
            return
        if not kept:
            self.left_out += 1
            return
        spool.write(f"---\n{said}{text}".encode())
        self.objects += 1
        if noted is not None:
            self.notes.append(noted)


class ObjectCounter:
    """Takes such a document in pieces and counts its objects, one of them in memory.

    ``problem`` is what is wrong with it, ``None`` if nothing is; ``end`` must be called after the last piece.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.objects = 0
        self.problem: str | None = None
        self._rest = b""

    def write(self, data: bytes) -> int:
        """Take a piece."""
        if self.problem is None:
            *whole, self._rest = (self._rest + data).split(_SEPARATOR)
            for text in whole:
                self._count(text)
            if len(self._rest) > _MAX_OBJECT:
                self.problem, self._rest = "an object in it is too long", b""
        return len(data)

    def end(self) -> None:
        """Count what came last."""
        self._count(self._rest)
        self._rest = b""

    def _count(self, text: bytes) -> None:
        try:
            self.objects += self.problem is None and _is_object(text)
        except ValueError as error:
            self.problem = f"after {self.objects} objects: {error}"


def one_line(text: str) -> str:
    """Return what a server said so that it cannot pass for another line."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _without(item: Object, path: tuple[str, ...], names: frozenset[str]) -> Object:
    """Return a copy in which the mapping at ``path`` lacks ``names``."""
    if not path:
        return {key: value for key, value in item.items() if key not in names}
    inner = item.get(path[0])
    return {**item, path[0]: _without(inner, path[1:], names)} if isinstance(inner, dict) else item


def _first(item: Object, *names: str) -> Object:
    return {**{name: item[name] for name in names if name in item}, **item}


@cache
def _dumper() -> Any:
    import yaml  # noqa: PLC0415

    return _dumper_on(getattr(yaml, "CSafeDumper", yaml.SafeDumper))


def _dumper_on(base: Any) -> Any:
    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: object) -> bool:
            del data  # each value stands where it is used: nobody reviews &id001
            return True

    Dumper.add_representer(str, _represent)
    return Dumper


def _represent(dumper: Any, text: str) -> Any:
    style = None
    if _LINE_BREAKS.search(text):
        style = '"'  # readers disagree on what else is a line break
    elif "\n" in text:
        style = "|"
    elif _AMBIGUOUS.fullmatch(text) and not _VERSION_OR_ADDRESS.fullmatch(text):
        style = '"'
    return dumper.represent_scalar(_TEXT, text, style=style)


def _is_object(text: bytes) -> bool:
    """Tell whether a piece between separators is an object, or only comments; ``ValueError`` if it is neither.

    Only events are looked at, and aliases refused: nothing is built that could grow.
    """
    import yaml  # noqa: PLC0415

    try:
        keys = _top_keys(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        # not "from error": a parser's error quotes the line that it stumbled over, which may be a secret
        raise ValueError("not YAML") from None
    if keys is None:
        return False
    if not {"apiVersion", "kind", "metadata"} <= keys:
        raise ValueError("no object of Kubernetes")
    return True


def _top_keys(events: Any) -> set[str] | None:
    import yaml  # noqa: PLC0415

    depth, nodes, documents = 0, 0, 0
    keys: set[str] = set()
    for event in events:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ValueError("an alias, which edgedr never writes")
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth == 1 and isinstance(event, yaml.NodeEvent):
            if nodes % 2 == 0 and isinstance(event, yaml.ScalarEvent):
                keys.add(event.value)
            nodes += 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    if documents > 1:
        raise ValueError("more than one object")
    return keys if documents else None
