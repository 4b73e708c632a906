"""What of a replacement machine does not match the one that was backed up, as ``machine/machine.json`` has it."""

import re
from collections.abc import Callable, Iterator

from edgedr.model import Finding, Severity
from edgedr.node.sysfs import Described


def differences(ours: Described, theirs: Described) -> list[Finding]:
    """Compare a machine as ``machine/machine.json`` describes it with a target: what of the target does not match.

    A target may be another model, with more of everything. What is not known of it is said, not taken as equal.
    """
    found = [
        *_other_processor(ours, theirs),
        *_fewer_disks(ours, theirs),
        *_other_interfaces(ours, theirs),
        *_other_system(ours, theirs),
        *_other_versions(ours, theirs),
    ]
    return found or [Finding(Severity.GOOD, "machine", "it has what the old one had")]


def _other_processor(ours: Described, theirs: Described) -> Iterator[Finding]:
    yield from _unlike("architecture", ours, theirs, Severity.BAD, "programs and images of one do not run on the other")
    old, new = ours.get("cpu", {}), theirs.get("cpu", {})
    yield from _less("processors", old.get("processors"), new.get("processors"), str)
    if str(new.get("level", "")) < str(old.get("level", "")) and new.get("level"):
        hint = "images built for the old one may not start"
        yield Finding(Severity.WARN, "processor", f"is {new['level']}, was {old['level']}", hint)
    yield from _less(
        "memory", ours.get("memory_bytes"), theirs.get("memory_bytes"), lambda n: f"{n / (1 << 30):.3g} GiB"
    )
    old, new = ours.get("firmware", {}), theirs.get("firmware", {})
    yield from _unlike("boot", old, new, Severity.WARN, "partitions and boot loader have to be made anew")
    if "tpm" in old and "tpm" not in new:
        yield Finding(Severity.WARN, "tpm", "there is none here", "disks that it unlocked need their passphrase")


def _fewer_disks(ours: Described, theirs: Described) -> Iterator[Finding]:
    old, new = (
        sorted((disk["size_bytes"] for disk in each.get("disks", ()) if not disk.get("removable")), reverse=True)
        for each in (ours, theirs)
    )
    yield from _less("disks", len(old), len(new) if "disks" in theirs else None, str)
    for place, (was, now) in enumerate(zip(old, new, strict=False), 1):
        yield from _less(f"disk {place} by size", was, now, size_text)
    mounted = {each.get("at") for each in theirs.get("file_systems", ())}
    for each in ours.get("file_systems", ()) if "file_systems" in theirs else ():
        if "at" in each and each["at"] not in mounted and each["at"].startswith("/"):
            text = "was a file system of its own, and is none here"
            yield Finding(Severity.WARN, each["at"], text, "make it before its data comes back")


def _other_interfaces(ours: Described, theirs: Described) -> Iterator[Finding]:
    old, new = (
        {i["name"]: i for i in each.get("interfaces", ()) if i["kind"] == "physical"} for each in (ours, theirs)
    )
    yield from _less("network interfaces", len(old), len(new) if "interfaces" in theirs else None, str)
    for name, each in old.items():
        if name not in new and new:
            hint = "rename it, or change every file that names the old one"
            yield Finding(Severity.WARN, name, "no network interface has this name", hint)
        elif "mac" in each and name in new and new[name].get("mac") != each["mac"]:
            hint = "look at DHCP reservations and at what matches on the address"
            yield Finding(Severity.WARN, name, f"has another MAC address than {each['mac']}", hint)


def _other_system(ours: Described, theirs: Described) -> Iterator[Finding]:
    old, new = ours.get("os", {}), theirs.get("os", {})
    yield from _unlike("id", old, new, Severity.WARN, "paths and packages may differ", subject="system")
    if old.get("id") == new.get("id"):
        yield from _unlike(
            "version_id", old, new, Severity.WARN, "install the same one if it can be had", subject="system"
        )
    old, new = ours.get("kernel", {}), theirs.get("kernel", {})
    if "release" in old and "release" not in new:
        yield from _unlike("release", old, new, Severity.WARN, "", subject="kernel")
    elif _numbers(new.get("release"))[:2] < _numbers(old.get("release"))[:2]:
        text = f"{new['release']} is older than {old['release']}"
        yield Finding(Severity.WARN, "kernel", text, "the CNI or the runtime may need the newer one")


def _other_versions(ours: Described, theirs: Described) -> Iterator[Finding]:
    old, new = (each.get("kubernetes", {}).get("kubelet") for each in (ours, theirs))
    hint = f"install {old}" if old else None
    if old and not new:
        yield Finding(Severity.BAD, "kubelet", f"is not installed, or its version is not known; was {old}", hint)
    elif old and new != old:
        severity = Severity.WARN if _numbers(new)[:2] == _numbers(old)[:2] else Severity.BAD
        yield Finding(severity, "kubelet", f"is {new}, was {old}", hint)
    packages = theirs.get("packages", {})
    for name, version in ours.get("packages", {}).items():
        was, now = version.split()[0], packages.get(name, "").partition(" ")[0]
        if was == now:
            continue
        is_step = name in {"kubelet", "kubeadm"} and now and _numbers(was)[:2] != _numbers(now)[:2]
        text = f"is {now}, was {was}" if now else f"is not installed; was {was}"
        if not (name == "kubelet" and old):  # said above
            yield Finding(Severity.BAD if is_step else Severity.WARN, name, text, f"install {name} {was}")


def _unlike(
    topic: str, ours: Described, theirs: Described, severity: Severity, hint: str, *, subject: str | None = None
) -> Iterator[Finding]:
    was, now = ours.get(topic), theirs.get(topic)
    if was is not None and now is None:
        yield Finding(Severity.WARN, subject or topic, f"is not known here; was {was}", "compare by hand")
    elif was is not None and was != now:
        yield Finding(severity, subject or topic, f"is {now}, was {was}", hint)


def _less(subject: str, was: int | None, now: int | None, shown: Callable[[int], str]) -> Iterator[Finding]:
    if was and now is None:
        yield Finding(Severity.WARN, subject, f"not known here; was {shown(was)}", "compare by hand")
    elif was and now is not None and now < was:
        yield Finding(Severity.WARN, subject, f"{shown(now)}, was {shown(was)}", "check that it will do")


def _numbers(version: str | None) -> list[int]:
    """Return the numbers of a version, major first."""
    return [int(number) for number in re.findall(r"\d{1,9}", version or "", re.ASCII)]


def size_text(size: int) -> str:
    """Write bytes as they are printed on a disk: ``480.1 GB``."""
    shown, unit = float(size), 0
    while shown >= 1000 and unit < 4:  # noqa: PLR2004
        shown, unit = shown / 1000, unit + 1
    return f"{shown:.4g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
