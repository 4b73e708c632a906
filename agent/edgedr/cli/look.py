"""``edgedr list`` and ``edgedr show``: what is there. Only manifests and sizes are read; ``verify`` proves."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby

from edgedr.cli import terminal
from edgedr.cli.closure import closure_document, print_closure, read_closure, verdict
from edgedr.cli.keyring import identities
from edgedr.cli.parser import SOURCES, Arguments
from edgedr.cli.places import chosen, listed, open_place
from edgedr.errors import Damaged, NoSuchBackup
from edgedr.model import CLOSURE, Manifest, SourceResult, Status
from edgedr.repository import chains
from edgedr.repository.chains import chain_of, clones, dependents
from edgedr.repository.names import VERSION, Place
from edgedr.repository.repository import Listed, Repository

_DAMAGED = "damaged: "
_SHOWN = 6  # nodes named in a message


def list_backups(arguments: Arguments) -> int:
    """List the backups, oldest first; damaged and incomplete ones are marked."""
    repository, _ = open_place(arguments)
    backups = listed(repository, arguments)
    if not backups:
        _refuse_nothing(repository, arguments)
    conditions = _conditions(backups)
    if arguments.json:
        terminal.say_json([_row(backup, conditions[backup.place]) for backup in backups])
        return 0
    if not backups:
        terminal.say(f"no backups in {repository.storage.describe()} yet; `edgedr backup` makes one")
        return 0
    now = datetime.now(UTC)
    several = len({(backup.place.site, backup.place.node) for backup in backups}) > 1
    for (site, node), of_node in groupby(backups, key=lambda backup: (backup.place.site, backup.place.node)):
        if several:
            terminal.say(f"{site}/{node}")
        rows = [
            (
                str(backup.id),
                terminal.age(now - backup.id.created),
                str(backup.place.kind),
                terminal.size(sum(backup.objects.values())),
                str(backup.manifest.proof) if backup.manifest and not _damaged(conditions[backup.place]) else "-",
                conditions[backup.place],
            )
            for backup in of_node
        ]
        terminal.table(("backup", "age", "class", "size", "proof", ""), rows, right=(1, 3))
    twins = clones([backup.manifest for backup in backups if backup.manifest is not None])
    if twins:
        terminal.warn(f"two machines write as one node: {', '.join(twins[:4])}", "give one of them another name")
    return 0


def _refuse_nothing(repository: Repository, arguments: Arguments) -> None:
    """Stop where nothing was found because of what was asked for: no backups must not pass for none yet."""
    if arguments.repository is None:
        return
    if not (arguments.repository / VERSION).is_dir():
        raise NoSuchBackup(
            f"there is no {VERSION}/ in {arguments.repository}", hint=f"name the directory that holds {VERSION}/"
        )
    nodes = sorted({f"{backup.place.site}/{backup.place.node}" for backup in repository.list()})
    if nodes:
        asked = f"{arguments.site or '*'}/{arguments.node or '*'}"
        shown = ", ".join(nodes[:_SHOWN]) + (", …" if len(nodes) > _SHOWN else "")
        raise NoSuchBackup(f"there is no backup of {asked} here", hint=f"there are backups of {shown}")


def show(arguments: Arguments) -> int:
    """Show one backup: class, chain, sizes, sources, proof level."""
    repository, here = open_place(arguments)
    backups = listed(repository, arguments)
    backup = chosen(backups, arguments)
    if backup.manifest is None:
        raise Damaged(f"the manifest of {backup.id} cannot be read: {backup.damage[0]}", hint="`edgedr verify --all`")
    chain = _chain(backup.manifest, backups)
    if arguments.closure:
        record = read_closure(repository, here, chain, identities(arguments))
        if arguments.json:
            terminal.say_json({"id": str(backup.id), **closure_document(record)})
        else:
            terminal.line("backup", str(backup.id))
            print_closure(record)
        return 0
    if arguments.json:
        terminal.say_json(
            {
                **_row(backup, _conditions(backups)[backup.place]),
                "chain": [str(manifest.id) for manifest in chain],
                "dependents": [str(one) for one in dependents(backup.id, backups)],
                "recipients": list(backup.manifest.recipients),
                "reasons": list(backup.manifest.reasons),
                "lineage": backup.manifest.lineage,
                "segment_bytes": backup.manifest.segment_size,
                "etcd": _etcd(backup.manifest),
                "distribution": backup.manifest.distribution,
                "kubernetes_version": backup.manifest.kubernetes_version,
            }
        )
        return 0
    _print(backup, backup.manifest, chain, backups)
    return 0


def _print(backup: Listed, manifest: Manifest, chain: Sequence[Manifest], backups: Sequence[Listed]) -> None:
    terminal.line("backup", str(backup.id))
    terminal.line("node", f"{manifest.site}/{manifest.node}", f"lineage {manifest.lineage}")
    terminal.line(
        "made",
        terminal.when(manifest.created),
        f"{terminal.age(datetime.now(UTC) - manifest.created)} ago",
        f"edgedr {manifest.edgedr_version}",
    )
    if manifest.distribution:
        terminal.line("runs", manifest.distribution, f"Kubernetes {manifest.kubernetes_version or 'unknown'}")
    terminal.line("class", str(manifest.kind))
    terminal.line("why", *manifest.reasons[:1])
    for reason in manifest.reasons[1:]:
        terminal.line("", reason)
    if len(chain) > 1:
        total = sum(link.sealed_size for link in chain)
        terminal.line(
            "chain", f"1 full + {terminal.plural(len(chain) - 1, 'delta')}", f"{terminal.size(total)} to download"
        )
        terminal.line("", f"from {chain[0].id}")
    following = dependents(backup.id, backups)
    if following:
        depend = "depends" if len(following) == 1 else "depend"
        terminal.line("", f"{terminal.plural(len(following), 'later backup')} {depend} on it")
    terminal.line("proof", f"{manifest.proof} when it was made: {manifest.proof.meaning}")
    closure = verdict(manifest)
    if closure:
        terminal.line(CLOSURE, closure)
    terminal.line("sealed for", *manifest.recipients)
    terminal.say()
    artifacts = [
        (a.name, str(a.kind), terminal.size(a.size), terminal.size(a.sealed_size), str(len(a.segments)))
        for a in manifest.artifacts
    ]
    terminal.table(("artifact", "class", "plain", "sealed", "segments"), artifacts, right=(2, 3, 4))
    terminal.say()
    sources = [
        (
            name,
            str(source.status),
            ", ".join(terminal.plural(number, noun.removesuffix("s")) for noun, number in source.counts.items()),
        )
        for name, source in _in_order(manifest)
    ]
    terminal.table(("source", "status", "holds"), sources)
    for name, source in _in_order(manifest):
        if source.reason:
            terminal.line(str(source.status), f"{name}: {source.reason}")
    if manifest.etcd is not None:
        terminal.say()
        terminal.line("etcd", f"version {manifest.etcd.version}", f"revision {manifest.etcd.revision}")
        terminal.line("", f"cluster {manifest.etcd.cluster_id}", f"member {manifest.etcd.member_id}")
    for problem in backup.damage:
        terminal.say(terminal.colour(f"damaged: {problem}", "bad"))


def _in_order(manifest: Manifest) -> Iterator[tuple[str, SourceResult]]:
    """Yield what this node has, in the order of the table; closure is said apart, and sources of old go last."""
    for name in sorted(manifest.sources, key=lambda name: (name not in SOURCES, _place_of(name), name)):
        source = manifest.sources[name]
        if name != CLOSURE and source.status is not Status.ABSENT:
            yield name, source


def _place_of(name: str) -> int:
    return SOURCES.index(name) if name in SOURCES else 0


def _chain(manifest: Manifest, backups: Sequence[Listed]) -> tuple[Manifest, ...]:
    try:
        return chain_of(manifest, chains.by_id(backups))
    except Damaged as error:
        terminal.warn(error.message, "`edgedr verify --all` says which backups are intact")
        return (manifest,)


def _conditions(backups: Sequence[Listed]) -> dict[Place, str]:
    """Say of each backup what a person must know before relying on it; nothing where all is well."""
    by_id = chains.by_id(backups)
    found = {}
    for backup in backups:
        if backup.damage:
            found[backup.place] = f"{_DAMAGED}{backup.damage[0]}"
            continue
        assert backup.manifest is not None
        try:
            chain_of(backup.manifest, by_id)
        except Damaged as error:
            found[backup.place] = f"{_DAMAGED}{error.message}"
            continue
        found[backup.place] = "" if backup.manifest.complete else "incomplete"
    return found


def _damaged(condition: str) -> bool:
    return condition.startswith(_DAMAGED)


def _row(backup: Listed, condition: str) -> dict[str, object]:
    manifest = backup.manifest
    return {
        "id": str(backup.id),
        "site": backup.place.site,
        "node": backup.place.node,
        "class": str(backup.place.kind),
        "created": backup.id.created.isoformat().replace("+00:00", "Z"),
        "sequence": backup.id.sequence,
        "parent": str(manifest.parent) if manifest and manifest.parent else None,
        "stored_bytes": sum(backup.objects.values()),
        "proof": str(manifest.proof) if manifest else None,
        "complete": manifest.complete if manifest else None,
        "condition": condition or "ok",
        "artifacts": [
            {"name": a.name, "class": str(a.kind), "bytes": a.size, "sealed_bytes": a.sealed_size, "sha256": a.sha256}
            for a in (manifest.artifacts if manifest else ())
        ],
        "sources": {
            name: {"status": str(source.status), "counts": source.counts}
            for name, source in (manifest.sources if manifest else {}).items()
        },
    }


def _etcd(manifest: Manifest) -> dict[str, object] | None:
    etcd = manifest.etcd
    if etcd is None:
        return None
    return {
        "cluster_id": etcd.cluster_id,
        "member_id": etcd.member_id,
        "revision": etcd.revision,
        "version": etcd.version,
    }
