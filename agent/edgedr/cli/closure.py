"""``edgedr show --closure``: what a backup has beside its snapshot, and what it lacks."""

from collections.abc import Sequence

from edgedr.cli import terminal
from edgedr.errors import NoSuchBackup, WrongKey
from edgedr.inventory import SourceRecord
from edgedr.locations import PARENT, Locations
from edgedr.model import CLOSURE, Finding, Manifest, Severity, Status
from edgedr.repository.repository import Repository
from edgedr.sealing.identities import Identity, require_match


def read_closure(
    repository: Repository, here: Locations | None, chain: Sequence[Manifest], identities: Sequence[Identity]
) -> SourceRecord:
    """Return the closure record of a backup: of the newest one on the node itself, of any other with an identity."""
    from edgedr.repository.contents import cached_inventory, sealed_inventory  # noqa: PLC0415 - `list` does without
    from edgedr.repository.parents import ParentCache  # noqa: PLC0415

    inventory = None
    if here is not None:
        inventory = cached_inventory(ParentCache(here.state.path / PARENT), chain[-1])
    if inventory is None:
        if not identities:
            raise WrongKey(
                f"what {chain[-1].id} lacks is sealed in it, and no identity was given",
                hint="--identity names the operator's or the escrow identity file",
            )
        require_match(identities, chain[-1].recipients, str(chain[-1].id))
        inventory = sealed_inventory(repository, chain, identities)
    record = inventory.sources.get(CLOSURE)
    if record is None:
        raise NoSuchBackup(f"{chain[-1].id} was made before closure was checked", hint="make a new backup")
    return record


def print_closure(record: SourceRecord) -> None:
    """Print the verdict, then every piece that is missing with what its loss means, then what else is to know."""
    lost = record.missing
    if lost:
        verdict = f"INCOMPLETE: {terminal.plural(len(lost), 'piece')} missing"
        terminal.line(CLOSURE, terminal.colour(verdict, "bad"))
    else:
        terminal.line(CLOSURE, terminal.colour("complete", "good"), "all that the snapshot needs is beside it")
    for finding in (*lost, *(each for each in record.findings if each.severity is not Severity.BAD)):
        print_piece(finding)


def print_piece(finding: Finding) -> None:
    """Print one piece: what it is, what its loss means, what to do."""
    terminal.line("  missing" if finding.severity is Severity.BAD else f"  {finding.severity}", finding.subject)
    terminal.line("", finding.text)
    if finding.hint:
        terminal.line("", f"hint: {finding.hint}")


def closure_document(record: SourceRecord) -> dict[str, object]:
    """Return the record for scripts."""
    return {
        "complete": record.status is Status.OK,
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
        return "complete"
    return f"{terminal.plural(result.counts.get('missing', 0), 'piece')} missing: `edgedr show {manifest.id} --closure`"
