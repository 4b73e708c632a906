"""The files that a control plane reads: those that flags and pods name, and those that such files name in turn.

A kubeconfig names certificates and keys; an AdmissionConfiguration, an AuthenticationConfiguration and their like name
further files, relative to their own place.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from edgedr.node.components import SERVER, Component
from edgedr.node.contents import Contents
from edgedr.node.kubeconfig import is_kubeconfig, references
from edgedr.yaml_text import load_yaml

_OWN = frozenset(
    {
        *("kube-apiserver", "kube-controller-manager", "kube-scheduler", "cloud-controller-manager"),
        *("etcd", "kubelet", SERVER),
    }
)
"""Programs whose flags are known to name files of the node; those of others may name files of their images."""
_READ = ("file", "config", "cert", "key", "certificate", "authority", "ca", "registry", "kubeconfig")
"""Ends of flags that name a file to read; what others name counts only where it is one on the node."""
_NAMING = frozenset({"kubeConfigFile", "certificateAuthority", "caBundle", "clientCert", "clientKey"})
"""Keys of configuration files of Kubernetes that name further files; some may have the content itself instead."""
_ADMISSION = "AdmissionConfiguration"
_LONGEST = 1024
_VOLATILE = ("/var/log/", "/run/", "/var/run/", "/proc/", "/sys/", "/dev/")
_MAX_NAMED = 10_000


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A path on the node that something reads: by which flag, pod or file it is named, and what does not start without.

    ``sure`` tells that it is a file, whether it is there or not; otherwise only the node can tell. ``subject`` is what
    it is called in messages: what stands in a wrong field may be a key itself.
    """

    path: str
    subject: str
    by: str
    reader: str
    sure: bool


def named_files(files: Contents, told: Iterable[Component]) -> Iterator[NamedFile]:
    """Yield every file that components name, and what those name in turn as far as they are there; each path once."""
    todo = [named for each in told for named in _named_by(each)]
    seen: set[str] = set()
    while todo and len(seen) < _MAX_NAMED:
        named = todo.pop(0)
        if named.path in seen:
            continue
        seen.add(named.path)
        yield named
        text = files.text(named.path)
        todo += [
            NamedFile(path, subject, named.path, named.reader, named.sure)
            for path, subject in (_references(text, named.path) if text else ())
        ]


def _references(text: str, path: str) -> Iterator[tuple[str, str]]:
    """Yield the files that a configuration file of Kubernetes names, as absolute paths, each with what to call it."""
    if is_kubeconfig(text):
        for each in references(text, path):
            yield each.path, each.path if each.is_absolute else f"{each.field} of {path}"
        return
    try:
        config = load_yaml(text) if "k8s.io/" in text else None
    except ValueError:
        return
    if not isinstance(config, dict) or not str(config.get("apiVersion", "")).partition("/")[0].endswith("k8s.io"):
        return
    named = list(_walk(config))
    if config.get("kind") == _ADMISSION:
        named += [str(plugin.get("path") or "") for plugin in _dictionaries(config.get("plugins"))]
    for name in named:
        if name and name.isprintable() and len(name) < _LONGEST:
            whole = os.path.normpath(PurePosixPath(path).parent / name)
            yield whole, whole


def _named_by(component: Component) -> Iterator[NamedFile]:
    ours = component.name in _OWN
    for flag, path in component.named_paths():
        yield NamedFile(path, path, f"--{flag}", component.name, sure=ours and flag.endswith(_READ))
    for path, is_file in component.host_paths:
        if not path.startswith(_VOLATILE):
            yield NamedFile(path, path, component.told_by, component.name, sure=is_file)


def _walk(value: Any) -> Iterator[str]:
    """Yield the values of keys that name files, wherever they are."""
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, str) and (key == "kubeConfigFile" or (key in _NAMING and item.startswith("/"))):
                yield item
            else:
                yield from _walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from _walk(item)


def _dictionaries(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
