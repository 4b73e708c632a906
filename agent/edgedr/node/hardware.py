"""What a machine is made of, as plain JSON values: from ``/proc``, ``/sys`` and udev's records below the node's root.

Only what stays the same while the machine does: no clock rates, link states, free space or temperatures. Only what the
kernel answers from memory: nothing here asks a device. Sizes are bytes. What is not known is left out.
"""

import re
from datetime import timedelta
from pathlib import PurePosixPath

from edgedr.errors import SourceError
from edgedr.node import disks, sysfs
from edgedr.node.commands import Commands
from edgedr.node.files import Files
from edgedr.node.sysfs import Described

_WITHIN = timedelta(seconds=3)
_COMMAND_LINE, _FLAGS = 4096, 8192

_FIRMWARE = (
    ("vendor", "sys_vendor"), ("product", "product_name"), ("version", "product_version"), ("serial", "product_serial"),
    ("board_vendor", "board_vendor"), ("board", "board_name"), ("board_serial", "board_serial"),
    ("bios_vendor", "bios_vendor"), ("bios", "bios_version"), ("bios_date", "bios_date"),
)  # fmt: skip
_PLACEHOLDER = re.compile(
    r"(default string|not (specified|applicable|available)|none|unknown|0+|to be filled.*|system "
    r"(serial number|product name|manufacturer|version)|base board serial number)",
    re.IGNORECASE,
)
_VIRTUAL = re.compile(
    r"\b(qemu|kvm|vmware|virtualbox|xen|bochs|openstack|virtual machine|amazon ec2|google compute)\b", re.IGNORECASE
)

_X86_LEVELS = (
    ("x86-64-v2", {"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"}),
    ("x86-64-v3", {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"}),
    ("x86-64-v4", {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}),
)
"""Levels of the psABI, each with what it adds: programs built for one do not start on a processor below it."""

_OF_PODS = re.compile(
    r"(veth|cali|lxc|cni|flannel|cilium|docker|br-[0-9a-f]{12}$|virbr|kube-|weave|antrea|nodelocaldns|tap)"
)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*", re.ASCII)
_LINK_MODE = re.compile(r"\b(\d+)base")


def machine(files: Files, commands: Commands) -> Described:
    """Return all of this module about one machine, by topic."""
    text = sysfs.text(files, "/proc/cpuinfo")
    return sysfs.known(
        architecture=architecture(files, commands),
        cpu=processor(files, text),
        memory_bytes=memory(files),
        firmware=firmware(files),
        virtualization=_virtualization(files, text),
        disks=disks.disks(files),
        volumes=disks.volumes(files),
        file_systems=disks.file_systems(files),
        interfaces=interfaces(files, commands),
        kernel=sysfs.known(
            release=sysfs.word(files, "/proc/sys/kernel/osrelease"),
            command_line=sysfs.word(files, "/proc/cmdline", _COMMAND_LINE),
        ),
    )


def architecture(files: Files, commands: Commands) -> str | None:
    """Return the machine's architecture as ``uname -m`` says it."""
    told = sysfs.word(files, "/proc/sys/kernel/arch")  # since Linux 6.1
    if told is None:
        try:
            told = sysfs.one_line(commands.run("uname", "-m"))
        except SourceError:
            told = (
                sysfs.word(files, "/var/lib/dpkg/arch")
                or sysfs.word(files, "/etc/apk/arch")
                or sysfs.word(files, "/lib/apk/arch")
            )
    same = {"amd64": "x86_64", "arm64": "aarch64", "armhf": "armv7l", "armv7": "armv7l", "i386": "i686", "x86": "i686"}
    return same.get(told or "", told)


def processor(files: Files, text: str) -> Described:
    """Return model, logical ``processors``, physical ``cores`` and ``sockets``; ``text`` is of ``/proc/cpuinfo``."""
    each: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if not line.strip():
            each.append({})
        elif colon:
            each[-1][name.strip()] = sysfs.one_line(value, _FLAGS)
    counted = [one for one in each if one.get("processor", "").isdigit()]
    first = counted[0] if counted else {}
    arm = " ".join(f"{name[4:]} {first[name]}" for name in ("CPU implementer", "CPU part") if name in first)
    packages = {one["physical id"] for one in counted if "physical id" in one}
    cores = {(one["physical id"], one["core id"]) for one in counted if "physical id" in one and "core id" in one}
    flags = set(first.get("flags", "").split())
    return sysfs.known(
        model=first.get("model name") or first.get("cpu model") or arm,
        processors=_present(files) or len(counted) or None,
        cores=len(cores) or None,
        sockets=len(packages) or None,
        level=_level(flags),
    )


def memory(files: Files) -> int | None:
    """Return what is built in: ``MemTotal``, rounded up to a sixteenth to an eighth of itself.

    The kernel keeps some for itself, at each boot a little more or less, always much less than that.
    """
    found = re.search(r"^MemTotal: +(\d{1,15}) kB", sysfs.text(files, "/proc/meminfo"), re.MULTILINE | re.ASCII)
    total = int(found[1]) << 10 if found else 0
    if not total:
        return None
    step = 1 << max(0, total.bit_length() - 4)
    return -(-total // step) * step


def firmware(files: Files) -> Described:
    """Return what DMI or the device tree says: vendor, product, serials, BIOS; how it boots; the TPM's version."""
    told = {key: sysfs.word(files, f"/sys/class/dmi/id/{name}") for key, name in _FIRMWARE}
    told["product"] = told["product"] or sysfs.word(files, "/sys/firmware/devicetree/base/model")
    told["serial"] = told["serial"] or sysfs.word(files, "/sys/firmware/devicetree/base/serial-number")
    told = {key: value for key, value in told.items() if value and not _PLACEHOLDER.fullmatch(value)}
    boot = (
        "UEFI"
        if files.exists("/sys/firmware/efi")
        else "BIOS"
        if files.exists("/sys/class/dmi/id/bios_version")
        else None
    )
    return sysfs.known(**told, boot=boot, tpm=sysfs.word(files, "/sys/class/tpm/tpm0/tpm_version_major"))


def interfaces(files: Files, commands: Commands) -> list[Described]:
    """Return network hardware, and the bridges, bonds and VLANs on it: none that comes and goes with pods."""
    permanent = _permanent_addresses(files)
    found = []
    for at in sysfs.devices(files, "/sys/class/net/*/address"):
        kind = _kind(files, at)
        if kind is None or not _INTERFACE.fullmatch(at.name) or (kind != "physical" and _OF_PODS.match(at.name)):
            continue
        is_physical = kind == "physical"
        is_stable = is_physical or sysfs.word(files, at / "addr_assign_type") in {"0", "3"}
        address = permanent.get(at.name) or (sysfs.word(files, at / "address") if is_stable else None)
        udev = sysfs.udev(files, f"n{sysfs.word(files, at / 'ifindex')}") if is_physical else {}
        driver, master = files.real(at / "device/driver"), files.real(at / "master")
        found.append(
            sysfs.known(
                name=at.name,
                kind=kind,
                mac=address if address and address.strip("0:") else None,
                driver=sysfs.one_line(driver.name) if driver and is_physical else None,
                model=sysfs.one_line(
                    f"{udev.get('ID_VENDOR_FROM_DATABASE', '')} {udev.get('ID_MODEL_FROM_DATABASE', '')}"
                ),
                speed_mbit=_fastest(commands, at.name) if is_physical else None,
                part_of=sysfs.one_line(master.name) if master else None,
                on=[sysfs.one_line(each.name) for each in sysfs.devices(files, f"{at}/lower_*/address")]
                if kind == "vlan"
                else None,
            )
        )
    return sorted(found, key=lambda interface: sysfs.natural(interface["name"]))


def _virtualization(files: Files, cpuinfo: str) -> str | None:
    """Return under what the machine runs, if it is a virtual one."""
    told = sysfs.word(files, "/sys/hypervisor/type")
    vendor, product = (sysfs.word(files, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    named = sysfs.one_line(f"{vendor or ''} {product or ''}")
    if told is None and named and _VIRTUAL.search(named):
        return named
    is_virtual = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE)
    return told or ("a hypervisor without a name" if is_virtual else None)


def _level(flags: set[str]) -> str | None:
    level = "x86-64-v1" if "lm" in flags else None
    for name, adds in _X86_LEVELS:
        if level is None or not adds <= flags:
            break
        level = name
    return level


def _present(files: Files) -> int:
    """Return how many processors are plugged in, running or not; 0 if that is not told."""
    told = sysfs.word(files, "/sys/devices/system/cpu/present") or ""
    ranges = [re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII) for part in told.split(",")]
    return sum(int(each[2] or each[1]) - int(each[1]) + 1 for each in ranges if each)


def _kind(files: Files, at: PurePosixPath) -> str | None:
    if files.exists(at / "device"):
        return None if files.exists(at / "device/physfn") else "physical"  # a virtual function comes and goes
    for kind, sign in (("bridge", "bridge"), ("bond", "bonding")):
        if files.exists(at / sign):
            return kind
    return "vlan" if "DEVTYPE=vlan" in sysfs.text(files, at / "uevent").split() else None


def _permanent_addresses(files: Files) -> dict[str, str]:
    """Return the own addresses of interfaces in bonds: there, all of them show one."""
    found: dict[str, str] = {}
    for path in files.expand(("/proc/net/bonding/*",)):
        pattern = r"^Slave Interface: (\S+)$(?:\n.+)*?\nPermanent HW addr: ([0-9a-f:]{11,59})$"
        found.update(re.findall(pattern, sysfs.text(files, path), re.MULTILINE))
    return found


def _fastest(commands: Commands, name: str) -> int | None:
    """Return the fastest speed that an interface supports, in Mbit/s, whatever its cable gives today."""
    try:
        told = commands.run("ethtool", name, within=_WITHIN)
    except SourceError:
        return None
    modes = told.partition("Supported link modes:")[2].partition("Supported pause frame use:")[0]
    return max((int(speed) for speed in _LINK_MODE.findall(modes)), default=None)
