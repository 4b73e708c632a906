"""The recipe of an extraction: from a repository into a new directory. Everything is proven before it gets its name."""

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain as chain_of_all
from pathlib import Path
from typing import TypeAlias, assert_never

from edgedr import durable
from edgedr.archive import NODE_TAR, ArchiveReader
from edgedr.errors import Damaged, ObjectMissing, RestoreStopped, TooLong
from edgedr.inventory import Inventory
from edgedr.model import BackupId, Finding, Manifest
from edgedr.recovery.extract import extract
from edgedr.repository import chains
from edgedr.repository.chains import chain_of
from edgedr.repository.checking import check
from edgedr.repository.reading import read_artifact
from edgedr.repository.repository import UNSIGNED, Listed, Repository
from edgedr.sealing.identities import Identity, require_match
from edgedr.sealing.signatures import PublicKey, Trust, principal
from edgedr.sources.base import Source
from edgedr.steps import PlaceArtifact, PlaceDocuments, PlaceFiles, Step
from edgedr.storage.fetched import FetchedStorage
from edgedr.watching import Watcher

Everything: TypeAlias = Callable[[], Sequence[Listed]]

FILES = "files"
DOWNLOAD = ".downloaded"
"""Where, in the target, what came over a network is kept until all is well: an interrupted restore goes on from it."""
_STAGING = ".restoring"
_SPARE = 16 << 20  # bytes left on the target's disk beside what is extracted
_NOWHERE = "no other backup of this node here is known to be intact: look at another copy of the repository"


@dataclass(frozen=True, slots=True)
class Order:
    """What to extract, and on whose word. ``confirm`` is asked about a signer that nobody knows."""

    backup: Listed
    target: Path
    sources: Sequence[Source]
    identities: Sequence[Identity]
    trust: Trust
    confirm: Callable[[Manifest, PublicKey], bool]
    allow_unsigned: bool = False


@dataclass(frozen=True, slots=True)
class Extracted:
    """What was extracted, and what the sources' own proofs say of it."""

    manifest: Manifest
    signed_by: PublicKey | None
    chain: tuple[Manifest, ...]
    inventory: Inventory
    artifacts: Mapping[str, Path]
    findings: tuple[Finding, ...]


def recover(
    repository: Repository,
    listed: Sequence[Listed],
    order: Order,
    watcher: Watcher,
    everything: Everything | None = None,
) -> Extracted:
    """Extract a backup. Until all of it is there and proven, the target holds nothing but a staging directory.

    ``listed`` has the backup's chain at least; ``everything`` lists all there is, for the one to take instead. Raises
    ``Damaged`` with the nearest intact backup as its hint, ``WrongKey``, ``RestoreStopped``; the target is then as it
    was, but for what was downloaded.
    """
    refuse_occupied(order.target)
    by_id = chains.by_id(listed)
    try:
        chain, key = _believed_chain(repository, by_id, order)
        require_match(order.identities, chain[-1].recipients, str(order.backup.id))
        _download(repository, chain, by_id, watcher)
        _prove_ciphertext(repository, chain, by_id, watcher)
        return _into(order.target, lambda staging: _extract(repository, chain, key, order, staging, watcher))
    except Damaged as error:
        others = listed if everything is None else everything()
        hint = _instead(repository, others, order) or _unsigned(by_id, order) or error.hint or _NOWHERE
        raise Damaged(error.message, hint=hint) from error


def _believed_chain(
    repository: Repository, by_id: Mapping[BackupId, Listed], order: Order
) -> tuple[tuple[Manifest, ...], PublicKey | None]:
    """Return the chain with every manifest as it was signed, by somebody who is believed."""
    first = order.backup.manifest
    if first is None:
        raise Damaged(f"the manifest of {order.backup.id} cannot be read: {order.backup.damage[0]}")
    if order.allow_unsigned:
        return chain_of(first, {id_: _as_if_signed(backup) for id_, backup in by_id.items()}), None
    confirmed: set[PublicKey] = set()

    def believed(manifest: Manifest, key: PublicKey) -> bool:
        return key in confirmed or order.trust.accepts(manifest, key)

    trusted: dict[BackupId, Listed] = {}
    signer: PublicKey | None = None
    link: BackupId | None = first.id
    while link is not None and link in by_id and UNSIGNED not in by_id[link].damage and by_id[link].manifest:
        manifest, key = repository.signed_manifest(by_id[link].place, believed)
        name = principal(manifest.site, manifest.node)
        if not believed(manifest, key):
            if not order.trust.contradicts(name, key) and order.confirm(manifest, key):
                confirmed.add(key)
            else:
                order.trust.require(name, key, manifest.created, f"the manifest of {link}")
        trusted[link] = repository.as_signed(by_id[link], manifest)
        signer = signer or key
        link = manifest.parent if manifest.parent not in trusted else None
    signed = trusted[first.id].manifest if first.id in trusted else None
    return chain_of(signed or first, {**by_id, **trusted}), signer


def _as_if_signed(backup: Listed) -> Listed:
    return replace(backup, damage=tuple(damage for damage in backup.damage if damage != UNSIGNED))


def _download(
    repository: Repository, chain: Sequence[Manifest], by_id: Mapping[BackupId, Listed], watcher: Watcher
) -> None:
    """Bring over what is not here yet. Only now: somebody believes the chain, and an identity opens it."""
    if isinstance(repository.storage, FetchedStorage):
        watcher.begin("download", sum(link.sealed_size for link in chain))
        objects = {
            by_id[link.id].place.object(segment.object): segment.size
            for link in chain
            for artifact in link.artifacts
            for segment in artifact.segments
        }
        with suppress(ObjectMissing, TooLong):  # what is missing, or another thing, is named when it is checked
            repository.storage.fetch_all(objects, watcher.advance)


def _prove_ciphertext(
    repository: Repository, chain: Sequence[Manifest], by_id: Mapping[BackupId, Listed], watcher: Watcher
) -> None:
    watcher.begin("check", sum(link.sealed_size for link in chain))
    found = repository.check_all([(by_id[link.id].place, link) for link in chain], watcher.advance)
    for problem in chain_of_all.from_iterable(found.values()):
        raise Damaged(problem)


def _extract(
    repository: Repository,
    chain: Sequence[Manifest],
    key: PublicKey | None,
    order: Order,
    staging: Path,
    watcher: Watcher,
) -> Extracted:
    manifest = chain[-1]
    tar = staging / NODE_TAR
    _fetch(repository, chain, NODE_TAR, tar, order, watcher)
    record = manifest.artifact(NODE_TAR)
    assert record is not None
    with durable.open_for_reading(tar) as file:
        inventory = ArchiveReader(file, max_bytes=record.size).inventory
    placed: dict[str, Path] = {}
    with_files: set[str] = set()
    for step in _plan(order.sources, inventory):
        match step:
            case PlaceArtifact():
                placed[step.artifact] = staging / step.path
                _fetch(repository, chain, step.artifact, placed[step.artifact], order, watcher)
            case PlaceFiles():
                with_files.add(step.source)
            case PlaceDocuments():
                pass  # extraction puts every document beside the inventory
            case _:
                assert_never(step)
    _, found = extract(tar, staging / FILES, sources=with_files, max_bytes=record.size)
    durable.remove(tar)
    for source in order.sources:
        found += source.prove(staging / FILES, inventory, placed)
    return Extracted(manifest, key, tuple(chain), inventory, placed, tuple(found))


def _plan(sources: Collection[Source], inventory: Inventory) -> list[Step]:
    return [step for source in sources for step in source.put_back(inventory)]


def _fetch(
    repository: Repository, chain: Sequence[Manifest], name: str, path: Path, order: Order, watcher: Watcher
) -> None:
    record = chain[-1].artifact(name)
    if record is None:
        raise Damaged(f"{chain[-1].id} has no {name}, though its inventory says so")
    needed = record.size + _SPARE
    if durable.free_space_of(path.parent) < needed:
        raise RestoreStopped(
            f"{order.target} has no room for {name}: {-(-needed >> 20)} MiB are needed",
            hint="name a directory on another disk with --to",
        )
    watcher.begin(f"recover {name}", sum(a.sealed_size for link in chain if (a := link.artifact(name)) is not None))
    with durable.create(path) as out:
        read_artifact(
            repository, chain, name, order.identities, {chain[-1].id: out}, progress=watcher.advance
        )  # raises before the file gets its name if one hash is not the signed one


def refuse_occupied(target: Path) -> None:
    """Stop where something is in the target already, but what an interrupted restore left."""
    try:
        strange = target.is_symlink() or (target.exists() and not target.is_dir())
        occupied = not strange and target.is_dir() and bool(set(os.listdir(target)) - {_STAGING, DOWNLOAD})  # noqa: PTH208
    except OSError as error:
        raise durable.storage_error(error, "look at", target) from error
    if strange:
        raise RestoreStopped(f"{target} is not a directory", hint="name a new directory with --to")
    if occupied:
        raise RestoreStopped(f"{target} is not empty", hint="nothing is overwritten: name a new directory with --to")


def _into(target: Path, work: Callable[[Path], Extracted]) -> Extracted:
    """Do the work in a staging directory below ``target``; give what it made its names only when all is well."""
    made = not target.exists()
    staging = target / _STAGING
    named: list[Path] = []
    try:
        if staging.exists():
            shutil.rmtree(staging)  # of a run that was killed
        durable.make_directory(staging)
        done = work(staging)
        for path in sorted(staging.iterdir()):
            named.append(target / path.name)
            durable.rename(path, named[-1])
        staging.rmdir()
        shutil.rmtree(target / DOWNLOAD, ignore_errors=True)
    except BaseException as error:
        for path in (*named, staging):
            _take_away(path)
        if made:
            with suppress(OSError):
                target.rmdir()
        if isinstance(error, OSError):
            raise durable.storage_error(error, "write", target) from error
        raise
    moved = {name: target / path.relative_to(staging) for name, path in done.artifacts.items()}
    return Extracted(done.manifest, done.signed_by, done.chain, done.inventory, moved, done.findings)


def _take_away(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink()


def _instead(repository: Repository, listed: Sequence[Listed], order: Order) -> str | None:
    """Find the nearest backup that is intact as far as can be seen without a key: the next older, else a newer."""
    same = [b for b in listed if (b.place.site, b.place.node) == (order.backup.place.site, order.backup.place.node)]
    older = [backup for backup in reversed(same) if backup.id < order.backup.id]
    newer = [backup for backup in same if backup.id > order.backup.id]
    trust = order.trust if order.trust.signers or order.trust.fingerprints else None
    seen: dict[BackupId, tuple[str, ...]] = {}
    for backup in older + newer:
        with suppress(Damaged, ObjectMissing):
            verdicts = check(repository, listed, [backup.id], trust=trust, seen=seen)
            if all(verdict.intact and not verdict.doubt for verdict in verdicts):
                apart = _span(abs(order.backup.id.created - backup.id.created))
                side = "older" if backup.id < order.backup.id else "newer"
                return f"{backup.id} is intact ({apart} {side}): edgedr restore {backup.id} …"
    return None


def _span(apart: timedelta) -> str:
    """Say how much work lies between two backups."""
    minutes = int(apart.total_seconds() // 60)
    if minutes < 1:
        return "less than a minute"
    for count, unit in ((minutes // 1440, "day"), (minutes // 60, "hour")):
        if count > 1:
            return f"{count} {unit}s"
    return "1 minute" if minutes == 1 else f"{minutes} minutes"


def _unsigned(by_id: Mapping[BackupId, Listed], order: Order) -> str | None:
    """Say how to restore all the same what lacks nothing but a signature."""
    if order.backup.manifest is None or order.allow_unsigned:
        return None
    with suppress(Damaged):
        chain = chain_of(order.backup.manifest, {id_: _as_if_signed(backup) for id_, backup in by_id.items()})
        if any(UNSIGNED in by_id[link.id].damage for link in chain):
            return "--allow-unsigned restores it all the same, on your own judgement"
    return None
