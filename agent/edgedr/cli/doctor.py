"""``edgedr doctor``: what this machine, its replicas and its credential really do, and what a thief could do."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from edgedr.cli import terminal
from edgedr.cli.parser import Arguments
from edgedr.credentials import Credential
from edgedr.decoding import Reading, decode, refuse
from edgedr.doctor import checkup
from edgedr.doctor.judging import Role, judge, probe_names, warn
from edgedr.doctor.lifetimes import judge_lifetimes
from edgedr.doctor.strays import check_strays
from edgedr.doctor.thief import thief
from edgedr.doctor.tools import check_tools
from edgedr.errors import ConfigurationError, Refused, StorageError
from edgedr.locations import PARENT, Locations
from edgedr.model import Bytes, Class, Finding, Severity
from edgedr.replicas import ReplicaSettings
from edgedr.settings import Settings, load
from edgedr.state import StateDirectory
from edgedr.storage.s3_facts import BucketFacts
from edgedr.storage.s3_options import INSTANCE
from edgedr.wiring import open_node, open_repository, open_state

_LABELS = {
    Severity.GOOD: ("ok", "good"),
    Severity.WARN: ("warn", "warn"),
    Severity.BAD: ("BAD", "bad"),
}
_MOST = 64 << 20  # bytes sent to measure the throughput: they are held in memory
_PLACES = ("etc/edgedr", "root")
"""Where identities are left behind, below the node's root."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What was looked at: findings, what it means to a thief, or why it could not be looked at."""

    name: str
    place: str
    findings: tuple[Finding, ...] = ()
    thief: tuple[str, ...] = ()
    facts: BucketFacts | None = None
    trouble: StorageError | None = None


def doctor(arguments: Arguments) -> int:
    """Look at this machine and try its replicas; exit 2 if something is bad, 5 if a replica cannot be tried."""
    settings = load(arguments.config)
    role = Role(arguments.role)
    size = _bytes(arguments.throughput)
    parts = []
    for part in _parts(settings, arguments, role, size):
        parts.append(part)
        if not arguments.json:
            _print(part, first=len(parts) == 1)
    if arguments.json:
        terminal.say_json(_document(settings, role, parts))
    elif any(part.thief for part in parts):
        _print_thief(parts, role)
    _refuse(parts)
    return 0


def _parts(settings: Settings, arguments: Arguments, role: Role, size: int) -> Iterator[_Part]:
    """Look at one thing after another; each is told as soon as it is known."""
    replicas = _chosen(settings, arguments, role)
    stock = checkup.Stock()
    if role is Role.NODE and arguments.replica is None:
        found, stock = _this_machine(settings, arguments.config)
        yield _Part("this machine", f"{settings.node.site}/{settings.node.name}", found)
    for replica in replicas:
        try:
            yield _bucket(settings, replica, role, size) if replica.is_bucket else _disk(settings, replica, stock)
        except StorageError as error:
            yield _Part(replica.name, replica.url, trouble=error)


def _chosen(settings: Settings, arguments: Arguments, role: Role) -> tuple[ReplicaSettings, ...]:
    names = [replica.name for replica in settings.replicas]
    if arguments.local and (arguments.replica is not None or role is not Role.NODE):
        raise ConfigurationError("--local looks at this machine only", hint="leave --replica and --as out")
    if arguments.local:
        return ()
    if not names and (arguments.replica is not None or role is not Role.NODE):
        raise ConfigurationError("there is no replica", hint=f"add [[replicas]] to {arguments.config}")
    if arguments.replica is not None and arguments.replica not in names:
        raise ConfigurationError(f"there is no replica {arguments.replica!r}", hint=f"there are {', '.join(names)}")
    chosen = (replica for replica in settings.replicas if arguments.replica in {None, replica.name})
    if arguments.credential is None:
        return tuple(chosen)
    Credential.parse(arguments.credential)
    return tuple(replace(each, credential=arguments.credential) if each.is_bucket else each for each in chosen)


def _bytes(text: str) -> int:
    reading = Reading()
    size = decode(Bytes, text, "--throughput", reading)
    refuse(reading.problems, "the command line", hint="write it like --throughput '4 MiB'; '0 B' measures nothing")
    if size > _MOST:
        raise ConfigurationError(f"--throughput: {text} is more than {_MOST >> 20} MiB", hint="take less")
    return int(size)


def _this_machine(settings: Settings, config: Path) -> tuple[tuple[Finding, ...], checkup.Stock]:
    now = datetime.now(UTC)
    node, directory = open_node(settings, now), open_state(settings)
    locations = Locations(settings.node, settings.repository, settings.state)
    remembered = directory.load()
    found: list[Finding] = [
        *checkup.check_files(config, directory.path, directory.signing_key, tuple(_references(settings))),
        *checkup.checked("signing key", _signs(directory)),
        *check_strays(
            (*(node.root / place for place in _PLACES), config.absolute().parent, directory.path),
            {recipient.fingerprint for recipient in settings.recipients},
            leave_out=(settings.repository.path, directory.path / PARENT),
        ),
        *checkup.check_recipients(settings.recipients, remembered.proven if remembered else ()),
    ]
    try:
        stock = _stock(settings)
    except StorageError as error:
        stock = checkup.Stock()
        found.append(Finding(Severity.BAD, "repository", error.message, error.hint or "mend that, and ask again"))
    etcd = stock.newest.etcd.version if stock.newest and stock.newest.etcd else None
    found += [
        *checkup.checked("space", checkup.check_space(locations, stock)),
        *checkup.check_layout(node),
        *checkup.check_certificates(node, settings.sources.certificates),
        *checkup.check_clock(now, stock.newest),
        *check_tools(node, etcd),
    ]
    if not settings.replicas:
        hint = "add [[replicas]]: a bucket, or another disk"
        found.append(warn("replicas", "there is none: backups are on this machine only", hint))
    return tuple(found), stock


def _signs(directory: StateDirectory) -> Iterator[Finding]:
    """Load the signing key: what is wrong with it raises."""
    directory.signer()
    yield from ()


def _references(settings: Settings) -> Iterator[tuple[str, str]]:
    for replica in settings.replicas:
        if replica.credential not in {None, INSTANCE}:
            yield f"credential of {replica.name}", replica.credential or ""
    for transfer in settings.sources.dns.transfers:
        if transfer.secret is not None:
            yield "secret of a zone transfer", transfer.secret


def _stock(settings: Settings) -> checkup.Stock:
    listed = open_repository(settings).list()
    manifests = [backup.manifest for backup in listed if backup.manifest is not None]
    fulls = [manifest for manifest in manifests if manifest.kind is Class.FULL]
    last = fulls[-1] if fulls else None
    return checkup.Stock(
        used=sum(backup.size for backup in listed),
        sealed=last.sealed_size if last else 0,
        plain=sum(artifact.size for artifact in last.artifacts) if last else 0,
        newest=manifests[-1] if manifests else None,
    )


def _bucket(settings: Settings, replica: ReplicaSettings, role: Role, size: int) -> _Part:
    from edgedr.storage.s3_probing import probe  # noqa: PLC0415 - with boto3

    own, others = probe_names(settings.node.site, settings.node.name)
    try:
        facts = probe(replica.options, own, others, clock=lambda: datetime.now(UTC), throughput=size)
    except ConfigurationError as error:
        found = Finding(Severity.BAD, "credential", error.message, error.hint)
        return _Part(replica.name, replica.url, (found,))
    lifetimes = judge_lifetimes(facts, replica, full_every=settings.chain.full_every)
    part = _Part(replica.name, replica.url, (*judge(facts, role), *lifetimes), thief(facts, role), facts)
    if role in {Role.NODE, Role.ADMIN} and facts.puts.no:
        hint = "allow s3:PutObject below the node's own names: config/policies/README.md"
        refused = Refused(f"cannot put into {replica.url}: {facts.puts.reason}", hint=hint)
        return replace(part, trouble=refused)
    return part


def _disk(settings: Settings, replica: ReplicaSettings, stock: checkup.Stock) -> _Part:
    locations = Locations(settings.node, settings.repository, settings.state)
    found = tuple(checkup.check_directory(replica, locations, stock))
    could = f"could delete all that is in {replica.url}: a disk on this machine is in its thief's hands"
    return _Part(replica.name, replica.url, found, (could,))


def _print(part: _Part, *, first: bool) -> None:
    if not first:
        terminal.say()
    terminal.line(part.name, part.place)
    for finding in sorted(part.findings, key=lambda found: list(_LABELS).index(found.severity)):
        label, style = _LABELS[finding.severity]
        terminal.line(label, f"{finding.subject}: {finding.text}", style=style)
        if finding.hint:
            terminal.line("", f"hint: {finding.hint}")
    if part.trouble is not None and part.facts is None:
        terminal.line("not tried", part.trouble.message, style="bad")


def _print_thief(parts: Sequence[_Part], role: Role) -> None:
    terminal.say()
    terminal.say("a thief with this node" if role is Role.NODE else f"a thief with this {role}'s credential")
    for part in parts:
        for number, sentence in enumerate(part.thief):
            terminal.line("" if number else part.name, sentence)


def _document(settings: Settings, role: Role, parts: Sequence[_Part]) -> dict[str, object]:
    return {
        "site": settings.node.site,
        "node": settings.node.name,
        "role": str(role),
        "bad": sum(finding.severity is Severity.BAD for part in parts for finding in part.findings),
        "parts": [
            {
                "name": part.name,
                "place": part.place,
                "findings": [asdict(finding) for finding in part.findings],
                "thief": list(part.thief),
                "facts": asdict(part.facts) if part.facts else None,
                "error": part.trouble.message if part.trouble else None,
            }
            for part in parts
        ],
    }


def _refuse(parts: Sequence[_Part]) -> None:
    """Raise for what is bad; first of all for a replica that could not be tried, or takes nothing."""
    for part in parts:
        if part.trouble is not None:
            raise part.trouble
    bad = [(part, finding) for part in parts for finding in part.findings if finding.severity is Severity.BAD]
    if bad:
        part, first = bad[0]
        others = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        raise ConfigurationError(f"{part.name}: {first.subject}: {first.text}{others}", hint=first.hint)
