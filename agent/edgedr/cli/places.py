"""Where a command reads backups: the configured repository, or a directory named on the command line."""

from collections.abc import Sequence

from edgedr.cli.parser import Arguments
from edgedr.durable import storage_error
from edgedr.errors import ConfigurationError, NoSuchBackup
from edgedr.locations import Locations, load_locations
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.select import LATEST, parse_time, select, select_at
from edgedr.storage.directory import DirectoryStorage


def open_place(arguments: Arguments) -> tuple[Repository, Locations | None]:
    """Return the repository to read, and where this node's things are if it is the configured one."""
    if arguments.repository is None:
        if arguments.site or arguments.node:
            raise ConfigurationError("--site and --node choose in a --repository", hint="add --repository DIR")
        here = load_locations(arguments.config)
        storage = DirectoryStorage(here.repository.path)
        return Repository(storage, site=here.node.site, node=here.node.name), here
    try:
        there = arguments.repository.is_dir()
    except OSError as error:
        raise storage_error(error, "look at", arguments.repository) from error
    if not there:
        raise NoSuchBackup(
            f"there is no directory {arguments.repository}", hint="--repository names the directory that holds v1/"
        )
    return Repository(DirectoryStorage(arguments.repository)), None


def listed(repository: Repository, arguments: Arguments) -> tuple[Listed, ...]:
    """List what is there, of the site and node asked for."""
    return tuple(
        backup
        for backup in repository.list()
        if arguments.site in {None, backup.place.site} and arguments.node in {None, backup.place.node}
    )


def chosen(backups: Sequence[Listed], arguments: Arguments) -> Listed:
    """Return the backup that ID or --at means."""
    if arguments.at is not None:
        if arguments.id is not None:
            raise ConfigurationError("ID and --at were both given", hint="give one of them")
        return select_at(backups, parse_time(arguments.at))
    return select(backups, LATEST if arguments.id is None else arguments.id)
