"""The machine source: documents, files, what is lacking, and the comparison with a target."""

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest

from edgedr.layouts import KUBEADM, UNKNOWN
from edgedr.model import Finding, Severity
from edgedr.node.commands import Commands, HostCommands, NoCommands
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.replacement import differences
from edgedr.sources.base import Captured, Count, Document, Fact, Lacking, TakePath
from edgedr.sources.machine import MachineSource
from edgedr.steps import PlaceDocuments, PlaceFiles
from tests.lab import kubeadm
from tests.lab.hardware import Answers, put, put_disk, put_interface, write_machine
from tests.source_contract import SourceContract, restore
from tests.test_images import Nodes, recorded
from tests.test_packages import DPKG

GOOD, WARN, BAD = Severity.GOOD, Severity.WARN, Severity.BAD
CANARY = "canary-8d1f"


def write_node(root: Path) -> Path:
    """Write a kubeadm node on a machine of its own, with packages, programs and an account at a package repository."""
    write_machine(kubeadm.unpack(root))
    put(root, "/var/lib/dpkg/status", DPKG)
    put(root, "/usr/local/bin/etcdutl", "a program")
    put(root, "/etc/apt/sources.list.d/kubernetes.list", "deb https://pkgs.k8s.io/ /\n")
    put(root, "/etc/apt/auth.conf.d/mirror.conf", f"machine mirror login edge password {CANARY}\n")
    put(root, "/etc/chrony/chrony.conf", "server ntp.example.test\n")
    return root


def node_of(root: Path, commands: Commands | None = None) -> Node:
    return Node(Files(root), KUBEADM, commands or NoCommands(), Nodes(recorded()))


class TestMachineSource(SourceContract):
    @pytest.fixture
    def source(self) -> MachineSource:
        return MachineSource()

    @pytest.fixture
    def node(self, tmp_path: Path) -> Node:
        return node_of(write_node(tmp_path / "node"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_node(tmp_path / "node")


def captured(root: Path, source: MachineSource | None = None) -> list[Captured]:
    return list((source or MachineSource()).capture(node_of(root)))


def documents(items: list[Captured]) -> dict[str, str]:
    return {item.member: item.data.decode() for item in items if isinstance(item, Document)}


def facts(items: list[Captured]) -> dict[str, str]:
    return {item.key: item.value for item in items if isinstance(item, Fact)}


def paths(items: list[Captured]) -> set[str]:
    return {str(item.path) for item in items if isinstance(item, TakePath)}


def lacking(items: list[Captured]) -> list[str]:
    return [item.reason for item in items if isinstance(item, Lacking)]


PAGE = """\
WHAT A REPLACEMENT MUST MATCH

  Architecture       x86_64, x86-64-v2
  Processor          Intel(R) Celeron(R) J4125 CPU @ 2.00GHz, 4 processors, 4
                     cores, 1 socket
  Memory             8 GiB
  Disk sda           256.1 GB, solid state, ATA, KINGSTON SUV500M
  Interface bond0    bond
  Interface bond0.7  vlan, on bond0
  Interface enp1s0   00:e0:67:00:00:01, part of bond0, Intel I211
  Interface enp2s0   00:e0:67:00:00:02, part of bond0
  Boots with         UEFI
  Kernel             6.1.0-40-amd64
  System             Debian GNU/Linux 12 (bookworm)
  Kubelet            v1.36.2

VERSIONS

  containerd.io      2.1.0-1 amd64
  kubelet            1.36.2-1.1 amd64 held
  etcd               registry.k8s.io/etcd:3.6.8-0
"""


def test_the_page_reads_well(root: Path) -> None:
    """What a replacement must match comes first, in two columns, and nothing is wider than a terminal."""
    page = documents(captured(root))["machine/machine.txt"]
    assert page.startswith(PAGE)
    assert max(map(len, page.splitlines())) <= 80
    for line in (
        "  sda2               255.5 GB, ext4, UUID=11-22",
        "  vg-data            2.097 MB, LVM, on sda2",
        "  /var/lib/etcd      /dev/sdb1, xfs, not in fstab",
        "  /usr/local/bin/etcdutl\n        9 bytes, sha256\n        ",
        "  Serial sda         50026B7",
        "  Kernel modules     br_netfilter, overlay",
    ):
        assert line in page


def test_lists_have_every_package_and_image(root: Path) -> None:
    """Packages are told with version and architecture, images with tag and digest; both are counted."""
    items = captured(root)
    told = documents(items)
    assert told["machine/packages.txt"].splitlines()[1:] == [
        "containerd.io 2.1.0-1 amd64",
        "kubelet 1.36.2-1.1 amd64 held",
    ]
    lines = told["machine/images.txt"].splitlines()
    assert lines[2:4] == ["reg.example.test/app0:1.0.0", f"    reg.example.test/app0@sha256:{0:064x}"]
    counts = {item.noun: item.number for item in items if isinstance(item, Count)}
    assert counts == {"packages": 2, "images": 40, "disks": 1, "network interfaces": 2}
    assert lacking(items) == []
    assert facts(items)["package kubelet"] == "1.36.2-1.1 amd64 held"
    assert facts(items)["program /usr/local/bin/etcdutl"].startswith("9 bytes, sha256 ")


def test_data_and_page_are_of_one_machine(root: Path) -> None:
    """The data can be compared later, and a machine does not differ from itself."""
    about = json.loads(documents(captured(root))["machine/machine.json"])
    assert about["kubernetes"] == {"kubelet": "v1.36.2"}
    assert about["modules"] == ["br_netfilter", "overlay"]
    assert about["os"]["version_id"] == "12"
    assert differences(about, about) == [Finding(GOOD, "machine", "it has what the old one had")]


def test_files_that_set_the_machine_up_are_taken(root: Path) -> None:
    """Kernel settings, mounts, package sources with their accounts and time servers; never the machine's id."""
    put(root, "/var/lib/dbus/machine-id", "1\n")
    found = paths(captured(root, MachineSource(include=("/etc/machine-id", "/var/lib/dbus"), exclude=("/etc/chrony",))))
    assert {
        "/etc/fstab",
        "/etc/sysctl.d/k8s.conf",
        "/etc/modules-load.d/k8s.conf",
        "/etc/apt/sources.list.d/kubernetes.list",
        "/etc/apt/auth.conf.d/mirror.conf",
    } <= found
    assert not found & {"/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/chrony/chrony.conf"}
    assert "/etc/chrony/chrony.conf" in paths(captured(root))


def test_a_configured_path_that_matches_nothing_is_said(root: Path) -> None:
    """A path with a mistake in it is not silently left out."""
    assert Finding(WARN, "/opt/x", "is configured, but matches nothing on this node") in captured(
        root, MachineSource(include=("/opt/x",))
    )


def test_secrets_are_in_no_summary(root: Path) -> None:
    """Passwords of mounts and package sources are in the sealed files only."""
    items = [item for item in captured(root) if not isinstance(item, TakePath)]
    assert CANARY not in str(items)
    assert "canary-fstab" not in str(items)


def test_what_is_not_known_is_named(tmp_path: Path) -> None:
    """A root without /proc, /sys and API server is not a machine without processor and images."""
    node = Node(Files(kubeadm.unpack(tmp_path)), KUBEADM)
    items = list(MachineSource().capture(node))
    assert lacking(items) == [
        f"not told by /proc and /sys below {tmp_path}: architecture, processor, memory, disks, network interfaces",
        "container images: no API server is known; there is no socket of a container runtime",
    ]
    assert [item.subject for item in items if isinstance(item, Finding)] == ["packages"]
    assert "machine/machine.txt" in documents(items)


def test_a_damaged_package_database_is_named(root: Path) -> None:
    """A database that tells nothing makes the backup incomplete, and stops nothing else."""
    put(root, "/var/lib/dpkg/status", b"\xff\0" * 1000)
    items = captured(root)
    assert lacking(items) == ["packages: the package database of dpkg names no package"]
    assert "machine/images.txt" in documents(items)
    assert documents(items).keys() & {"machine/packages.txt"} == set()


def test_lists_can_be_left_out(root: Path) -> None:
    """A node without a package manager, or without images worth a list, is not told off for it."""
    (root / "var/lib/dpkg/status").unlink()
    items = captured(root, MachineSource(packages=False, images=False))
    assert sorted(documents(items)) == ["machine/machine.json", "machine/machine.txt"]
    assert not [item for item in items if isinstance(item, Finding | Lacking)]


def test_a_program_that_cannot_be_read_is_said(root: Path) -> None:
    """A checksum that could not be made is not silently missing."""
    (root / "usr/local/bin/kubelet").mkdir()
    assert Finding(WARN, "/usr/local/bin/kubelet", "no checksum of it: a directory") in captured(root)


def test_files_and_documents_come_back(root: Path, tmp_path: Path) -> None:
    """Both have their step; a document that is lost or changed is bad, and so is a file."""
    source = MachineSource()
    restored = restore(source, node_of(root), tmp_path / "restored")
    assert list(source.put_back(restored.inventory)) == [PlaceFiles("machine"), PlaceDocuments("machine")]
    assert {finding.severity for finding in restored.findings(source)} == {GOOD}
    (restored.root / "etc/fstab").write_text("changed")
    (restored.root / ".edgedr/machine/images.txt").unlink()
    bad = {finding.subject for finding in restored.findings(source) if finding.severity is BAD}
    assert bad == {"/etc/fstab", "machine/images.txt"}


def test_noise_in_all_places_stops_nothing(root: Path) -> None:
    """Whatever the kernel, the packages and the configuration hold, the documents are written, and can be shown."""
    chance = random.Random(7)
    for path in sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(chance.randbytes(chance.randrange(400)))
    page = documents(captured(root))["machine/machine.txt"]
    assert all(sign.isprintable() for line in page.splitlines() for sign in line)


def test_a_blank_node_of_unknown_layout_yields_little(tmp_path: Path) -> None:
    """A wrong root gives an incomplete backup, with the reason in it."""
    items = list(MachineSource().capture(Node(Files(tmp_path), UNKNOWN)))
    assert len(lacking(items)) == 2


def test_this_machine_is_captured() -> None:
    """The machine that the tests run on gives a page, its packages where it has some, and the same again."""
    node = Node(Files(Path("/")), UNKNOWN, HostCommands())
    source = MachineSource(images=False)
    items = list(source.capture(node))
    assert items == list(source.capture(node))
    page = documents(items)["machine/machine.txt"]
    assert "  Processor " in page
    assert "  Kernel " in page


def test_an_unchanged_node_differs_in_nothing(root: Path) -> None:
    """Pods that come and go and a server that is restarted leave every byte of the documents as it was."""
    before = documents(captured(root))
    put_interface(root, "veth9", "ee:ee:ee:ee:ee:ee", addr_assign_type="1")
    put_disk(root, "nbd0", "43:0", 2048, "virtual")
    put(root, "/proc/1/mountinfo", (root / "proc/1/mountinfo").read_text() + "9 9 0:9 / /run/x rw - tmpfs tmpfs rw\n")
    assert documents(captured(root)) == before


def compared(root: Path, **changed: Any) -> dict[str, tuple[Severity, str]]:
    """Compare the written machine with one that differs in these topics; a topic of ``None`` is not known of it."""
    ours = json.loads(documents(captured(root))["machine/machine.json"])
    theirs = copy.deepcopy(ours)
    for topic, value in changed.items():
        if value is None:
            del theirs[topic]
        elif isinstance(value, dict):
            theirs[topic] = {name: told for name, told in {**theirs[topic], **value}.items() if told is not None}
        else:
            theirs[topic] = value
    found = differences(ours, theirs)
    told = {each.subject: (each.severity, each.text) for each in found}
    assert len(told) == len(found), "one thing is said twice"
    return told


def test_another_architecture_is_bad(root: Path) -> None:
    """Nothing of the backup would run there."""
    assert compared(root, architecture="aarch64") == {"architecture": (BAD, "is aarch64, was x86_64")}


def test_another_minor_version_of_the_kubelet_is_bad(root: Path) -> None:
    """A patch is said, a minor version is bad, and so is a kubelet that is not there."""
    assert compared(root, kubernetes={"kubelet": "v1.36.9"}) == {"kubelet": (WARN, "is v1.36.9, was v1.36.2")}
    assert compared(root, kubernetes={"kubelet": "v1.35.2"}) == {"kubelet": (BAD, "is v1.35.2, was v1.36.2")}
    assert compared(root, kubernetes={"kubelet": "v1.3.2"})["kubelet"][0] is BAD
    older = {"kubernetes": {"kubelet": "v1.35.2"}, "packages": {"kubelet": "1.35.2-1.1 amd64"}}
    assert compared(root, **older) == {"kubelet": (BAD, "is v1.35.2, was v1.36.2")}
    text = "is not installed, or its version is not known; was v1.36.2"
    assert compared(root, kubernetes=None) == {"kubelet": (BAD, text)}


def test_less_hardware_is_said(root: Path) -> None:
    """Fewer processors, less memory, smaller or fewer disks, fewer interfaces: each is named with both figures."""
    disk = {"name": "nvme0n1", "size_bytes": 128_000_000_000}
    port = {"name": "enp1s0", "kind": "physical", "mac": "00:e0:67:00:00:01"}
    assert compared(root, cpu={"processors": 2}, memory_bytes=4 << 30, disks=[disk], interfaces=[port]) == {
        "processors": (WARN, "2, was 4"),
        "memory": (WARN, "4 GiB, was 8 GiB"),
        "disk 1 by size": (WARN, "128 GB, was 256.1 GB"),
        "network interfaces": (WARN, "1, was 2"),
        "enp2s0": (WARN, "no network interface has this name"),
    }
    assert compared(root, disks=[{**disk, "removable": True}]) == {"disks": (WARN, "0, was 1")}


def test_more_hardware_is_no_difference(root: Path) -> None:
    """A target may be larger, faster and newer."""
    disks = [{"name": "sda", "size_bytes": 1 << 40}, {"name": "sdb", "size_bytes": 1 << 40}]
    more = {"cpu": {"processors": 16, "level": "x86-64-v4"}, "memory_bytes": 64 << 30, "disks": disks}
    assert compared(root, **more, kernel={"release": "6.12.1"})["machine"][0] is GOOD


def test_what_names_things_is_compared(root: Path) -> None:
    """Names and addresses of interfaces, mount points, boot, system and kernel: configuration depends on each."""
    ports = [
        {"name": "enp1s0", "kind": "physical", "mac": "00:e0:67:ff:ff:ff"},
        {"name": "eth9", "kind": "physical", "mac": "00:e0:67:00:00:02"},
    ]
    changed = {
        "interfaces": ports,
        "file_systems": [{"at": "/", "device": "/dev/sda", "configured": True}, {"at": "/mnt/my site"}],
        "firmware": {"boot": "BIOS"},
        "os": {"version_id": "13"},
        "kernel": {"release": "5.15.0-1"},
        "cpu": {"level": "x86-64-v1"},
    }
    assert compared(root, **changed) == {
        "enp1s0": (WARN, "has another MAC address than 00:e0:67:00:00:01"),
        "enp2s0": (WARN, "no network interface has this name"),
        "/var/lib/etcd": (WARN, "was a file system of its own, and is none here"),
        "boot": (WARN, "is BIOS, was UEFI"),
        "system": (WARN, "is 13, was 12"),
        "kernel": (WARN, "5.15.0-1 is older than 6.1.0-40-amd64"),
        "processor": (WARN, "is x86-64-v1, was x86-64-v2"),
    }
    assert compared(root, os={"id": "alpine"})["system"] == (WARN, "is alpine, was debian")


def test_packages_are_compared_by_version(root: Path) -> None:
    """A runtime of another version is said; one that is not installed too."""
    assert compared(root, packages={"containerd.io": "1.7.1-1 amd64"}) == {
        "containerd.io": (WARN, "is 1.7.1-1, was 2.1.0-1")
    }
    assert compared(root, packages={"containerd.io": None}) == {
        "containerd.io": (WARN, "is not installed; was 2.1.0-1")
    }
    assert compared(root, packages={"kubelet": "1.36.2-1.1 amd64"})["machine"][0] is GOOD


@pytest.mark.parametrize("topic", ["architecture", "cpu", "memory_bytes", "disks", "interfaces", "kernel", "os"])
def test_unknown_is_not_equal(root: Path, topic: str) -> None:
    """What a target does not tell is said, never passed over."""
    found = compared(root, **{topic: None})
    assert {severity for severity, _ in found.values()} == {WARN}
    assert all("not known here; was " in text for _, text in found.values())


def test_an_empty_target_is_compared(root: Path) -> None:
    """Nothing known of a target gives findings, no failure; and the other way round, nothing is claimed missing."""
    about = json.loads(documents(captured(root))["machine/machine.json"])
    assert BAD in {finding.severity for finding in differences(about, {})}
    assert [finding.severity for finding in differences({}, about)] == [GOOD]


def test_the_runtime_of_the_node_is_asked(root: Path) -> None:
    """Where the API server is down, crictl tells the images, and the backup is whole."""
    put(root, "/run/containerd/containerd.sock")
    words = "crictl -r unix:///run/containerd/containerd.sock images -o json"
    commands = Answers({words: json.dumps({"images": [{"repoTags": ["a:1"], "repoDigests": None}]})})
    items = list(MachineSource().capture(Node(Files(root), KUBEADM, commands, Nodes(None))))
    assert lacking(items) == []
    assert documents(items)["machine/images.txt"].endswith("a:1\n    (no digest: it was never in a registry)\n")
