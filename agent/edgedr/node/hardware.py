"""What a machine is made of, as plain JSON values: from ``/proc``, ``/sys`` and udev's records below the node's root.

Only what stays the same while the machine does: no clock rates, link states, free space or temperatures. Only what the
kernel answers from memory: nothing here asks a device. Sizes are bytes. What is not known is left out.
"""

import re
from datetime import timedelta
from pathlib import PurePosixPath
from typing import Any, TypeAlias

from edgedr.errors import SourceError
from edgedr.node.commands import Commands
from edgedr.node.files import Files

Described: TypeAlias = dict[str, Any]

_SECTOR = 512  # bytes: the unit of /sys/block/*/size, whatever the disk's own block is
_WITHIN = timedelta(seconds=3)
_LONGEST = 300  # characters of one value
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

_NO_DISK = re.compile(r"(loop|ram|zram|fd|sr|nbd|rbd|drbd|mtdblock|dm-|md)_?d?\d|mmcblk\d+(boot\d|rpmb)")
"""Devices without hardware of their own, volumes that pods mount over the network, and parts of another disk."""
_ISCSI = re.compile(r"/session\d+/")

_OF_PODS = re.compile(
    r"(veth|cali|lxc|cni|flannel|cilium|docker|br-[0-9a-f]{12}$|virbr|kube-|weave|antrea|nodelocaldns|tap)"
)
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:@-]*", re.ASCII)
_LINK_MODE = re.compile(r"\b(\d+)base")

_RUNTIME = re.compile(
    r"/(proc|sys|dev|run|var/run|snap|var/snap|tmp)(/|$)|/var/lib/(kubelet|docker|containerd|containers|rancher)/."
)
"""Where mounts come and go with pods, sessions and services."""
_KEPT_TYPES = frozenset({"zfs", "nfs", "nfs4", "cifs", "ceph", "glusterfs", "9p", "virtiofs"})
_SECRET_OPTION = re.compile(r"\b(pass(?:word)?|secret)=[^,]*")


def machine(files: Files, commands: Commands) -> Described:
    """Return all of this module about one machine, by topic."""
    text = _text(files, "/proc/cpuinfo")
    return _known(
        architecture=architecture(files, commands),
        cpu=processor(files, text),
        memory_bytes=memory(files),
        firmware=firmware(files),
        virtualization=_virtualization(files, text),
        disks=disks(files),
        volumes=volumes(files),
        file_systems=file_systems(files),
        interfaces=interfaces(files, commands),
        kernel=_known(
            release=_word(files, "/proc/sys/kernel/osrelease"),
            command_line=_word(files, "/proc/cmdline", _COMMAND_LINE),
        ),
    )


def architecture(files: Files, commands: Commands) -> str | None:
    """Return the machine's architecture as ``uname -m`` says it."""
    told = _word(files, "/proc/sys/kernel/arch")  # since Linux 6.1
    if told is None:
        try:
            told = one_line(commands.run("uname", "-m"))
        except SourceError:
            told = _word(files, "/var/lib/dpkg/arch") or _word(files, "/etc/apk/arch") or _word(files, "/lib/apk/arch")
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
            each[-1][name.strip()] = one_line(value, _FLAGS)
    counted = [one for one in each if one.get("processor", "").isdigit()]
    first = counted[0] if counted else {}
    arm = " ".join(f"{name[4:]} {first[name]}" for name in ("CPU implementer", "CPU part") if name in first)
    packages = {one["physical id"] for one in counted if "physical id" in one}
    cores = {(one["physical id"], one["core id"]) for one in counted if "physical id" in one and "core id" in one}
    flags = set(first.get("flags", "").split())
    return _known(
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
    found = re.search(r"^MemTotal: +(\d{1,15}) kB", _text(files, "/proc/meminfo"), re.MULTILINE | re.ASCII)
    total = int(found[1]) << 10 if found else 0
    if not total:
        return None
    step = 1 << max(0, total.bit_length() - 4)
    return -(-total // step) * step


def firmware(files: Files) -> Described:
    """Return what DMI or the device tree says: vendor, product, serials, BIOS; how it boots; the TPM's version."""
    told = {key: _word(files, f"/sys/class/dmi/id/{name}") for key, name in _FIRMWARE}
    told["product"] = told["product"] or _word(files, "/sys/firmware/devicetree/base/model")
    told["serial"] = told["serial"] or _word(files, "/sys/firmware/devicetree/base/serial-number")
    told = {key: value for key, value in told.items() if value and not _PLACEHOLDER.fullmatch(value)}
    boot = (
        "UEFI"
        if files.exists("/sys/firmware/efi")
        else "BIOS"
        if files.exists("/sys/class/dmi/id/bios_version")
        else None
    )
    return _known(**told, boot=boot, tpm=_word(files, "/sys/class/tpm/tpm0/tpm_version_major"))


def disks(files: Files) -> list[Described]:
    """Return the disks by name, with their partitions: no loop, memory or network device, no empty reader."""
    found = []
    for at in _devices(files, "/sys/block/*/size"):
        size = _number(files, at / "size") * _SECTOR
        if not size or _NO_DISK.match(at.name) or _ISCSI.search(str(at)) or _word(files, at / "hidden") == "1":
            continue
        udev = _udev(files, f"b{_word(files, at / 'dev')}")
        serial = udev.get("ID_SERIAL_SHORT") or _word(files, at / "device/serial") or udev.get("ID_SERIAL")
        rotational = _word(files, at / "queue/rotational")
        found.append(
            _known(
                name=one_line(at.name),
                vendor=_word(files, at / "device/vendor") if not at.name.startswith("vd") else None,
                model=_word(files, at / "device/model") or _word(files, at / "device/name") or udev.get("ID_MODEL"),
                serial=serial,
                size_bytes=size,
                block_bytes=_number(files, at / "queue/logical_block_size") or None,
                rotational=None if rotational is None else rotational == "1",
                removable=True if _word(files, at / "removable") == "1" else None,
                **_content(udev),
                partitions=_partitions(files, at),
            )
        )
    return sorted(found, key=lambda disk: _natural(disk["name"]))


def volumes(files: Files) -> list[Described]:
    """Return what is built on disks: RAID (md), LVM, encryption, multipath (dm); ``on`` is what each lies on."""
    below = {at: _devices(files, f"{at}/slaves/*/size") for at in _devices(files, "/sys/block/*/size")}
    names = {at.name: _word(files, at / "dm/name") or one_line(at.name) for at in below}
    found = []
    for at, on in below.items():
        kind = _word(files, at / "md/level") or (_word(files, at / "dm/uuid") or "").partition("-")[0]
        size = _number(files, at / "size") * _SECTOR
        if at.name.startswith(("md", "dm-")) and kind and size and not names[at.name].startswith("docker-"):
            lies_on = sorted(names.get(each.name, one_line(each.name)) for each in on)
            content = _content(_udev(files, f"b{_word(files, at / 'dev')}"))
            found.append(_known(name=names[at.name], kind=kind, size_bytes=size, on=lies_on, **content))
    return sorted(found, key=lambda volume: _natural(volume["name"]))


def file_systems(files: Files) -> list[Described]:
    """Return what ``/etc/fstab`` configures, and what else is mounted from a disk or a server, by mount point."""
    found: dict[str, Described] = {}
    for fields in map(str.split, _text(files, "/etc/fstab").splitlines()):
        if len(fields) >= 3 and not fields[0].startswith("#"):  # noqa: PLR2004
            device, at, kind, options = (*map(_unescaped, fields[:3]), fields[3] if fields[3:] else "")
            options = _SECRET_OPTION.sub(r"\1=(not shown)", one_line(options))
            key = at if at.startswith("/") else f"{at} {device}"  # swap has no place
            found[key] = _known(device=device, at=at, type=kind, options=options, configured=True)
    # not our own: in a container, what is mounted for us is not what is mounted for the machine
    mounts = _text(files, "/proc/1/mountinfo") or _text(files, "/proc/self/mountinfo")
    for fields in map(str.split, mounts.splitlines()):
        if "-" not in fields[6:] or len(fields) < fields.index("-", 6) + 3:
            continue
        mark = fields.index("-", 6)
        top, at, kind, device = map(_unescaped, (fields[3], fields[4], fields[mark + 1], fields[mark + 2]))
        is_disk = device.startswith("/dev/") and not re.match(r"/dev/(loop|sr|fuse)", device)
        is_whole = top == "/" or kind == "btrfs"  # another top is a directory mounted twice
        if (is_disk or kind in _KEPT_TYPES) and is_whole and not _RUNTIME.match(at):
            found.setdefault(at, _known(device=device, at=at, type=kind, configured=False))
    return [found[key] for key in sorted(found)]


def interfaces(files: Files, commands: Commands) -> list[Described]:
    """Return network hardware, and the bridges, bonds and VLANs on it: none that comes and goes with pods."""
    permanent = _permanent_addresses(files)
    found = []
    for at in _devices(files, "/sys/class/net/*/address"):
        kind = _kind(files, at)
        if kind is None or not _INTERFACE.fullmatch(at.name) or (kind != "physical" and _OF_PODS.match(at.name)):
            continue
        is_physical = kind == "physical"
        is_stable = is_physical or _word(files, at / "addr_assign_type") in {"0", "3"}
        address = permanent.get(at.name) or (_word(files, at / "address") if is_stable else None)
        udev = _udev(files, f"n{_word(files, at / 'ifindex')}") if is_physical else {}
        driver, master = files.real(at / "device/driver"), files.real(at / "master")
        found.append(
            _known(
                name=at.name,
                kind=kind,
                mac=address if address and address.strip("0:") else None,
                driver=one_line(driver.name) if driver and is_physical else None,
                model=one_line(f"{udev.get('ID_VENDOR_FROM_DATABASE', '')} {udev.get('ID_MODEL_FROM_DATABASE', '')}"),
                speed_mbit=_fastest(commands, at.name) if is_physical else None,
                part_of=one_line(master.name) if master else None,
                on=[one_line(each.name) for each in _devices(files, f"{at}/lower_*/address")]
                if kind == "vlan"
                else None,
            )
        )
    return sorted(found, key=lambda interface: _natural(interface["name"]))


def one_line(text: str, longest: int = _LONGEST) -> str:
    """Return a text in one line that any screen can show, cut after ``longest`` characters."""
    shown = "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.strip("\0 \n").split()))
    return shown[:longest]


def _virtualization(files: Files, cpuinfo: str) -> str | None:
    """Return under what the machine runs, if it is a virtual one."""
    told = _word(files, "/sys/hypervisor/type")
    vendor, product = (_word(files, f"/sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    named = one_line(f"{vendor or ''} {product or ''}")
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
    told = _word(files, "/sys/devices/system/cpu/present") or ""
    ranges = [re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII) for part in told.split(",")]
    return sum(int(each[2] or each[1]) - int(each[1]) + 1 for each in ranges if each)


def _partitions(files: Files, disk: PurePosixPath) -> list[Described]:
    found = []
    for at in _devices(files, f"{disk}/*/partition"):
        udev = _udev(files, f"b{_word(files, at / 'dev')}")
        size = _number(files, at / "size") * _SECTOR
        start = _number(files, at / "start") * _SECTOR
        name = udev.get("ID_PART_ENTRY_NAME")
        found.append(_known(name=one_line(at.name), start=start, size_bytes=size, label=name, **_content(udev)))
    return sorted(found, key=lambda partition: _natural(partition["name"]))


def _content(udev: dict[str, str]) -> dict[str, str | None]:
    return {"holds": udev.get("ID_FS_TYPE"), "uuid": udev.get("ID_FS_UUID")}


def _kind(files: Files, at: PurePosixPath) -> str | None:
    if files.exists(at / "device"):
        return None if files.exists(at / "device/physfn") else "physical"  # a virtual function comes and goes
    for kind, sign in (("bridge", "bridge"), ("bond", "bonding")):
        if files.exists(at / sign):
            return kind
    return "vlan" if "DEVTYPE=vlan" in _text(files, at / "uevent").split() else None


def _permanent_addresses(files: Files) -> dict[str, str]:
    """Return the own addresses of interfaces in bonds: there, all of them show one."""
    found: dict[str, str] = {}
    for path in files.expand(("/proc/net/bonding/*",)):
        pattern = r"^Slave Interface: (\S+)$(?:\n.+)*?\nPermanent HW addr: ([0-9a-f:]{11,59})$"
        found.update(re.findall(pattern, _text(files, path), re.MULTILINE))
    return found


def _fastest(commands: Commands, name: str) -> int | None:
    """Return the fastest speed that an interface supports, in Mbit/s, whatever its cable gives today."""
    try:
        told = commands.run("ethtool", name, within=_WITHIN)
    except SourceError:
        return None
    modes = told.partition("Supported link modes:")[2].partition("Supported pause frame use:")[0]
    return max((int(speed) for speed in _LINK_MODE.findall(modes)), default=None)


def _devices(files: Files, pattern: str) -> list[PurePosixPath]:
    """Return the directories, without links, of the files that ``pattern`` names."""
    last = PurePosixPath(pattern).name
    return [path.parent for path in files.expand((pattern,)) if path.name == last]


def _udev(files: Files, device: str) -> dict[str, str]:
    """Return what udev recorded about a device when it came: ``b8:0``, ``n2``."""
    lines = _text(files, f"/run/udev/data/{device}").splitlines()
    pairs = (line[2:].partition("=") for line in lines if line.startswith("E:"))
    return {name: one_line(value) for name, _, value in pairs if one_line(value)}


def _text(files: Files, path: PurePosixPath | str) -> str:
    return (files.contents(path) or b"").decode(errors="replace")


def _word(files: Files, path: PurePosixPath | str, longest: int = _LONGEST) -> str | None:
    return one_line(_text(files, path), longest) or None


def _number(files: Files, path: PurePosixPath | str) -> int:
    word = _word(files, path) or ""
    return int(word) if re.fullmatch(r"\d{1,18}", word, re.ASCII) else 0


def _unescaped(field: str) -> str:
    """Return a field of fstab or of the mount table, where a space is written as an octal escape."""
    return one_line(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8) & 0xFF), field))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts ``eth2`` before ``eth10``."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _known(**told: Any) -> Described:
    """Return what is known of all this."""
    return {key: value for key, value in told.items() if value not in (None, "", [], {})}
