"""Where a command reads backups: the configured repository, or a bucket or directory named on the command line."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from edgedr.cli.parser import Arguments
from edgedr.credentials import Credential
from edgedr.durable import storage_error
from edgedr.errors import ConfigurationError, NoSuchBackup, StorageError
from edgedr.locations import Locations, load_locations
from edgedr.repository.names import MANIFEST, VERSION, Place
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.select import LATEST, parse_time, select, select_at
from edgedr.storage.base import Storage
from edgedr.storage.directory import DirectoryStorage
from edgedr.storage.s3_options import SCHEME, S3Options, Style, parse_url, why_no_endpoint

FILE = "file:"
_SHOWN = 6  # nodes named in a message


def open_place(
    arguments: Arguments, *, download: Path | None = None, keep: int | None = None
) -> tuple[Repository, Locations | None]:
    """Return the repository to read, and where this node's things are if it is the configured one.

    What comes from a bucket is fetched once, into ``download`` where that is given, of which ``keep`` bytes stay.
    """
    if arguments.source is None:
        if arguments.site or arguments.node:
            raise ConfigurationError("--site and --node choose among backups --from a place", hint="add --from")
        here = load_locations(arguments.config)
        storage = DirectoryStorage(here.repository.path)
        return Repository(storage, site=here.node.site, node=here.node.name), here
    place = open_storage(arguments.source, arguments, download=download, keep=keep)
    return Repository(place, site=arguments.site, node=arguments.node), None


def open_storage(
    place: str, arguments: Arguments, *, download: Path | None = None, keep: int | None = None, new: bool = False
) -> Storage:
    """Return the storage that a URL or path names; a directory must be there already, unless it may be ``new``."""
    if is_bucket(place):
        from edgedr.storage.fetched import FetchedStorage  # noqa: PLC0415
        from edgedr.storage.s3 import S3Storage  # noqa: PLC0415 - with boto3

        bucket = S3Storage(_options(place, arguments), deleted=arguments.deleted)
        return bucket if download is None else FetchedStorage(bucket, download, keep=keep)
    path = Path(place.removeprefix(FILE))
    try:
        there = path.is_dir()
    except OSError as error:
        raise storage_error(error, "look at", path) from error
    if not there and not new:
        raise NoSuchBackup(
            f"there is no directory {path}", hint="name the directory that holds v1/, or s3://bucket/prefix"
        )
    return DirectoryStorage(path)


def is_bucket(place: str | None) -> bool:
    """Say whether a place is reached over a network."""
    return place is not None and place.startswith(SCHEME)


def _options(url: str, arguments: Arguments) -> S3Options:
    bucket, prefix = parse_url(url)
    for option, text in (("--endpoint", arguments.endpoint),):
        reason = None if text is None else why_no_endpoint(text)
        if reason is not None:
            raise ConfigurationError(f"{option}: {reason}", hint="write it like https://s3.example.net:9000")
    return S3Options(
        bucket=bucket,
        prefix=prefix,
        endpoint=arguments.endpoint,
        region=arguments.region,
        style=Style.PATH if arguments.path_style else Style.AUTO,
        ca=arguments.ca,
        credential=None if arguments.credential is None else Credential.parse(arguments.credential),
    )


def listed(repository: Repository, arguments: Arguments) -> tuple[Listed, ...]:
    """List what is there, of the site and node asked for."""
    return tuple(
        backup
        for backup in repository.list()
        if arguments.site in {None, backup.place.site} and arguments.node in {None, backup.place.node}
    )


def refuse_nothing(repository: Repository, arguments: Arguments) -> None:
    """Stop where nothing was found because of what was asked for: no backups must not pass for none yet."""
    if arguments.source is None:
        return
    where = repository.storage.describe()
    hidden = deleted_there(arguments)
    if hidden:
        raise NoSuchBackup(
            f"all backups that were in {where} are deleted, and held as older versions",
            hint="the same command with --deleted finds them; somebody deleted them: look who",
        )
    nodes = sorted({f"{place.site}/{place.node}" for place, _ in Repository(repository.storage).places()})
    if not nodes:
        hint = f"name the directory that holds {VERSION}/, or the bucket with the prefix above it"
        raise NoSuchBackup(f"there is no {VERSION}/ in {where}", hint=hint)
    asked = f"{arguments.site or '*'}/{arguments.node or '*'}"
    shown = ", ".join(nodes[:_SHOWN]) + (", …" if len(nodes) > _SHOWN else "")
    raise NoSuchBackup(f"there is no backup of {asked} here", hint=f"there are backups of {shown}")


def deleted_there(arguments: Arguments) -> tuple[Place, ...]:
    """Return the places of backups that were deleted from a bucket which still has them, where it lets us look."""
    if not is_bucket(arguments.source):
        return ()
    try:
        held, visible = (_committed(arguments, deleted=deleted) for deleted in (True, False))
    except StorageError:  # a server without versions, or a credential that may not see them
        return ()
    return tuple(place for place in held if place not in visible)


def _committed(arguments: Arguments, *, deleted: bool) -> tuple[Place, ...]:
    storage = open_storage(arguments.source, Namespace(**{**vars(arguments), "deleted": deleted}))
    places = Repository(storage, site=arguments.site, node=arguments.node).places()
    return tuple(p for p, objects in places if MANIFEST in objects and arguments.node in {None, p.node})


def chosen(backups: Sequence[Listed], arguments: Arguments) -> Listed:
    """Return the backup that ID or --at means."""
    if arguments.at is not None:
        if arguments.id is not None:
            raise ConfigurationError("ID and --at were both given", hint="give one of them")
        return select_at(backups, parse_time(arguments.at))
    return select(backups, LATEST if arguments.id is None else arguments.id)
