"""Which container images a node has, by tag and by digest: from its Node object, or from its container runtime."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgedr.errors import SourceError
from edgedr.node.components import component, distribution_option
from edgedr.node.kube import Object
from edgedr.node.node import Node
from edgedr.node.sysfs import one_line

_NODES = "/api/v1/nodes"
_KUBELET_TELLS = 50
"""How many images a kubelet names in its Node object unless it is told otherwise, the largest first."""
_SOCKETS = (
    "/run/k3s/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
)
_OWN_NAME = re.compile(r"\bsystem:node:([a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?)")


@dataclass(frozen=True, slots=True, order=True)
class Image:
    """One image: its tags, and its names by digest, under which a registry gives the same bytes again."""

    tags: tuple[str, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Images:
    """The images of a node, sorted; ``doubt`` says why there may be more of them."""

    found: tuple[Image, ...]
    doubt: str | None = None


def images(node: Node) -> Images:
    """Return the images of ``node``. Raises ``SourceError`` if neither the API server nor the runtime tells them."""
    try:
        told = _of_kubelet(node)
    except SourceError as error:
        try:
            return Images(_of_runtime(node))
        except SourceError as other:
            raise SourceError(f"{error.message}; {other.message}", hint=error.hint or other.hint) from error
    if len(told) < _KUBELET_TELLS:
        return Images(told)
    try:
        return Images(_of_runtime(node))
    except SourceError as error:
        return Images(told, f"the kubelet names only its {_KUBELET_TELLS} largest ones, and {error.message}")


def own_node(node: Node) -> Object | None:
    """Return the Node object of this machine; ``None`` if none is surely it. Raises ``SourceError``.

    The name decides, then the machine id: machines that were cloned share one.
    """
    if node.kube is None:
        raise SourceError("no API server is known")
    names, machine_id = _own_names(node), _line(node, "/etc/machine-id")
    found: list[tuple[int, Object]] = []

    def take(candidate: Object) -> None:
        info = _object(_object(candidate.get("status")).get("nodeInfo"))
        weight = 2 * (_object(candidate.get("metadata")).get("name") in names)
        weight += bool(machine_id) and info.get("machineID") == machine_id
        if weight:
            found.append((weight, candidate))

    node.kube.scan(_NODES, take, found.clear)
    best = [candidate for weight, candidate in found if weight == max(weight for weight, _ in found)]
    return best[0] if len(best) == 1 else None


def _of_kubelet(node: Node) -> tuple[Image, ...]:
    own = own_node(node)
    if own is None:
        raise SourceError("no Node object is surely this machine's: none has its name or machine id, or several have")
    told = _object(own.get("status")).get("images")
    found = _sorted(_of_names(_strings(_object(each).get("names"))) for each in _list(told))
    if not found:
        raise SourceError("the Node object of this machine names no image")
    return found


def _of_runtime(node: Node) -> tuple[Image, ...]:
    sockets = [socket for socket in _SOCKETS if node.files.exists(socket)]
    if not sockets:
        raise SourceError("there is no socket of a container runtime")
    reasons = []
    for socket in sockets:
        for words in (("crictl",), ("k3s", "crictl")) if "k3s" in socket else (("crictl",),):
            try:
                return read_crictl(node.commands.run(*words, "-r", f"unix://{socket}", "images", "-o", "json"))
            except SourceError as error:
                reasons.append(error.message)
    raise SourceError("; ".join(dict.fromkeys(reasons)))


def read_crictl(text: str) -> tuple[Image, ...]:
    """Read what ``crictl images -o json`` printed. Raises ``SourceError`` for what names no image."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError("crictl did not print JSON") from error
    entries = [_object(each) for each in _list(_object(told).get("images"))]
    found = _sorted(
        _of_names([*_strings(each.get("repoTags")), *_strings(each.get("repoDigests"))]) for each in entries
    )
    if not found:
        raise SourceError("crictl names no image")
    return found


def _of_names(names: Iterable[str]) -> Image:
    known = sorted({"?".join(one_line(name, 600).split()) for name in names if "<none>" not in name} - {""})
    return Image(tuple(name for name in known if "@" not in name), tuple(name for name in known if "@" in name))


def _sorted(found: Iterable[Image]) -> tuple[Image, ...]:
    return tuple(sorted({image for image in found if image.tags or image.digests}))


def _own_names(node: Node) -> set[str]:
    """Return the names under which this machine may have joined: as a kubelet's they are in lower case."""
    names = {_line(node, "/proc/sys/kernel/hostname"), _line(node, "/etc/hostname")}
    names.add(distribution_option(node.files, node.layout, "node-name") or "")
    etcd = component(node.files, node.layout, "etcd")
    names.add((etcd and etcd.flag("name")) or "")
    names.update(_kubelet_names(node))
    return {name.lower() for name in names if name}


def _kubelet_names(node: Node) -> Iterator[str]:
    for path in node.files.expand(("/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/kubeadm-flags.env")):
        text = node.files.text(path) or ""
        yield from _OWN_NAME.findall(text)
        yield from re.findall(r"--hostname-override[= ]([A-Za-z0-9.-]+)", text)


def _line(node: Node, path: str) -> str:
    return (node.files.text(PurePosixPath(path)) or "").strip()


def _object(value: Any) -> Object:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _strings(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]
