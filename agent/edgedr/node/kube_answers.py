"""What the API server answers, taken apart: nothing is believed to be shaped as it should before it was looked at.

What no API server sends, and no document could hold, is a ``KubeError`` like any other answer that cannot be used.
"""

import json
import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from edgedr.node.kube_trouble import KubeError, shown

Object: TypeAlias = dict[str, Any]

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_OWN = re.compile(r"[a-z]*|[a-z0-9.-]+\.k8s\.io")  # groups of Kubernetes itself


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object that can be listed: where, and what it is called. ``group`` is empty for the core."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool

    @property
    def path(self) -> str:
        """Where all objects of it are listed."""
        return f"{root(self.group, self.version)}/{self.plural}"

    @property
    def name(self) -> str:
        """``deployments.apps``, ``secrets``: as kubectl writes it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """``apps/v1``, ``v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class Kinds:
    """What the server can list, sorted by name, each in its preferred version; and which groups it could not tell."""

    listable: tuple[Kind, ...]
    broken: tuple[tuple[str, str], ...]
    """Group and version, and why it could not be asked."""


def root(group: str, version: str) -> str:
    """Return where a group's resources are told."""
    return f"/apis/{group}/{version}" if group else f"/api/{version}"


def parse(body: bytes, path: str) -> Object:
    """Read an answer; numbers must be finite, and texts be encodable. Raises ``KubeError``."""
    with _expecting(path, "JSON"):
        answer = json.loads(body.decode(), parse_float=_finite, parse_constant=_finite)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(answer, ensure_ascii=False).encode()  # half of a surrogate pair
    with _expecting(path, "an object"):
        return {**answer}


def items(answer: Object, path: str) -> tuple[list[Object], str]:
    """Return the objects of one page, named and saying what they are, and the token of the next page."""
    with _expecting(path, "a list of objects"):
        of = {"apiVersion": answer["apiVersion"], "kind": answer["kind"].removesuffix("List")}
        found = [{**of, **item} for item in answer["items"] or ()]
        for item in found:
            _text(item["metadata"]["name"])
        return found, _text((answer.get("metadata") or {}).get("continue") or "")


def groups(answer: Object, path: str) -> list[tuple[str, str]]:
    """Return each group and version that is served, the preferred version of a group before its others."""
    found: list[tuple[str, str]] = []
    with _expecting(path, "a list of groups"):
        for group in answer["groups"] or ():
            versions = [entry["version"] for entry in group["versions"]]
            preferred = (group.get("preferredVersion") or group["versions"][0])["version"]
            found += [(_name(group["name"]), _name(version)) for version in dict.fromkeys((preferred, *versions))]
    return found


def listable(group: str, version: str, answer: Object) -> list[tuple[Kind, str]]:
    """Return what can be listed, each with the mark that two groups share if they serve the same objects."""
    found = []
    with _expecting(root(group, version), "a list of resources"):
        for resource in answer["resources"] or ():
            if "/" not in resource["name"] and "list" in (resource.get("verbs") or ()):
                said, namespaced = _text(resource["kind"]), bool(resource.get("namespaced"))
                kind = Kind(group, version, _name(resource["name"]), said, namespaced)
                found.append((kind, _text(resource.get("storageVersionHash") or "")))
    return found


def once(offered: Iterable[tuple[Kind, str]]) -> Iterator[Kind]:
    """Yield each kind in the first group and version that has it, of kinds with their marks.

    Kubernetes serves some objects in two of its groups, under one plural, as events. Who else gives a kind the mark of
    another must not hide it: only groups of Kubernetes are believed, and no two plurals are one.
    """
    seen: set[tuple[str, str, str]] = set()
    for kind, mark in offered:
        names = {("group", kind.group, kind.plural)}
        if mark and _OWN.fullmatch(kind.group):
            names.add(("mark", mark, kind.plural))
        if not names & seen:
            yield kind
        seen |= names


@contextmanager
def _expecting(path: str, what: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        text = f"the API server's answer to {shown(path)} is not {what}"
        raise KubeError(text, hint="is that an API server?") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _name(value: Any) -> str:
    """Return what becomes part of a path."""
    if not _NAME.fullmatch(value):
        raise ValueError(value)
    return _text(value)


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(text)
    return number
