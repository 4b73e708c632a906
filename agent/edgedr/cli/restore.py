"""``edgedr restore``: extract a backup into a directory."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from functools import cache
from pathlib import Path

from edgedr.archive import OWN
from edgedr.cli import terminal
from edgedr.cli.bucket import tell_strays
from edgedr.cli.keyring import identities, trust
from edgedr.cli.parser import Arguments
from edgedr.cli.places import chosen, deleted_there, is_bucket, listed, open_place, refuse_nothing
from edgedr.errors import Damaged, IncompleteBackup, RestoreStopped, Unreachable, WrongKey
from edgedr.model import CLOSURE, DATASTORES, BackupId, Manifest, Severity, Status
from edgedr.recovery.recover import DOWNLOAD, FILES, Everything, Extracted, Order, recover, refuse_occupied
from edgedr.repository import chains
from edgedr.repository.names import Place
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.select import near
from edgedr.sealing.signatures import PublicKey, principal
from edgedr.sources.table import SourceTable

_TO_READ = {
    "addresses": "addresses/plan.txt",
    "machine": "machine/machine.txt",
    "certificates": "certificates/ledger.txt",
    "serviceaccounts": "serviceaccounts/summary.txt",
    "objects": "kubernetes/contents.txt",
}
"""What a person reads first of each source."""


def restore(arguments: Arguments) -> int:
    """Extract a backup; exit 7 if what came out does not prove itself, 3 if the backup never held all of it."""
    if is_bucket(arguments.source):
        refuse_occupied(arguments.to)  # before anything is downloaded there
    repository, here = open_place(arguments, download=arguments.to / DOWNLOAD)
    everything = cache(lambda: listed(repository, arguments))
    backups = _needed(repository, arguments) if is_bucket(arguments.source) else everything()
    if not backups:
        refuse_nothing(repository, arguments)
    backup = chosen(backups, arguments)
    _refuse_absent(repository, backup, everything, arguments.only or ())
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
    done = _recover(repository, backups, order, arguments, everything)
    tell_strays(repository)
    if arguments.json:
        terminal.say_json(_document(done, arguments))
    else:
        _print(done, arguments)
    bad = [finding for finding in done.findings if finding.severity is Severity.BAD]
    if bad:
        raise Damaged(f"{len(bad)} findings above; the first: {bad[0].subject}: {bad[0].text}", hint=bad[0].hint)
    _say_what_is_missing(done, backup, everything, arguments.only)
    return 0


def _recover(
    repository: Repository, backups: Sequence[Listed], order: Order, arguments: Arguments, everything: Everything
) -> Extracted:
    """Recover it, and say of what stops that how to go on."""
    try:
        with terminal.watching(quiet=arguments.json) as watcher:
            return recover(repository, backups, order, watcher, everything)
    except Unreachable as error:
        hint = f"what was downloaded is kept in {arguments.to / DOWNLOAD}: the same command goes on from there"
        raise Unreachable(error.message, hint=hint) from error
    except Damaged as error:
        hidden = () if arguments.deleted else deleted_there(arguments)
        if not hidden:
            raise
        held = f"{terminal.plural(len(hidden), 'backup')} deleted there, and held as older versions"
        raise Damaged(error.message, hint=f"{held}: try --deleted first; else: {error.hint}") from error
    except KeyboardInterrupt as interrupt:
        kept = f"; what was downloaded is kept in {arguments.to / DOWNLOAD}" if is_bucket(arguments.source) else ""
        raise KeyboardInterrupt(f"interrupted{kept}: the same command goes on") from interrupt


def _needed(repository: Repository, arguments: Arguments) -> tuple[Listed, ...]:
    """List what this restore needs, by its names: each manifest beyond that costs a thin link a round trip."""

    def needed(places: Sequence[Place]) -> tuple[Place, ...]:
        asked_for = [place for place in places if arguments.node in {None, place.node}]
        return near(asked_for, lambda few: chosen(few, arguments)) if asked_for else ()

    return repository.list(needed)


def _say_what_is_missing(done: Extracted, backup: Listed, everything: Everything, only: Sequence[str] | None) -> None:
    """End with 3 where a source that was asked for is not, or not wholly, in the backup: nobody may rely on it."""
    partial, missing = _of(done, Status.PARTIAL, only), _of(done, Status.MISSING, only)
    if partial or missing:
        held = {"only part of": partial, "nothing of": missing}
        told = "; ".join(f"{what}: {', '.join(names)}" for what, names in held.items() if names)
        lacking = [name for name in done.inventory.sources if name in {*partial, *missing}]
        raise IncompleteBackup(
            f"{backup.id} is restored; it held {told}", hint="; ".join(_who_holds(lacking, backup, everything()))
        )
    record = done.inventory.sources.get(CLOSURE)
    if record is not None and not record.status.whole and only is None:
        raise IncompleteBackup(
            f"{backup.id} is restored, but it lacks what its snapshot needs: {record.reason}",
            hint="; ".join(_who_is_whole(done, backup, everything())),
        )


def _of(done: Extracted, status: Status, only: Sequence[str] | None) -> list[str]:
    """Return the sources of that status, among those that were asked for."""
    return [
        name
        for name, record in done.inventory.sources.items()
        if record.status is status and name != CLOSURE and (only is None or name in only)
    ]


def _who_holds(names: Sequence[str], backup: Listed, backups: Sequence[Listed]) -> Iterator[str]:
    """Say which newest backups of the same node have all of these sources, and of which there is none."""
    better: dict[BackupId, list[str]] = {}
    nowhere = []
    for name in names:
        other = _newest(_of_its_node(backup, backups), {name}, backups)
        if other is None:
            nowhere.append(name)
        else:
            better.setdefault(other.id, []).append(name)
    for other_id, held in better.items():
        only = " ".join(f"--only {name}" for name in held)
        yield f"{other_id} holds {', '.join(held)}: edgedr restore {other_id} {only} …"
    if nowhere:
        yield f"no backup here is better for {', '.join(nowhere)}: look at another copy of the repository"


def _who_is_whole(done: Extracted, backup: Listed, backups: Sequence[Listed]) -> Iterator[str]:
    """Say what names every piece, and which newest backup of the same node has a datastore and all that it needs."""
    yield f"edgedr show {backup.id} --closure --identity … names every piece; find them before you start it"
    kept = {name for name in _of(done, Status.OK, None) if name in DATASTORES}
    other = _newest(_of_its_node(backup, backups), {CLOSURE, *kept}, backups)
    if other is not None:
        yield f"the newest that lacks none is {other.id}: edgedr restore {other.id} …"


def _of_its_node(backup: Listed, backups: Sequence[Listed]) -> Iterator[Listed]:
    return (one for one in backups if _node(one) == _node(backup))


def _newest(among: Iterable[Listed], names: AbstractSet[str], backups: Sequence[Listed]) -> Listed | None:
    """Return the newest that holds all of these sources, as far as its manifest and chain tell."""
    by_id = chains.by_id(backups)
    for other in sorted(among, key=lambda one: one.id, reverse=True):
        held = {} if other.manifest is None else other.manifest.sources
        if other.manifest is None or any(name not in held or held[name].status is not Status.OK for name in names):
            continue
        with suppress(Damaged):
            chains.chain_of(other.manifest, by_id)
            return other
    return None


def _on_another_node(name: str, backup: Listed, backups: Sequence[Listed]) -> str:
    """Say which backup of the same site holds what another node captured, where that is known here."""
    site = [one for one in backups if one.place.site == backup.place.site and _node(one) != _node(backup)]
    newest = (_newest((one for one in site if one.place.node == node), {name}, backups) for node in _nodes(site))
    found = max(filter(None, newest), key=lambda one: one.id.created, default=None)  # sequences count for one node only
    if found is not None:
        return f"{found.place.node} does, if it is of the same cluster: edgedr restore {found.id} --only {name} …"
    own = _newest((one for one in backups if _node(one) == _node(backup)), {name}, backups)
    older = f"; what this node had before: edgedr restore {own.id} --only {name} …" if own else ""
    return f"take that node's newest backup{older}"


def _nodes(backups: Iterable[Listed]) -> list[str]:
    return sorted({backup.place.node for backup in backups})


def _node(backup: Listed) -> tuple[str, str]:
    return backup.place.site, backup.place.node


def _refuse_absent(repository: Repository, backup: Listed, everything: Everything, only: Sequence[str]) -> None:
    """Stop where what was asked for by name is not in the backup: it must not look restored."""
    held = backup.manifest.sources if backup.manifest is not None else {}
    for name in only if backup.manifest is not None else ():
        match held[name].status if name in held else None:
            case Status.OK | Status.PARTIAL:
                continue
            case Status.ELSEWHERE:
                why = ": another node of the cluster captured it"
                hint = _on_another_node(name, backup, repository.list())
            case Status.ABSENT:
                why, hint = f": this node has no {name}", f"edgedr show {backup.id} says what it holds"
            case _:
                why, hint = "", "; ".join(_who_holds([name], backup, everything()))
        raise RestoreStopped(f"{backup.id} holds no {name}{why}", hint=hint)


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
        terminal.line("files", terminal.plural(files, "path"), str(arguments.to / FILES))
    for name, record in done.inventory.sources.items():
        if not record.status.whole and (arguments.only is None or name in arguments.only):
            terminal.line(str(record.status), f"{name}: {record.reason}")
    _print_elsewhere(done, arguments.only)
    for finding in done.findings:
        style = {Severity.GOOD: "proven", Severity.WARN: "warn", Severity.BAD: "BAD"}[finding.severity]
        terminal.line(style, f"{finding.subject}: {finding.text}")
        if finding.hint:
            terminal.line("", f"hint: {finding.hint}")
    documents = _documents(done, arguments)
    if documents:
        terminal.line("read", f"in {_own(arguments)}:", ", ".join(documents))
    terminal.line("next", 'v1/RECOVER.txt in the repository, from "PUTTING IT BACK", says how to put it back')


def _print_elsewhere(done: Extracted, only: Sequence[str] | None) -> None:
    """Say what another node captured: it is no fault of this backup, but this one alone brings no cluster back."""
    by_reason: dict[str, list[str]] = {}
    for name in _of(done, Status.ELSEWHERE, only):
        by_reason.setdefault(done.inventory.sources[name].reason or "captured by another node", []).append(name)
    for reason, names in by_reason.items():
        terminal.line("elsewhere", f"{', '.join(names)}: {reason}; take that node's newest backup too")


def _own(arguments: Arguments) -> Path:
    return Path(arguments.to) / FILES / OWN.strip("/")


def _documents(done: Extracted, arguments: Arguments) -> list[str]:
    """Return which documents for people came out, of the sources that were asked for."""
    found = {name: document for name, document in _TO_READ.items() if name in done.inventory.sources}
    asked = (document for name, document in found.items() if arguments.only is None or name in arguments.only)
    return [document for document in asked if (_own(arguments) / document).is_file()]


def _document(done: Extracted, arguments: Arguments) -> dict[str, object]:
    return {
        "id": str(done.manifest.id),
        "chain": [str(link.id) for link in done.chain],
        "signed_by": done.signed_by.fingerprint if done.signed_by else None,
        "to": str(arguments.to),
        "artifacts": {name: str(path) for name, path in done.artifacts.items()},
        "entries": len(done.inventory.entries),
        "documents": [str(_own(arguments) / document) for document in _documents(done, arguments)],
        "missing": [name for name, r in done.inventory.sources.items() if not r.status.whole],
        "partial": [name for name, r in done.inventory.sources.items() if r.status is Status.PARTIAL],
        "elsewhere": _of(done, Status.ELSEWHERE, arguments.only),
        "findings": [
            {"severity": str(f.severity), "subject": f.subject, "text": f.text, "hint": f.hint} for f in done.findings
        ],
    }
