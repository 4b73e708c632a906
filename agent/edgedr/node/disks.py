"""Where a machine keeps its data, as plain JSON values: disks, what is built on them, and what is mounted from where.

As in ``hardware``: only what stays the same while the machine does. Sizes are bytes.
"""

import re
from pathlib import PurePosixPath

from edgedr.node import sysfs
from edgedr.node.files import Files
from edgedr.node.sysfs import Described

_SECTOR = 512  # bytes: the unit of /sys/block/*/size, whatever the disk's own block is

_NO_DISK = re.compile(r"(loop|ram|zram|fd|sr|nbd|rbd|drbd|mtdblock|dm-|md)_?d?\d|mmcblk\d+(boot\d|rpmb)")
"""Devices without hardware of their own, volumes that pods mount over the network, and parts of another disk."""
_ISCSI = re.compile(r"/session\d+/")
_RUNTIME = re.compile(
    r"/(proc|sys|dev|run|var/run|snap|var/snap|tmp)(/|$)|/var/lib/(kubelet|docker|containerd|containers|rancher)/."
)
"""Where mounts come and go with pods, sessions and services."""
_KEPT_TYPES = frozenset({"zfs", "nfs", "nfs4", "cifs", "ceph", "glusterfs", "9p", "virtiofs"})
_SECRET_OPTION = re.compile(r"\b(pass(?:word)?|secret)=[^,]*")


def disks(files: Files) -> list[Described]:
    """Return the disks by name, with their partitions: no loop, memory or network device, no empty reader."""
    found = []
    for at in sysfs.devices(files, "/sys/block/*/size"):
        size = sysfs.number(files, at / "size") * _SECTOR
        if not size or _NO_DISK.match(at.name) or _ISCSI.search(str(at)) or sysfs.word(files, at / "hidden") == "1":
            continue
        udev = sysfs.udev(files, f"b{sysfs.word(files, at / 'dev')}")
        serial = udev.get("ID_SERIAL_SHORT") or sysfs.word(files, at / "device/serial") or udev.get("ID_SERIAL")
        rotational = sysfs.word(files, at / "queue/rotational")
        found.append(
            sysfs.known(
                name=sysfs.one_line(at.name),
                vendor=sysfs.word(files, at / "device/vendor") if not at.name.startswith("vd") else None,
                model=sysfs.word(files, at / "device/model")
                or sysfs.word(files, at / "device/name")
                or udev.get("ID_MODEL"),
                serial=serial,
                size_bytes=size,
                block_bytes=sysfs.number(files, at / "queue/logical_block_size") or None,
                rotational=None if rotational is None else rotational == "1",
                removable=True if sysfs.word(files, at / "removable") == "1" else None,
                **_content(udev),
                partitions=_partitions(files, at),
            )
        )
    return sorted(found, key=lambda disk: sysfs.natural(disk["name"]))


def volumes(files: Files) -> list[Described]:
    """Return what is built on disks: RAID (md), LVM, encryption, multipath (dm); ``on`` is what each lies on."""
    below = {at: sysfs.devices(files, f"{at}/slaves/*/size") for at in sysfs.devices(files, "/sys/block/*/size")}
    names = {at.name: sysfs.word(files, at / "dm/name") or sysfs.one_line(at.name) for at in below}
    found = []
    for at, on in below.items():
        kind = sysfs.word(files, at / "md/level") or (sysfs.word(files, at / "dm/uuid") or "").partition("-")[0]
        size = sysfs.number(files, at / "size") * _SECTOR
        if at.name.startswith(("md", "dm-")) and kind and size and not names[at.name].startswith("docker-"):
            lies_on = sorted(names.get(each.name, sysfs.one_line(each.name)) for each in on)
            content = _content(sysfs.udev(files, f"b{sysfs.word(files, at / 'dev')}"))
            found.append(sysfs.known(name=names[at.name], kind=kind, size_bytes=size, on=lies_on, **content))
    return sorted(found, key=lambda volume: sysfs.natural(volume["name"]))


def file_systems(files: Files) -> list[Described]:
    """Return what ``/etc/fstab`` configures, and what else is mounted from a disk or a server, by mount point."""
    found: dict[str, Described] = {}
    for fields in map(str.split, sysfs.text(files, "/etc/fstab").splitlines()):
        if len(fields) >= 3 and not fields[0].startswith("#"):  # noqa: PLR2004
            device, at, kind, options = (*map(_unescaped, fields[:3]), fields[3] if fields[3:] else "")
            options = _SECRET_OPTION.sub(r"\1=(not shown)", sysfs.one_line(options))
            key = at if at.startswith("/") else f"{at} {device}"  # swap has no place
            found[key] = sysfs.known(device=device, at=at, type=kind, options=options, configured=True)
    # not our own: in a container, what is mounted for us is not what is mounted for the machine
    mounts = sysfs.text(files, "/proc/1/mountinfo") or sysfs.text(files, "/proc/self/mountinfo")
    for fields in map(str.split, mounts.splitlines()):
        if "-" not in fields[6:] or len(fields) < fields.index("-", 6) + 3:
            continue
        mark = fields.index("-", 6)
        top, at, kind, device = map(_unescaped, (fields[3], fields[4], fields[mark + 1], fields[mark + 2]))
        is_disk = device.startswith("/dev/") and not re.match(r"/dev/(loop|sr|fuse)", device)
        is_whole = top == "/" or kind == "btrfs"  # another top is a directory mounted twice
        if (is_disk or kind in _KEPT_TYPES) and is_whole and not _RUNTIME.match(at):
            found.setdefault(at, sysfs.known(device=device, at=at, type=kind, configured=False))
    return [found[key] for key in sorted(found)]


def _partitions(files: Files, disk: PurePosixPath) -> list[Described]:
    found = []
    for at in sysfs.devices(files, f"{disk}/*/partition"):
        udev = sysfs.udev(files, f"b{sysfs.word(files, at / 'dev')}")
        size = sysfs.number(files, at / "size") * _SECTOR
        start = sysfs.number(files, at / "start") * _SECTOR
        name = udev.get("ID_PART_ENTRY_NAME")
        found.append(
            sysfs.known(name=sysfs.one_line(at.name), start=start, size_bytes=size, label=name, **_content(udev))
        )
    return sorted(found, key=lambda partition: sysfs.natural(partition["name"]))


def _content(udev: dict[str, str]) -> dict[str, str | None]:
    return {"holds": udev.get("ID_FS_TYPE"), "uuid": udev.get("ID_FS_UUID")}


def _unescaped(field: str) -> str:
    """Return a field of fstab or of the mount table, where a space is written as an octal escape."""
    return sysfs.one_line(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8) & 0xFF), field))
