"""What a restore on this node would need, beside edgedr: etcd's own tool, and those of a recovery by hand."""

import re
from collections.abc import Iterator

from edgedr.doctor.judging import good, warn
from edgedr.errors import SourceError
from edgedr.layouts import Datastore
from edgedr.model import Finding
from edgedr.node.components import datastore
from edgedr.node.node import Node

_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/var/lib/rancher/rke2/bin")
_BY_HAND = ("age", "zstd", "tar", "ssh-keygen")
_VERSION = re.compile(r"version: *v?(\d+)\.(\d+)\.(\d+)")
_SUBJECT = "tools"

Version = tuple[int, int, int]


def check_tools(node: Node, etcd_version: str | None) -> Iterator[Finding]:
    """See which tools are here; ``etcd_version`` is that of the newest snapshot, where one is known."""
    if datastore(node.files, node.layout) is not Datastore.SQLITE:
        yield from _etcd_tools(node, etcd_version)
    here = [name for name in (*_BY_HAND, "crictl") if _is_here(node, name)]
    lacking = [name for name in _BY_HAND if name not in here]
    if lacking:
        text = f"no {', no '.join(lacking)} here: a recovery by hand needs them, here or elsewhere"
        yield warn(_SUBJECT, text, f"install {' '.join(lacking)}")
    if here:
        yield good(_SUBJECT, f"{', '.join(here)} {'is' if len(here) == 1 else 'are'} here")


def _is_here(node: Node, name: str) -> bool:
    return any(node.files.exists(f"{place}/{name}") for place in _PATH)


def _etcd_tools(node: Node, etcd_version: str | None) -> Iterator[Finding]:
    here = [name for name in ("etcdutl", "etcdctl") if _is_here(node, name)]
    wanted = f"etcd {etcd_version}" if etcd_version else "the cluster's etcd"
    hint = f"keep the etcdutl of {wanted} beside the backups: its image and its release have one"
    if not here:
        yield warn(_SUBJECT, "neither etcdutl nor etcdctl is on this node's PATH", hint)
        return
    versions = {name: found for name in here if (found := _version(node, name)) is not None}
    if not versions:
        yield warn(_SUBJECT, f"{' and '.join(here)} did not tell a version", "run it by hand, and see what it says")
        return
    fit = {name: version for name, version in versions.items() if restores(name, version)}
    if not fit:
        yield warn(_SUBJECT, f"{_said(versions)}, which restores no snapshots any more", hint)
        return
    name, version = next(iter(fit.items()))
    if not bumps(version):
        text = f"{_said(fit)}, which does not know --bump-revision: controllers would miss changes after a restore"
        yield warn(_SUBJECT, text, f"{hint}; 3.4.27, 3.5.10, 3.6 and newer know it")
    elif etcd_version is not None and etcd_version.split(".")[:2] != [str(part) for part in version[:2]]:
        yield warn(_SUBJECT, f"{_said({name: version})}, and the cluster's etcd is {etcd_version}", hint)
    else:
        yield good(_SUBJECT, f"{_said({name: version})}, which knows --bump-revision")


def _said(versions: dict[str, Version]) -> str:
    return ", ".join(f"{name} {'.'.join(map(str, version))}" for name, version in versions.items())


def _version(node: Node, name: str) -> Version | None:
    try:
        match = _VERSION.search(node.commands.run(name, "version"))
    except SourceError:
        return None
    return None if match is None else (int(match[1]), int(match[2]), int(match[3]))


def restores(name: str, version: Version) -> bool:
    """Say whether a tool restores snapshots: etcdctl no longer does from 3.6 on."""
    return name != "etcdctl" or version < (3, 6, 0)


def bumps(version: Version) -> bool:
    """Say whether etcd's tool of this version knows --bump-revision and --mark-compacted."""
    least: dict[tuple[int, int], Version] = {(3, 4): (3, 4, 27), (3, 5): (3, 5, 10)}
    return version >= least.get(version[:2], (3, 6, 0))
