"""``edgedr restore``: extract a backup into a directory."""

import sys
from collections.abc import Sequence
from contextlib import suppress

from edgedr.cli import terminal
from edgedr.cli.keyring import identities, trust
from edgedr.cli.parser import Arguments
from edgedr.cli.places import chosen, listed, open_place
from edgedr.errors import Damaged, IncompleteBackup, RestoreStopped, WrongKey
from edgedr.model import CLOSURE, Manifest, Severity, Status
from edgedr.recovery.recover import Extracted, Order, recover
from edgedr.repository import chains
from edgedr.repository.repository import Listed
from edgedr.sealing.signatures import PublicKey, principal
from edgedr.sources.table import SourceTable


def restore(arguments: Arguments) -> int:
    """Extract a backup; exit 7 if what came out does not prove itself, 3 if the backup never held all of it."""
    repository, here = open_place(arguments)
    backups = listed(repository, arguments)
    backup = chosen(backups, arguments)
    _refuse_absent(backup, backups, arguments.only or ())
    keys = identities(arguments)
    if not keys:
        raise WrongKey(
            "no identity was given, and backups are always encrypted",
            hint="--identity names the operator's or the escrow identity file",
        )
    sources = [source for source in SourceTable() if arguments.only is None or source.name in arguments.only]
    if arguments.allow_unsigned:
        terminal.warn("no signature is asked for: nobody vouches for what is restored")
    order = Order(
        backup=backup,
        target=arguments.to,
        sources=sources,
        identities=keys,
        trust=trust(arguments, here),
        confirm=_ask,
        allow_unsigned=arguments.allow_unsigned,
    )
    with terminal.watching(quiet=arguments.json) as watcher:
        done = recover(repository, backups, order, watcher)
    if arguments.json:
        terminal.say_json(_document(done, arguments))
    else:
        _print(done, arguments)
    bad = [finding for finding in done.findings if finding.severity is Severity.BAD]
    if bad:
        raise Damaged(f"{len(bad)} findings above; the first: {bad[0].subject}: {bad[0].text}", hint=bad[0].hint)
    _say_what_is_missing(done, backup, backups, arguments.only)
    return 0


def _say_what_is_missing(
    done: Extracted, backup: Listed, backups: Sequence[Listed], only: Sequence[str] | None
) -> None:
    """End with 3 where a source that was asked for is not, or not wholly, in the backup: nobody may rely on it."""
    lacking = [
        (name, "" if record.status is Status.MISSING else "all of ")
        for name, record in done.inventory.sources.items()
        if not record.status.whole and name != CLOSURE and (only is None or name in only)
    ]
    if lacking:
        raise IncompleteBackup(
            f"{backup.id} is restored, but it never held: {', '.join(part + name for name, part in lacking)}",
            hint="; ".join(_who_holds(name, backup, backups) for name, _ in lacking),
        )
    record = done.inventory.sources.get(CLOSURE)
    if record is not None and not record.status.whole and only is None:
        raise IncompleteBackup(
            f"{backup.id} is restored, but it lacks what its snapshot needs: {record.reason}",
            hint=f"edgedr show {backup.id} --closure --identity … names every piece; find them before you start it",
        )


def _who_holds(name: str, backup: Listed, backups: Sequence[Listed]) -> str:
    """Name the newest backup of the same node that has all of a source, as far as its manifest and chain tell."""
    by_id = chains.by_id(backups)
    for other in reversed(backups):
        same = (other.place.site, other.place.node) == (backup.place.site, backup.place.node)
        record = other.manifest.sources.get(name) if other.manifest is not None and same else None
        if other.manifest is None or record is None or not record.status.whole:
            continue
        with suppress(Damaged):
            chains.chain_of(other.manifest, by_id)
            return f"{other.id} holds {name}: edgedr restore {other.id} --only {name} …"
    return f"no backup here holds {name}: look at another copy of the repository"


def _refuse_absent(backup: Listed, backups: Sequence[Listed], only: Sequence[str]) -> None:
    """Stop where what was asked for by name is not in the backup: it must not look restored."""
    held = backup.manifest.sources if backup.manifest is not None else dict.fromkeys(only)
    for name in only:
        record = held.get(name)
        if name not in held or (record is not None and record.status is Status.MISSING):
            raise RestoreStopped(f"{backup.id} holds no {name}", hint=_who_holds(name, backup, backups))


def _ask(manifest: Manifest, key: PublicKey) -> bool:
    """Ask a person about a signer that this machine does not know; without one, the answer is no."""
    if not sys.stdin.isatty():
        return False
    name = principal(manifest.site, manifest.node)
    print(f"{manifest.id} is signed by {key.fingerprint} in the name of {name}.", file=sys.stderr)
    print("This machine does not know that key. `edgedr init` printed it on the node.", file=sys.stderr)
    print("believe it? (yes/no) ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() == "yes"


def _print(done: Extracted, arguments: Arguments) -> None:
    by = f"signed by {done.manifest.node}" if done.signed_by else "signature not asked for"
    chain = f"chain 1 full + {terminal.plural(len(done.chain) - 1, 'delta')}" if len(done.chain) > 1 else "a full"
    terminal.line("backup", str(done.manifest.id), by, chain)
    for name, path in done.artifacts.items():
        artifact = done.manifest.artifact(name)
        assert artifact is not None
        terminal.line(name, terminal.size(artifact.size), str(path))
    files = sum(1 for entry in done.inventory.entries if arguments.only is None or entry.source in arguments.only)
    if files or arguments.only is None:
        terminal.line("files", terminal.plural(files, "path"), str(arguments.to / "files"))
    for name, record in done.inventory.sources.items():
        if not record.status.whole and (arguments.only is None or name in arguments.only):
            terminal.line(str(record.status), f"{name}: {record.reason}")
    for finding in done.findings:
        style = {Severity.GOOD: "proven", Severity.WARN: "warn", Severity.BAD: "BAD"}[finding.severity]
        terminal.line(style, f"{finding.subject}: {finding.text}")
        if finding.hint:
            terminal.line("", f"hint: {finding.hint}")
    terminal.line("next", "v1/RECOVER.txt in the repository says how to put it back")


def _document(done: Extracted, arguments: Arguments) -> dict[str, object]:
    return {
        "id": str(done.manifest.id),
        "chain": [str(link.id) for link in done.chain],
        "signed_by": done.signed_by.fingerprint if done.signed_by else None,
        "to": str(arguments.to),
        "artifacts": {name: str(path) for name, path in done.artifacts.items()},
        "entries": len(done.inventory.entries),
        "missing": [name for name, r in done.inventory.sources.items() if not r.status.whole],
        "findings": [
            {"severity": str(f.severity), "subject": f.subject, "text": f.text, "hint": f.hint} for f in done.findings
        ],
    }
