"""How far backups can be proven where they lie: L1 without a key, L2 with one; and what damage takes down with it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from edgedr.errors import Damaged, Refused, RestoreStopped, StorageError, Unreachable, WrongKey
from edgedr.model import BackupId, Manifest, Proof
from edgedr.repository import chains
from edgedr.repository.chains import chain_of
from edgedr.repository.names import Place
from edgedr.repository.reading import read_artifact
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.select import nearest_intact
from edgedr.sealing.identities import Identity, require_match
from edgedr.sealing.signatures import Trust, principal


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen of one backup. ``problems`` are its own; ``broken_by`` is the backup whose damage it shares.

    ``doubt`` says that it is signed by somebody whom nobody here knows: whole, as far as was looked, but whose?
    """

    backup: Listed
    level: Proof
    problems: tuple[str, ...] = ()
    broken_by: BackupId | None = None
    instead: BackupId | None = None
    doubt: str | None = None

    @property
    def intact(self) -> bool:
        """Whether it can be restored, as far as was looked."""
        return not self.problems and self.broken_by is None


def check(
    repository: Repository,
    listed: Sequence[Listed],
    wanted: Sequence[BackupId],
    *,
    trust: Trust | None,
    identities: Sequence[Identity] = (),
    progress: Callable[[int], None] = lambda _: None,
    seen: dict[BackupId, tuple[str, ...]] | None = None,
) -> tuple[Verdict, ...]:
    """Prove ``wanted`` backups and all that their chains lead through, each with a verdict.

    Without identities L1: signature (``trust`` says whose; ``None`` asks only that it holds) and ciphertext hashes.
    With identities L2: it decrypts, and the plaintext hashes hold; what was sealed for others only stays at L1. Each
    object is read once a level; ``seen`` carries what L1 found from one call to the next. Raises ``WrongKey``, before
    any segment is opened, if they open nothing of it.
    """
    by_id = chains.by_id(listed)
    needed = _closure(wanted, by_id)
    opened = _opened(identities, needed, by_id)
    own: dict[BackupId, tuple[str, ...]] = {} if seen is None else seen
    doubts: dict[BackupId, str] = {}
    signed: list[tuple[Place, Manifest]] = []
    for backup in needed:
        if backup not in own:
            own[backup] = _signature_problems(repository, by_id[backup], trust, doubts, signed)
    for place, problems in repository.check_all(signed, progress).items():
        own[place.id] = problems
    for place, manifest in signed:  # what is signed counts, not what came first when it was listed
        by_id[place.id] = repository.as_signed(by_id[place.id], manifest)
    if identities:
        for chain in _whole_chains(sorted(opened), by_id, own):
            for backup, problem in _unreadable(repository, chain, identities, progress).items():
                own[backup] = (problem,)
    return tuple(
        replace(verdict, doubt=doubts.get(verdict.backup.id)) for verdict in _verdicts(needed, by_id, own, opened)
    )


def _opened(
    identities: Sequence[Identity], needed: Sequence[BackupId], by_id: Mapping[BackupId, Listed]
) -> frozenset[BackupId]:
    """Return the backups whose whole chain, by what their manifests say, one of the identities opens."""
    if not identities:
        return frozenset()
    closed: dict[BackupId, WrongKey] = {}
    for backup in needed:  # parents first
        manifest = by_id[backup].manifest
        if manifest is None:
            continue
        try:
            require_match(identities, manifest.recipients, str(backup))
        except WrongKey as error:
            closed[backup] = error
        if manifest.parent in closed:
            closed[backup] = closed[manifest.parent]
    readable = [backup for backup in needed if by_id[backup].manifest is not None]
    if closed and len(closed) == len(readable):
        raise closed[readable[-1]]
    return frozenset(readable) - closed.keys()


def _closure(wanted: Sequence[BackupId], by_id: Mapping[BackupId, Listed]) -> list[BackupId]:
    needed: set[BackupId] = set()
    for backup in wanted:
        at: BackupId | None = backup
        while at is not None and at in by_id and at not in needed:
            needed.add(at)
            manifest = by_id[at].manifest
            at = manifest.parent if manifest else None
    return sorted(needed)


def _signature_problems(
    repository: Repository,
    backup: Listed,
    trust: Trust | None,
    doubts: dict[BackupId, str],
    signed: list[tuple[Place, Manifest]],
) -> tuple[str, ...]:
    """Say what is wrong with a manifest; one that is signed is added to ``signed``, its segments yet to be seen."""
    try:
        manifest, key = repository.signed_manifest(backup.place, None if trust is None else trust.accepts)
        if trust is not None:
            name = principal(manifest.site, manifest.node)
            trust.require(name, key, manifest.created, f"the manifest of {backup.id}")
    except (Unreachable, Refused):
        raise  # nothing was seen of it: unknown is not damaged
    except (Damaged, StorageError) as error:
        return (error.message,)
    except RestoreStopped as error:
        doubts[backup.id] = error.message
    signed.append((backup.place, manifest))
    return ()


def _whole_chains(
    needed: Sequence[BackupId], by_id: Mapping[BackupId, Listed], own: Mapping[BackupId, tuple[str, ...]]
) -> list[tuple[Manifest, ...]]:
    """Return the longest chains without damage that together cover all that can still be read."""
    chains: dict[BackupId, tuple[Manifest, ...]] = {}
    for backup in needed:
        manifest = by_id[backup].manifest
        if manifest is None or own[backup]:
            continue
        try:
            chain = chain_of(manifest, by_id)
        except Damaged:
            continue
        if any(own.get(link.id) for link in chain):
            continue
        for link in chain[:-1]:
            chains.pop(link.id, None)
        chains[backup] = chain
    return list(chains.values())


def _unreadable(
    repository: Repository,
    chain: Sequence[Manifest],
    identities: Sequence[Identity],
    progress: Callable[[int], None],
) -> dict[BackupId, str]:
    """Read every artifact of a chain; say which link cannot be read, and why."""
    for name in sorted({artifact.name for manifest in chain for artifact in manifest.artifacts}):
        for length in _run_ends(chain, name):
            try:
                read_artifact(repository, chain[:length], name, identities, {}, progress=progress)
            except Damaged as error:
                known = {str(manifest.id): manifest.id for manifest in chain}
                return {known.get(error.backup or "", chain[length - 1].id): error.message}
    return {}


def _run_ends(chain: Sequence[Manifest], name: str) -> list[int]:
    """Return the lengths of the part chains that together read this artifact of every link once."""
    ends = []
    for length, manifest in enumerate(chain, 1):
        following = chain[length].artifact(name) if length < len(chain) else None
        if manifest.artifact(name) is not None and (following is None or following.parent is None):
            ends.append(length)
    return ends


def _verdicts(
    needed: Sequence[BackupId],
    by_id: Mapping[BackupId, Listed],
    own: Mapping[BackupId, tuple[str, ...]],
    opened: Collection[BackupId],
) -> tuple[Verdict, ...]:
    verdicts: dict[BackupId, Verdict] = {}
    for backup in needed:  # parents come before their children: the order is by sequence
        listed = by_id[backup]
        parent = listed.manifest.parent if listed.manifest else None
        if own[backup]:
            verdicts[backup] = Verdict(listed, Proof.L0, own[backup])
        elif parent is not None and parent not in by_id:
            verdicts[backup] = Verdict(listed, Proof.L0, broken_by=parent)
        elif parent is not None and not verdicts[parent].intact:
            verdicts[backup] = Verdict(listed, Proof.L0, broken_by=verdicts[parent].broken_by or parent)
        else:
            verdicts[backup] = Verdict(listed, Proof.L2 if backup in opened else Proof.L1)
    intact = [verdict.backup for verdict in verdicts.values() if verdict.intact]
    return tuple(
        verdict if verdict.intact else replace(verdict, instead=_id(nearest_intact(verdict.backup, intact)))
        for verdict in verdicts.values()
    )


def _id(backup: Listed | None) -> BackupId | None:
    return backup.id if backup else None
