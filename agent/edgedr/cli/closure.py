"""``edgedr show --closure``: what a backup has beside its snapshot, and what it lacks."""

from collections.abc import Sequence

from edgedr.cli import terminal
from edgedr.cli.inventories import read_inventory
from edgedr.errors import NoSuchBackup, WrongKey
from edgedr.inventory import SourceRecord
from edgedr.locations import Locations
from edgedr.model import CLOSURE, Finding, Manifest, Severity, Status
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity

_SNAPSHOTS = ("etcd.db", "state.db")
_NO_SNAPSHOT = "no snapshot in this backup"


def read_closure(
    repository: Repository, here: Locations | None, chain: Sequence[Manifest], identities: Sequence[Identity]
) -> SourceRecord:
    """Return the closure record of a backup: of the newest one on the node itself, of any other with an identity."""
    inventory = read_inventory(repository, here, chain, identities)
    if inventory is None:
        raise WrongKey(
            f"what {chain[-1].id} lacks is sealed in it, and no identity was given",
            hint="--identity names the operator's or the escrow identity file",
        )
    record = inventory.sources.get(CLOSURE)
    if record is None:
        raise NoSuchBackup(f"{chain[-1].id} was made before closure was checked", hint="make a new backup")
    return record


def has_snapshot(manifest: Manifest) -> bool:
    """Tell whether a datastore is in a backup."""
    return any(manifest.artifact(name) is not None for name in _SNAPSHOTS)


def print_closure(record: SourceRecord, manifest: Manifest) -> None:
    """Print the verdict, then every piece that is missing with what its loss means, then what else is to know."""
    lost = record.missing
    if lost:
        terminal.line(CLOSURE, f"INCOMPLETE: {terminal.plural(len(lost), 'piece')} missing", style="bad")
    elif has_snapshot(manifest):
        terminal.line(CLOSURE, "complete", "all that the snapshot needs is beside it", style="good")
    else:
        terminal.line(CLOSURE, _NO_SNAPSHOT, style="warn")
    for finding in (*lost, *(each for each in record.findings if each.severity is not Severity.BAD)):
        print_piece(finding)


def print_piece(finding: Finding) -> None:
    """Print one piece: what it is, what its loss means, what to do."""
    terminal.line("  missing" if finding.severity is Severity.BAD else f"  {finding.severity}", finding.subject)
    terminal.line("", finding.text)
    if finding.hint:
        terminal.line("", f"hint: {finding.hint}")


def closure_document(record: SourceRecord, manifest: Manifest) -> dict[str, object]:
    """Return the record for scripts."""
    return {
        "complete": record.status is Status.OK,
        "snapshot": has_snapshot(manifest),
        "findings": [
            {"severity": str(f.severity), "subject": f.subject, "text": f.text, "hint": f.hint} for f in record.findings
        ],
    }


def verdict(manifest: Manifest) -> str | None:
    """Say in a few words what a manifest knows about closure; ``None`` for one made before it was checked."""
    result = manifest.sources.get(CLOSURE)
    if result is None:
        return None
    if result.status is Status.OK:
        return "complete" if has_snapshot(manifest) else _NO_SNAPSHOT
    pieces = terminal.plural(result.counts.get("missing", 0), "piece")
    command = terminal.joined(f"`edgedr show {manifest.id} --closure`")
    return f"{pieces} missing: {command}"
