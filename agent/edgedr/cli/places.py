"""Where a command reads backups: the configured repository, or a directory named on the command line."""

import sys
from collections.abc import Sequence
from pathlib import Path

from edgedr.cli.parser import Arguments
from edgedr.errors import ConfigurationError, NoSuchBackup, WrongKey
from edgedr.repository.repository import Listed, Repository
from edgedr.repository.select import LATEST, parse_time, select, select_at
from edgedr.sealing.identities import Identity, load_identities
from edgedr.sealing.signatures import PublicKey, Trust, parse_allowed_signers
from edgedr.settings import Settings, load
from edgedr.storage.directory import DirectoryStorage

_MAX_SIGNERS = 1 << 20


def open_place(arguments: Arguments) -> tuple[Repository, Settings | None]:
    """Return the repository to read, and the settings if it is the configured one."""
    if arguments.repository is None:
        if arguments.site or arguments.node:
            raise ConfigurationError("--site and --node choose in a --repository", hint="add --repository DIR")
        settings = load(arguments.config)
        storage = DirectoryStorage(settings.repository.path)
        return Repository(storage, site=settings.node.site, node=settings.node.name), settings
    if not arguments.repository.is_dir():
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
    return select(backups, arguments.id or LATEST)


def identities(arguments: Arguments) -> tuple[Identity, ...]:
    """Load the identities named on the command line."""
    return tuple(identity for path in arguments.identity for identity in load_identities(path, _ask_passphrase))


def trust(arguments: Arguments, settings: Settings | None) -> Trust:
    """Gather whom to believe: told, kept beside the identity, or, on the node itself, its own key."""
    files = [arguments.allowed_signers] if arguments.allowed_signers else []
    files += [path for identity in arguments.identity if (path := identity.parent / "allowed_signers").is_file()]
    signers = tuple(signer for path in files for signer in parse_allowed_signers(_read(path), str(path)))
    fingerprints: tuple[str, ...] = (arguments.trust_signer,) if arguments.trust_signer else ()
    own = own_key(settings)
    if own is not None:
        fingerprints += (own.fingerprint,)
    return Trust(signers, fingerprints)


def own_key(settings: Settings | None) -> PublicKey | None:
    """Return the public half of this node's signing key, if this is a node."""
    if settings is None:
        return None
    try:
        return PublicKey.parse((settings.state.path / "signing.key.pub").read_text())
    except (OSError, ValueError):
        return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SIGNERS).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"cannot read {path}: {error}", hint="it is an OpenSSH allowed_signers file"
        ) from error


def _ask_passphrase(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise WrongKey(
            "the identity is protected by a passphrase, and there is no terminal to ask for it",
            hint="run this on a terminal, or decrypt the identity first: age -d -o key.txt protected.age",
        )
    import getpass  # noqa: PLC0415

    return getpass.getpass(prompt)
