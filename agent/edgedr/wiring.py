"""From settings to working objects."""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import PurePosixPath

from edgedr import durable
from edgedr.layouts import LAYOUTS, UNKNOWN, Layout
from edgedr.model import Manifest
from edgedr.node.files import Files
from edgedr.node.node import Node
from edgedr.repository.repository import Listed, Repository
from edgedr.settings import Settings
from edgedr.state import StateDirectory
from edgedr.storage.directory import DirectoryStorage

_IMAGE = re.compile(r"image: *\S*/kube-apiserver:v?([0-9][0-9A-Za-z.+-]*)")


def find_layout(files: Files) -> Layout:
    """Return the layout whose marker is on this machine."""
    return next((layout for layout in LAYOUTS if files.exists(PurePosixPath(layout.marker))), UNKNOWN)


def open_node(settings: Settings) -> Node:
    """Return the machine that the settings speak of."""
    files = Files(settings.node.root)
    return Node(files, find_layout(files))


def open_repository(settings: Settings) -> Repository:
    """Return the local repository, seen as this node."""
    storage = DirectoryStorage(settings.repository.path, keep_free=settings.repository.keep_free)
    return Repository(storage, site=settings.node.site, node=settings.node.name)


def lock_repository(settings: Settings) -> AbstractContextManager[None]:
    """Keep a clone of this node out that shares the repository: it would sweep what this one has not committed yet."""
    durable.make_directory(settings.repository.path)
    return durable.locked(settings.repository.path / f".{settings.node.site}.{settings.node.name}.lock")


def open_state(settings: Settings) -> StateDirectory:
    """Return where this node remembers."""
    return StateDirectory(settings.state.path)


def kubernetes_version(node: Node) -> str | None:
    """Return the API server's version as its static pod names it."""
    manifest = node.layout.apiserver_manifest
    text = node.files.text(PurePosixPath(manifest)) if manifest else None
    match = _IMAGE.search(text) if text else None
    return match[1] if match else None


def manifests(listed: Iterable[Listed]) -> tuple[Manifest, ...]:
    """Return the readable manifests."""
    return tuple(backup.manifest for backup in listed if backup.manifest is not None)
