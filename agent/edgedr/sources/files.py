"""Configuration files: those of the distribution, those that the API server's flags name, and those of the site."""

import glob
import hashlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from edgedr.inventory import EntryKind, Inventory
from edgedr.model import Bytes, Finding, Severity
from edgedr.node.files import MAX_FILE_BYTES, Files, matches
from edgedr.node.node import Node
from edgedr.node.seen import Seen, Skipped
from edgedr.sources.base import Captured, TakePath
from edgedr.steps import PlaceFiles, Step

_MAX_FILE = Bytes(MAX_FILE_BYTES)
_WRITTEN_BY_SERVER = ("log-path", "log-file", "log-dir", "cert-dir")
"""Ends of flags that name what the server writes, not what it reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesSource:
    """Take configuration files as they are."""

    include: tuple[str, ...] = ()
    """Further files: absolute paths or globs on the node; a directory stands for all below it."""

    exclude: tuple[str, ...] = ()
    """What not to take of all this: absolute paths or globs; a directory stands for all below it."""

    max_file_bytes: Bytes = _MAX_FILE
    """Larger files are left out, and said; beyond 64 MiB they always are."""

    required: bool = False
    """Whether a backup without configuration files is no backup."""

    @property
    def name(self) -> str:
        """Its name everywhere."""
        return "files"

    def capture(self, node: Node) -> Iterator[Captured]:
        """Yield the paths, and what was named but is not there. See ``Source``."""
        named, findings = _flagged(node)
        for pattern in self.include:
            if not node.files.expand((pattern,)):
                findings.append(Finding(Severity.WARN, pattern, "is configured, but matches nothing on this node"))
        for path in node.files.expand((*node.layout.files, *named, *self.include)):
            if any(matches(path, pattern) for pattern in self.exclude):
                continue
            seen = node.files.look(path)
            if isinstance(seen, Seen) and seen.size > self.max_file_bytes:
                findings.append(Finding(Severity.WARN, str(path), f"left out: {seen.size} bytes are too many"))
                continue
            yield TakePath(path)
        yield from findings

    def put_back(self, inventory: Inventory) -> Iterable[Step]:
        """Place its files. See ``Source``."""
        if any(entry.source == self.name for entry in inventory.entries):
            yield PlaceFiles(self.name)

    def prove(self, restored: Path, inventory: Inventory, artifacts: Mapping[str, Path]) -> Iterable[Finding]:
        """Compare every file's hash with the inventory's. See ``Source``."""
        del artifacts  # all of it is in files
        files = Files(restored, max_file_bytes=sys.maxsize)
        hashes = {entry.path: entry.sha256 for entry in inventory.entries if entry.kind is EntryKind.FILE}
        good = 0
        for entry in inventory.entries:
            if entry.source != self.name or entry.kind not in {EntryKind.FILE, EntryKind.HARDLINK}:
                continue
            expected = hashes.get(entry.target or "") if entry.kind is EntryKind.HARDLINK else entry.sha256
            content = _Hash()
            seen = files.read(PurePosixPath(entry.path), content)
            if isinstance(seen, Skipped) or content.digest.hexdigest() != expected:
                text = f"was not restored: {seen.reason}" if isinstance(seen, Skipped) else "has another content"
                yield Finding(Severity.BAD, entry.path, text, "restore once more, into a new directory")
            else:
                good += 1
        if good:
            yield Finding(Severity.GOOD, self.name, f"{good} files have the recorded content")


class _Hash:
    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.digest.update(data)
        return len(data)


def _flagged(node: Node) -> tuple[list[str], list[Finding]]:
    """Return the files that the API server's flags name, where the node has them: a pod sees them through mounts."""
    manifest = node.layout.apiserver_manifest
    text = node.files.text(manifest) if manifest else None
    if manifest is None or text is None:
        return [], []
    try:
        named = list(_paths(_pod(text)))
    except (ValueError, LookupError, TypeError, AttributeError):
        hint = "look whether the API server still starts from it"
        return [], [Finding(Severity.WARN, manifest, "cannot be read as a static pod", hint)]
    found: list[str] = []
    findings: list[Finding] = []
    for flag, path in named:
        real = node.files.real(path)
        if real is None:
            findings.append(Finding(Severity.WARN, path, f"named by the API server's {flag}, but not on this node"))
        elif isinstance(seen := node.files.look(real), Seen) and seen.kind is EntryKind.FILE:
            found.append(glob.escape(path))
    return found, findings


def _pod(text: str) -> Mapping[str, Any]:
    import yaml  # noqa: PLC0415 - only a capture pays for it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        pod: Mapping[str, Any] = yaml.load(text, Loader=loader)  # noqa: S506 - both are safe
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error
    return pod


def _paths(pod: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each flag that names a path, and that path on the node."""
    for container in pod["spec"]["containers"]:
        for argument in (*(container.get("command") or ()), *(container.get("args") or ())):
            flag, _, value = str(argument).partition("=")
            if not flag.startswith("--") or flag.endswith(_WRITTEN_BY_SERVER):
                continue
            for part in value.split(","):
                if part.startswith("/") and part != "/" and ".." not in part.split("/"):
                    yield flag, _outside(pod, part)


def _outside(pod: Mapping[str, Any], inside: str) -> str:
    """Translate a path in the container to the node's: through the longest host mount that it is below."""
    hosts = {
        volume.get("name"): str(volume["hostPath"].get("path"))
        for volume in pod["spec"].get("volumes") or ()
        if isinstance(volume.get("hostPath"), dict)
    }
    best: tuple[PurePosixPath, str] | None = None
    for container in pod["spec"]["containers"]:
        for mount in container.get("volumeMounts") or ():
            at = PurePosixPath(str(mount.get("mountPath")))
            is_longer = best is None or len(at.parts) > len(best[0].parts)
            if mount.get("name") in hosts and PurePosixPath(inside).is_relative_to(at) and is_longer:
                best = at, hosts[mount["name"]]
    return inside if best is None else str(PurePosixPath(best[1]) / PurePosixPath(inside).relative_to(best[0]))
