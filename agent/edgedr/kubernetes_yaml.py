"""Objects of a cluster as YAML that one can review and apply: cleaned, written as they are read, and counted again.

One document per kind, its objects parted by ``---``, in the order of the server: by namespace and name. What is read
back from the YAML of an object is the cleaned object, to the last byte of each string; in which order the server told
its keys makes no difference.
"""

import json
import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

from edgedr.node.kube import Kind, Object

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

_FIRST = {key: rank for rank, key in enumerate(("apiVersion", "kind", "name", "namespace", "metadata", "spec"))}
"""What one looks for first in a mapping; the other keys are in the order of the alphabet."""

_MAX_VALUES = 100_000  # in an object with a line for each of them: PyYAML makes half a kilobyte of each
_MAX_YAML = 8 << 20  # bytes that its lines may take with their indents
_MAX_DEPTH = 200  # levels in an object: PyYAML takes three frames of Python's stack for each, of 1000 in all
_MAX_OBJECT = 64 << 20  # bytes of YAML that are counted as one object
_MAX_WRITTEN = _MAX_OBJECT // 2  # etcd takes 1.5 MiB of a value; a sign of JSON may take six bytes of YAML
_MAX_NAME = 320  # signs of a namespace and a name: Kubernetes takes 63 and 253
_SEPARATOR = b"\n---\n"
_TEXT, _MAPPING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:map"
# What some reader of YAML takes for a number, a date or a truth value: kubectl's knows more of them than PyYAML.
_AMBIGUOUS = re.compile(r"y|n|yes|no|on|off|true|false|null|~|[-+.0-9][-+.0-9a-foptxz_:, ]*", re.IGNORECASE | re.ASCII)
_VERSION_OR_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){2,}", re.ASCII)
_LINE_BREAKS = re.compile("[\r\x85\u2028\u2029]")
_NOT_IN_YAML = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # in JSON all of them may stand as they are


def is_account_kind(kind: Kind) -> bool:
    """Tell whether a kind belongs to service accounts."""
    return any((kind.group, kind.plural) == (each.group, each.plural) for each in ACCOUNT_KINDS)


def named(item: Object) -> str:
    """Return what an object is called: ``namespace/name``, or ``name``."""
    metadata = item["metadata"]
    name = one_line("/".join(str(part) for part in (metadata.get("namespace"), metadata.get("name")) if part))
    return name if len(name) <= _MAX_NAME else f"{name[:_MAX_NAME]}…"


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
    return _in_order({**found, "metadata": _in_order(metadata)})


def written(item: Object, *, as_given: bool = False) -> str:
    """Return an object as YAML, ending with a line break; ``as_given``: with its keys in the order that they have.

    Raises ``ValueError`` for one that is nested too deeply, or so large that it could not be counted again.
    """
    import yaml  # noqa: PLC0415 - only a capture pays for it

    try:
        text = _block(item, as_given=as_given) if _is_moderate(item) else _flow(item, as_given=as_given)
    except (RecursionError, yaml.YAMLError) as error:
        raise ValueError("nested too deeply") from error
    _refuse_large(text)
    return text


def _refuse_large(text: str) -> None:
    if len(text.encode()) > _MAX_WRITTEN:
        raise ValueError("too large")


def _block(item: Object, *, as_given: bool) -> str:
    import yaml  # noqa: PLC0415 - only a capture pays for it

    text: str = yaml.dump(
        item, Dumper=_dumper(), sort_keys=not as_given, allow_unicode=True, width=1 << 30, default_flow_style=False
    )
    return text


def _flow(item: Object, *, as_given: bool) -> str:
    """Return an object as JSON, which is YAML too: with a line for each of its values it would fill the memory.

    Almost: in YAML a key has at most 1024 signs, and brackets are not nested as deeply. What cannot be read raises.
    """
    import yaml  # noqa: PLC0415 - only a capture pays for it

    text = json.dumps(item, ensure_ascii=False, sort_keys=not as_given)
    text = _NOT_IN_YAML.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text) + "\n"
    _refuse_large(text)  # before it is read
    for _ in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        pass
    return text


def remarks(item: Object) -> Iterator[str]:
    """Yield what to know before an object is applied."""
    if item.get("type") == "kubernetes.io/service-account-token" and item.get("kind") == "Secret":
        yield "this token is valid only where its account came back from etcd; elsewhere drop data: it is made anew"
    if (item.get("apiVersion"), item.get("kind")) == _JOB:
        conditions = (item.get("status") or {}).get("conditions") or ()
        if any(each.get("type") in {"Complete", "Failed"} and each.get("status") == "True" for each in conditions):
            yield "this job has ended: applied, it runs once more"


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


def _in_order(item: Object) -> Object:
    return dict(sorted(item.items(), key=_place))


def _place(pair: tuple[str, Any]) -> tuple[int, str]:
    """Return where a key and its value belong in a mapping."""
    return _FIRST.get(pair[0], len(_FIRST)), pair[0]


def _is_moderate(item: Object) -> bool:
    """Tell whether an object stays small as YAML: each value has its own line, indented by its depth.

    Raises ``ValueError`` for one that is nested too deeply.
    """
    values = size = 0
    todo: list[tuple[int, Any]] = [(0, item)]
    while todo:
        depth, value = todo.pop()
        if depth > _MAX_DEPTH:
            raise ValueError("nested too deeply")
        values += 1
        size += 2 * depth + 4
        inner: Collection[Any] = ()
        match value:
            case str():
                size += len(value)
            case list():
                inner = value
            case dict():
                inner = value.values()
                size += sum(map(len, value))
        if values + len(todo) + len(inner) > _MAX_VALUES or size > _MAX_YAML:
            return False
        todo += ((depth + 1, each) for each in inner)
    return True


@cache
def _dumper() -> Any:
    import yaml  # noqa: PLC0415

    return _dumper_on(getattr(yaml, "CSafeDumper", yaml.SafeDumper))


def _dumper_on(base: Any) -> Any:
    class Dumper(base):  # type: ignore[misc]
        def ignore_aliases(self, data: object) -> bool:
            del data  # each value stands where it is used: nobody reviews &id001
            return True

    Dumper.add_representer(str, _represent_text)
    Dumper.add_representer(dict, _represent_mapping)
    return Dumper


def _represent_mapping(dumper: Any, item: Object) -> Any:
    return dumper.represent_mapping(_MAPPING, list((_in_order(item) if dumper.sort_keys else item).items()))


def _represent_text(dumper: Any, text: str) -> Any:
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
