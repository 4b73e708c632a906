"""``edgedr backup``."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from edgedr.backup import Identity, Outcome, Task, back_up
from edgedr.cli import terminal
from edgedr.cli.closure import print_closure
from edgedr.cli.parser import Arguments
from edgedr.errors import IncompleteBackup
from edgedr.log import Log
from edgedr.model import CLOSURE, Finding, Severity, SourceResult, Status
from edgedr.repository.chains import clones, highest_sequence
from edgedr.repository.parents import ParentCache
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


def backup(arguments: Arguments) -> int:
    """Capture this node now."""
    settings = load(arguments.config)
    directory = open_state(settings)
    with directory.lock(), lock_repository(settings):
        with terminal.watching(quiet=arguments.json) as watcher:
            state, said, outcome = _run(settings, watcher, full=arguments.full)
        directory.save(state)
    if arguments.json:
        terminal.say_json(_document(outcome, said))
    else:
        _print(outcome, said)
    if outcome.missing:
        lacking = ", ".join(_lacking(name, outcome.manifest.sources[name]) for name in outcome.missing)
        raise IncompleteBackup(
            f"{outcome.manifest.id} is stored, but lacks {lacking}",
            hint="the reasons are above; mend them and run `edgedr backup` again",
        )
    return 0


def _lacking(name: str, source: SourceResult) -> str:
    if name == CLOSURE:
        return f"{terminal.plural(source.counts.get('missing', 0), 'piece')} of what its snapshot needs"
    return name if source.status is Status.MISSING else f"some of {name}"


def _run(settings: Settings, watcher: Watcher, *, full: bool) -> tuple[State, list[str], Outcome]:
    now = datetime.now(UTC)
    directory, repository = open_state(settings), open_repository(settings)
    node = on_duty(open_node(settings, now), settings.sources)
    listed = repository.list()
    known = manifests(listed)
    remembered = directory.load()
    machine = machine_mark(node.files.text(PurePosixPath("/etc/machine-id")))
    state, odd = next_state(remembered, known[-1] if known else None, highest_sequence(listed), machine)
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
    )
    said += [
        f"nobody has proven that recipient {recipient} can open backups: `edgedr init` asks for it"
        for recipient in settings.recipients
        if recipient.fingerprint not in state.proven
    ]
    log = Log(site=settings.node.site, node=settings.node.name)
    outcome = back_up(task, now, watcher, log, full=full)
    if outcome.turned:
        said.append(f"{outcome.turned}; a new lineage begins. Older backups are of another past: keep them apart")
    alive = tuple(name for name in state.damaged if any(str(m.id) == name for m in known))
    return replace(state, damaged=alive, lineage=outcome.manifest.lineage), said, outcome


def _print(outcome: Outcome, said: list[str]) -> None:
    manifest = outcome.manifest
    for name, source in manifest.sources.items():
        record = outcome.inventory.sources[name]
        if name == CLOSURE or record.status is Status.ABSENT:
            continue
        facts = ", ".join(terminal.plural(number, noun.removesuffix("s")) for noun, number in source.counts.items())
        if name == "etcd" and manifest.etcd is not None:
            artifact = manifest.artifact("etcd.db")
            held = terminal.size(artifact.size) if artifact else ""
            facts = f"{held}  revision {manifest.etcd.revision}, version {manifest.etcd.version}, {facts}"
        terminal.line(name, f"{record.status}: {record.reason}" if record.reason else facts or "ok")
        if name == "certificates" and FIRST_TO_EXPIRE in record.facts:
            terminal.line("", f"first to expire: {record.facts[FIRST_TO_EXPIRE]}")
        for finding in record.findings:
            _print_finding(finding)
    print_closure(outcome.inventory.sources[CLOSURE])
    for left in outcome.inventory.left_out:
        terminal.line("", f"left out {left.path}: {left.reason}")
    for odd in said:
        terminal.warn(odd)
    terminal.line(
        "committed",
        str(manifest.id),
        str(manifest.kind),
        terminal.size(manifest.sealed_size),
        str(manifest.proof),
        f"{outcome.seconds:.1f} s",
    )
    terminal.line("why", *manifest.reasons[:1])


def _print_finding(finding: Finding) -> None:
    if finding.severity is Severity.GOOD:
        terminal.line("", finding.text)
        return
    terminal.line(f"  {finding.severity}", f"{finding.subject}: {finding.text}")
    if finding.hint:
        terminal.line("", f"hint: {finding.hint}")


def _document(outcome: Outcome, said: list[str]) -> dict[str, object]:
    manifest = outcome.manifest
    return {
        "id": str(manifest.id),
        "class": str(manifest.kind),
        "reasons": list(manifest.reasons),
        "parent": str(manifest.parent) if manifest.parent else None,
        "sealed_bytes": manifest.sealed_size,
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
        "warnings": said,
    }
