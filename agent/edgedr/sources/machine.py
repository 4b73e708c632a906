"""The machine itself: hardware, operating system, packages, images. What a replacement must match."""

import json
import textwrap
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgedr.errors import SourceError
from edgedr.inventory import Inventory
from edgedr.model import Finding, Severity
from edgedr.node.files import Files, matches
from edgedr.node.hardware import machine
from edgedr.node.images import images
from edgedr.node.node import Node
from edgedr.node.packages import (
    MATTERING,
    Package,
    Program,
    installed,
    kubernetes_version,
    modules,
    operating_system,
    programs,
    static_images,
)
from edgedr.node.sysfs import Described
from edgedr.replacement import size_text
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, TakePath
from edgedr.sources.documents import place_documents, place_files, prove_documents, prove_files
from edgedr.steps import Step

_FILES = (
    "/etc/sysctl.conf", "/etc/sysctl.d", "/etc/modules", "/etc/modules-load.d", "/etc/modprobe.d", "/etc/udev/rules.d",
    "/etc/fstab", "/etc/crypttab", "/etc/mdadm.conf", "/etc/mdadm", "/etc/lvm/lvm.conf", "/etc/lvm/backup",
    "/etc/multipath.conf", "/etc/systemd/system/*.mount", "/etc/default/grub", "/etc/default/grub.d",
    "/etc/kernel/cmdline", "/boot/cmdline.txt", "/boot/config.txt", "/boot/firmware/cmdline.txt",
    "/boot/firmware/config.txt", "/etc/os-release", "/etc/apt/sources.list*", "/etc/apt/keyrings",
    "/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d", "/etc/apt/preferences*", "/etc/apt/apt.conf*",
    "/etc/apt/auth.conf*", "/etc/yum.repos.d", "/etc/dnf/dnf.conf", "/etc/pki/rpm-gpg", "/etc/zypp/repos.d",
    "/etc/apk/repositories", "/etc/apk/world", "/etc/apk/keys", "/etc/pacman.conf", "/etc/pacman.d/mirrorlist",
    "/etc/chrony*", "/etc/systemd/timesyncd.conf", "/etc/systemd/timesyncd.conf.d", "/etc/ntp.conf", "/etc/ntpsec",
    "/etc/localtime", "/etc/timezone", "/etc/security/limits.conf", "/etc/security/limits.d",
)  # fmt: skip
_NEVER = ("/etc/machine-id", "/var/lib/dbus/machine-id")
"""Two machines with one id get each other's addresses and logs: a replacement makes its own."""
_WIDTH, _COLUMN, _NARROW = 80, 21, 8  # columns: a SHA-256 is 64 of them


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSource:
    """Describe the machine, for people and for a comparison, and take the files that set it up."""

    include: tuple[str, ...] = ()
    """Further files: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    packages: bool = True
    """Whether to list the installed packages; ``false`` for a node without a package manager."""

    images: bool = True
    """Whether to list the container images."""

    required: bool = False
    """Whether a backup without it is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "machine"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the files, the documents, and what is not known. See ``Source``."""
        yield from self._files(node)
        packages = yield from self._packages(node)
        found = yield from _programs(node, packages)
        about = describe(node, packages, found)
        data = json.dumps(about, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
        yield Document("machine/machine.json", data.encode())
        yield Document("machine/machine.txt", written(about).encode())
        yield from _facts(about)
        if lacking := _unknown(node.files, about):
            yield Lacking(f"not told by /proc and /sys below {node.root}: {', '.join(lacking)}")
        if self.images:
            yield from _images(node)

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files and documents. See ``Source``."""
        yield from place_files(self.name, inventory)
        yield from place_documents(self.name, inventory)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Compare documents and files with what was recorded. See ``Source``."""
        del artifacts  # all of it is in files
        yield from prove_documents(self.name, restored, inventory)
        yield from prove_files(self.name, restored, inventory)

    def _files(self, node: Node) -> Iterator[Captured]:
        for pattern in self.include:
            if not node.files.expand((pattern,)):
                yield Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node")
        for path in node.files.expand((*_FILES, *self.include)):
            if not any(matches(path, pattern) for pattern in (*_NEVER, *self.exclude)):
                yield TakePath(path)

    def _packages(self, node: Node) -> Generator[Captured, None, tuple[Package, ...]]:
        if not self.packages:
            return ()
        try:
            told = installed(node.files, node.commands)
        except SourceError as error:
            yield Lacking(f"packages: {error.message}")
            return ()
        if told is None:
            text = "no package database was found: none of dpkg, apk, rpm, pacman"
            hint = "if this node has no packages: [sources.machine] packages = false"
            yield Finding(Severity.WARN, "packages", text, hint)
            return ()
        manager, found = told
        lines = [f"# Installed packages, as {manager} tells them: name, version, architecture."]
        yield Document("machine/packages.txt", "\n".join([*lines, *(f"{p.name} {p}" for p in found), ""]).encode())
        yield Count("packages", len(found))
        return found


def describe(node: Node, packages: Iterable[Package], found: Iterable[Program]) -> Described:
    """Return what is known of a machine, as plain JSON values: what ``differences`` compares."""
    versions = {"kubelet": kubernetes_version(node.commands, node.layout, packages)}
    more = {
        "os": operating_system(node.files),
        "kubernetes": {name: version for name, version in versions.items() if version},
        "static_pods": static_images(node.files, node.layout),
        "packages": {package.name: str(package) for package in packages if package.name in MATTERING},
        "programs": {each.path: {"size_bytes": each.size, "sha256": each.sha256} for each in found},
        "modules": modules(node.files),
    }
    return {**machine(node.files, node.commands), **{topic: about for topic, about in more.items() if about}}


def _programs(node: Node, packages: Iterable[Package]) -> Generator[Captured, None, list[Program]]:
    found = []
    for each in programs(node.files, packages):
        if isinstance(each, Program):
            found.append(each)
            yield Fact(f"program {each.path}", f"{each.size} bytes, sha256 {each.sha256}")
        else:
            yield Finding(Severity.WARN, each[0], f"no checksum of it: {each[1]}")
    return found


def _images(node: Node) -> Iterator[Captured]:
    try:
        told = images(node)
    except SourceError as error:
        yield Lacking(f"container images: {error.message}")
        return
    if told.doubt:
        yield Finding(Severity.WARN, "container images", told.doubt, "install crictl")
    lines = ["# Container images of this node: their tags, and the digests that give the same", "# bytes again."]
    for image in told.found:
        lines += image.tags or ("(no tag)",)
        lines += (f"    {digest}" for digest in image.digests or ("(no digest: it was never in a registry)",))
    yield Document("machine/images.txt", "\n".join([*lines, ""]).encode())
    yield Count("images", len(told.found))


def _facts(about: Described) -> Iterator[Captured]:
    for label, value in _matching(about):
        if value:
            yield Fact(label.lower(), value)
    for name, version in about.get("packages", {}).items():
        yield Fact(f"package {name}", version)
    yield Count("disks", len(about.get("disks", ())))
    yield Count("network interfaces", sum(each["kind"] == "physical" for each in about.get("interfaces", ())))


def written(about: Described) -> str:
    """Return the description of a machine as a page of 80 columns."""
    sections = (
        _section("What a replacement must match", _matching(about)),
        _section("Versions", _versions(about)),
        _section("Programs without a package", _programs_of(about), column=_NARROW),
        _section("What is on the disks", _on_disks(about)),
        _section("File systems", _file_systems(about)),
        _section("What this machine was", _was(about)),
    )
    return "\n".join(filter(None, sections))


def _matching(about: Described) -> Iterator[tuple[str, str]]:
    cpu, kernel, system = (about.get(topic, {}) for topic in ("cpu", "kernel", "os"))
    yield "Architecture", _told(about.get("architecture"), cpu.get("level"))
    nouns = ("processors", "cores", "sockets")
    counts = (f"{cpu[noun]} {noun if cpu[noun] > 1 else noun[:-1]}" for noun in nouns if noun in cpu)
    yield "Processor", _told(cpu.get("model"), *counts)
    yield "Memory", f"{about['memory_bytes'] / (1 << 30):.3g} GiB" if "memory_bytes" in about else ""
    for disk in about.get("disks", ()):
        kind = {True: "rotating", False: "solid state", None: None}[disk.get("rotational")]
        yield f"Disk {disk['name']}", _told(size_text(disk["size_bytes"]), kind, disk.get("vendor"), disk.get("model"))
    for each in about.get("interfaces", ()):
        speed = f"up to {each['speed_mbit']} Mbit/s" if "speed_mbit" in each else None
        on = (
            f"on {' '.join(each['on'])}"
            if "on" in each
            else f"part of {each['part_of']}"
            if "part_of" in each
            else None
        )
        kind = None if each["kind"] == "physical" else each["kind"]
        yield (
            f"Interface {each['name']}",
            _told(each.get("mac"), kind, on, each.get("driver"), speed, each.get("model")),
        )
    boot = about.get("firmware", {})
    yield "Boots with", _told(boot.get("boot"), f"TPM {boot['tpm']}" if "tpm" in boot else None)
    yield "Kernel", kernel.get("release", "")
    yield "System", system.get("pretty_name", "")
    yield "Kubelet", about.get("kubernetes", {}).get("kubelet", "")


def _versions(about: Described) -> Iterator[tuple[str, str]]:
    yield from about.get("packages", {}).items()
    yield from about.get("static_pods", {}).items()


def _programs_of(about: Described) -> Iterator[tuple[str, str]]:
    for path, program in about.get("programs", {}).items():
        yield path, f"{size_text(program['size_bytes'])}, sha256 {program['sha256']}"


def _file_systems(about: Described) -> Iterator[tuple[str, str]]:
    for each in about.get("file_systems", ()):
        how = "" if each["configured"] else "not in fstab"
        yield each.get("at", ""), _told(each.get("device"), each.get("type"), each.get("options"), how)


def _on_disks(about: Described) -> Iterator[tuple[str, str]]:
    for disk in about.get("disks", ()):
        for part in (disk, *disk.get("partitions", ())):
            uuid = f"UUID={part['uuid']}" if "uuid" in part else None
            yield part["name"], _told(size_text(part["size_bytes"]), part.get("label"), part.get("holds"), uuid)
    for each in about.get("volumes", ()):
        on = f"on {' '.join(each['on'])}" if "on" in each else None
        uuid = f"UUID={each['uuid']}" if "uuid" in each else None
        yield each["name"], _told(size_text(each["size_bytes"]), each["kind"], on, each.get("holds"), uuid)


def _was(about: Described) -> Iterator[tuple[str, str]]:
    for name, value in about.get("firmware", {}).items():
        if name not in {"boot", "tpm"}:
            yield name.replace("_", " ").capitalize(), value
    for disk in about.get("disks", ()):
        yield f"Serial {disk['name']}", disk.get("serial", "")
    yield "Virtual", about.get("virtualization", "")
    yield "Kernel modules", ", ".join(about.get("modules", ()))
    yield "Kernel command line", about.get("kernel", {}).get("command_line", "")


def _told(*values: str | None) -> str:
    return ", ".join(value for value in values if value)


def _section(title: str, told: Iterable[tuple[str, str]], *, column: int = _COLUMN) -> str:
    """Return a headed section of two columns, empty if nothing is told; a label too long for its own stands above."""
    lines: list[str] = []
    for label, value in told:
        fits = len(label) < column - 2
        lines += () if fits or not value else (f"  {label}",)
        first, others = f"  {label if fits else '':<{column - 2}}", " " * column
        page = textwrap.TextWrapper(_WIDTH, first, others, break_long_words=False, break_on_hyphens=False)
        lines += page.wrap(value)
    return "\n".join([title.upper(), "", *lines, ""]) if lines else ""


def _unknown(files: Files, about: Described) -> list[str]:
    topics = (("architecture", "architecture"), ("cpu", "processor"), ("memory_bytes", "memory"))
    places = (("/sys/block", "disks"), ("/sys/class/net", "network interfaces"))
    missing = [words for topic, words in topics if topic not in about]
    return [*missing, *(words for place, words in places if not files.exists(place))]
