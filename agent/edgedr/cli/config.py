"""``edgedr config``: whether it is right, and what would be captured."""

from collections.abc import Iterator

from edgedr.cli import terminal
from edgedr.cli.parser import Arguments
from edgedr.decoding import Problem, refuse
from edgedr.inventory import EntryKind
from edgedr.locations import root_problems
from edgedr.node.node import Node
from edgedr.node.seen import Seen
from edgedr.settings import Settings, load
from edgedr.sources.base import Count, TakePath
from edgedr.wiring import kubernetes_version, open_node, open_state


def check(arguments: Arguments) -> int:
    """Check the configuration file, and look at what is on the node, without talking to etcd."""
    settings = load(arguments.config)
    node = open_node(settings)
    refuse(list(_missing(settings, node)), str(arguments.config), hint="correct it, or put what it names in its place")
    signer = open_state(settings).signer()
    holds: dict[str, str] = {}
    for source in settings.sources:
        if source.name == "etcd":
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
    terminal.line("runs", node.layout.name, f"Kubernetes {kubernetes_version(node) or 'unknown'}")
    for name, text in captured.items():
        terminal.line(name, text)
    for recipient in settings.recipients:
        terminal.line("recipient", str(recipient), recipient.fingerprint)
    terminal.line("signs as", signer.public.fingerprint)
    terminal.line("repository", str(settings.repository.path))
    return 0


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
