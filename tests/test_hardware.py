"""What is read of a machine: from a small one that is written here, and from the one that the tests run on."""

import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedr.node import hardware
from edgedr.node.commands import HostCommands, NoCommands
from edgedr.node.files import Files
from tests.lab.hardware import CPUINFO, Answers, put, put_disk, put_interface, write_machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_machine(tmp_path / "node")


def about(root: Path) -> dict[str, Any]:
    return hardware.machine(Files(root), NoCommands())


def test_a_machine_is_described(root: Path) -> None:
    """Processor, memory, firmware, boot and kernel are told; a maker's placeholder is no serial number."""
    told = about(root)
    assert told["architecture"] == "x86_64"
    assert told["cpu"] == {
        "model": "Intel(R) Celeron(R) J4125 CPU @ 2.00GHz",
        "processors": 4,
        "cores": 4,
        "sockets": 1,
        "level": "x86-64-v2",
    }
    assert told["memory_bytes"] == 8 << 30
    assert told["firmware"] == {
        "vendor": "Protectli",
        "product": "FW4B",
        "board_serial": "B-77",
        "bios": "5.0.17",
        "boot": "UEFI",
    }
    assert told["kernel"] == {
        "release": "6.1.0-40-amd64",
        "command_line": "BOOT_IMAGE=/vmlinuz root=UUID=11-22 quiet",
    }
    assert "virtualization" not in told


def test_disks_are_those_of_the_machine(root: Path) -> None:
    """Model, serial, size and partitions are told; loop devices, pods' iSCSI volumes and empty readers are left out."""
    told = about(root)
    assert told["disks"] == [
        {
            "name": "sda",
            "vendor": "ATA",
            "model": "KINGSTON SUV500M",
            "serial": "50026B7",
            "size_bytes": 256060514304,
            "block_bytes": 512,
            "rotational": False,
            "partitions": [
                {"name": "sda1", "start": 0, "size_bytes": 536870912},
                {"name": "sda2", "start": 0, "size_bytes": 255522594816, "holds": "ext4", "uuid": "11-22"},
            ],
        }
    ]
    assert told["volumes"] == [{"name": "vg-data", "kind": "LVM", "size_bytes": 2097152, "on": ["sda2"]}]


def test_disks_and_interfaces_count_as_people_do(root: Path) -> None:
    """The tenth comes after the second, so that a document reads well."""
    for name in ("nvme10n1", "nvme2n1"):
        put_disk(root, name, "259:1", 8, f"pci0/{name}", device__serial=f"S-{name}")
    names = [disk["name"] for disk in about(root)["disks"]]
    assert names == ["nvme2n1", "nvme10n1", "sda"]
    assert about(root)["disks"][0]["serial"] == "S-nvme2n1"


def test_file_systems_are_those_that_are_configured(root: Path) -> None:
    """fstab, and what else a disk is mounted on: no pod's mount, no overlay, no second name; no password."""
    told = about(root)["file_systems"]
    assert [(each["at"], each["device"], each["configured"]) for each in told] == [
        ("/", "UUID=11-22", True),
        ("/mnt/my site", "//nas/site", True),
        ("/var/lib/etcd", "/dev/sdb1", False),
        ("none", "UUID=33-44", True),
    ]
    assert "canary-fstab" not in json.dumps(told)
    assert told[1]["options"] == "user=edge,password=(not shown)"


def test_interfaces_are_hardware_and_what_is_built_on_it(root: Path) -> None:
    """Each port has its own address even in a bond, and its fastest speed; what pods bring is left out."""
    supported = "Supported link modes:   10baseT/Half\n\t1000baseT/Full 2500baseT/Full\nSupported pause frame use: No\n"
    later = "Advertised link modes: 10000baseT/Full\nSpeed: 100Mb/s\n"
    told = hardware.interfaces(Files(root), Answers({"ethtool enp1s0": supported + later}))
    assert told == [
        {"name": "bond0", "kind": "bond"},
        {"name": "bond0.7", "kind": "vlan", "on": ["bond0"]},
        {
            "name": "enp1s0",
            "kind": "physical",
            "mac": "00:e0:67:00:00:01",
            "model": "Intel I211",
            "speed_mbit": 2500,
            "part_of": "bond0",
        },
        {"name": "enp2s0", "kind": "physical", "mac": "00:e0:67:00:00:02", "part_of": "bond0"},
    ]


def test_what_changes_by_itself_is_not_told(root: Path) -> None:
    """Clock rate, free memory, uptime, pods and the kernel's own share of memory change nothing in it."""
    before = about(root)
    put(root, "/proc/cpuinfo", (root / "proc/cpuinfo").read_text().replace("1996.", "800."))
    put(root, "/proc/meminfo", "MemTotal:        7948211 kB\nMemFree:         99999 kB\n")
    put(root, "/proc/uptime", "99.0 99.0\n")
    put_interface(root, "veth9", "ee:ee:ee:ee:ee:ee", addr_assign_type="1")
    put_disk(root, "rbd0", "250:0", 2048, "virtual")
    assert about(root) == before


@given(st.integers(1 << 18, 1 << 30))
def test_memory_is_rounded_up_and_not_far(kilobytes: int) -> None:
    """The rounded size is never less, and never an eighth more."""

    class Told(Files):
        def contents(self, path: object, *, limit: int = 0) -> bytes:
            return f"MemTotal: {kilobytes} kB\n".encode()

    rounded = hardware.memory(Told(Path("/")))
    assert rounded is not None
    assert kilobytes << 10 <= rounded < (kilobytes << 10) * 9 // 8 + 1


@pytest.mark.parametrize("gib", [1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128])
def test_memory_is_what_was_built_in(gib: int, tmp_path: Path) -> None:
    """What the kernel keeps for itself, two to five of a hundred, does not show."""
    for kept in (0.02, 0.03, 0.05):
        put(tmp_path, "/proc/meminfo", f"MemTotal: {int(gib * (1 - kept) * (1 << 20))} kB\n")
        assert hardware.memory(Files(tmp_path)) == gib << 30


def test_a_board_without_firmware_tables_is_described(tmp_path: Path) -> None:
    """A single-board computer tells its model and its processor in its own way."""
    put(tmp_path, "/proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n\nModel\t: Pi\n")
    put(tmp_path, "/proc/sys/kernel/arch", "aarch64\n")
    put(tmp_path, "/sys/firmware/devicetree/base/model", b"Raspberry Pi 4 Model B Rev 1.4\0")
    put(tmp_path, "/sys/firmware/devicetree/base/serial-number", b"10000000abcdef\0")
    told = about(tmp_path)
    assert told["cpu"] == {"model": "implementer 0x41 part 0xd08", "processors": 1}
    assert told["firmware"] == {"product": "Raspberry Pi 4 Model B Rev 1.4", "serial": "10000000abcdef"}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [("/var/lib/dpkg/arch", "arm64\n", "aarch64"), ("/etc/apk/arch", "x86_64\n", "x86_64"), ("/nothing", "", None)],
)
def test_the_architecture_is_known_from_the_packages_too(
    tmp_path: Path, path: str, text: str, expected: str | None
) -> None:
    """An older kernel, or the disk of a machine that is dead, still says what it is for."""
    put(tmp_path, path, text)
    assert hardware.architecture(Files(tmp_path), NoCommands()) == expected


def test_an_older_kernel_is_asked(tmp_path: Path) -> None:
    """``uname`` is believed before what the packages are built for."""
    put(tmp_path, "/var/lib/dpkg/arch", "armhf\n")
    assert hardware.architecture(Files(tmp_path), Answers({"uname -m": "aarch64\n"})) == "aarch64"


def test_a_virtual_machine_is_known_as_one(root: Path) -> None:
    """The maker's name tells it, or the processor does."""
    put(root, "/proc/cpuinfo", CPUINFO.format(n=0).replace("fpu", "fpu hypervisor"))
    assert about(root)["virtualization"] == "a hypervisor without a name"
    put(root, "/sys/class/dmi/id/sys_vendor", "QEMU\n")
    assert about(root)["virtualization"] == "QEMU FW4B"


def test_nothing_is_made_up(tmp_path: Path) -> None:
    """Below an empty root, nothing is told."""
    assert about(tmp_path) == {}


@given(st.binary(max_size=300))
def test_no_content_stops_it(noise: bytes) -> None:
    """Whatever these files hold, a description comes out that can be written as JSON and shown on one line."""

    class Noise(Files):
        def contents(self, path: object, *, limit: int = 0) -> bytes:
            return noise

    told = hardware.machine(Noise(Path("/")), NoCommands())
    assert all(sign.isprintable() for sign in json.dumps(told, ensure_ascii=False))


def test_hostile_names_do_not_reach_a_command(root: Path) -> None:
    """An interface whose name looks like an option is not asked about."""
    put_interface(root, "--help", "00:e0:67:00:00:09", "pci0/0000:09:00.0", addr_assign_type="0")
    assert "--help" not in {each["name"] for each in about(root)["interfaces"]}


def test_a_name_that_is_not_text_is_told_as_one(root: Path) -> None:
    """The document is UTF-8, whatever a damaged disk brings as the name of a device."""
    name = os.fsdecode(b"x\xff")
    put(root, f"/sys/block/{name}/size", "8")
    assert about(root)["disks"][-1]["name"] == "x?"


def test_this_machine_is_described() -> None:
    """The real /proc and /sys are read through the same guards, and agree with what Python says."""
    files = Files(Path("/"))
    told = hardware.machine(files, HostCommands())
    assert told["architecture"] == platform.machine()
    assert told["cpu"]["processors"] >= (os.cpu_count() or 1)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert total <= told["memory_bytes"] <= total * 9 // 8
    assert told["kernel"]["release"] == platform.release()
    assert told == hardware.machine(files, HostCommands())


def test_a_copy_of_this_machine_is_described_the_same(tmp_path: Path) -> None:
    """Files of /proc say that they are empty and those of /sys that they are a page: copies of them do not."""
    for path in ("/proc/cpuinfo", "/proc/meminfo", "/proc/cmdline", "/proc/sys/kernel/osrelease"):
        put(tmp_path, path, Path(path).read_bytes())
    for present in Path("/sys/devices/system/cpu").glob("present"):
        put(tmp_path, str(present), present.read_bytes())
    files, copies = Files(Path("/")), Files(tmp_path)
    assert hardware.memory(copies) == hardware.memory(files)
    text = (tmp_path / "proc/cpuinfo").read_text()
    assert hardware.processor(copies, text) == hardware.processor(files, text)
    shutil.rmtree(tmp_path / "proc")
    assert hardware.memory(copies) is None
