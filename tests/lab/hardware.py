"""A small machine as its kernel and udev show it, in files; and commands that answer what is written down."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from edgedr.errors import SourceError
from edgedr.node.commands import WITHIN

CPUINFO = """\
processor\t: {n}
model name\t: Intel(R) Celeron(R) J4125 CPU @ 2.00GHz
cpu MHz\t\t: 1996.{n}
physical id\t: 0
core id\t\t: {n}
flags\t\t: fpu lm cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3
"""
FSTAB = """\
# <file system> <mount point> <type> <options> <dump> <pass>
UUID=11-22 / ext4 errors=remount-ro 0 1
UUID=33-44 none swap sw 0 0
//nas/site /mnt/my\\040site cifs user=edge,password=canary-fstab 0 0
"""
MOUNTS = """\
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw
23 22 0:20 / /proc rw - proc proc rw
24 22 8:17 / /var/lib/etcd rw - xfs /dev/sdb1 rw
25 22 0:50 / /run/containerd/io.containerd.runtime.v2.task/k8s.io/a/rootfs rw - overlay overlay rw,lowerdir=/x
26 22 8:17 /pods /var/lib/kubelet/pods/a/volumes/b rw - xfs /dev/sdb1 rw
27 22 8:17 /sub /srv/sub rw - xfs /dev/sdb1 rw
28 22 7:0 / /snap/core/1 ro - squashfs /dev/loop0 ro
30 22 8:49 / /var/lib/kubelet/pods/c/volumes/d/mount rw - ext4 /dev/sdd rw
broken line
29 22 8:33 / /srv/odd -
"""


class Answers:
    """Commands that give what was written down, and no other answer."""

    def __init__(self, answers: Mapping[str, str]) -> None:
        self.answers = answers

    def run(self, *words: str, within: timedelta = WITHIN) -> str:
        answer = self.answers.get(" ".join(words))
        if answer is None:
            raise SourceError(f"there is no {words[0]} on this machine")
        return answer


def put(root: Path, path: str, text: str | bytes = "") -> None:
    at = root / path.lstrip("/")
    at.parent.mkdir(parents=True, exist_ok=True)
    at.write_bytes(text if isinstance(text, bytes) else text.encode())


def put_disk(root: Path, name: str, number: str, sectors: int, device: str, **more: str) -> None:
    """Write a disk as /sys shows one: its directory somewhere, a link to it in /sys/block."""
    put(root, f"/sys/devices/{device}/block/{name}/size", f"{sectors}\n")
    put(root, f"/sys/devices/{device}/block/{name}/dev", f"{number}\n")
    for path, text in more.items():
        put(root, f"/sys/devices/{device}/block/{name}/{path.replace('__', '/')}", f"{text}\n")
    (root / "sys/block").mkdir(exist_ok=True)
    (root / "sys/block" / name).symlink_to(f"../devices/{device}/block/{name}")


def put_interface(root: Path, name: str, address: str, device: str = "virtual", **more: str) -> None:
    at = f"/sys/devices/{device}/net/{name}"
    put(root, f"{at}/address", f"{address}\n")
    for path, text in more.items():
        put(root, f"{at}/{path.replace('__', '/')}", f"{text}\n")
    if device != "virtual":
        (root / at[1:] / "device").symlink_to("../..")
    (root / "sys/class/net").mkdir(parents=True, exist_ok=True)
    (root / "sys/class/net" / name).symlink_to(f"../../devices/{device}/net/{name}")


def write_machine(root: Path) -> Path:
    """Write a small machine as its kernel and udev show it, below ``root``."""
    put(root, "/proc/cpuinfo", "\n".join(CPUINFO.format(n=n) for n in range(4)))
    put(root, "/proc/meminfo", "MemTotal:        7953048 kB\nMemFree:         123 kB\n")
    put(root, "/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=UUID=11-22 quiet\n")
    put(root, "/proc/sys/kernel/arch", "x86_64\n")
    put(root, "/proc/sys/kernel/osrelease", "6.1.0-40-amd64\n")
    put(root, "/proc/sys/kernel/hostname", "cp-1\n")
    put(root, "/proc/uptime", "1.0 2.0\n")
    put(root, "/proc/1/mountinfo", MOUNTS)
    put(root, "/etc/fstab", FSTAB)
    put(root, "/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    put(root, "/etc/os-release", 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n')
    put(root, "/etc/modules-load.d/k8s.conf", "# for the CNI\nbr_netfilter\noverlay\n")
    put(root, "/etc/sysctl.d/k8s.conf", "net.ipv4.ip_forward = 1\n")
    put(root, "/sys/devices/system/cpu/present", "0-3\n")
    for name, text in {
        "sys_vendor": "Protectli",
        "product_name": "FW4B",
        "product_serial": "To Be Filled By O.E.M.",
        "board_serial": "B-77",
        "bios_version": "5.0.17",
    }.items():
        put(root, f"/sys/class/dmi/id/{name}", f"{text}\n")
    put(root, "/sys/firmware/efi/fw_platform_size", "64\n")
    disk = {"queue__rotational": "0", "queue__logical_block_size": "512", "removable": "0"}
    put_disk(
        root, "sda", "8:0", 500118192, "pci0/ata1", device__model="KINGSTON  SUV500M", device__vendor="ATA", **disk
    )
    for number, sectors in ((1, 1048576), (2, 499067568)):
        put(root, f"/sys/devices/pci0/ata1/block/sda/sda{number}/partition", f"{number}\n")
        put(root, f"/sys/devices/pci0/ata1/block/sda/sda{number}/size", f"{sectors}\n")
        put(root, f"/sys/devices/pci0/ata1/block/sda/sda{number}/dev", f"8:{number}\n")
    put(root, "/run/udev/data/b8:0", "S:disk/by-id/x\nE:ID_SERIAL_SHORT=50026B7\n")
    put(root, "/run/udev/data/b8:2", "E:ID_FS_TYPE=ext4\nE:ID_FS_UUID=11-22\n")
    put_disk(root, "loop0", "7:0", 2048, "virtual")
    put_disk(root, "sdb", "8:16", 2048, "platform/host2/session1/target2:0:0", device__vendor="IET")
    put_disk(root, "sdc", "8:32", 0, "pci0/usb1", removable="1")
    put_disk(root, "dm-0", "253:0", 4096, "virtual", dm__name="vg-data", dm__uuid="LVM-abc")
    put(root, "/sys/devices/virtual/block/dm-0/slaves/sda2/size", "499067568\n")
    put_interface(root, "enp1s0", "00:e0:67:00:00:01", "pci0/0000:01:00.0", addr_assign_type="0", ifindex="2")
    put_interface(root, "enp2s0", "00:e0:67:00:00:01", "pci0/0000:02:00.0", addr_assign_type="0", ifindex="3")
    put(root, "/run/udev/data/n2", "E:ID_VENDOR_FROM_DATABASE=Intel\nE:ID_MODEL_FROM_DATABASE=I211\n")
    put_interface(root, "bond0", "00:e0:67:00:00:01", addr_assign_type="2", bonding__mode="active-backup 1")
    for name in ("01", "02"):
        at = root / f"sys/devices/pci0/0000:{name}:00.0/net"
        (next(at.iterdir()) / "master").symlink_to("../../../../virtual/net/bond0")
    put(
        root,
        "/proc/net/bonding/bond0",
        "Bonding Mode: x\n\nSlave Interface: enp1s0\nMII Status: up\nPermanent HW addr: 00:e0:67:00:00:01\n\n"
        "Slave Interface: enp2s0\nMII Status: down\nPermanent HW addr: 00:e0:67:00:00:02\n",
    )
    put_interface(root, "bond0.7", "00:e0:67:00:00:01", addr_assign_type="2", uevent="DEVTYPE=vlan")
    (root / "sys/devices/virtual/net/bond0.7/lower_bond0").symlink_to("../bond0")
    for name in ("lo", "veth1234", "cali77"):
        put_interface(root, name, "ee:ee:ee:ee:ee:ee", addr_assign_type="1")
    put_interface(root, "cni0", "ee:ee:ee:ee:ee:ee", addr_assign_type="1", bridge__bridge_id="x")
    return root
