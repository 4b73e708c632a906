"""From settings to working objects."""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, assert_never

from edgedr import durable
from edgedr.errors import ConfigurationError, SourceError
from edgedr.layouts import LAYOUTS, UNKNOWN, Datastore, Layout, LayoutSettings
from edgedr.model import Manifest
from edgedr.node.commands import commands_of
from edgedr.node.components import component, datastore, distribution_option
from edgedr.node.files import Files
from edgedr.node.kube import Kube, KubeSettings
from edgedr.node.kubeconfig import read_kubeconfig
from edgedr.node.node import Node
from edgedr.repository.names import repository_lock
from edgedr.repository.repository import Listed, Repository
from edgedr.settings import Settings
from edgedr.sources.etcd import EtcdSource, find_access
from edgedr.sources.table import ClusterCapture, SourceTable
from edgedr.state import StateDirectory
from edgedr.storage.directory import DirectoryStorage

if TYPE_CHECKING:
    from edgedr.node.election import Election
    from edgedr.node.etcd_members import Survey

_IMAGE = re.compile(r"image: *\S*/kube-apiserver:v?([0-9][0-9A-Za-z.+-]*)")


def find_layout(files: Files, wanted: LayoutSettings | None = None) -> Layout:
    """Return the layout whose marker is on this machine, with what is wanted in place of what is found.

    The distribution's own configuration may move its data directory; the marker is looked for there then.
    """
    wanted = wanted or LayoutSettings()
    for layout in LAYOUTS:
        told = wanted.data_dir or distribution_option(files, wanted.over(layout), "data-dir")
        moved = layout.below(told) if told else layout
        if layout.name == wanted.name or (wanted.name is None and files.exists(PurePosixPath(moved.marker))):
            return wanted.over(moved)
    return wanted.over(UNKNOWN)


def open_node(settings: Settings, now: datetime | None = None) -> Node:
    """Return the machine that the settings speak of. Nobody is asked anything yet."""
    files = Files(settings.node.root)
    layout = find_layout(files, settings.layout)
    return Node(files, layout, commands_of(files), open_kube(files, layout, settings.kubernetes), now=now)


def on_duty(node: Node, table: SourceTable) -> Node:
    """Return the node, knowing whether it captures what belongs to the whole cluster. Asks the members of etcd.

    Whatever keeps it from telling makes it capture: the sources say what is wrong.
    """
    match table.cluster_capture:
        case ClusterCapture.ALWAYS:
            return node
        case ClusterCapture.NEVER:
            return replace(node, elsewhere="another node, as [sources] cluster_capture says")
        case ClusterCapture.AUTO:
            election = _election(node, table.etcd)
            if election is None or election.here:
                return node
            return replace(node, elsewhere=f"{election.elected}: edgedr must run there too")
        case _:
            assert_never(table.cluster_capture)


def _election(node: Node, etcd: EtcdSource) -> "Election | None":
    if datastore(node.files, node.layout) not in {Datastore.STACKED_ETCD, Datastore.EMBEDDED_ETCD}:
        return None
    from edgedr.node.election import elect  # noqa: PLC0415 - with gRPC: 100 ms and 24 MB, which `list` does not pay
    from edgedr.node.etcd_survey import survey  # noqa: PLC0415

    try:
        access, _ = find_access(etcd, node)
        seen = survey(access, answer=etcd.answer, hashing=None)
    except SourceError:
        return None
    return elect(seen, own_member(node, seen))


def live_revision(settings: Settings) -> int | None:
    """Return the revision that etcd is at, where it answers: a restore raises it beyond the last one that was known."""
    if "etcd" in settings.sources.disabled:
        return None
    from edgedr.node.etcd_survey import survey  # noqa: PLC0415

    try:
        access, _ = find_access(settings.sources.etcd, open_node(settings))
        seen = survey(access, answer=settings.sources.etcd.answer, hashing=None)
    except (SourceError, ConfigurationError):
        return None
    return max((status.revision for status in seen.statuses), default=None)


def own_member(node: Node, seen: "Survey") -> str | None:
    """Return the id of the member that lives on this node, by the name that its configuration gives it."""
    told = component(node.files, node.layout, "etcd")
    name = told.flag("name") if told else None
    if name is None and node.layout.etcd_name is not None:
        name = (node.files.text(node.layout.etcd_name) or "").strip() or None
    return next((member.id for member in seen.members if name is not None and member.name == name), None)


def open_kube(files: Files, layout: Layout, settings: KubeSettings) -> Kube | None:
    """Return the API server that the settings or the layout's kubeconfig name; ``None`` if neither names one.

    One that was named and cannot be used answers every question with why: the other sources go on.
    """
    if settings.kubeconfig is not None:
        try:
            return Kube(read_kubeconfig(files, settings.kubeconfig, server=settings.server), settings)
        except SourceError as error:  # etcd and the keys are captured all the same
            return Kube.unusable(error, settings)
    for path in layout.kubeconfig:
        if files.exists(path):
            with suppress(SourceError):  # what is wrong with it, closure says; the sources say that they lack it
                return Kube(read_kubeconfig(files, path, server=settings.server), settings)
    return None


def open_repository(settings: Settings) -> Repository:
    """Return the local repository, seen as this node."""
    storage = DirectoryStorage(settings.repository.path, keep_free=settings.repository.keep_free)
    return Repository(storage, site=settings.node.site, node=settings.node.name)


def lock_repository(settings: Settings) -> AbstractContextManager[None]:
    """Keep a clone of this node out that shares the repository: it would sweep what this one has not committed yet."""
    durable.make_directory(settings.repository.path)
    return durable.locked(repository_lock(settings.repository.path, settings.node.site, settings.node.name))


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
