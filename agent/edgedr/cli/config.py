"""``edgedr config``: whether it is right, and what would be captured."""

from collections.abc import Iterator

from edgedr.cli import terminal
from edgedr.cli.parser import Arguments
from edgedr.decoding import Problem, refuse
from edgedr.inventory import EntryKind
from edgedr.locations import root_problems
from edgedr.node.components import datastore
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.settings import Settings, load
from edgedr.sources.base import Count, TakePath
from edgedr.wiring import kubernetes_version, open_node, open_state

_LOOKED_AT = frozenset({"certificates", "files"})
"""Sources that ask nobody, and so can be tried here."""


def check(arguments: Arguments) -> int:
    """Check the configuration file, and look at what is on the node, without talking to etcd."""
    settings = load(arguments.config)
    node = open_node(settings)
    refuse(list(_missing(settings, node)), str(arguments.config), hint="correct it, or put what it names in its place")
    signer = open_state(settings).signer()
    holds: dict[str, str] = {}
    for source in settings.sources:
        if source.name not in _LOOKED_AT:
            continue
        items = list(source.capture(node))
        counts = [f"{item.number} {item.noun}" for item in items if isinstance(item, Count)]
        holds[source.name] = ", ".join(counts) or f"{sum(isinstance(item, TakePath) for item in items)} paths"
    captured = {source.name: holds.get(source.name, "asked at capture") for source in settings.sources}
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
        "sources": captured,
    }
    if arguments.json:
        terminal.say_json(document)
        return 0
    terminal.line("ok", str(arguments.config))
    terminal.line("node", f"{settings.node.site}/{settings.node.name}")
    terminal.line("runs", *what_runs(node))
    for label, place in places(node):
        terminal.line(f"  {label}", place)
    terminal.line("API server", node.kube.server if node.kube else "none is known: set [kubernetes] kubeconfig")
    for name, text in captured.items():
        terminal.line(name, text)
    for recipient in settings.recipients:
        terminal.line("recipient", str(recipient), recipient.fingerprint)
    terminal.line("signs as", signer.public.fingerprint)
    terminal.line("repository", str(settings.repository.path))
    return 0


def what_runs(node: Node) -> tuple[str, ...]:
    """Say in a few words what was found: distribution, version, datastore, and where its authority is."""
    if not node.layout.is_known:
        return ("unknown",)
    kept_apart = [each.path for each in node.layout.essential if each.kept_apart and not node.files.exists(each.path)]
    authority = ("an external authority",) if kept_apart else ()
    version = f"Kubernetes {kubernetes_version(node) or 'unknown'}"
    return (node.layout.name, version, str(datastore(node.files, node.layout)), *authority)


def places(node: Node) -> Iterator[tuple[str, str]]:
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
            yield label, ", ".join(there)


def _missing(settings: Settings, node: Node) -> Iterator[Problem]:
    """Yield what the configuration names and this node does not have."""
    problems = list(root_problems(settings.node.root))
    yield from problems
    if problems or "etcd" in settings.sources.disabled:
        return
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
