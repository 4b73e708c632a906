"""Chains: which backups one leads back through, and which forward. Pure."""

from collections.abc import Iterable, Mapping, Sequence

from edgedr.errors import Damaged
from edgedr.model import BackupId, Manifest
from edgedr.repository.repository import Listed

Chains = Mapping[BackupId, tuple[Manifest, ...]]

_PLAUSIBLE_GAP = 10_000  # more than a month of backups every five minutes


def by_id(listed: Iterable[Listed]) -> dict[BackupId, Listed]:
    """Return backups by id. Where a copy stands under another class or node, the one that is what it says is taken."""
    return {backup.id: backup for backup in sorted(listed, key=lambda backup: backup.manifest is not None)}


def distinct(listed: Iterable[Listed]) -> tuple[Listed, ...]:
    """Return backups in their order, without copies that stand where another one of their id belongs."""
    listed = tuple(listed)
    taken = by_id(listed)
    return tuple(backup for backup in listed if taken[backup.id] is backup)


def highest_sequence(listed: Sequence[Listed]) -> int:
    """Return the highest sequence in use, 0 for none. A name far above all manifests is somebody's, not ours."""
    read = max((backup.id.sequence for backup in listed if backup.manifest is not None), default=0)
    return max((b.id.sequence for b in listed if b.id.sequence <= read + _PLAUSIBLE_GAP), default=0)


def chain_of(manifest: Manifest, listed: Mapping[BackupId, Listed]) -> tuple[Manifest, ...]:
    """Return the chain that leads to a backup, full first. Raises ``Damaged`` where a link is missing or damaged."""
    chain = [manifest]
    while True:
        backup = listed.get(chain[-1].id)
        if backup is not None and backup.damage:
            raise Damaged(_broken(manifest, chain[-1].id, backup.damage[0]))
        parent = chain[-1].parent
        if parent is None:
            return tuple(reversed(chain))
        link = listed.get(parent)
        if link is None:
            raise Damaged(_broken(manifest, parent, "it is missing"))
        if link.manifest is None:
            raise Damaged(_broken(manifest, parent, link.damage[0]))
        if link.manifest.segment_size != manifest.segment_size:
            raise Damaged(_broken(manifest, parent, "its segments have another size"))
        chain.append(link.manifest)


def standing(listed: Sequence[Listed]) -> tuple[Chains, Mapping[BackupId, str]]:
    """Tell the intact from the broken: for each intact backup a chain that leads through it, for others what is wrong.

    Each chain is walked once, so that a month of backups takes no longer than reading its list.
    """
    known = by_id(listed)
    intact: dict[BackupId, tuple[Manifest, ...]] = {}
    broken: dict[BackupId, str] = {}
    for backup in sorted(known.values(), key=lambda backup: backup.id, reverse=True):
        if backup.manifest is None:
            broken[backup.id] = f"{backup.id} is damaged: {backup.damage[0]}"
        elif backup.id not in intact:
            try:
                chain = chain_of(backup.manifest, known)
            except Damaged as error:
                broken[backup.id] = error.message
            else:
                intact |= {link.id: chain for link in chain if link.id not in intact}
    return intact, broken


def dependents(on: BackupId, listed: Sequence[Listed]) -> tuple[BackupId, ...]:
    """Return the backups whose chain leads through ``on``, oldest first."""
    lost = {on}
    for backup in sorted(listed, key=lambda backup: backup.id):
        if backup.manifest is not None and backup.manifest.parent in lost:
            lost.add(backup.id)
    return tuple(sorted(lost - {on}))


def clones(manifests: Sequence[Manifest]) -> tuple[str, ...]:
    """Return the ids of backups that share lineage and sequence: two machines take themselves for one node."""
    seen: dict[tuple[str, int], Manifest] = {}
    found: list[str] = []
    for manifest in manifests:
        first = seen.setdefault((manifest.lineage, manifest.sequence), manifest)
        if first is not manifest:
            found += [str(first.id), str(manifest.id)]
    return tuple(dict.fromkeys(found))


def _broken(manifest: Manifest, link: BackupId, why: str) -> str:
    if link == manifest.id:
        return f"{manifest.id} is damaged: {why}"
    return f"the chain of {manifest.id} is broken at {link}: {why}"
