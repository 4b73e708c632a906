"""``edgedr backup``."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from edgedr.backup import Identity, Outcome, Task, back_up
from edgedr.cli import shipping, terminal
from edgedr.cli.closure import print_closure
from edgedr.cli.parser import Arguments
from edgedr.errors import IncompleteBackup, StorageError
from edgedr.inventory import SourceRecord
from edgedr.keeping import full_wanted, highest_shipped, keep_quota, last_clock_offset
from edgedr.log import Log
from edgedr.model import CLOSURE, Class, Finding, Manifest, Severity, SourceResult, Status
from edgedr.repository.chains import clones, highest_sequence
from edgedr.repository.names import Place
from edgedr.repository.parents import ParentCache
from edgedr.repository.repository import Repository
from edgedr.serving import Served, serve
from edgedr.settings import Settings, load
from edgedr.sources.certificates import FIRST_TO_EXPIRE
from edgedr.state import State, machine_mark, next_state
from edgedr.watching import Watcher
from edgedr.wiring import (
    kubernetes_version,
    lock_repository,
    manifests,
    on_duty,
    open_node,
    open_repository,
    open_state,
)

_ARTIFACTS = {"etcd": "etcd.db", "sqlite": "state.db"}
_UNHAD = frozenset({Status.MISSING, Status.ELSEWHERE})


@dataclass(frozen=True, slots=True)
class _Made:
    """A backup that was made: what came of it, what is odd, where it lies, how many bytes that is, what was shipped."""

    outcome: Outcome
    said: tuple[str, ...]
    place: str
    stored: int
    served: tuple[Served, ...]
    elsewhere: bool
    """Whether there is any replica for it."""


def backup(arguments: Arguments) -> int:
    """Capture this node now."""
    settings = load(arguments.config)
    directory = open_state(settings)
    log = Log(site=settings.node.site, node=settings.node.name)
    with terminal.watching(quiet=arguments.json) as watcher:
        with directory.lock(), lock_repository(settings):
            state, said, outcome = _run(settings, watcher, log, full=arguments.full)
            directory.save(state)
            said += _within_quota(settings, log)
        # From here on it is committed: whatever becomes of shipping it, that it was captured stays true.
        clock = lambda: datetime.now(UTC)  # noqa: E731 - read only here
        served = [] if arguments.local else serve(settings, clock, watcher, log, patient=True)
    repository = open_repository(settings)
    stored = _stored(repository, outcome.manifest)
    place = repository.storage.describe()
    made = _Made(outcome, tuple(said), place, stored, tuple(served), elsewhere=bool(settings.replicas))
    if arguments.json:
        terminal.say_json(_document(made))
    else:
        _print(made)
    if outcome.missing:
        lacking = ", ".join(_lacking(name, outcome.manifest.sources[name]) for name in outcome.missing)
        raise IncompleteBackup(
            f"{outcome.manifest.id} is stored, but lacks {lacking}",
            hint="the reasons are above; mend them and run `edgedr backup` again",
        )
    shipping.refuse_unshipped(served)
    return 0


def _within_quota(settings: Settings, log: Log) -> list[str]:
    try:
        return keep_quota(settings, log)
    except StorageError as error:  # it is committed: what could not be let go of is the next run's
        return [f"the local repository could not be kept within its quota: {error.message}"]


def _lacking(name: str, source: SourceResult) -> str:
    if name == CLOSURE:
        return f"{terminal.plural(source.counts.get('missing', 0), 'piece')} of what its snapshot needs"
    return name if source.status is Status.MISSING else f"some of {name}"


def _run(settings: Settings, watcher: Watcher, log: Log, *, full: bool) -> tuple[State, list[str], Outcome]:
    now = datetime.now(UTC)
    directory, repository = open_state(settings), open_repository(settings)
    node = on_duty(open_node(settings, now), settings.sources)
    listed = repository.list()
    known = manifests(listed)
    remembered = directory.load()
    machine = machine_mark(node.files.text(PurePosixPath("/etc/machine-id")))
    newest = known[-1] if known else None
    state, odd = next_state(remembered, newest, highest_sequence(listed), machine, shipped=highest_shipped(settings))
    said = [odd] if odd else []
    twins = clones(known)
    if twins:
        said.append(f"two machines back up as {settings.node.site}/{settings.node.name}: {', '.join(twins[-2:])}")
    task = Task(
        node=node,
        sources=tuple(settings.sources),
        identity=Identity(settings.node.site, settings.node.name, state.lineage, state.sequence),
        repository=repository,
        cache=ParentCache(directory.cache, keep_free=settings.repository.keep_free),
        recipients=settings.recipients,
        signer=directory.signer(),
        policy=settings.chain,
        segment_size=settings.sealing.segment,
        kubernetes_version=kubernetes_version(node),
        damaged=frozenset(backup.id for backup in listed if str(backup.id) in state.damaged),
        clock_offset_ms=last_clock_offset(settings),
    )
    said += [
        f"nobody has proven that recipient {recipient} can open backups: `edgedr init` asks for it"
        for recipient in settings.recipients
        if recipient.fingerprint not in state.proven
    ]
    because = "a full was asked for" if full else full_wanted(settings, listed)
    outcome = back_up(task, now, watcher, log, full_because=because)
    if outcome.turned:
        said.append(f"{outcome.turned}; a new lineage begins. Older backups are of another past: keep them apart")
    alive = tuple(name for name in state.damaged if any(str(m.id) == name for m in known))
    return replace(state, damaged=alive, lineage=outcome.manifest.lineage), said, outcome


def _stored(repository: Repository, manifest: Manifest) -> int:
    """Return the bytes of all objects of a backup, as `list` counts them."""
    places = (Place(kind, manifest.site, manifest.node, manifest.id) for kind in Class)
    try:
        return sum(stored.size for place in places for stored in repository.storage.list(place.prefix))
    except StorageError:  # it is committed: that nobody can count it is no reason to fail
        return manifest.sealed_size


def _print(made: _Made) -> None:
    manifest, inventory = made.outcome.manifest, made.outcome.inventory
    for name in manifest.sources:
        if name != CLOSURE and inventory.sources[name].status is not Status.ABSENT:
            _print_source(name, manifest, inventory.sources[name])
    print_closure(inventory.sources[CLOSURE], manifest)
    for left in inventory.left_out:
        terminal.line("", f"left out {left.path}: {left.reason}")
    for odd in made.said:
        terminal.warn(odd)
    terminal.line(
        "committed",
        str(manifest.id),
        str(manifest.kind),
        terminal.size(made.stored),
        str(manifest.proof),
        f"{made.outcome.seconds:.1f} s",
    )
    terminal.line("at", made.place, *(() if made.elsewhere else ("on this node only: copy it away",)))
    terminal.line("why", *manifest.reasons[:1])
    shipping.show(made.served)


def _print_source(name: str, manifest: Manifest, record: SourceRecord) -> None:
    if record.status in _UNHAD:
        terminal.line(name, f"{record.status}: {record.reason}")
    else:
        terminal.line(name, *_held(name, manifest, record))
    if record.status is Status.PARTIAL:
        terminal.line("  partial", record.reason or "")
    if FIRST_TO_EXPIRE in record.facts:
        terminal.line("", f"{FIRST_TO_EXPIRE}: {record.facts[FIRST_TO_EXPIRE]}")
    for finding in record.findings:
        _print_finding(finding)


def _held(name: str, manifest: Manifest, record: SourceRecord) -> tuple[str, ...]:
    """Say what is in the backup of a source; of a datastore, how large it is and when in its own time."""
    counted = terminal.counts(manifest.sources[name].counts)
    artifact = manifest.artifact(_ARTIFACTS.get(name, ""))
    if artifact is None:
        return (counted or "ok",)
    etcd = manifest.etcd if name == "etcd" else None
    facts = (
        f"revision {etcd.revision if etcd else record.facts.get('revision', 'unknown')}",
        f"version {etcd.version}" if etcd else "",
        counted,
    )
    return terminal.size(artifact.size), ", ".join(terminal.joined(fact) for fact in facts if fact)


def _print_finding(finding: Finding) -> None:
    if finding.severity is Severity.GOOD:
        terminal.line("", finding.text)
        return
    terminal.line(f"  {finding.severity}", f"{finding.subject}: {finding.text}")
    if finding.hint:
        terminal.line("", f"hint: {finding.hint}")


def _document(made: _Made) -> dict[str, object]:
    outcome = made.outcome
    manifest = outcome.manifest
    return {
        "id": str(manifest.id),
        "class": str(manifest.kind),
        "reasons": list(manifest.reasons),
        "parent": str(manifest.parent) if manifest.parent else None,
        "sealed_bytes": manifest.sealed_size,
        "stored_bytes": made.stored,
        "repository": made.place,
        "artifacts": {a.name: {"bytes": a.size, "sealed_bytes": a.sealed_size} for a in manifest.artifacts},
        "sources": {
            name: {"status": str(record.status), "reason": record.reason, "counts": manifest.sources[name].counts}
            for name, record in outcome.inventory.sources.items()
        },
        "proof": str(manifest.proof),
        "seconds": round(outcome.seconds, 3),
        "missing": list(outcome.missing),
        "left_out": [{"path": left.path, "reason": left.reason} for left in outcome.inventory.left_out],
        "findings": [
            {"severity": str(f.severity), "subject": f.subject, "text": f.text, "hint": f.hint}
            for f in outcome.findings
        ],
        "warnings": list(made.said),
        "replicas": shipping.document(made.served),
    }
