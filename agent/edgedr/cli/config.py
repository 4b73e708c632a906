"""``edgedr config``: whether it is right, and what would be captured."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from edgedr.cli import terminal
from edgedr.cli.parser import Arguments
from edgedr.credentials import Credential, Keeper, Secret
from edgedr.decoding import Problem, refuse
from edgedr.errors import ConfigurationError, SourceError
from edgedr.inventory import EntryKind
from edgedr.layouts import Datastore
from edgedr.locations import root_problems
from edgedr.node.components import datastore, sqlite_database
from edgedr.node.kubeconfig import read_kubeconfig
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.replicas import ReplicaSettings
from edgedr.settings import Settings, load
from edgedr.sources.base import Count, Source, TakePath
from edgedr.sources.etcd import find_access
from edgedr.sources.table import ClusterCapture
from edgedr.storage.s3_client import read_key
from edgedr.wiring import kubernetes_version, open_node, open_state

_LOOKED_AT = frozenset({"certificates", "files"})
"""Sources that ask nobody, and so can be tried here."""
_OF_THE_CLUSTER = frozenset({"etcd", "objects"})
_ASKED = "asked at capture"
_NONE = "none here"
_CAPTURES = {
    ClusterCapture.AUTO: "auto: the first healthy follower, which each capture finds in etcd's member list",
    ClusterCapture.ALWAYS: "always: this node, whatever the others do",
    ClusterCapture.NEVER: "never: another node captures what belongs to the whole cluster",
}


def check(arguments: Arguments) -> int:
    """Check the configuration file, and look at what is on the node, without talking to anybody."""
    settings = load(arguments.config)
    node = open_node(settings)
    refuse(list(_missing(settings, node)), str(arguments.config), hint="correct it, or put what it names in its place")
    signer = open_state(settings).signer()
    failures: list[SourceError] = []
    captured = {source.name: _known(source, settings, node, failures) for source in settings.sources}
    document = {
        "config": str(arguments.config),
        "site": settings.node.site,
        "node": settings.node.name,
        "distribution": node.layout.name,
        "kubernetes_version": kubernetes_version(node),
        "datastore": str(datastore(node.files, node.layout)),
        "layout": dict(places(node)),
        "api_server": node.kube.server if node.kube else None,
        "cluster_capture": str(settings.sources.cluster_capture),
        "recipients": [recipient.fingerprint for recipient in settings.recipients],
        "signer": signer.public.fingerprint,
        "repository": str(settings.repository.path),
        "replicas": {replica.name: replica.url for replica in settings.replicas},
        "sources": {name: terminal.parted(text) for name, text in captured.items()},
    }
    if arguments.json:
        terminal.say_json(document)
    else:
        terminal.line("ok", str(arguments.config))
        _print(settings, node, captured)
        terminal.line("signs as", signer.public.fingerprint)
        terminal.line("repository", str(settings.repository.path))
        for replica in settings.replicas:
            terminal.line("replica", replica.name, replica.url, _lifetimes(replica))
    if failures:
        raise SourceError(f"a backup would fail: {failures[0].message}", hint=failures[0].hint)
    return 0


def _print(settings: Settings, node: Node, captured: dict[str, str]) -> None:
    terminal.line("node", f"{settings.node.site}/{settings.node.name}")
    terminal.line("runs", *what_runs(node))
    for label, found in places(node):
        terminal.line(f"  {label}", ", ".join(found))
    terminal.line("API server", node.kube.server if node.kube else "none is known: set [kubernetes] kubeconfig")
    terminal.line("cluster part", _CAPTURES[settings.sources.cluster_capture])
    for name, text in captured.items():
        if text != _ASKED:
            terminal.line(name, text)
    asked = [name for name, text in captured.items() if text == _ASKED]
    if asked:
        terminal.line(_ASKED, ", ".join(asked))
    for recipient in settings.recipients:
        terminal.line("recipient", str(recipient), recipient.fingerprint)


def _lifetimes(replica: ReplicaSettings) -> str:
    if replica.full_lifetime is None or replica.delta_lifetime is None:
        return "kept for ever, as far as is told here"
    return f"fulls for {replica.full_lifetime.days} days, deltas for {replica.delta_lifetime.days}"


def _known(source: Source, settings: Settings, node: Node, failures: list[SourceError]) -> str:
    """Say what a source would capture, as far as that is known without asking anybody."""
    try:
        if source.name in left_out(settings, node):
            return _NONE
        return _tried(source, node) if source.name in _LOOKED_AT else _untried(source.name, settings, node)
    except SourceError as error:
        if source.required:
            failures.append(error)
        return f"cannot be had: {error.message}"


def _untried(name: str, settings: Settings, node: Node) -> str:
    if name in _OF_THE_CLUSTER and settings.sources.cluster_capture is ClusterCapture.NEVER:
        return "captured by another node"
    match name:
        case "etcd":
            return _etcd(settings, node)
        case "sqlite":
            return settings.sources.sqlite.database or sqlite_database(node.files, node.layout) or _NONE
        case "dns":
            return _transfers(settings)
        case _:
            return _ASKED


def _tried(source: Source, node: Node) -> str:
    items = list(source.capture(node))
    counts = {item.noun: item.number for item in items if isinstance(item, Count)}
    return terminal.counts(counts) or terminal.plural(sum(isinstance(item, TakePath) for item in items), "path")


def _etcd(settings: Settings, node: Node) -> str:
    access, _ = find_access(settings.sources.etcd, node)
    return f"{', '.join(access.endpoints)}: {datastore(node.files, node.layout)}"


def _transfers(settings: Settings) -> str:
    transfers = settings.sources.dns.transfers
    if not transfers:
        return "no zone transfers are set; the rest is asked for at capture"
    said = "; ".join(f"{', '.join(each.zones)} from {each.server}" for each in transfers)
    return f"{terminal.plural(len(transfers), 'transfer')}: {said}"


def left_out(settings: Settings, node: Node) -> frozenset[str]:
    """Return the datastores that this node surely has not: with SQLite no etcd, and the other way round."""
    kept = datastore(node.files, node.layout)
    without = set()
    if kept is Datastore.SQLITE and not settings.sources.etcd.endpoints:
        without.add("etcd")
    may_be = kept is Datastore.SQLITE or (kept is Datastore.UNKNOWN and node.layout.sqlite is not None)
    if not may_be and settings.sources.sqlite.database is None:
        without.add("sqlite")
    return frozenset(without)


def what_runs(node: Node) -> tuple[str, ...]:
    """Say in a few words what was found: distribution, version, datastore, and where its authority is."""
    if not node.layout.is_known:
        return ("unknown",)
    kept_apart = [each.path for each in node.layout.essential if each.kept_apart and not node.files.exists(each.path)]
    authority = ("an external authority",) if kept_apart else ()
    version = f"Kubernetes {kubernetes_version(node) or 'unknown'}"
    return (node.layout.name, version, str(datastore(node.files, node.layout)), *authority)


def places(node: Node) -> Iterator[tuple[str, list[str]]]:
    """Yield what of the layout is on this node, each place with its label."""
    layout = node.layout
    found = {
        "certificates": layout.certificates,
        "signing keys": layout.signing_keys,
        "encryption": (layout.encryption,),
        "credentials": layout.credentials,
        "static pods": (layout.pods,),
        "options": (*layout.config, *layout.units),
        "datastore": (layout.etcd_data, layout.sqlite),
        "kubeconfig": layout.kubeconfig,
    }
    for label, patterns in found.items():
        there = [pattern for pattern in patterns if pattern is not None and node.files.expand((pattern,))]
        if there:
            yield label, there


def _missing(settings: Settings, node: Node) -> Iterator[Problem]:
    """Yield what the configuration names and this node does not have."""
    problems = list(root_problems(settings.node.root))
    yield from problems
    if problems:
        return
    yield from _unfit_layout(settings, node)
    yield from _unfit_kubeconfig(settings, node)
    if "etcd" not in settings.sources.disabled:
        yield from _missing_of_etcd(settings, node)
    if "dns" not in settings.sources.disabled:
        yield from _unreadable_secrets(settings)
    yield from _unready_replicas(settings)


def _unfit_layout(settings: Settings, node: Node) -> Iterator[Problem]:
    marker = node.layout.marker
    if settings.layout.name is not None and not node.files.exists(marker):
        yield Problem("[layout] name", f"{settings.layout.name} is not on this node: {marker} is not there")


def _unfit_kubeconfig(settings: Settings, node: Node) -> Iterator[Problem]:
    if settings.kubernetes.kubeconfig is None:
        return
    try:
        read_kubeconfig(node.files, settings.kubernetes.kubeconfig, server=settings.kubernetes.server)
    except SourceError as error:
        yield Problem("[kubernetes] kubeconfig", error.message)


def _missing_of_etcd(settings: Settings, node: Node) -> Iterator[Problem]:
    etcd = settings.sources.etcd
    for name, path in (("ca", etcd.ca), ("cert", etcd.cert), ("key", etcd.key)):
        if path is None:
            continue
        real = node.files.real(path)
        seen = None if real is None else node.files.look(real)
        if real is None:
            yield Problem(f"[sources.etcd] {name}", f"{path} is not on this node")
        elif isinstance(seen, Seen) and seen.kind is not EntryKind.FILE:
            yield Problem(f"[sources.etcd] {name}", f"{path} is not a file")


def _unreadable_secrets(settings: Settings) -> Iterator[Problem]:
    for number, each in enumerate(settings.sources.dns.transfers, 1):
        if each.secret is not None:
            yield from _unreadable(Credential.parse(each.secret), f"[sources.dns] transfers #{number} secret")


def _unready_replicas(settings: Settings) -> Iterator[Problem]:
    for number, replica in enumerate(settings.replicas, 1):
        if not replica.is_bucket:
            continue
        credential = replica.options.credential
        if credential is not None:
            yield from _unreadable(credential, f"replicas #{number} credential", read_key)
        if replica.ca is not None and not Path(replica.ca).is_file():
            yield Problem(f"replicas #{number} ca", f"{replica.ca} is not there")


def _unreadable(
    credential: Credential, where: str, use: Callable[[Secret, str], object] = lambda *_: None
) -> Iterator[Problem]:
    if credential.keeper is Keeper.SYSTEMD and "CREDENTIALS_DIRECTORY" not in os.environ:
        return  # systemd gives it to the unit only
    try:
        use(credential.read(), str(credential))
    except ConfigurationError as error:
        yield Problem(where, error.message)
