"""Which software a node has: its package database, programs beside that, and the versions of its Kubernetes."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath

from edgedr.errors import SourceError
from edgedr.inventory import EntryKind
from edgedr.layouts import Layout
from edgedr.node.commands import Commands
from edgedr.node.contents import Digest
from edgedr.node.files import Files
from edgedr.node.seen import Skipped
from edgedr.node.sysfs import one_line
from edgedr.yaml_text import load_yaml

MATTERING = frozenset((
    "kubelet", "kubeadm", "kubectl", "kubernetes-cni", "cri-tools", "containerd", "containerd.io", "runc", "crun",
    "cri-o", "conmon", "docker-ce", "docker.io", "cri-dockerd", "k3s", "k3s-selinux", "rke2-server", "rke2-common",
    "rke2-selinux", "etcd", "etcd-server", "etcd-client", "haproxy", "keepalived", "bind9", "bind", "dnsmasq",
    "isc-dhcp-server", "kea", "kea-dhcp4-server", "chrony", "ntp", "ntpsec", "systemd", "conntrack", "conntrack-tools",
    "iptables", "nftables", "socat", "ipset", "open-iscsi", "iscsi-initiator-utils", "nfs-common", "nfs-utils",
    "cryptsetup", "lvm2", "mdadm", "multipath-tools", "device-mapper-multipath", "wireguard-tools",
))  # fmt: skip
"""Packages that a control plane needs or talks to: of these, the version on a replacement counts."""

_LOCAL = (
    "k3s", "rke2", "kubelet", "kubeadm", "kubectl", "crictl", "etcd", "etcdctl", "etcdutl", "containerd",
    "containerd-shim-runc-v2", "cri-dockerd", "crio", "edgedr",
)  # fmt: skip
_PROGRAMS: tuple[tuple[str, str], ...] = (
    ("/usr/bin/kubelet", "kubelet"),
    ("/usr/bin/kubeadm", "kubeadm"),
    ("/usr/bin/kubectl", "kubectl"),
    ("/usr/bin/crictl", "cri-tools"),
    ("/usr/bin/etcdctl", "etcd-client"),
    ("/usr/bin/etcdutl", "etcd-client"),
    ("/usr/bin/k3s", "k3s"),
    ("/usr/bin/rke2", "rke2-common"),
    ("/opt/rke2/bin/rke2", ""),
    *((f"/usr/local/bin/{name}", "") for name in _LOCAL),
    ("/usr/local/sbin/runc", ""),
    ("/opt/bin/kubelet", ""),
    ("/opt/bin/kubeadm", ""),
)
"""Programs that may have come without a package, and the package whose presence says that it did not."""
_MAX_PROGRAM = 256 << 20  # bytes
_MAX_PROGRAMS = 1 << 30  # bytes of all of them in one run

_MAX_DATABASE = 64 << 20  # bytes
_RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm", "/usr/share/rpm")
_RPM_FORMAT = r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%{ARCH}\n"
_COMMAND = timedelta(seconds=30)
_INSTALLED = frozenset({"installed", "triggers-awaited", "triggers-pending"})

_TELLS_VERSION = {"kubeadm": "kubelet", "k3s": "k3s", "rke2": "rke2"}
_VERSION = re.compile(r"\bv?(\d+\.\d+\.\d+(?:[-+][0-9A-Za-z.+-]+)?)", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class Package:
    """One installed package. ``held``: whoever looks after the node forbade its package manager to change it."""

    name: str
    version: str
    architecture: str = ""
    held: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.version, self.architecture, "held" if self.held else "")))


@dataclass(frozen=True, slots=True)
class Program:
    """A program that no package brought."""

    path: str
    size: int
    sha256: str


def installed(files: Files, commands: Commands) -> tuple[str, tuple[Package, ...]] | None:
    """Return the package manager and what it installed, sorted; ``None`` where no package database is known.

    Raises ``SourceError`` for a database that is there and tells nothing.
    """
    for manager, paths, read in (
        ("dpkg", ("/var/lib/dpkg/status",), read_dpkg),
        ("apk", ("/lib/apk/db/installed", "/usr/lib/apk/db/installed"), read_apk),
    ):
        for path in filter(files.exists, paths):
            content = files.contents(path, limit=_MAX_DATABASE)
            if content is None:
                raise SourceError(f"the package database {path} cannot be read", hint="look at its mode and its disk")
            return manager, _some(manager, read(content.decode(errors="replace")))
    if any(map(files.exists, _RPM)):
        return "rpm", _some("rpm", _read_columns(commands.run("rpm", "-qa", "--qf", _RPM_FORMAT, within=_COMMAND)))
    if files.exists("/var/lib/pacman/local"):
        return "pacman", _some("pacman", _read_columns(commands.run("pacman", "-Q", within=_COMMAND)))
    return None


def read_dpkg(text: str) -> Iterator[Package]:
    """Read dpkg's status file: what is installed, not what left its configuration behind."""
    for fields in _stanzas(text, ": "):
        wanted, _, state = fields.get("Status", "").partition(" ")
        if state.split()[-1:] and state.split()[-1] in _INSTALLED:
            yield _package(
                fields.get("Package"), fields.get("Version"), fields.get("Architecture"), held=wanted == "hold"
            )


def read_apk(text: str) -> Iterator[Package]:
    """Read apk's database of what is installed."""
    for fields in _stanzas(text, ":"):
        yield _package(fields.get("P"), fields.get("V"), fields.get("A"))


def programs(files: Files, packages: Iterable[Package]) -> Iterator[Program | tuple[str, str]]:
    """Yield the known programs that no package brought, each once; of one that cannot be read, its path and why."""
    brought = {package.name for package in packages}
    seen_at: set[PurePosixPath] = set()
    left = _MAX_PROGRAMS
    for path, package in _PROGRAMS:
        real = files.real(path)
        if real is None or package in brought or real in seen_at:
            continue
        seen_at.add(real)
        seen = files.look(real)
        if isinstance(seen, Skipped) or seen.kind is not EntryKind.FILE:
            yield path, seen.reason if isinstance(seen, Skipped) else f"a {seen.kind}"
        elif seen.size > left:
            yield path, "more than is read in one run"
        else:
            left -= seen.size
            try:
                digest = _hashed(files.root, real, seen.inode, seen.size, seen.mtime_ns)
            except SourceError as error:
                yield path, error.message
            else:
                yield Program(path, seen.size, digest)


def kubernetes_version(commands: Commands, layout: Layout, packages: Iterable[Package]) -> str | None:
    """Return the version of the kubelet, which is k3s's or rke2's where it is part of them: ``v1.36.2``."""
    program = _TELLS_VERSION.get(layout.name)
    if program is None:
        return None
    try:
        told = commands.run(program, "--version")
    except SourceError:
        told = next((package.version for package in packages if package.name == program), "")
        told = told.partition("-")[0]  # what follows is the package's own count
    found = _VERSION.search(told)
    return f"v{found[1]}" if found else None


def static_images(files: Files, layout: Layout) -> dict[str, str]:
    """Return the images of the static pods, by container: which version of each part of the control plane runs."""
    found: dict[str, str] = {}
    for path in files.expand((f"{layout.pods}/*.yaml",)) if layout.pods else ():
        try:
            containers = load_yaml(files.text(path) or "")["spec"]["containers"]
            found.update((one_line(str(each["name"])), one_line(str(each["image"]))) for each in containers)
        except (ValueError, LookupError, TypeError):
            continue  # the files source says so
    return found


def operating_system(files: Files) -> dict[str, str]:
    """Return what ``os-release`` says of itself: its ``id``, ``version_id``, ``pretty_name``, and more of that."""
    text = files.contents("/etc/os-release") or files.contents("/usr/lib/os-release") or b""
    found = {}
    for line in text.decode(errors="replace").splitlines():
        name, equals, value = line.partition("=")
        if equals and name in {
            "ID",
            "ID_LIKE",
            "VERSION_ID",
            "VERSION_CODENAME",
            "PRETTY_NAME",
            "VARIANT_ID",
            "IMAGE_VERSION",
        }:
            found[name.lower()] = one_line(value.strip().strip("\"'"))
    return {name: value for name, value in found.items() if value}


def modules(files: Files) -> list[str]:
    """Return the kernel modules that are configured to be loaded at boot."""
    paths = files.expand(("/etc/modules-load.d/*.conf", "/usr/lib/modules-load.d/*.conf", "/etc/modules"))
    lines = (line for path in paths for line in (files.contents(path) or b"").decode(errors="replace").splitlines())
    return sorted({one_line(line) for line in lines if line.strip() and line.strip()[0] not in "#;"})


def _some(manager: str, packages: Iterable[Package]) -> tuple[Package, ...]:
    found = tuple(sorted({package for package in packages if package.name and package.version}))
    if not found:
        raise SourceError(f"the package database of {manager} names no package", hint="it may be damaged")
    return found


def _stanzas(text: str, colon: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each paragraph; of a field that goes on, its first line."""
    fields: dict[str, str] = {}
    for line in text.split("\n"):
        if line.strip():
            name, found, value = line.partition(colon)
            if found:
                fields.setdefault(name, value)
        elif fields:
            yield fields
            fields = {}
    if fields:
        yield fields


def _read_columns(text: str) -> Iterator[Package]:
    for line in text.splitlines():
        name, *others = line.split()[:3] or [""]
        if name != "gpg-pubkey":  # rpm keeps the keys that it trusts as packages
            yield _package(name, *others)


def _package(
    name: str | None, version: str | None = None, architecture: str | None = None, *, held: bool = False
) -> Package:
    words = ("?".join(one_line(word or "").split()) for word in (name, version, architecture))
    return Package(next(words), next(words), next(words), held=held)


@lru_cache(maxsize=64)
def _hashed(root: Path, path: PurePosixPath, inode: tuple[int, int], size: int, mtime_ns: int) -> str:
    """Return a file's SHA-256 in hex, read once per process as long as it stays the same file of the same time."""
    del inode, size, mtime_ns  # they tell one state of the file from the next
    content = Digest()
    seen = Files(root, max_file_bytes=_MAX_PROGRAM).read(path, content)
    if isinstance(seen, Skipped):
        raise SourceError(seen.reason)
    return content.hex
