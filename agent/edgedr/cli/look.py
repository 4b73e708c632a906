"""``edgedr list`` and ``edgedr show``: what is there. Only manifests and sizes are read; ``verify`` proves."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from edgedr.cli import terminal
from edgedr.cli.bucket import found_alarms, replica_records, tell_strays
from edgedr.cli.closure import closure_document, has_snapshot, print_closure, read_closure, verdict
from edgedr.cli.inventories import read_inventory
from edgedr.cli.keyring import identities
from edgedr.cli.options import SOURCES
from edgedr.cli.parser import Arguments
from edgedr.cli.places import chosen, deleted_there, listed, open_place, refuse_nothing
from edgedr.errors import Damaged, StorageError
from edgedr.inventory import Inventory, SourceRecord
from edgedr.locations import Locations
from edgedr.model import CLOSURE, DATASTORES, Manifest, Status
from edgedr.repository import chains
from edgedr.repository.chains import chain_of, clones, dependents
from edgedr.repository.ledger import ReplicaRecord
from edgedr.repository.names import Place
from edgedr.repository.repository import Listed, Repository

_DAMAGED = "damaged: "


def list_backups(arguments: Arguments) -> int:
    """List the backups, oldest first; damaged and incomplete ones are marked."""
    repository, here = open_place(arguments)
    backups = listed(repository, arguments)
    now = datetime.now(UTC)
    if here is None:
        _warn_of_absence(repository, backups, arguments, now)
    if not backups:
        refuse_nothing(repository, arguments)
    conditions = _conditions(backups)
    records = replica_records(here)
    if arguments.json:
        terminal.say_json([{**_row(backup, conditions[backup.place]), **_where(backup, records)} for backup in backups])
        return 0
    if not backups:
        terminal.say(f"no backups in {repository.storage.describe()} yet; `edgedr backup` makes one")
        return 0
    several = len({(backup.place.site, backup.place.node) for backup in backups}) > 1
    for (site, node), of_node in groupby(backups, key=lambda backup: (backup.place.site, backup.place.node)):
        if several:
            terminal.say(f"{site}/{node}")
        rows = [
            (
                str(backup.id),
                terminal.age(now - backup.id.created),
                str(backup.place.kind),
                terminal.size(backup.size),
                str(backup.manifest.proof) if backup.manifest and not _damaged(conditions[backup.place]) else "-",
                *((_shipped(backup, records),) if records else ()),
                _to_know(backup, conditions[backup.place]),
            )
            for backup in of_node
        ]
        shipped = ("shipped",) if records else ()
        terminal.table(("backup", "age", "class", "size", "proof", *shipped, ""), rows, right=(1, 3))
    proven = {backup.manifest.proof for backup in backups if backup.manifest and not _damaged(conditions[backup.place])}
    for proof in sorted(proven):
        terminal.say(f"{proof}: {proof.meaning}")
    twins = clones([backup.manifest for backup in backups if backup.manifest is not None])
    if twins:
        terminal.warn(f"two machines write as one node: {', '.join(twins[:4])}", "give one of them another name")
    return 0


def _warn_of_absence(repository: Repository, backups: Sequence[Listed], arguments: Arguments, now: datetime) -> None:
    """Tell what looks wrong with a place beyond what is listed."""
    for text in found_alarms(repository, backups, now):
        terminal.warn(text, "ask the node; --deleted shows what a bucket with versions still has")
    hidden = deleted_there(arguments) if backups else ()
    if hidden:
        of_these = "of these, " if arguments.deleted else ""
        text = f"{of_these}{terminal.plural(len(hidden), 'backup')} deleted here, and held as older versions"
        hint = "somebody deleted them: look who" if arguments.deleted else "--deleted lists and restores them"
        terminal.warn(f"{text}: the newest is {max(place.id for place in hidden)}", hint)
    tell_strays(repository)


def _shipped(backup: Listed, records: Mapping[str, ReplicaRecord | None]) -> str:
    """Say which replicas have a backup, as this node remembers."""
    has = [name for name, record in records.items() if record is not None and record.has(backup.id)]
    return "yes" if len(has) == len(records) else ", ".join(has) or "no"


def _where(backup: Listed, records: Mapping[str, ReplicaRecord | None]) -> dict[str, object]:
    if not records:
        return {}
    return {"shipped": {name: record is not None and record.has(backup.id) for name, record in records.items()}}


def _to_know(backup: Listed, condition: str) -> str:
    """Say what is to know of a backup: its condition, and where it is no fault that it has no datastore."""
    if backup.manifest is None or _damaged(condition) or has_snapshot(backup.manifest):
        return condition
    found = (backup.manifest.sources.get(name) for name in DATASTORES)
    elsewhere = any(source is not None and source.status is Status.ELSEWHERE for source in found)
    said = "no datastore: another node captured it" if elsewhere else ""
    return ", ".join(filter(None, (condition, said)))


def show(arguments: Arguments) -> int:
    """Show one backup: class, chain, sizes, sources, proof level."""
    repository, here = open_place(arguments)
    backups = listed(repository, arguments)
    if not backups:
        refuse_nothing(repository, arguments)
    backup = chosen(backups, arguments)
    if backup.manifest is None:
        raise Damaged(f"the manifest of {backup.id} cannot be read: {backup.damage[0]}", hint="`edgedr verify --all`")
    chain = _chain(backup.manifest, backups)
    if arguments.closure:
        record = read_closure(repository, here, chain, identities(arguments))
        if arguments.json:
            terminal.say_json({"id": str(backup.id), **closure_document(record, backup.manifest)})
        else:
            terminal.line("backup", str(backup.id))
            print_closure(record, backup.manifest)
        return 0
    inventory = _inventory(repository, here, chain, arguments)
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
                "lacking": _reasons(inventory),
            }
        )
        return 0
    _print(backup, backup.manifest, chain, backups)
    _print_sources(backup.manifest, inventory)
    if backup.manifest.etcd is not None:
        terminal.say()
        terminal.line("etcd", f"version {backup.manifest.etcd.version}", f"revision {backup.manifest.etcd.revision}")
        terminal.line("", f"cluster {backup.manifest.etcd.cluster_id}", f"member {backup.manifest.etcd.member_id}")
    for problem in backup.damage:
        terminal.say(terminal.colour(f"damaged: {problem}", "bad"))
    return 0


def _inventory(
    repository: Repository, here: Locations | None, chain: Sequence[Manifest], arguments: Arguments
) -> Inventory | None:
    """Return what is sealed, where it is at hand; a backup of which that cannot be read is shown all the same."""
    try:
        return read_inventory(repository, here, chain, identities(arguments))
    except (Damaged, StorageError) as error:
        terminal.warn(f"what is sealed in {chain[-1].id} cannot be read: {error.message}", "`edgedr verify --all`")
        return None


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
        by_id = chains.by_id(backups)
        total = sum(by_id[link.id].size for link in chain)
        terminal.line(
            "chain", f"1 full + {terminal.plural(len(chain) - 1, 'delta')}", f"{terminal.size(total)} to download"
        )
        terminal.line("", f"from {chain[0].id}")
    following = dependents(backup.id, backups)
    if following:
        terminal.line("needed by", terminal.plural(len(following), "later backup"))
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


def _print_sources(manifest: Manifest, inventory: Inventory | None) -> None:
    """Print what each source holds, then why that is not all: as the inventory says, or how to see that."""
    shown = _in_order(manifest)
    terminal.say()
    rows = [
        (name, str(manifest.sources[name].status), terminal.counts(manifest.sources[name].counts)) for name in shown
    ]
    terminal.table(("source", "status", "holds"), rows)
    reasons = _reasons(inventory)
    by_reason: dict[tuple[Status, str], list[str]] = {}
    for name in shown:
        status = manifest.sources[name].status
        if status is not Status.OK:
            by_reason.setdefault((status, reasons.get(name) or _sealed(status, manifest)), []).append(name)
    for (status, reason), names in by_reason.items():
        terminal.line(str(status), f"{', '.join(names)}: {reason}")
    certificates = inventory.sources.get("certificates") if inventory else None
    if certificates is not None:
        _print_first_to_expire(certificates)


def _print_first_to_expire(record: SourceRecord) -> None:
    from edgedr.sources.certificates import FIRST_TO_EXPIRE  # noqa: PLC0415 - `list` does without

    if FIRST_TO_EXPIRE in record.facts:
        terminal.line(FIRST_TO_EXPIRE, record.facts[FIRST_TO_EXPIRE])


def _reasons(inventory: Inventory | None) -> dict[str, str]:
    """Return why each source that is not whole here is not."""
    found = inventory.sources.items() if inventory else ()
    return {
        name: record.reason
        for name, record in found
        if record.reason and record.status not in {Status.OK, Status.ABSENT} and name != CLOSURE
    }


def _sealed(status: Status, manifest: Manifest) -> str:
    """Say as much as a manifest may, and how to see the rest."""
    if status is Status.ELSEWHERE:
        return "another node of the cluster captured it"
    command = terminal.joined(f"edgedr show {manifest.id} --identity FILE")
    return (
        f"part is missing: {command} says what"
        if status is Status.PARTIAL
        else f"it could not be captured: {command} says why"
    )


def _in_order(manifest: Manifest) -> list[str]:
    """Return what this node has, in the order of the table; closure is said apart, and sources of old go last."""
    names = sorted(manifest.sources, key=lambda name: (name not in SOURCES, _place_of(name), name))
    return [name for name in names if name != CLOSURE and manifest.sources[name].status is not Status.ABSENT]


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
        "stored_bytes": backup.size,
        "proof": str(manifest.proof) if manifest else None,
        "complete": manifest.complete if manifest else None,
        "condition": condition or "ok",
        "snapshot": has_snapshot(manifest) if manifest else None,
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
