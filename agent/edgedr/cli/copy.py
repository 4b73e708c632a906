"""``edgedr copy``: backups from any place to any other, as they are. Nothing is decrypted, nothing needs a key."""

from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edgedr import durable
from edgedr.cli import terminal
from edgedr.cli.parser import Arguments
from edgedr.cli.places import FILE, chosen, is_bucket, listed, open_storage
from edgedr.errors import Damaged, NoSuchBackup
from edgedr.model import BackupId
from edgedr.repository import chains
from edgedr.repository.chains import chain_of
from edgedr.repository.names import repository_lock
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.sending import Forgetful, send, send_recipe
from edgedr.watching import Watcher


def copy(arguments: Arguments) -> int:
    """Copy what is not there yet; a backup that is damaged is left out, named, and ends with exit 7."""
    source = Repository(open_storage(arguments.source, arguments), site=arguments.site, node=arguments.node)
    storage = open_storage(arguments.target, _of_the_target(arguments), new=True)
    target = Repository(storage, site=arguments.site, node=arguments.node)
    backups = listed(source, arguments)
    if not backups:
        raise NoSuchBackup(
            f"there is no such backup in {source.storage.describe()}", hint="look with `edgedr list --from`"
        )
    wanted = _wanted(backups, arguments)
    damaged = dict(chains.standing(wanted)[1])
    copied: list[Listed] = []
    with ExitStack() as locks, terminal.watching(quiet=arguments.json) as watcher:
        for lock in _locks(arguments.target, wanted):
            locks.enter_context(durable.locked(lock))  # a node that backs up there would sweep what is half copied
        there = {backup.place for backup in target.list() if not backup.damage}
        send_recipe(storage)
        for backup in wanted:
            if backup.place not in there:
                _copy_one(source, backup, target, damaged, copied, watcher)
    _tell(arguments, source, target, wanted, copied, damaged)
    if damaged:
        first = next(backup.id for backup in wanted if backup.id in damaged)
        raise Damaged(
            f"{terminal.plural(len(damaged), 'backup')} not copied; the first is {first}: {damaged[first]}",
            hint="the others are there; `edgedr verify --all --from` tells what damage takes down with it",
        )
    return 0


def _copy_one(
    source: Repository,
    backup: Listed,
    target: Repository,
    damaged: dict[BackupId, str],
    copied: list[Listed],
    watcher: Watcher,
) -> None:
    parent = backup.manifest.parent if backup.manifest else None
    if backup.id in damaged or parent in damaged:
        damaged.setdefault(backup.id, f"it depends on {parent}")
        return
    watcher.begin(f"copy {backup.id.sequence:08d}", backup.size)
    at_once = max(source.storage.at_once, target.storage.at_once)
    try:
        send(source, backup.place, target.storage, Forgetful(), at_once=at_once, progress=watcher.advance, hashed=True)
    except Damaged as error:
        damaged[backup.id] = error.message
        return
    copied.append(backup)


def _locks(target: str, wanted: Sequence[Listed]) -> tuple[Path, ...]:
    """Return the locks of the nodes that back up where it is copied to, where that is a directory."""
    if is_bucket(target):
        return ()
    top = Path(target.removeprefix(FILE))
    durable.make_directory(top)
    nodes = sorted({(backup.place.site, backup.place.node) for backup in wanted})
    return tuple(repository_lock(top, *node) for node in nodes)


def _wanted(backups: Sequence[Listed], arguments: Arguments) -> tuple[Listed, ...]:
    """Return what to copy, each backup behind its parent."""
    if arguments.id is None and arguments.at is None:
        return tuple(sorted(backups, key=lambda backup: (backup.place.site, backup.place.node, backup.id)))
    backup = chosen(backups, arguments)
    by_id = chains.by_id(backups)
    if backup.manifest is None:
        raise Damaged(f"the manifest of {backup.id} cannot be read: {backup.damage[0]}")
    return tuple(by_id[link.id] for link in chain_of(backup.manifest, by_id))


def _of_the_target(arguments: Arguments) -> Arguments:
    """Return the options of the place that is written to: its own, else those of the other."""
    own = {name: getattr(arguments, f"to_{name}") for name in ("endpoint", "region", "ca", "credential")}
    apart = own["endpoint"] is not None
    chosen_options = {
        name: value if value is not None or apart else getattr(arguments, name) for name, value in own.items()
    }
    return Namespace(**{**vars(arguments), **chosen_options, "deleted": False})


def _tell(
    arguments: Arguments,
    source: Repository,
    target: Repository,
    wanted: Sequence[Listed],
    copied: Sequence[Listed],
    damaged: dict[BackupId, str],
) -> None:
    size = sum(backup.size for backup in copied)
    if arguments.json:
        terminal.say_json(
            {
                "from": source.storage.describe(),
                "to": target.storage.describe(),
                "copied": [str(backup.id) for backup in copied],
                "bytes": size,
                "damaged": {str(backup): why for backup, why in damaged.items()},
                "strays": sorted(source.strays),
            }
        )
        return
    terminal.line("copied", terminal.plural(len(copied), "backup"), terminal.size(size))
    already = len(wanted) - len(copied) - len(damaged)
    if already:
        terminal.line("", f"{terminal.plural(already, 'backup')} there already")
    terminal.line("to", target.storage.describe())
    for name in sorted(source.strays):
        terminal.warn(f"{name}: something else stood there first; what is signed for was taken")
